"""out= and the in-place forms."""

import numpy as np
import pytest

import gpunn


def test_out_is_filled_and_returned():
    x, out = gpunn.tensor([1.0, 4.0]), gpunn.zeros(2)
    assert gpunn.sqrt(x, out=out) is out and out.tolist() == [1, 2]
    wide = gpunn.zeros(2, dtype=gpunn.float64)
    gpunn.add(x, 1, out=wide)
    assert wide.tolist() == [2, 5]
    spaced = gpunn.zeros(4)[::2]
    gpunn.mul(x, x, out=spaced)
    assert spaced.tolist() == [1, 16]
    assert gpunn.exp(x, out=gpunn.empty(0)).shape == (2,)


def test_out_of_another_shape_is_made_anew_with_a_warning():
    out = gpunn.zeros(3)
    with pytest.warns(UserWarning, match=r"resized since it had shape \[3\]"):
        gpunn.exp(gpunn.zeros(2), out=out)
    assert out.tolist() == [1, 1]


def test_out_refuses():
    x = gpunn.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
        gpunn.exp(x, out=gpunn.zeros(2))
    with pytest.raises(RuntimeError, match="result type Float can't be cast .* type Long"):
        gpunn.exp(gpunn.ones(2), out=gpunn.zeros(2, dtype=gpunn.int64))
    with pytest.raises(RuntimeError, match="same device"):
        gpunn.exp(gpunn.ones(2), out=gpunn.zeros(2, device="cpu:1"))
    with gpunn.no_grad():
        assert gpunn.exp(x, out=gpunn.zeros(2)).shape == (2,)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(
    "change, reference",
    [
        (lambda y: y.exp_(), lambda x: x.exp()),
        (lambda y: y.mul_(y), lambda x: x * x),
        (lambda y: y.sin_(), lambda x: x.sin()),
        (lambda y: y.pow_(3), lambda x: x**3),
        (lambda y: y.clamp_(0.3, gpunn.tensor(0.8).item()), lambda x: x.clamp(0.3, 0.8)),
        (lambda y: y.add_(2, alpha=3), lambda x: x + 6),
        (lambda y: gpunn.tanh_(y), lambda x: x.tanh()),
        (lambda y: y.addcdiv_(y, y + 1), lambda x: x + x / (x + 1)),
    ],
)  # fmt: skip
def test_in_place_forms_keep_what_the_gradient_needs(change, reference, recorded):
    values = gpunn.tensor([0.2, 0.5, 0.9], dtype=gpunn.float64)
    x, z = (values.clone().requires_grad_(recorded) for _ in range(2))
    y = x * 1
    assert change(y) is y
    wanted = reference(z * 1)
    np.testing.assert_allclose(y.tolist(), wanted.tolist())
    if recorded:
        (y * y).sum().backward()
        (wanted * wanted).sum().backward()
        np.testing.assert_allclose(x.grad.tolist(), z.grad.tolist())


def test_the_augmented_operators():
    x = gpunn.tensor([4.0, 9.0])
    same = x
    x += 1
    x -= 1
    x *= 2
    x /= 4
    x //= 2
    x **= 2
    x %= 3
    assert x is same and x.tolist() == [1, 1]
    mask = gpunn.tensor([6])
    mask &= 3
    mask |= 8
    mask ^= 1
    mask <<= 2
    mask >>= 1
    assert mask.tolist() == [22]
    matrix = product = gpunn.eye(2)
    product @= gpunn.ones(2, 1)  # no in-place product: the name is bound to a new tensor
    assert product.shape == (2, 1) and matrix.shape == (2, 2)


def test_in_place_refuses_what_does_not_fit():
    x = gpunn.ones(2)
    with pytest.raises(RuntimeError, match=r"output with shape \[2\] doesn't match the broadcast"):
        x.add_(gpunn.ones(3, 2))
    with pytest.raises(RuntimeError, match="result type Float can't be cast to the desired output"):
        gpunn.arange(2).add_(1.5)
    with pytest.raises(RuntimeError, match="refers to a single memory location"):
        gpunn.ones(1).expand(3).add_(1)
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        gpunn.ones(1, requires_grad=True).exp_()
    assert x.tolist() == [1, 1]


def test_strided_and_overlapping_targets():
    x = gpunn.arange(6.0)
    x[::2].mul_(10)
    assert x.tolist() == [0, 1, 20, 3, 40, 5]
    x[1:].copy_(x[:-1].clone())
    y = gpunn.arange(4.0)
    y[1:].add_(y[:-1])  # the operands overlap: as if the right side were computed first
    assert y.tolist() == [0, 1, 3, 5]


def test_a_stale_saved_value_is_noticed():
    x = gpunn.ones(2, requires_grad=True)
    y = x * 2
    z = y.exp() * y
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_functions_that_change_their_argument():
    for name in ("exp_", "clamp_", "relu_", "nan_to_num_", "xlogy_", "erfc_"):
        assert hasattr(gpunn, name), name
    assert not hasattr(gpunn, "add_")
