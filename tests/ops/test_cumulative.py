"""Running reductions and differences."""

import numpy as np
import pytest

import gpunn
from gpunn.ops.cumulative import scan

X = np.random.default_rng(0).standard_normal((3, 4, 5))
INF = float("inf")


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_sums_and_products(dim):
    x = gpunn.tensor(X)
    np.testing.assert_allclose(x.cumsum(dim), X.cumsum(dim))
    np.testing.assert_allclose(x.cumprod(dim), X.cumprod(dim))
    np.testing.assert_allclose(x.clone().cumsum_(dim), X.cumsum(dim))
    assert gpunn.tensor([True, True]).cumsum(0).dtype is gpunn.int64
    assert gpunn.tensor([1, 2]).cumsum(0, dtype=gpunn.float32).dtype is gpunn.float32
    assert gpunn.tensor(3.0).cumsum(0).item() == 3.0


@pytest.mark.parametrize(
    "row", [[2.0, 3.0, 4.0], [2.0, 0.0, 4.0], [0.0, 3.0, 0.0], [0.0, 0.0, 0.0], [1.0, 2.0, 0.0]]
)
def test_gradients_of_running_products_with_zeros(row):
    x = gpunn.tensor(row, dtype=gpunn.float64, requires_grad=True)
    assert gpunn.autograd.gradcheck(lambda t: t.cumprod(0), (x,))
    assert gpunn.autograd.gradgradcheck(lambda t: t.cumprod(0), (x,))


@pytest.mark.parametrize("name", ["cummax", "cummin"])
def test_running_extremes(name):
    ufunc = np.maximum if name == "cummax" else np.minimum
    values, indices = getattr(gpunn.tensor(X), name)(1)
    np.testing.assert_array_equal(values, ufunc.accumulate(X, 1))
    np.testing.assert_array_equal(np.take_along_axis(X, indices.numpy(), 1), values)
    values, indices = getattr(gpunn.tensor([1.0, float("nan"), 5.0, 0.0]), name)(0)
    assert values.isnan().tolist() == [False, True, True, True] and indices[-1].item() == 1
    assert getattr(gpunn.tensor([2, 2]), name)(0).indices.tolist() == [0, 1]


def test_running_log_sum_exp():
    x = gpunn.tensor(X)
    np.testing.assert_allclose(x.logcumsumexp(1), np.log(np.exp(X).cumsum(1)))
    big = gpunn.tensor([1000.0, -INF, 1000.0], requires_grad=True)
    y = big.logcumsumexp(0)
    np.testing.assert_allclose(y.detach(), [1000, 1000, 1000 + np.log(2)], rtol=1e-6)
    y.sum().backward()
    np.testing.assert_allclose(big.grad, [2.5, 0.0, 0.5], rtol=1e-4)
    z = X[0] + 1j * X[1]
    np.testing.assert_allclose(np.exp(gpunn.tensor(z).logcumsumexp(0)), np.exp(z).cumsum(0))
    w = gpunn.tensor(z, requires_grad=True)
    assert gpunn.autograd.gradcheck(lambda t: t.logcumsumexp(0), (w,))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_scan_for_arrays_without_accumulate(n, axis):
    x = np.random.default_rng(n).standard_normal((n, n + 1))
    np.testing.assert_array_equal(scan(np.maximum, x, axis), np.maximum.accumulate(x, axis))
    np.testing.assert_allclose(scan(np.logaddexp, x, axis), np.logaddexp.accumulate(x, axis))


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_differences(n, dim):
    np.testing.assert_allclose(gpunn.diff(gpunn.tensor(X), n, dim), np.diff(X, n, dim))


def test_differences_with_more_at_the_ends():
    x = gpunn.tensor([1, 4, 9])
    assert gpunn.diff(x, prepend=gpunn.tensor([0]), append=gpunn.tensor([9, 9])).tolist() == [
        1, 3, 5, 0, 0,
    ]  # fmt: skip
    assert gpunn.diff(gpunn.tensor([True, True, False])).tolist() == [False, True]
    same = gpunn.diff(x, 0, prepend=gpunn.tensor([0]))
    assert same.tolist() == [1, 4, 9] and same.data_ptr() != x.data_ptr()
    with pytest.raises(RuntimeError, match="at least one-dimensional"):
        gpunn.diff(gpunn.tensor(1))
    with pytest.raises(RuntimeError, match="order must be non-negative but got -1"):
        gpunn.diff(x, -1)
