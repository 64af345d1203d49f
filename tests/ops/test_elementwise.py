"""Arithmetic of pairs against NumPy."""

import math

import numpy as np
import pytest
from check import check

import gpunn

rng = np.random.default_rng(0)
A, B, C = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, size=(4,)), rng.normal(size=(3, 1))


@pytest.mark.parametrize(
    "f, reference",
    [
        (lambda a, b: a + b, np.add),
        (lambda a, b: a - b, np.subtract),
        (lambda a, b: a * b, np.multiply),
        (lambda a, b: a / b, np.divide),
        (lambda a, b: gpunn.add(a, b, alpha=-0.5), lambda a, b: a - b / 2),
        (lambda a, b: gpunn.sub(a, b, alpha=2), lambda a, b: a - 2 * b),
        (lambda a, b: gpunn.rsub(a, b, alpha=3), lambda a, b: b - 3 * a),
        (lambda a, b: gpunn.rsub(a, 2.0), lambda a, b: 2 - a),
        (gpunn.atan2, np.arctan2),
        (gpunn.hypot, np.hypot),
        (gpunn.copysign, np.copysign),
        (gpunn.true_divide, np.divide),
        (lambda a, b: -a * (1 / b), lambda a, b: -a / b),
    ],
)
def test_pairs(f, reference):
    check(f, [A, B], reference, rtol=3e-2)


@pytest.mark.parametrize("f, reference", [(gpunn.remainder, np.mod), (gpunn.fmod, np.fmod)])
def test_remainders(f, reference):
    check(f, [A * 3, B], reference, dtypes=("float64", "float32"))
    x, y = gpunn.tensor([-7, 7, -7, 7]), gpunn.tensor([3, 3, -3, -3])
    np.testing.assert_array_equal(f(x, y).numpy(), reference(x.numpy(), y.numpy()))
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        f(x, 0)


def test_rounded_division():
    x = gpunn.tensor([-7.0, 7.0, -0.5, 5.0])
    assert gpunn.div(x, 2, rounding_mode="floor").tolist() == [-4, 3, -1, 2]
    assert gpunn.div(x, 2, rounding_mode="trunc").tolist() == [-3, 3, 0, 2]
    assert gpunn.div(x.long(), 2, rounding_mode="trunc").tolist() == [-3, 3, 0, 2]
    assert gpunn.div(gpunn.tensor([-7, 7]), -2, rounding_mode="trunc").tolist() == [3, -3]
    assert (x // 2).tolist() == [-4, 3, -1, 2] and (9 // gpunn.tensor([2])).tolist() == [4]
    assert gpunn.div(x[:1], 0, rounding_mode="floor").item() == -math.inf
    with pytest.raises(RuntimeError, match="rounding_mode to be one of None, 'trunc', or 'floor'"):
        gpunn.div(x, 2, rounding_mode="up")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        x.long() // 0
    leaf = x.clone().requires_grad_()
    gpunn.div(leaf, 2, rounding_mode="floor").sum().backward()
    assert leaf.grad.tolist() == [0, 0, 0, 0]


def test_integers():
    x, y = gpunn.tensor([12, -18, 0]), gpunn.tensor([18, 27, 5])
    assert gpunn.gcd(x, y).tolist() == [6, 9, 5] and gpunn.lcm(x, y).tolist() == [36, 54, 0]
    assert (gpunn.tensor([True]) + gpunn.tensor([True])).item() is True
    assert (x / 4).tolist() == [3, -4.5, 0]


def test_the_next_number():
    x = gpunn.tensor([1.0, 0.0], dtype=gpunn.float64)
    np.testing.assert_array_equal(
        gpunn.nextafter(x, gpunn.tensor(2.0).double()).numpy(), np.nextafter([1.0, 0.0], 2)
    )


def test_subtraction_of_bools_is_refused():
    mask = gpunn.tensor([True, False])
    with pytest.raises(RuntimeError, match="with two bool tensors is not supported"):
        mask - mask
    for call in (lambda: 1 - mask, lambda: gpunn.ones(2) - mask, lambda: gpunn.ones(2).sub_(True)):
        with pytest.raises(RuntimeError, match="with a bool tensor is not supported"):
            call()
    with pytest.raises(RuntimeError, match="Negation, the `-` operator"):
        -mask


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: gpunn.add(gpunn.tensor([1]), 1, alpha=0.5), "must not be a floating point number"),
        (lambda: gpunn.add(gpunn.ones(1), 1, alpha=1j), "must not be a complex number"),
        (lambda: gpunn.add(gpunn.ones(1), 1, alpha=True), "Boolean alpha only supported"),
        (lambda: gpunn.addcdiv(*gpunn.ones(3, 1, dtype=gpunn.int64)), "Integer division with addc"),
        (lambda: gpunn.lerp(gpunn.ones(1), gpunn.ones(1).double(), 0.5), "expected dtype float32"),
        (lambda: gpunn.lerp(*gpunn.ones(2, 1).long(), 1), "not implemented for"),
    ],
)  # fmt: skip
def test_errors(call, words):
    with pytest.raises(RuntimeError, match=words):
        call()


