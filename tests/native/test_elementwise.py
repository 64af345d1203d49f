import math

import numpy as np
import pytest

from gpunn import native
from gpunn.native.elementwise import FUNCTIONS

both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
named = pytest.mark.parametrize("name", FUNCTIONS)
erf = np.vectorize(math.erf, otypes=[np.float64])
erfc = np.vectorize(math.erfc, otypes=[np.float64])


def sigmoid(x):
    return np.where(x > 0, 1 / (1 + np.exp(-abs(x))), np.exp(-abs(x)) / (1 + np.exp(-abs(x))))


def gelu_tanh(x):
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


EXACT = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "silu": lambda x: x * sigmoid(x),
    "erf": erf,
    "gelu": lambda x: x / 2 * erfc(-x / math.sqrt(2)),
    "gelu_tanh": gelu_tanh,
    "softplus": lambda x: np.logaddexp(0, x),
}


def draw(name, dtype, n=20011):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(n) * 3, rng.uniform(-30, 30, n), [0, 1e-30, -1e-30]])
    return (abs(x) if name == "log" else x).astype(dtype)


@both
@named
def test_values(name, dtype):
    x = draw(name, dtype)
    with np.errstate(divide="ignore"):
        exact = EXACT[name](x.astype(np.float64))
    y = native.unary(name, x)
    assert y.dtype == dtype
    ulp = np.finfo(dtype).eps
    if name.startswith("gelu"):  # as in PyTorch, 1 + erf has lost digits far on the left
        np.testing.assert_allclose(y, exact, rtol=4 * ulp, atol=4 * ulp)
    else:
        np.testing.assert_allclose(y, exact, rtol=4 * ulp, atol=np.finfo(dtype).tiny)


@named
def test_gradients_against_differences(name):
    x = draw(name, np.float64, 500)
    x = x[abs(x) > 1e-3]
    dy = np.random.default_rng(1).standard_normal(x.shape)
    slope = (native.unary(name, x + 1e-6) - native.unary(name, x - 1e-6)) / 2e-6
    dx = native.unary_grad(name, x, dy)
    scale = np.maximum(1, abs(slope))
    np.testing.assert_allclose(dx / scale, dy * slope / scale, atol=1e-7)
    single = native.unary_grad(name, x.astype(np.float32), dy.astype(np.float32))
    np.testing.assert_allclose(single / scale, dx / scale, atol=2e-4)


@both
def test_the_ends_of_the_range(dtype):
    big = {np.float32: 88.5, np.float64: 709.5}[dtype]
    x = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, big, -big, 2 * big, -2 * big], dtype)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(native.unary("exp", x), np.exp(x), rtol=1e-6, atol=1e-42)
        np.testing.assert_allclose(native.unary("log", x), np.log(x), rtol=1e-6)
        np.testing.assert_array_equal(native.unary("tanh", x), np.tanh(x))
    for name in ("tanh", "erf", "silu"):
        y = native.unary(name, x)
        assert np.isnan(y[0]) and y[1] > 0 and not y[3:5].any() and np.signbit(y[4])
    np.testing.assert_array_equal(native.unary("sigmoid", x[1:4]), [1, 0, 0.5])
    np.testing.assert_array_equal(native.unary("softplus", x[1:3]), [np.inf, 0])
    tiny = np.array([np.finfo(dtype).smallest_subnormal * 5, np.finfo(dtype).tiny / 3], dtype)
    np.testing.assert_allclose(native.unary("log", tiny), np.log(tiny), rtol=1e-6)


def test_in_place_views_and_other_dtypes():
    x = draw("exp", np.float64, 100).reshape(7, 29)
    y = native.unary("tanh", x.T)
    np.testing.assert_array_equal(y, native.unary("tanh", x).T)
    native.unary("tanh", x, out=x)
    np.testing.assert_array_equal(x, y.T)
    assert native.unary("exp", np.zeros(0, np.float32)).shape == (0,)
    assert native.unary("exp", np.zeros(3, np.float16)) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 5), (300, 101), (7, 6, 40), (2, 70000), (3, 0), (0, 3)]
)
def test_a_row_is_added_to_all(shape, dtype):
    rng = np.random.default_rng(0)
    y, b = (rng.standard_normal(s).astype(dtype) for s in (shape, shape[-1:]))
    want = y + b
    assert native.add_to_rows(y, b)
    np.testing.assert_array_equal(y, want)


def test_a_row_that_does_not_fit_is_not_added():
    y, b = np.zeros((4, 6), np.float32), np.ones(6, np.float32)
    for left, right in ((y.T, b[:4]), (y, b[:1]), (y, b[:4]), (y, b.astype(np.float64)),
                        (y, np.ones(12, np.float32)[::2]), (y.astype(np.float16), b)):  # fmt: skip
        assert not native.add_to_rows(left, right)
    assert not y.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 17, 200_001])
def test_sums_of_two(n, dtype):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(n).astype(dtype) for _ in range(2))
    want = a + b
    np.testing.assert_array_equal(native.add(a, b), want)
    assert native.add(a, b, a) is a
    np.testing.assert_array_equal(a, want)


def test_sums_that_are_numpys_turn():
    x = np.ones((2, 3), np.float32)
    for other in (x[:1], x.astype(np.float64), np.ones((3, 2), np.float32).T):
        assert native.add(x, other) is None
    assert native.add(x.astype(np.int64), x.astype(np.int64)) is None
    assert native.column_sums(x.T) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 3000])
@pytest.mark.parametrize("n", [0, 1, 31, 64, 65, 300])
def test_column_sums(rows, n, dtype):
    x = np.random.default_rng(0).standard_normal((rows, n)).astype(dtype)
    y = native.column_sums(x)
    assert y.shape == (n,) and y.dtype == dtype
    np.testing.assert_allclose(y, x.astype(np.float64).sum(0), rtol=1e-5, atol=1e-4)
