"""Sums, means, moments, products, truth and norms over dimensions."""

import warnings

import numpy as np
import pytest

import gpunn

X = np.random.default_rng(0).standard_normal((3, 4, 5))


@pytest.mark.parametrize("dim", [None, 0, -1, (0, 2), [1], ()])
@pytest.mark.parametrize("keepdim", [False, True])
def test_sums_and_means_over_dimensions(dim, keepdim):
    x = gpunn.tensor(X)
    axis = None if dim is None or len(np.atleast_1d(dim)) == 0 else dim
    axis = tuple(axis) if isinstance(axis, list) else axis
    for name in ("sum", "mean"):
        want = getattr(X, name)(axis=axis, keepdims=keepdim and (dim is not None))
        got = getattr(gpunn, name)(x, dim, keepdim) if dim is not None else getattr(x, name)()
        np.testing.assert_allclose(got, want)
        assert got.shape == want.shape


def test_dtypes_of_sums_and_products():
    for d in (gpunn.bool, gpunn.uint8, gpunn.int32):
        x = gpunn.tensor([1, 1, 0]).to(d)
        assert x.sum().dtype is gpunn.int64 and x.prod().dtype is gpunn.int64
        assert x.sum(dtype=d).dtype is d and x.prod(0, dtype=d).dtype is d
    half = gpunn.full((4096,), 1.0, dtype=gpunn.float16)
    assert half.sum().item() == 4096 and half.sum().dtype is gpunn.float16
    assert gpunn.ones(3, dtype=gpunn.int64).sum(dtype=gpunn.float32).dtype is gpunn.float32
    with pytest.raises(RuntimeError, match=r"mean\(\): could not infer output dtype.*Got: Long"):
        gpunn.ones(3, dtype=gpunn.int64).mean()


def test_dimensions_that_do_not_fit():
    x = gpunn.ones(2, 3)
    with pytest.raises(IndexError, match=r"Dimension out of range \(expected to be in range of"):
        x.sum(2)
    with pytest.raises(RuntimeError, match="dim 1 appears multiple times in the list of dims"):
        x.sum((1, -1))


def test_nan_counts_as_missing():
    x = gpunn.tensor([[1.0, float("nan"), 3.0], [float("nan")] * 3], requires_grad=True)
    assert x.nansum(1).tolist() == [4.0, 0.0]
    assert x.nanmean(1)[0].item() == 2.0 and x.nanmean(1)[1].isnan()
    x.nansum().backward()
    assert x.grad.tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("correction", [0, 1, 2])
def test_moments(correction):
    x = gpunn.tensor(X)
    want = X.var(axis=1, ddof=correction)
    np.testing.assert_allclose(x.var(1, correction=correction), want)
    np.testing.assert_allclose(x.std(1, correction=correction), np.sqrt(want))
    for f, root in ((gpunn.var_mean, False), (gpunn.std_mean, True)):
        spread, average = f(x, 1, correction=correction)
        np.testing.assert_allclose(spread, np.sqrt(want) if root else want)
        np.testing.assert_allclose(average, X.mean(1))


def test_the_arguments_of_var():
    x = gpunn.tensor(X)
    np.testing.assert_allclose(x.var(False), X.var())
    np.testing.assert_allclose(x.var(0, False), X.var(0))
    np.testing.assert_allclose(x.var((0, 1), unbiased=False, keepdim=True),
                               X.var((0, 1), keepdims=True))  # fmt: skip
    with pytest.raises(RuntimeError, match="std and var only support floating point and complex"):
        gpunn.ones(3, dtype=gpunn.int64).var()


def test_too_few_degrees_of_freedom():
    with pytest.warns(UserWarning, match=r"var\(\): degrees of freedom is <= 0"):
        assert gpunn.ones(1).var().isnan()
    with pytest.warns(UserWarning, match=r"std\(\): degrees of freedom is <= 0"):
        assert gpunn.ones(0).std().isnan()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gpunn.ones(1).var(correction=0)


def test_the_deviation_of_constants_has_no_gradient():
    x = gpunn.ones(2, 3, requires_grad=True)
    x.std(1).sum().backward()
    assert x.grad.tolist() == [[0.0] * 3] * 2


