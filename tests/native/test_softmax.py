import numpy as np
import pytest

from gpunn import native

SHAPES = [(1, 1), (3, 2), (5, 15), (4, 16), (7, 17), (2, 33), (300, 10), (3, 1000), (2, 3, 70)]
TOLERANCE = {np.float32: 1e-6, np.float64: 1e-14}
both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def draw(shape, dtype, seed=0):
    return (np.random.default_rng(seed).standard_normal(shape) * 5).astype(dtype)


def exact_softmax(x):
    e = np.exp(x.astype(np.longdouble) - x.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).astype(np.float64)


@both
@shapes
def test_softmax_and_its_gradient(shape, dtype):
    x, dy = draw(shape, dtype), draw(shape, dtype, 1)
    y, p = native.softmax_forward(x), exact_softmax(x)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, p, rtol=10 * TOLERANCE[dtype])
    exact = p * (dy - (p * dy).sum(-1, keepdims=True))
    np.testing.assert_allclose(native.softmax_backward(y, dy), exact, atol=20 * TOLERANCE[dtype])


@both
@shapes
def test_log_softmax_and_its_gradient(shape, dtype):
    x, dy = draw(shape, dtype), draw(shape, dtype, 1)
    y, p = native.log_softmax_forward(x), exact_softmax(x)
    np.testing.assert_allclose(y, np.log(p), atol=10 * TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    exact = dy - p * dy.astype(np.float64).sum(-1, keepdims=True)
    atol = 50 * TOLERANCE[dtype] * np.sqrt(shape[-1])
    np.testing.assert_allclose(native.log_softmax_backward(y, dy), exact, atol=atol)


@both
def test_numbers_at_the_ends_of_the_range(dtype):
    top = np.finfo(dtype).max
    x = np.array([[top, top, -top], [-np.inf, 0, 1], [1e4, -1e4, 0]], dtype)
    y = native.softmax_forward(x)
    np.testing.assert_allclose(y[0], [0.5, 0.5, 0])
    np.testing.assert_allclose(y[1], [0, 1 / (1 + np.e), np.e / (1 + np.e)], rtol=1e-6)
    np.testing.assert_array_equal(y[2], [1, 0, 0])


@both
def test_nan_and_rows_of_infinities_give_nan(dtype):
    x = np.zeros((4, 20), dtype)
    x[0, 3], x[1], x[2, 19] = np.nan, -np.inf, np.inf
    y, log = native.softmax_forward(x), native.log_softmax_forward(x)
    assert np.isnan(y[:2]).all() and np.isnan(y[2, 19]) and not np.isnan(y[3]).any()
    assert np.isnan(log[:2]).all() and np.isnan(log[2, 19]) and not np.isnan(log[3]).any()


@both
@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) == 2], ids=str)
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_cross_entropy(shape, dtype, eps):
    rows, n = shape
    x = draw(shape, dtype)
    rng = np.random.default_rng(2)
    target = rng.integers(0, n, rows)
    target[rng.random(rows) < 0.2] = -100
    loss, lse = native.cross_entropy_forward(x, target, label_smoothing=eps)
    p, kept = exact_softmax(x), target >= 0
    hot = np.zeros(shape)
    hot[np.flatnonzero(kept), target[kept]] = 1 - eps
    wish = (hot + eps / n) * kept[:, None]
    exact = -(wish * np.log(p)).sum(-1)
    np.testing.assert_allclose(loss, exact, atol=20 * TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    x_max = x.max(-1)
    exact = np.log(np.exp(x.astype(np.float64) - x_max[:, None]).sum(-1)) + x_max
    np.testing.assert_allclose(lse, exact, atol=20 * TOLERANCE[dtype], rtol=TOLERANCE[dtype])
    scale = rng.standard_normal(rows).astype(dtype)
    dx = native.cross_entropy_backward(x, target, lse, scale, label_smoothing=eps)
    exact = scale[:, None] * (p * kept[:, None] - wish)
    np.testing.assert_allclose(dx, exact, atol=50 * TOLERANCE[dtype])


def test_cross_entropy_names_a_target_that_is_no_class():
    x = np.zeros((3, 4), np.float32)
    for bad in (4, -1):
        with pytest.raises(IndexError, match=f"Target {bad} is out of bounds"):
            native.cross_entropy_forward(x, np.array([0, -100, bad]))
    loss, _ = native.cross_entropy_forward(x, np.array([0, -1, 3]), ignore_index=-1)
    np.testing.assert_allclose(loss, np.log(4) * np.array([1, 0, 1]), rtol=1e-6)


def test_the_number_of_threads_changes_no_bit():
    x, target = draw((500, 777), np.float32), np.arange(500)
    before = native.get_num_threads()
    try:
        results = []
        for n in (1, 2, 5):
            native.set_num_threads(n)
            y = native.softmax_forward(x)
            loss, lse = native.cross_entropy_forward(x, target)
            dx = native.cross_entropy_backward(x, target, lse, loss)
            results.append((y, native.softmax_backward(y, x), loss, dx))
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        native.set_num_threads(before)


def test_empty_arrays_and_views():
    assert native.softmax_forward(np.zeros((0, 5))).shape == (0, 5)
    assert native.log_softmax_forward(np.zeros((5, 0))).shape == (5, 0)
    x = draw((40, 6), np.float64)
    np.testing.assert_array_equal(native.softmax_forward(x.T), native.softmax_forward(x.T.copy()))
    assert native.softmax_forward(np.zeros(3, np.float16)) is None