def test_three_operands():
    check(lambda a, b, c: gpunn.addcmul(a, b, c, value=-2), [A, B, C],
          lambda a, b, c: a - 2 * b * c, rtol=3e-2)  # fmt: skip
    check(lambda a, b, c: gpunn.addcdiv(c, a, b, value=0.5), [A, B, C],
          lambda a, b, c: c + a / b / 2, rtol=3e-2)  # fmt: skip
    check(gpunn.lerp, [A, B, C], lambda a, b, w: a + w * (b - a), rtol=5e-2)
    check(lambda a, b: gpunn.lerp(a, b, 0.25), [A, B + A], lambda a, b: a + (b - a) / 4, rtol=3e-2)
    x = gpunn.tensor([1, 2])
    assert gpunn.addcmul(x, x, x, value=3).tolist() == [4, 14]
    assert gpunn.lerp(gpunn.tensor([0.1]), gpunn.tensor([0.7]), 1.0).item() == np.float32(0.7)


def test_argument_orders_of_old_scripts():
    x, y = gpunn.ones(2), gpunn.full((2,), 3.0)
    with pytest.warns(UserWarning, match="This overload of add is deprecated"):
        assert x.add(2, y).tolist() == [7, 7]
    with pytest.warns(UserWarning, match="sub"):
        assert gpunn.sub(x, 2, y).tolist() == [-5, -5]
    with pytest.warns(UserWarning, match="addcmul"):
        assert x.addcmul(0.5, y, y).tolist() == [5.5, 5.5]
    with pytest.warns(UserWarning, match="addcdiv"):
        assert x.clone().addcdiv_(-1, y, y).tolist() == [0, 0]
    assert gpunn.addcmul(x, tensor1=y, tensor2=y, value=2).tolist() == [19, 19]
    with pytest.raises(TypeError, match="pass alpha= by name"):
        gpunn.add(x, y, 2)
    with pytest.raises(TypeError, match="pass value= by name"):
        gpunn.addcmul(x, y, y, y)


def test_complex_gradients_are_conjugate():
    a = gpunn.tensor([1 + 2j, -1j], requires_grad=True)
    b = gpunn.tensor([2 - 1j, 3 + 0j], requires_grad=True)
    (a * b).abs().pow(2).sum().backward()
    for leaf, other in ((a, b), (b, a)):  # d|ab|² = 2 a |b|²
        x, y = leaf.detach().numpy(), other.detach().numpy()
        np.testing.assert_allclose(leaf.grad.numpy(), 2 * x * abs(y) ** 2, rtol=1e-5)
    c = gpunn.tensor([2 + 1j], requires_grad=True)
    (1 / c).real.sum().backward()
    np.testing.assert_allclose(c.grad.numpy(), [np.conj(-1 / (2 + 1j) ** 2)], rtol=1e-6)
