"""Bessel and Airy functions against NumPy, SciPy and their identities."""

import math

import numpy as np
import pytest
from check import check_grad

import gpunn

rng = np.random.default_rng(0)
X = np.concatenate([rng.uniform(-20, 20, 1000), rng.uniform(-300, 300, 300), [0.0, 8.0, -8.0]])
P = np.concatenate([rng.uniform(0, 20, 1000), 10.0 ** rng.uniform(-8, 2, 300), [2.0, 8.0]])


def call(name, x, dtype=np.float64):
    return getattr(gpunn.special, name)(gpunn.from_numpy(np.asarray(x, dtype))).numpy()


def test_i0_against_numpy():
    np.testing.assert_allclose(call("i0", X), np.i0(X), rtol=2e-15)
    np.testing.assert_allclose(call("i0e", X), np.i0(X) * np.exp(-abs(X)), rtol=1e-12)
    assert np.isfinite(call("i0", [711.0])[0]) and np.isinf(np.exp(711.0))


SCIPY = {
    "i0": ("i0", X), "i0e": ("i0e", X), "i1": ("i1", X), "i1e": ("i1e", X),
    "modified_bessel_i0": ("i0", X), "modified_bessel_i1": ("i1", X),
    "modified_bessel_k0": ("k0", P), "modified_bessel_k1": ("k1", P),
    "scaled_modified_bessel_k0": ("k0e", P), "scaled_modified_bessel_k1": ("k1e", P),
}  # fmt: skip


@pytest.mark.parametrize("name", SCIPY)
def test_modified_functions_against_scipy(name):
    special = pytest.importorskip("scipy.special", reason="SciPy is the reference")
    reference, x = SCIPY[name]
    np.testing.assert_allclose(call(name, x), getattr(special, reference)(x), rtol=5e-15)


OSCILLATING = {"bessel_j0": "j0", "bessel_j1": "j1", "bessel_y0": "y0", "bessel_y1": "y1"}


@pytest.mark.parametrize("name", OSCILLATING)
def test_oscillating_functions_against_scipy(name):
    special = pytest.importorskip("scipy.special", reason="SciPy is the reference")
    x = P if "y" in name else X
    wanted = getattr(special, OSCILLATING[name])(x)
    np.testing.assert_allclose(call(name, x), wanted, rtol=1e-13, atol=2e-14)


def test_wronskians():
    """J1 Y0 - J0 Y1 = 2 / (pi x) and I0 K1 + I1 K0 = 1 / x: no reference but themselves."""
    x = P[P > 1e-3]
    j0, j1, y0, y1 = (call(n, x) for n in OSCILLATING)
    np.testing.assert_allclose((j1 * y0 - j0 * y1) * x * math.pi / 2, 1, rtol=5e-14)
    i0, i1 = call("i0e", x), call("i1e", x)
    k0, k1 = call("scaled_modified_bessel_k0", x), call("scaled_modified_bessel_k1", x)
    np.testing.assert_allclose((i0 * k1 + i1 * k0) * x, 1, rtol=5e-15)


def test_zeros_of_j():
    assert abs(call("bessel_j0", [2.404825557695773])[0]) < 1e-16
    assert abs(call("bessel_j1", [7.015586669815619])[0]) < 1e-16


def test_airy():
    special = pytest.importorskip("scipy.special", reason="SciPy is the reference")
    x = rng.uniform(-30, 30, 1000)
    np.testing.assert_allclose(call("airy_ai", x), special.airy(x)[0], rtol=1e-12, atol=1e-14)
    far = [4.0, 20.0, 100.0]
    np.testing.assert_allclose(call("airy_ai", far), special.airy(far)[0], rtol=2e-13)
    assert call("airy_ai", [0.0])[0] == pytest.approx(3 ** (-2 / 3) / math.gamma(2 / 3), rel=1e-15)


def test_spherical_j0():
    x = np.array([0.0, 1e-9, 0.3, -2.0, 40.0])
    np.testing.assert_allclose(call("spherical_bessel_j0", x), np.sinc(x / math.pi), rtol=1e-14)


def test_edges():
    inf, nan = math.inf, math.nan
    for name in ("bessel_y0", "bessel_y1"):
        np.testing.assert_array_equal(call(name, [0, -1, nan]), [-inf, nan, nan])
    for name in ("modified_bessel_k0", "scaled_modified_bessel_k1"):
        np.testing.assert_array_equal(call(name, [0, -1, nan]), [inf, nan, nan])
    np.testing.assert_array_equal(call("i1", [0, -0.0]), [0, 0])
    np.testing.assert_array_equal(call("bessel_j0", [0, nan]), [1, nan])
    assert math.isnan(call("airy_ai", [inf])[0]) and call("airy_ai", [150.0])[0] == 0


@pytest.mark.parametrize("name", ["i0", "i0e", "i1", "i1e"])
def test_gradients(name):
    check_grad(getattr(gpunn.special, name), [rng.normal(size=(2, 3)) * 5])
    x = gpunn.zeros(1, requires_grad=True)
    getattr(gpunn.special, name)(x).sum().backward()
    assert x.grad.item() == (0.5 if "1" in name else 0)


def test_no_gradient_where_pytorch_has_none():
    x = gpunn.ones(1, requires_grad=True)
    for name in ("bessel_j0", "airy_ai", "modified_bessel_i0", "scaled_modified_bessel_k1"):
        assert not getattr(gpunn.special, name)(x).requires_grad


def test_float32_is_the_rounded_value():
    x = P.astype(np.float32)
    for name in ("bessel_j1", "modified_bessel_k0", "i0e"):
        wide = call(name, x.astype(np.float64)).astype(np.float32)
        np.testing.assert_array_equal(call(name, x, np.float32), wide)
    y = gpunn.tensor([1.0])
    assert gpunn.i0(gpunn.tensor([1])).dtype is gpunn.float32 and y.i0_() is y
