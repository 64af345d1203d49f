import numpy as np
import pytest

from gpunn import native

TOLERANCE = {np.float32: 5e-6, np.float64: 1e-13}
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
# rows, groups, weights of a row, run
ROWS = [(1, 1, 1, 1), (5, 1, 17, 1), (64, 1, 768, 1), (300, 1, 33, 1), (8, 4, 3, 49), (6, 2, 8, 1),
        (12, 3, 1, 100), (64, 8, 4, 64)]  # fmt: skip


def exact_rows(x, dy, weight, bias, eps, groups, run, rms):
    x, dy, weight, bias = (a.astype(np.float64) for a in (x, dy, weight, bias))
    rows, n = x.shape
    w, b = (
        np.tile(np.repeat(a.reshape(groups, -1), run, 1), (rows // groups, 1))
        for a in (weight, bias)
    )
    mean = np.zeros((rows, 1)) if rms else x.mean(1, keepdims=True)
    rstd = 1 / np.sqrt(((x - mean) ** 2).mean(1, keepdims=True) + eps)
    xhat, g = (x - mean) * rstd, dy * w
    through_mean = 0 if rms else g.mean(1, keepdims=True)
    dx = rstd * (g - through_mean - xhat * (g * xhat).mean(1, keepdims=True))
    fold = lambda a: a.reshape(rows // groups, groups, -1, run).sum((0, 3)).ravel()  # noqa: E731
    return xhat * w + b, mean[:, 0], rstd[:, 0], dx, fold(dy * xhat), fold(dy)


@both
@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("case", ROWS, ids=str)
def test_rows(case, dtype, rms):
    rows, groups, per, run = case
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((rows, per * run)) * 2 + 3).astype(dtype)
    dy = rng.standard_normal(x.shape).astype(dtype)
    weight, bias = rng.standard_normal((2, groups * per)).astype(dtype)
    exact = exact_rows(x, dy, weight, bias, 1e-5, groups, run, rms)
    y, mean, rstd = native.row_norm_forward(x, weight, bias, 1e-5, groups, run, rms)
    dx, dw, db = native.row_norm_backward(x, dy, weight, mean, rstd, groups, run, rms)
    if rms:
        assert mean is None
        mean = np.zeros(rows, dtype)
    for a, b in zip((y, mean, rstd, dx, dw, db), exact, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=TOLERANCE[dtype],
                                   atol=TOLERANCE[dtype] * 4 * max(1, abs(b).max()))  # fmt: skip
    plain, _, _ = native.row_norm_forward(x, None, None, 1e-5, groups, run, rms)
    ones = np.ones_like(weight)
    again, _, _ = native.row_norm_forward(x, ones, 0 * ones, 1e-5, groups, run, rms)
    np.testing.assert_allclose(plain, again, rtol=TOLERANCE[dtype])
    only = native.row_norm_backward(x, dy, None, None if rms else mean, rstd, groups, run, rms,
                                    needs=(False, True, False))  # fmt: skip
    assert only[0] is None and only[2] is None
    np.testing.assert_array_equal(only[1], dw)


@both
@pytest.mark.parametrize("shape", [(2, 1), (7, 5), (4, 3, 1), (3, 2, 17), (8, 16, 12, 12)], ids=str)
def test_batch_norm(shape, dtype):
    rng = np.random.default_rng(0)
    x, dy = ((rng.standard_normal(shape) * 2 + m).astype(dtype) for m in (5, 0))
    weight = rng.standard_normal(shape[1]).astype(dtype)
    axes = (0, *range(2, len(shape)))
    column = lambda a: np.reshape(a, (-1, *[1] * (len(shape) - 2)))  # noqa: E731
    mean, variance = native.batch_norm_stats(x)
    exact = x.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(axes), rtol=TOLERANCE[dtype])
    np.testing.assert_allclose(variance, exact.var(axes), rtol=TOLERANCE[dtype])
    rstd = (1 / np.sqrt(variance + 1e-5)).astype(dtype)
    y = native.batch_norm_apply(x, rstd * weight, -mean * rstd * weight)
    xhat = (exact - column(mean)) * column(rstd)
    atol = 50 * TOLERANCE[dtype]
    np.testing.assert_allclose(y, xhat * column(weight), atol=atol)
    for training in (True, False):
        dx, dw, db = native.batch_norm_backward(x, dy, weight, mean, rstd, training)
        g = dy.astype(np.float64)
        bend = g.mean(axes, keepdims=True) + xhat * (g * xhat).mean(axes, keepdims=True)
        wish = column(rstd * weight) * (g - training * bend)
        np.testing.assert_allclose(dx, wish, atol=atol)
        np.testing.assert_allclose(dw, (g * xhat).sum(axes), atol=20 * atol)
        np.testing.assert_allclose(db, g.sum(axes), atol=20 * atol)


def test_a_large_mean_leaves_the_variance_right():
    x = (np.random.default_rng(0).standard_normal((4, 2, 5000)) + 1e4).astype(np.float32)
    mean, variance = native.batch_norm_stats(x)
    np.testing.assert_allclose(variance, x.astype(np.float64).var((0, 2)), rtol=1e-4)
    _, mean, rstd = native.row_norm_forward(x.reshape(4, -1), None, None, 0.0)
    np.testing.assert_allclose(rstd, 1 / x.astype(np.float64).reshape(4, -1).std(1), rtol=1e-4)


def test_nan_stays_in_its_row():
    x = np.ones((3, 40), np.float32)
    x[1, 30] = np.nan
    y, _, _ = native.row_norm_forward(x, None, None, 1e-5)
    assert np.isnan(y[1]).all() and not np.isnan(y[[0, 2]]).any()


def test_the_number_of_threads_changes_no_bit():
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 640, 96)).astype(np.float32)
    before = native.get_num_threads()
    try:
        results = []
        for n in (1, 2, 5):
            native.set_num_threads(n)
            y, mean, rstd = native.row_norm_forward(x, None, None, 1e-5)
            image = x.reshape(4, 160, 96)
            stats = native.batch_norm_stats(image)
            grads = native.batch_norm_backward(image, dy.reshape(image.shape), None, *stats)
            rows = native.row_norm_backward(x, dy, None, mean, rstd)
            results.append((y, *rows, *stats, *grads))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        native.set_num_threads(before)


def test_other_dtypes_are_left_to_numpy():
    assert native.row_norm_forward(np.ones((2, 2), np.float16), None, None, 1e-5) is None
    assert native.batch_norm_stats(np.ones((2, 2), np.float16)) is None
