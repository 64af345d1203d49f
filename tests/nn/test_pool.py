"""Pooling: against windows taken out one by one, and both paths against each other."""

import numpy as np
import pytest
from both import same
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import native, nn

rng = np.random.default_rng(0)
FUNCTIONS = {1: (F.max_pool1d, F.avg_pool1d), 2: (F.max_pool2d, F.avg_pool2d),
             3: (F.max_pool3d, F.avg_pool3d)}  # fmt: skip


@pytest.fixture(params=["native", "numpy"], autouse=True)
def path(request, monkeypatch):
    """Both ways to the same numbers."""
    if request.param == "numpy":
        for name in ("max_pool_forward", "max_pool_backward", "avg_pool_forward",
                     "avg_pool_backward"):  # fmt: skip
            monkeypatch.setattr(native, name, lambda *a, **k: None)
    elif native.lib() is None:
        pytest.skip(f"no C++ library: {native.status()}")


def windows(x, kernel, stride, padding, value):
    """Every window as the last dimension."""
    dims = len(kernel)
    x = np.pad(x, [(0, 0)] * (x.ndim - dims) + [(p, p) for p in padding], constant_values=value)
    axes = tuple(range(x.ndim - dims, x.ndim))
    found = np.lib.stride_tricks.sliding_window_view(x, kernel, axes)
    steps = (..., *(slice(None, None, s) for s in stride), *([slice(None)] * dims))
    found = found[steps]
    return found.reshape(*found.shape[:-dims], -1)


CASES = [
    ((2, 3, 9), (3,), (2,), (1,)),
    ((2, 3, 7, 8), (2, 3), (2, 1), (1, 1)),
    ((3, 6, 6), (3, 3), (3, 3), (0, 0)),
    ((1, 2, 5, 5, 4), (2, 3, 2), (1, 2, 2), (1, 0, 1)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max(case):
    shape, kernel, stride, padding = case
    f = FUNCTIONS[len(kernel)][0]
    x = rng.permutation(np.prod(shape)).reshape(shape) / 7.0  # no ties: gradients are unique
    check(lambda x: f(x, kernel, stride, padding), [x],
          lambda x: windows(x, kernel, stride, padding, -np.inf).max(-1))  # fmt: skip


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_average(case, include):
    shape, kernel, stride, padding = case
    f = FUNCTIONS[len(kernel)][1]

    def reference(x):
        taken = windows(x, kernel, stride, padding, 0)
        inside = windows(np.ones_like(x), kernel, stride, padding, 1 if include else 0)
        return taken.sum(-1) / inside.sum(-1)

    check(lambda x: f(x, kernel, stride, padding, count_include_pad=include),
          [rng.normal(size=shape)], reference)  # fmt: skip


def test_indices_name_the_place_in_the_plane():
    x = gpunn.tensor([[[1.0, 5.0, 2.0], [7.0, 3.0, 9.0]]])
    values, places = F.max_pool2d(x, 2, 1, return_indices=True)
    assert values.tolist() == [[[7.0, 9.0]]] and places.tolist() == [[[3, 5]]]
    assert places.dtype is gpunn.int64


def test_ceil_mode_drops_windows_that_start_in_the_padding():
    x = gpunn.ones(1, 1, 5)
    assert F.max_pool1d(x, 2, 2, ceil_mode=True).shape == (1, 1, 3)
    assert F.avg_pool1d(x, 2, 2, ceil_mode=True).tolist() == [[[1.0, 1.0, 1.0]]]
    assert F.max_pool1d(x, 2, 3, 1, ceil_mode=True).shape == (1, 1, 2)


def test_nan_wins_and_padding_never_does():
    x = gpunn.tensor([[[1.0, float("nan"), -5.0, -6.0]]])
    y = F.max_pool1d(x, 2, 2)
    assert np.isnan(y.numpy()[0, 0, 0]) and y.numpy()[0, 0, 1] == -5
    low = gpunn.full((1, 1, 2), -1e30)
    assert (F.max_pool1d(low, 2, 1, 1) == -1e30).all()


def test_ties_and_nan_are_named_as_by_pytorch():
    nan, low = float("nan"), -float("inf")
    for row in ([1.0, 3.0, 3.0, 2.0], [nan, 1.0, nan, 5.0], [low] * 4, [low, nan, low, nan]):
        for window in ((4,), (3, 1, 1), (2, 2, 1)):
            same(lambda T, row=row, window=window: list(T.nn.functional.max_pool1d(
                T.tensor([[row]]), *window, return_indices=True)))  # fmt: skip


def test_overlapping_windows_add_their_gradients():
    x = gpunn.tensor([[[0.0, 9.0, 0.0]]], requires_grad=True)
    F.max_pool1d(x, 2, 1).sum().backward()
    assert x.grad.tolist() == [[[0.0, 2.0, 0.0]]]


def test_divisor_override():
    assert F.avg_pool2d(gpunn.ones(1, 1, 2, 2), 2, divisor_override=8).item() == 0.5


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: F.max_pool2d(gpunn.zeros(3, 3), 2), "Expected 3D or 4D"),
        (lambda: F.max_pool2d(gpunn.zeros(1, 1, 2, 2), 5), "Output size is too small"),
        (lambda: F.max_pool2d(gpunn.zeros(1, 1, 4, 4), 2, padding=2), "at most half"),
        (lambda: F.max_pool2d(gpunn.zeros(1, 1, 4, 4), 2, stride=0), "stride should not be zero"),
        (lambda: F.avg_pool2d(gpunn.zeros(1, 1, 4, 4), 2, divisor_override=0), "must be not zero"),
        (lambda: F.max_pool2d(gpunn.zeros(1, 1, 4, 4), (2, 2, 2)), "tuple of 2 ints"),
    ],
)
def test_errors_say_what_is_wrong(call, words):
    with pytest.raises(RuntimeError, match=words):
        call()


def test_modules_take_their_functions_arguments():
    x = gpunn.randn(2, 3, 8, 8)
    assert gpunn.equal(nn.MaxPool2d(3, 2, 1)(x), F.max_pool2d(x, 3, 2, 1))
    assert gpunn.equal(nn.AvgPool2d(3, 2, 1, count_include_pad=False)(x),
                       F.avg_pool2d(x, 3, 2, 1, count_include_pad=False))  # fmt: skip
    assert gpunn.equal(nn.MaxPool1d(3, 2, 1)(x[0]), F.max_pool1d(x[0], 3, 2, 1))
    assert gpunn.equal(nn.MaxPool3d((1, 2, 3))(x), F.max_pool3d(x, (1, 2, 3)))
    assert gpunn.equal(nn.AvgPool1d(3, 2, 1, True)(x[0]), F.avg_pool1d(x[0], 3, 2, 1, True))
    assert gpunn.equal(nn.AvgPool3d(2, divisor_override=5)(x),
                       F.avg_pool3d(x, 2, divisor_override=5))  # fmt: skip
    same(lambda T: [repr(T.nn.AvgPool1d(2)), repr(T.nn.MaxPool3d((1, 2, 3), padding=1))])