def test_products_with_zeros_have_exact_gradients():
    x = gpunn.tensor([[2.0, 0.0, 3.0], [0.0, 0.0, 5.0]], requires_grad=True)
    x.prod(1).sum().backward()
    assert x.grad.tolist() == [[0.0, 6.0, 0.0], [0.0, 0.0, 0.0]]
    assert gpunn.ones(0, requires_grad=True).prod().item() == 1.0


def test_truth_and_counting():
    x = gpunn.tensor([[0, 2], [3, 4]])
    assert x.any(1).tolist() == [True, True] and x.all(1).tolist() == [False, True]
    assert x.to(gpunn.uint8).all().dtype is gpunn.uint8 and x.all().dtype is gpunn.bool
    assert x.any(dim=(0, 1)).item() and gpunn.tensor([]).all() and not gpunn.tensor([]).any()
    assert gpunn.count_nonzero(x).item() == 3 and gpunn.count_nonzero(x, 0).tolist() == [1, 2]
    assert gpunn.count_nonzero(x, (0, 1)).dtype is gpunn.int64


def test_logsumexp_neither_overflows_nor_loses_infinities():
    inf = float("inf")
    x = gpunn.tensor([[1000.0, 1000.0], [-inf, 0.0], [inf, 1.0], [-inf, -inf]])
    want = [1000 + np.log(2), 0.0, inf, -inf]
    np.testing.assert_allclose(gpunn.logsumexp(x, 1), want, rtol=1e-6)
    assert gpunn.logsumexp(gpunn.tensor(2000.0), 0).item() == 2000.0
    assert gpunn.logsumexp(gpunn.ones(2, 0), 1).tolist() == [-inf, -inf]
    assert gpunn.logsumexp(gpunn.ones(2, 3), (0, 1), True).shape == (1, 1)
    y = gpunn.tensor([1000.0, 1000.0], requires_grad=True)
    gpunn.logsumexp(y, 0).backward()
    np.testing.assert_allclose(y.grad, [0.5, 0.5], rtol=1e-4)


@pytest.mark.parametrize("p", ["fro", 0, 1, 2, 3, float("inf"), -float("inf")])
def test_norms(p):
    x = gpunn.tensor(X[0])
    order = 2 if p == "fro" else p
    np.testing.assert_allclose(x.norm(p, 1), np.linalg.norm(X[0], order, 1))
    np.testing.assert_allclose(gpunn.norm(x, p), np.linalg.norm(X[0].reshape(-1), order))
    other = gpunn.tensor(X[1])
    if p != "fro":
        np.testing.assert_allclose(
            gpunn.dist(x, other, p), np.linalg.norm((X[0] - X[1]).reshape(-1), p)
        )


def test_norms_that_are_none():
    with pytest.raises(RuntimeError, match="'fro' and 'nuc', found: foo"):
        gpunn.ones(2).norm("foo")


def test_renorm_scales_only_what_is_too_long():
    x = gpunn.tensor([[3.0, 4.0], [0.3, 0.4]])
    np.testing.assert_allclose(x.renorm(2, 0, 1.0), [[0.6, 0.8], [0.3, 0.4]], rtol=1e-6)
    x.renorm_(2, 0, 5.0)
    assert x.tolist() == gpunn.tensor([[3.0, 4.0], [0.3, 0.4]]).tolist()
    for bad, text in (((0, 0, 1), "non-positive-norm not supported"),
                      ((2, 0, -1), "expected maxnorm to be >= 0 but got -1")):  # fmt: skip
        with pytest.raises(RuntimeError, match=text):
            x.renorm(*bad)
    with pytest.raises(RuntimeError, match="input needs at least 2 dimensions, got 1 dimensions"):
        gpunn.ones(2).renorm(2, 0, 1)


def test_results_into_given_memory():
    x, out = gpunn.tensor(X), gpunn.empty(3, dtype=gpunn.float64)
    for f in (gpunn.sum, gpunn.mean, gpunn.var, gpunn.std):
        assert f(x, (1, 2), out=out) is out
        np.testing.assert_allclose(out, f(x, (1, 2)))
