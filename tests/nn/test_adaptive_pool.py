"""Adaptive pooling: against its windows taken out one by one, and against PyTorch."""

from itertools import product

import numpy as np
import pytest
from both import refused, same
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import native, nn

rng = np.random.default_rng(0)
AVG = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)
MAX = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)


@pytest.fixture(params=["native", "numpy"], autouse=True)
def path(request, monkeypatch):
    """Both ways to the same numbers."""
    if request.param == "numpy":
        for name in ("max_pool_forward", "max_pool_backward", "avg_pool_forward",
                     "avg_pool_backward"):  # fmt: skip
            monkeypatch.setattr(native, name, lambda *a, **k: None)
    elif native.lib() is None:
        pytest.skip(f"no C++ library: {native.status()}")


def windows(x, out, reduce):
    """reduce(window, axes) of each window, by the definition."""
    dims = len(out)
    axes = tuple(range(-dims, 0))
    y = np.empty((*x.shape[:-dims], *out))
    for place in product(*map(range, out)):
        box = tuple(
            slice(o * n // m, -((-(o + 1) * n) // m))
            for o, n, m in zip(place, x.shape[-dims:], out, strict=True)
        )
        y[(..., *place)] = reduce(x[(..., *box)], axes)
    return y


CASES = [
    ((2, 3, 9), (3,)), ((2, 7), (5,)), ((1, 1, 1), (1,)), ((1, 3), (7,)),
    ((2, 3, 7, 8), (2, 8)), ((3, 6, 5), (4, 7)), ((2, 2, 4, 4), (1, 1)), ((1, 5, 6), (2, 3)),
    ((1, 2, 5, 5, 4), (2, 3, 4)), ((2, 4, 3, 2), (3, 1, 5)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_average(case):
    shape, out = case
    check(lambda x: AVG[len(out) - 1](x, out), [rng.normal(size=shape)],
          lambda x: windows(x, out, np.mean))  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max(case):
    shape, out = case
    x = rng.permutation(np.prod(shape)).reshape(shape) / 7.0  # no ties: gradients are unique
    check(lambda x: MAX[len(out) - 1](x, out), [x], lambda x: windows(x, out, np.max))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_places(case):
    shape, out = case
    x = gpunn.from_numpy(rng.normal(size=shape))
    y, places = MAX[len(out) - 1](x, out, return_indices=True)
    picked = x.flatten(-len(out)).gather(-1, places.flatten(-len(out))).reshape(y.shape)
    assert places.dtype is gpunn.int64 and gpunn.equal(picked, y)


def test_ties_and_nan():
    nan = float("nan")
    for row in ([1.0, 3.0, 3.0, 2.0], [nan, 1.0, nan, 5.0], [-float("inf")] * 4):
        for out in (1, 2, 3):
            same(lambda T, row=row, out=out: list(T.nn.functional.adaptive_max_pool2d(
                T.tensor([[row, row[::-1]]]), (1, out), return_indices=True)))  # fmt: skip


def test_sizes_that_stay():
    x = gpunn.randn(1, 2, 5, 6)
    assert F.adaptive_avg_pool2d(x, (None, 3)).shape == (1, 2, 5, 3)
    assert gpunn.equal(F.adaptive_max_pool2d(x, (None, None)), x)
    assert F.adaptive_avg_pool2d(x, 0).shape == (1, 2, 0, 0)
    assert F.adaptive_avg_pool2d(x[:0], 3).shape == (0, 2, 3, 3)


def test_infinities_stay_in_their_windows():
    x = gpunn.tensor([[1.0, float("inf"), 2.0, 4.0, 6.0]])
    assert F.adaptive_avg_pool1d(x, 2).tolist() == [[float("inf"), 4.0]]


@pytest.mark.parametrize(
    "name, shape, size, words",
    [
        ("adaptive_avg_pool1d", (4,), 2, "Expected 2 to 3 dimensions, but got 1-dimensional"),
        ("adaptive_max_pool1d", (1, 1, 2, 4), 2, "Expected 2 to 3 dimensions, but got 4"),
        ("adaptive_avg_pool2d", (2, 2, 0, 4), 2, "dimension 2 being empty"),
        ("adaptive_max_pool2d", (2, 0, 4, 4), 2, "dimension 1 being empty"),
        ("adaptive_avg_pool3d", (2, 0, 4, 4, 4), 2, "dimension 1 being empty"),
        ("adaptive_avg_pool2d", (1, 2, 4, 4), (2, 2, 2), "output_size must be 2"),
        ("adaptive_max_pool2d", (1, 2, 4, 4), (2,), r"output_size.size\(\) must be 2"),
        ("adaptive_avg_pool1d", (1, 2, 4), (2, 2), "should contain one int"),
        ("adaptive_avg_pool1d", (1, 2, 4), None, "must be tuple of ints, not NoneType"),
        ("adaptive_avg_pool2d", (1, 2, 4, 4), None, "NoneType"),
        ("adaptive_avg_pool2d", (1, 2, 4, 4), (2.0, 1), "element of type float at pos 0"),
        ("adaptive_avg_pool2d", (1, 2, 4, 4), -1, "must be greater than or equal to 0"),
        ("adaptive_max_pool2d", (1, 2, 4, 4), -1, "negative dimension -1"),
        ("adaptive_avg_pool3d", (4, 4, 4), 2, "Expected 4D or 5D tensor"),
        ("adaptive_max_pool3d", (4, 4), (2, 2, 2), "should be at least 4"),
    ],
)
def test_errors_are_pytorchs(name, shape, size, words):
    refused(lambda T: getattr(T.nn.functional, name)(T.zeros(shape), size), words)


def test_integers_are_refused():
    refused(lambda T: T.nn.functional.adaptive_avg_pool2d(T.ones(1, 4, 4).long(), 2),
            "\"adaptive_avg_pool2d\" not implemented for 'Long'")  # fmt: skip


def test_modules_take_their_functions_arguments():
    for dims in (1, 2, 3):
        x = gpunn.randn(2, 3, *(7,) * dims)
        average = getattr(nn, f"AdaptiveAvgPool{dims}d")(4)
        assert gpunn.equal(average(x), AVG[dims - 1](x, 4))
        maximum = getattr(nn, f"AdaptiveMaxPool{dims}d")(4, return_indices=True)
        for a, b in zip(maximum(x), MAX[dims - 1](x, 4, True), strict=True):
            assert gpunn.equal(a, b)
    assert repr(nn.AdaptiveMaxPool2d((None, 3))) == "AdaptiveMaxPool2d(output_size=(None, 3))"


def test_an_empty_result_of_one_row():
    assert F.adaptive_avg_pool2d(gpunn.ones(1, 1, 2, 1), (1, 0)).shape == (1, 1, 1, 0)
