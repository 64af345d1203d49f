import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunn import native


def window(o, size, kernel, stride, padding, dilation):
    """The input positions of output o along one axis, those outside left out."""
    at = o * stride - padding
    return [p for p in range(at, at + kernel * dilation, dilation) if 0 <= p < size]


def starts(axes):
    """Where each axis of a window begins, and its dilation."""
    return [(o * stride - padding, dilation) for o, _, _, stride, padding, dilation in axes]


def reference_max(x, kernel, stride, padding, dilation, out):
    planes = x.reshape(-1, *x.shape[x.ndim - len(out) :])
    y, index = np.empty((len(planes), *out), x.dtype), np.empty((len(planes), *out), np.int64)
    for p, plane in enumerate(planes):
        for o in np.ndindex(*out):
            axes = list(zip(o, plane.shape, kernel, stride, padding, dilation, strict=True))
            places = itertools.product(*(window(*axis) for axis in axes))
            best = tuple(begin if begin >= 0 else begin % d for begin, d in starts(axes))
            value = -np.inf
            for place in places:
                if plane[place] > value or np.isnan(plane[place]):
                    best, value = place, plane[place]
            y[(p, *o)] = value
            index[(p, *o)] = np.dot(best, np.cumprod([1, *plane.shape[:0:-1]])[::-1])
    lead = x.shape[: x.ndim - len(out)]
    return y.reshape(*lead, *out), index.reshape(*lead, *out)


def reference_avg(x, kernel, stride, padding, out, include, divisor):
    """The averages, and the matrix that makes them of a plane."""
    planes = x.reshape(-1, *x.shape[x.ndim - len(out) :])
    size = planes.shape[1:]
    matrix = np.zeros((int(np.prod(out)), int(np.prod(size))))
    for i, o in enumerate(np.ndindex(*out)):
        count = 1
        for at, k, s, p, n in zip(o, kernel, stride, padding, size, strict=True):
            begin, end = at * s - p, min(at * s - p + k, n + p)
            count *= end - begin if include else min(end, n) - max(begin, 0)
        axes = zip(o, size, kernel, stride, padding, (1,) * len(out), strict=True)
        for place in itertools.product(*(window(*axis) for axis in axes)):
            matrix[i, np.ravel_multi_index(place, size)] = 1 / (divisor or count)
    return (planes.reshape(len(planes), -1) @ matrix.T).reshape(*x.shape[: -len(out)], *out), matrix


@st.composite
def cases(draw, dilated=True):
    n = draw(st.integers(1, 3))
    kernel = tuple(draw(st.integers(1, 4)) for _ in range(n))
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    stride = tuple(draw(st.integers(1, 3)) for _ in range(n))
    dilation = tuple(draw(st.integers(1, 2 if dilated else 1)) for _ in range(n))
    size = tuple(
        max(1, (k - 1) * d + 1 - 2 * p) + draw(st.integers(0, (30, 9, 4)[n - 1]))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    out = native.conv_size(size, kernel, stride, padding, dilation)
    if draw(st.booleans()):  # ceil_mode: one more, if it begins inside
        out = tuple(
            o + (o * s < i + p and (o - 1) * s - p + (k - 1) * d + 1 < i + p)
            for o, s, i, p, k, d in zip(out, stride, size, padding, kernel, dilation, strict=True)
        )
    lead = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    seed = draw(st.integers(0, 2**31))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    return lead, size, kernel, stride, padding, dilation, out, dtype, np.random.default_rng(seed)


@settings(max_examples=100, deadline=None)
@given(cases(), st.sampled_from(["plain", "ties", "nan", "-inf"]))
def test_max_pool(case, kind):
    lead, size, kernel, stride, padding, dilation, out, dtype, rng = case
    x = rng.standard_normal((*lead, *size)).astype(dtype)
    if kind == "ties":
        x = x.round()
    elif kind != "plain":
        x[rng.random(x.shape) < 0.4] = float(kind)
    y, index = native.max_pool_forward(x, kernel, stride, padding, dilation, out)
    exact, place = reference_max(x, kernel, stride, padding, dilation, out)
    np.testing.assert_array_equal(y, exact)
    np.testing.assert_array_equal(index, place)
    only, none = native.max_pool_forward(x, kernel, stride, padding, dilation, out, indices=False)
    np.testing.assert_array_equal(only, exact)
    assert none is None

    if place.max() >= np.prod(size):
        return  # a dilated window wholly in the padding: there is no place in the input
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = native.max_pool_backward(dy, index, size)
    planes = np.zeros((int(np.prod(lead)), int(np.prod(size))), dtype)
    rows = np.repeat(np.arange(len(planes)), int(np.prod(out)))
    np.add.at(planes, (rows, place.reshape(-1)), dy.reshape(-1))
    np.testing.assert_array_equal(dx, planes.reshape(x.shape))


@settings(max_examples=100, deadline=None)
@given(cases(dilated=False), st.booleans(), st.sampled_from([None, None, 1, 7]))
def test_avg_pool(case, include, divisor):
    lead, size, kernel, stride, padding, _, out, dtype, rng = case
    x = rng.standard_normal((*lead, *size)).astype(dtype)
    y = native.avg_pool_forward(x, kernel, stride, padding, out, include, divisor)
    exact, matrix = reference_avg(x, kernel, stride, padding, out, include, divisor)
    tolerance = 1e-5 if dtype == np.float32 else 1e-13
    np.testing.assert_allclose(y, exact, rtol=tolerance, atol=tolerance)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dx = native.avg_pool_backward(dy, size, kernel, stride, padding, include, divisor)
    exact = (dy.reshape(-1, len(matrix)) @ matrix).reshape(x.shape)
    np.testing.assert_allclose(dx, exact, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_planes(threads):
    before = native.get_num_threads()
    native.set_num_threads(threads)
    try:
        x = np.random.default_rng(0).standard_normal((8, 16, 32, 32)).astype(np.float32)
        y, _ = native.max_pool_forward(x, (2, 2), (2, 2), (0, 0), (1, 1), (16, 16))
        blocks = x.reshape(8, 16, 16, 2, 16, 2)
        np.testing.assert_array_equal(y, blocks.max((3, 5)))
        y = native.avg_pool_forward(x, (2, 2), (2, 2), (0, 0), (16, 16))
        np.testing.assert_allclose(y, blocks.mean((3, 5)), atol=1e-6)
    finally:
        native.set_num_threads(before)


def test_other_dtypes_are_left_to_numpy():
    assert native.max_pool_forward(np.ones((1, 4), np.int64), (2,), (2,), (0,), (1,), (2,)) is None
    assert native.avg_pool_forward(np.ones((1, 4), np.float16), (2,), (2,), (0,), (2,)) is None
