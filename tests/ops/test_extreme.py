"""Extremes over dimensions, with indices and gradients."""

import numpy as np
import pytest

import gpunn

X = np.random.default_rng(0).standard_normal((3, 4, 5))
NAN = float("nan")


@pytest.mark.parametrize("dim", [0, 1, -1])
@pytest.mark.parametrize("keepdim", [False, True])
def test_values_and_indices(dim, keepdim):
    x = gpunn.tensor(X)
    for name in ("max", "min"):
        values, indices = getattr(gpunn, name)(x, dim, keepdim)
        np.testing.assert_array_equal(values, getattr(X, name)(dim, keepdims=keepdim))
        np.testing.assert_array_equal(indices, getattr(X, f"arg{name}")(dim, keepdims=keepdim))
        assert indices.dtype is gpunn.int64
        np.testing.assert_array_equal(getattr(x, f"arg{name}")(dim, keepdim), indices)
        np.testing.assert_array_equal(getattr(x, f"a{name}")(dim, keepdim), values)
        assert getattr(x, name)().item() == getattr(X, name)()


def test_pairs_show_themselves_as_in_pytorch():
    pair = gpunn.tensor([1.0, 2.0]).max(0)
    text = "torch.return_types.max(\nvalues=tensor(2.),\nindices=tensor(1))"
    assert repr(pair) == text and pair.values is pair[0]
    both = gpunn.aminmax(gpunn.tensor([3, 1, 2]))
    assert repr(both) == "torch.return_types.aminmax(\nmin=tensor(1),\nmax=tensor(3))"


def test_nan_is_the_extreme():
    x = gpunn.tensor([1.0, NAN, 2.0])
    for name in ("max", "min"):
        values, indices = getattr(x, name)(0)
        assert values.isnan() and indices.item() == 1
        assert getattr(x, name)().isnan() and getattr(x, f"arg{name}")().item() == 1


def test_one_dimension_and_none():
    assert gpunn.tensor([3, 1]).max(0).indices.shape == ()
    assert gpunn.tensor(5.0).max(0).indices.shape == () and gpunn.tensor(5.0).argmax().item() == 0
    assert gpunn.tensor([3, 1]).max(0, keepdim=True).indices.shape == (1,)


def test_ties_share_the_gradient_of_amax_and_max():
    x = gpunn.tensor([2.0, 1.0, 2.0], requires_grad=True)
    x.amax().backward()
    assert x.grad.tolist() == [0.5, 0.0, 0.5]
    x.grad = None
    x.max(0).values.backward()
    assert x.grad.tolist() == [1.0, 0.0, 0.0]


def test_a_second_tensor_is_compared_element_by_element():
    a, b = gpunn.tensor([1.0, 5.0]), gpunn.tensor([3.0, 2.0])
    assert gpunn.max(a, b).tolist() == [3.0, 5.0]
    assert gpunn.min(a, other=b).tolist() == [1.0, 2.0]


def test_no_elements():
    x = gpunn.ones(2, 0)
    assert x.amax(0).shape == (0,)
    with pytest.raises(IndexError, match=r"max\(\): Expected reduction dim 1 to have non-zero"):
        x.max(1)
    with pytest.raises(IndexError, match=r"amax\(\): Expected reduction dim 1 to have non-zero"):
        x.amax(-1)
    with pytest.raises(RuntimeError, match=r"amax\(\): Expected reduction dim to be specified"):
        x.amax()
    with pytest.raises(RuntimeError, match="cannot compute aminmax over an empty dimension"):
        x.aminmax()


def test_pairs_into_given_memory():
    x = gpunn.tensor(X)
    out = gpunn.empty(3, 5, dtype=gpunn.float64), gpunn.empty(3, 5, dtype=gpunn.int64)
    made = gpunn.max(x, 1, out=out)
    assert made.values is out[0]
    np.testing.assert_array_equal(out[1], X.argmax(1))
    with pytest.raises(RuntimeError, match="Expected out tensor to have dtype double, but got"):
        gpunn.aminmax(x, dim=1, out=(gpunn.empty(3, 5), gpunn.empty(3, 5)))
