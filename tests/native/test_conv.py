import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunn import native

ROUNDING = {np.float32: 2e-6, np.float64: 1e-14}


def windows(x, kernel, stride, padding, dilation, out):
    """For each tap k, the view x[..., o * s + k * d - p] over all outputs o, zeros outside."""
    n = len(kernel)
    room = [
        (p, max(0, (o - 1) * s + (k - 1) * d + 1 - p - size))
        for size, k, s, p, d, o in zip(
            x.shape[-n:], kernel, stride, padding, dilation, out, strict=True
        )
    ]
    x = np.pad(x, [(0, 0)] * (x.ndim - n) + room)
    for tap in itertools.product(*map(range, kernel)):
        at = tuple(
            slice(k * d, k * d + (o - 1) * s + 1, s)
            for k, d, o, s in zip(tap, dilation, out, stride, strict=True)
        )
        yield tap, x[(..., *at)], at, room


def reference(x, w, b, dy, stride, padding, dilation, groups):
    """y, dx, dw and db in float64, tap by tap."""
    x, w, dy = (a.astype(np.float64) for a in (x, w, dy))
    n, cout, *out = dy.shape
    cin, kernel = x.shape[1], w.shape[2:]
    y, dw = np.zeros_like(dy), np.zeros_like(w)
    by_group = (groups, cout // groups)
    g = dy.reshape(n, *by_group, *out)
    v = w.reshape(*by_group, cin // groups, *kernel)
    padded = None
    for tap, view, at, room in windows(x, kernel, stride, padding, dilation, out):
        u = view.reshape(n, groups, cin // groups, *out)
        y += np.einsum("ngc...,gmc->ngm...", u, v[(..., *tap)]).reshape(y.shape)
        dw[(..., *tap)] = np.einsum("ngco,ngmo->gmc", u.reshape(*u.shape[:3], -1),
                                    g.reshape(*g.shape[:3], -1)).reshape(dw.shape[:2])  # fmt: skip
        if padded is None:
            sizes = [s + a + b for s, (a, b) in zip(x.shape[2:], room, strict=True)]
            padded = np.zeros((n, cin, *sizes))
        spread = np.einsum("ngm...,gmc->ngc...", g, v[(..., *tap)])
        padded[(..., *at)] += spread.reshape(n, cin, *out)
    inside = tuple(slice(p, p + s) for p, s in zip(padding, x.shape[2:], strict=True))
    axes = (0, *range(2, dy.ndim))
    y += b.astype(np.float64).reshape(-1, *[1] * len(kernel))
    return y, padded[(..., *inside)], dw, dy.sum(axes)


def compute(x, w, b, dy, stride, padding, dilation, groups):
    rest = (stride, padding, dilation, groups)
    y = native.conv_forward(x, w, b, *rest, out=dy.shape[2:])
    dx = native.conv_input_grad(dy, w, x.shape[2:], *rest)
    return (y, dx, *native.conv_weight_grad(x, dy, w.shape[2:], *rest, bias=True))


def check(case, dtype, seed=0, extra=None):
    n, groups, cin, cout, size, kernel, stride, padding, dilation = case
    rng = np.random.default_rng(seed)
    out = native.conv_size(size, kernel, stride, padding, dilation)
    if extra:  # more padding on the right than on the left
        out = tuple(o + e for o, e in zip(out, extra, strict=True))
    x = rng.standard_normal((n, cin * groups, *size)).astype(dtype)
    w = rng.standard_normal((cout * groups, cin, *kernel)).astype(dtype)
    b = rng.standard_normal(cout * groups).astype(dtype)
    dy = rng.standard_normal((n, cout * groups, *out)).astype(dtype)
    arguments = (x, w, b, dy, stride, padding, dilation, groups)
    before = [a.copy() for a in arguments[:4]]
    results = compute(*arguments)
    for name, result, exact in zip(
        ("y", "dx", "dw", "db"), results, reference(*arguments), strict=True
    ):
        assert result.dtype == dtype and result.shape == exact.shape, name
        scale = ROUNDING[dtype] * np.sqrt(10 + cin * np.prod(kernel) + np.prod(out) * n)
        np.testing.assert_allclose(result, exact, rtol=0, atol=scale * 10, err_msg=name)
    for a, kept in zip(arguments[:4], before, strict=True):
        np.testing.assert_array_equal(a, kept)
    return arguments, results


@st.composite
def cases(draw):
    n = draw(st.integers(1, 3))
    number = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(n))  # noqa: E731
    kernel, dilation, padding = number(1, 4), number(1, 3), number(0, 5)
    size = tuple(
        max(1, (k - 1) * d + 1 - 2 * p) + draw(st.integers(0, (40, 14, 5)[n - 1]))
        for k, d, p in zip(kernel, dilation, padding, strict=True)
    )
    return (
        draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 20)),
        draw(st.integers(1, 40)), size, kernel, number(1, 3), padding, dilation,
    )  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(cases(), st.sampled_from([np.float32, np.float64]), st.integers(0, 2**31))
