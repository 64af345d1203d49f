"""Sorting and selection, with NaN, ties and every length around the switch to partitions."""

import numpy as np
import pytest

import gpunn

NAN = float("nan")
RNG = np.random.default_rng(0)
X = RNG.integers(0, 6, (4, 9)).astype(np.float64)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dim", [0, -1])
def test_sorting_is_stable(descending, dim):
    values, indices = gpunn.sort(gpunn.tensor(X), dim, descending)
    want = np.argsort(-X if descending else X, axis=dim, kind="stable")
    np.testing.assert_array_equal(indices, want)
    np.testing.assert_array_equal(values, np.take_along_axis(X, want, dim))
    np.testing.assert_array_equal(gpunn.argsort(gpunn.tensor(X), dim, descending), want)


def test_nan_is_the_largest():
    x = gpunn.tensor([2.0, NAN, 1.0])
    assert x.sort().indices.tolist() == [2, 0, 1]
    assert x.sort(descending=True).indices.tolist() == [1, 0, 2]
    assert x.topk(2).indices.tolist() == [1, 0]
    assert x.topk(2, largest=False).values.tolist() == [1.0, 2.0]


def test_msort_and_numbers_alone():
    np.testing.assert_array_equal(gpunn.msort(gpunn.tensor(X)), np.sort(X, 0))
    values, indices = gpunn.tensor(3.0).sort()
    assert values.item() == 3.0 and indices.shape == () and indices.item() == 0
    with pytest.raises(RuntimeError, match="complex"):
        gpunn.tensor([1j]).sort()


@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 33, 400])
@pytest.mark.parametrize("largest", [True, False])
def test_topk_of_every_length(n, largest):
    x = RNG.integers(0, 50, (3, n))
    for k in {0, 1, n // 5, n // 2, n}:
        values, indices = gpunn.topk(gpunn.tensor(x), k, 1, largest)
        want = np.sort(x, 1)[:, ::-1] if largest else np.sort(x, 1)
        np.testing.assert_array_equal(values, want[:, :k])
        np.testing.assert_array_equal(np.take_along_axis(x, indices.numpy(), 1), values)
        assert all(len(set(row)) == k for row in indices.tolist())


def test_topk_gradient_and_errors():
    x = gpunn.tensor([1.0, 5.0, 3.0], requires_grad=True)
    (x.topk(2).values * gpunn.tensor([10.0, 1.0])).sum().backward()
    assert x.grad.tolist() == [0.0, 10.0, 1.0]
    with pytest.raises(RuntimeError, match="selected index k out of range"):
        x.topk(4)
    assert gpunn.tensor(2.0).topk(1).values.item() == 2.0


def test_kthvalue():
    x = gpunn.tensor(X)
    for k in (1, 4, 9):
        values, indices = x.kthvalue(k, 1)
        np.testing.assert_array_equal(values, np.sort(X, 1)[:, k - 1])
        np.testing.assert_array_equal(np.take_along_axis(X, indices.numpy()[:, None], 1)[:, 0],
                                      values)  # fmt: skip
    assert gpunn.tensor([3.0, 1.0]).kthvalue(1).indices.shape == ()
    with pytest.raises(RuntimeError, match="selected number k out of range for dimension 1"):
        x.kthvalue(10)
    with pytest.raises(RuntimeError, match="refer to a single memory location"):
        y = gpunn.zeros(3)
        y.kthvalue(1, out=(y, gpunn.zeros((), dtype=gpunn.int64)))


def test_medians_are_the_lower_of_two():
    assert gpunn.tensor([4.0, 1.0, 3.0, 2.0]).median().item() == 2.0
    values, indices = gpunn.tensor(X).median(1)
    np.testing.assert_array_equal(values, np.sort(X, 1)[:, 4])
    assert gpunn.tensor([3, 1]).median(0).indices.shape == ()
    assert gpunn.tensor([]).median().isnan()


def test_medians_with_nan():
    x = gpunn.tensor([[1.0, NAN, 3.0, 2.0], [4.0, 1.0, 3.0, 2.0], [NAN] * 4])
    values, indices = x.median(1)
    assert values[0].isnan() and indices[0].item() == 1 and values[1].item() == 2.0
    values = x.nanmedian(1).values
    assert values[:2].tolist() == [2.0, 2.0] and values[2].isnan()
    assert x.median().isnan() and x.nanmedian().item() == 2.0


def test_mode_is_the_smallest_of_the_most_frequent_at_its_last_index():
    x = gpunn.tensor([[3, 1, 1, 3, 2], [2, 2, 2, 1, 1], [5, 4, 3, 2, 1]])
    values, indices = x.mode(1)
    assert values.tolist() == [1, 2, 1] and indices.tolist() == [2, 2, 4]
    assert x.mode(0, keepdim=True).values.shape == (1, 5)
    assert gpunn.tensor([True, False, True]).mode().values.item() is True
    out = gpunn.empty(3, dtype=gpunn.int64), gpunn.empty(3, dtype=gpunn.int64)
    gpunn.mode(x, 1, out=out)
    assert out[0].tolist() == [1, 2, 1]


@pytest.mark.parametrize("how", ["linear", "lower", "higher", "nearest", "midpoint"])
def test_quantiles_are_those_of_numpy(how):
    x, q = RNG.standard_normal((4, 7)), [0.0, 0.2, 0.77, 1.0]
    got = gpunn.quantile(gpunn.tensor(x), gpunn.tensor(q).double(), 1, interpolation=how)
    np.testing.assert_allclose(got, np.quantile(x, np.float32(q), 1, method=how))
    assert gpunn.quantile(gpunn.tensor(x), 0.3, keepdim=True).shape == (1, 1)
    assert gpunn.quantile(gpunn.tensor(1.0), 0.5, 0, keepdim=True).shape == ()


def test_quantiles_with_nan_and_gradients():
    x = gpunn.tensor([[0.0, NAN, 2.0], [1.0, 3.0, 5.0]])
    assert x.quantile(0.5, 1)[0].isnan() and x.nanquantile(0.5, 1).tolist() == [1.0, 3.0]
    y = gpunn.tensor([0.0, 1.0, 4.0], dtype=gpunn.float64, requires_grad=True)
    q = gpunn.tensor(0.75, dtype=gpunn.float64, requires_grad=True)
    y.quantile(q).backward()
    assert y.grad.tolist() == [0.0, 0.5, 0.5] and q.grad.item() == 6.0


def test_quantiles_that_cannot_be():
    x = gpunn.ones(3)
    for args, text in (((-0.1,), "q values must be in the range"),
                       ((gpunn.ones(1, 1),), "q must be a scalar or 1D"),
                       ((gpunn.ones(1).double(),), "q tensor must be same dtype")):  # fmt: skip
        with pytest.raises(RuntimeError, match=text):
            x.quantile(*args)
    with pytest.raises(RuntimeError, match="interpolation must be one of"):
        x.quantile(0.5, interpolation="cubic")
    with pytest.raises(RuntimeError, match="must be either float or double"):
        x.long().quantile(0.5)
    with pytest.raises(RuntimeError, match="must be non-empty"):
        gpunn.ones(0).quantile(0.5)
