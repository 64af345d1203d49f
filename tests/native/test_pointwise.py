"""kernels/pointwise.cpp against NumPy in float64."""

import numpy as np
import pytest

from gpunn import native
from gpunn.native.pointwise import FUNCTIONS

both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
named = pytest.mark.parametrize("name", FUNCTIONS)


def softplus(x):
    return np.logaddexp(0, x)


#: Name -> parameters, f of float64, and where two of its pieces meet.
ROWS = {
    "hardtanh": ((-1.1, 2.3), lambda x: np.clip(x, -1.1, 2.3), (-1.1, 2.3)),
    "hardsigmoid": ((), lambda x: np.clip(x + 3, 0, 6) / 6, (-3, 3)),
    "hardswish": ((), lambda x: x * np.clip(x + 3, 0, 6) / 6, (-3, 3)),
    "hardshrink": ((1.3,), lambda x: x * (abs(x) > 1.3), (-1.3, 1.3)),
    "softshrink": ((0.7,), lambda x: x - np.clip(x, -0.7, 0.7), (-0.7, 0.7)),
    "threshold": ((0.3, 20.0), lambda x: np.where(x > 0.3, x, 20), (0.3,)),
    "leaky_relu": ((0.2,), lambda x: np.maximum(x, 0.2 * x), (0,)),
    "elu": ((1.7, 1.2, 0.7),
            lambda x: 1.2 * np.where(x > 0, x, 1.7 * np.expm1(np.minimum(x, 0) / 0.7)), (0,)),
    "softplus": ((1.5, 25.0), lambda x: np.where(x * 1.5 > 25, x, softplus(1.5 * x) / 1.5), ()),
    "logsigmoid": ((), lambda x: -softplus(-x), ()),
    "mish": ((), lambda x: x * np.tanh(softplus(x)), ()),
}  # fmt: skip


def draw(name, dtype, n=20011):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(n) * 3, rng.uniform(-40, 40, n), [0, 1e-30, -1e-30]])
    for corner in ROWS[name][2]:
        x = x[abs(x - corner) > 1e-3]
    return x.astype(dtype)


@both
@named
def test_values(name, dtype):
    parameters, exact, _ = ROWS[name]
    x = draw(name, dtype)
    y = native.pointwise(name, parameters, x)
    assert y.dtype == dtype
    ulp = np.finfo(dtype).eps
    np.testing.assert_allclose(y, exact(x.astype(np.float64)), rtol=8 * ulp, atol=8 * ulp)


@named
def test_small_results_keep_their_digits(name):
    if name not in ("elu", "softplus", "logsigmoid", "mish"):
        assert native.pointwise(name, ROWS[name][0], np.zeros(3, np.float32)).shape == (3,)
        return
    parameters, exact, _ = ROWS[name]
    x = np.linspace(-12, -1e-6, 3001)
    x = x if name != "logsigmoid" else -x
    for dtype in (np.float32, np.float64):
        z = x.astype(dtype)
        y = native.pointwise(name, parameters, z)
        np.testing.assert_allclose(y, exact(z.astype(np.float64)), rtol=12 * np.finfo(dtype).eps)


@named
def test_gradients_against_differences(name):
    parameters, _, _ = ROWS[name]
    x = draw(name, np.float64, 500)
    dy = np.random.default_rng(1).standard_normal(x.shape)
    f = lambda x: native.pointwise(name, parameters, x)  # noqa: E731
    slope = (f(x + 1e-6) - f(x - 1e-6)) / 2e-6
    dx = native.pointwise_grad(name, parameters, x, dy)
    np.testing.assert_allclose(dx, dy * slope, atol=1e-7)
    single = native.pointwise_grad(name, parameters, x.astype(np.float32), dy.astype(np.float32))
    np.testing.assert_allclose(single, dx, atol=1e-5, rtol=1e-5)


@both
@named
def test_the_ends_of_the_range(name, dtype):
    parameters, exact, _ = ROWS[name]
    x = np.array([np.nan, 1e20, -1e20, np.inf, 800.0, -800.0], dtype)
    with np.errstate(all="ignore"):
        y, wanted = native.pointwise(name, parameters, x), exact(x.astype(np.float64))
    assert np.isnan(y[0]) or name == "threshold"
    np.testing.assert_allclose(y[1:], wanted[1:], rtol=1e-6)


def test_strided_arrays_and_other_dtypes():
    x = np.arange(-10.0, 10.0)
    y = native.pointwise("leaky_relu", (0.5,), x[::2])
    np.testing.assert_array_equal(y, np.maximum(x[::2], x[::2] / 2))
    assert native.pointwise("leaky_relu", (0.5,), np.arange(3)) is None
    assert native.pointwise_grad("mish", (), x, x.astype(np.float32)) is None