def test_any_shape(case, dtype, seed):
    check(case, dtype, seed)


@settings(max_examples=20, deadline=None)
@given(cases(), st.integers(0, 2))
def test_more_room_on_the_right(case, more):
    check(case, np.float64, extra=(more,) * len(case[4]))


LARGE = {
    "rows in tiles": (2, 1, 24, 40, (70, 90), (3, 3), (1, 1), (1, 1), (1, 1)),
    "several blocks of channels": (3, 1, 300, 350, (7, 7), (1, 1), (1, 1), (0, 0), (1, 1)),
    "deep sums": (2, 1, 130, 20, (9, 9), (3, 3), (1, 1), (1, 1), (1, 1)),
    "a long signal": (2, 1, 16, 20, (3000,), (9,), (1,), (4,), (1,)),
    "stem": (2, 1, 3, 64, (60, 60), (7, 7), (2, 2), (3, 3), (1, 1)),
    "depthwise": (3, 40, 1, 1, (30, 33), (3, 3), (1, 1), (1, 1), (1, 1)),
    "depthwise with multiplier": (2, 20, 1, 2, (20, 20), (5, 5), (2, 2), (2, 2), (1, 1)),
    "volume": (2, 1, 8, 16, (12, 13, 14), (3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1)),
    "a stride along one column": (2, 3, 13, 26, (12, 1), (4, 1), (1, 2), (4, 2), (3, 3)),
    "stride past the kernel": (2, 1, 4, 6, (31, 31), (2, 1), (5, 3), (0, 1), (1, 1)),
}


@pytest.mark.parametrize("name", LARGE)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large(name, dtype):
    check(LARGE[name], dtype)


@pytest.mark.parametrize("name", LARGE)
def test_the_number_of_threads_changes_no_bit(name):
    threads = native.get_num_threads()
    try:
        results = []
        for n in (1, 2, 7):
            native.set_num_threads(n)
            results.append(check(LARGE[name], np.float32)[1])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        native.set_num_threads(threads)


def test_no_bias_and_arrays_that_are_not_contiguous():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((9, 8, 3, 2)).T
    w = rng.standard_normal((3, 3, 3, 4)).T
    rest = ((1, 1), (1, 1), (1, 1), 1)
    y = native.conv_forward(x, w, None, *rest)
    np.testing.assert_allclose(
        y, native.conv_forward(x.copy(), w.copy(), np.zeros(4), *rest), rtol=1e-14
    )


def test_the_input_gradient_with_bias_is_a_transposed_convolution():
    dy = np.ones((1, 2, 3))
    w = np.ones((2, 1, 2))
    y = native.conv_input_grad(dy, w, (6,), (2,), (0,), (1,), 1, b=np.array([0.5]))
    np.testing.assert_array_equal(y, np.full((1, 1, 6), 2.5))


def test_an_infinity_stays_where_it_is():
    x = np.zeros((1, 1, 20, 20), np.float32)
    x[0, 0, 10, 10] = np.inf
    w = np.ones((2, 1, 3, 3), np.float32)
    rest = ((1, 1), (1, 1), (1, 1), 1)
    y = native.conv_forward(x, w, None, *rest)
    assert np.isinf(y).sum() == 18 and not np.isnan(y).any()
    dw, _ = native.conv_weight_grad(x, np.ones_like(y), (3, 3), *rest)
    assert np.isinf(dw).all()


def test_no_images_and_no_positions():
    w = np.ones((4, 3, 3, 3), np.float32)
    rest = ((1, 1), (1, 1), (1, 1), 1)
    x = np.ones((0, 3, 8, 8), np.float32)
    assert native.conv_forward(x, w, None, *rest).shape == (0, 4, 8, 8)
    dw, db = native.conv_weight_grad(x, np.ones((0, 4, 8, 8), np.float32), (3, 3), *rest, bias=True)
    assert not dw.any() and not db.any() and dw.shape == w.shape


def test_shapes_that_do_not_go_together_are_refused():
    rest = ((1,), (0,), (1,))
    x = np.ones((1, 4, 8))
    for w, groups in (((3, 2, 2), 2), ((4, 3, 2), 2), ((4, 4, 2, 2), 1)):
        with pytest.raises(ValueError, match="do not go together"):
            native.conv_forward(x, np.ones(w), None, *rest, groups, out=(7,))


def test_other_dtypes_are_left_to_numpy():
    rest = ((1,), (0,), (1,), 1)
    for dtype in (np.float16, np.int64, np.complex64):
        assert native.conv_forward(np.ones((1, 1, 3), dtype), np.ones((1, 1, 2), dtype), None,
                                   *rest) is None  # fmt: skip
    assert native.conv_forward(np.ones((1, 1, 3)), np.ones((1, 1, 2), np.float32), None,
                               *rest) is None  # fmt: skip
