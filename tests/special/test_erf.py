"""The error function's family against Python's math, SciPy and mpmath."""

import importlib
import math

import numpy as np
import pytest
from check import check_grad

import gpunn

module = importlib.import_module("gpunn.special.erf")  # gpunn.special.erf is the function
rng = np.random.default_rng(0)
X = np.concatenate([rng.normal(size=2000) * 3, 10.0 ** rng.uniform(-20, 1, 500)])
EDGES = [0.0, -0.0, math.inf, -math.inf, math.nan]


def call(name, x, dtype=np.float64):
    return getattr(gpunn.special, name)(gpunn.from_numpy(np.asarray(x, dtype))).numpy()


@pytest.mark.parametrize("name", ["erf", "erfc"])
def test_against_math(name):
    wanted = np.array([getattr(math, name)(x) for x in X])
    np.testing.assert_allclose(call(name, X), wanted, rtol=5e-14)
    np.testing.assert_allclose(call(name, X[:200]), wanted[:200], rtol=5e-14)  # NumPy's share
    edges = np.array([getattr(math, name)(x) for x in EDGES])
    np.testing.assert_array_equal(call(name, EDGES), edges)
    assert not np.signbit(call("erf", [0.0])[0]) and np.signbit(call("erf", [-0.0])[0])


def test_erf_of_float32_is_right_to_a_few_units(monkeypatch):
    x = np.linspace(-6, 6, 20001).astype(np.float32)
    wanted = np.array([math.erf(v) for v in x])
    unit = np.spacing(np.abs(wanted).astype(np.float32))
    for native in (module.native.unary, lambda name, x: None):
        monkeypatch.setattr(module.native, "unary", native)
        assert np.max(np.abs(call("erf", x, np.float32) - wanted) / unit) < 3.5
    big = np.broadcast_to(x, (3, x.size)).T  # strided, and more than one block
    np.testing.assert_array_equal(call("erf", big, np.float32)[:, 2], call("erf", x, np.float32))


@pytest.mark.parametrize(
    "name, low, high",
    [("erfcx", -25, 500), ("erfinv", -1, 1), ("ndtr", -37, 9), ("ndtri", 0, 1),
     ("log_ndtr", -500, 8)],
)  # fmt: skip
def test_against_scipy(name, low, high):
    special = pytest.importorskip("scipy.special", reason="SciPy is the reference")
    x = np.concatenate([rng.uniform(low, high, 2000), rng.uniform(-1, 1, 500), EDGES])
    tails = 10.0 ** rng.uniform(-15, -1, 500)
    x = np.concatenate([x, 1 - tails, tails])
    wanted = getattr(special, name)(x)
    np.testing.assert_allclose(call(name, x), wanted, rtol=3e-13)
    narrow = call(name, x.astype(np.float32), np.float32)
    with np.errstate(over="ignore"):
        wanted = getattr(special, name)(x.astype(np.float32).astype(np.float64)).astype(np.float32)
    np.testing.assert_allclose(narrow, wanted, rtol=3e-7)


def test_far_tails_against_mpmath():
    mp = pytest.importorskip("mpmath", reason="mpmath is the reference")
    with mp.workdps(30):
        for x in (5.3, 12.09, 20.7, 26.1):
            assert call("erfc", [x])[0] == pytest.approx(float(mp.erfc(x)), rel=2e-15)
            assert call("ndtr", [-x])[0] == pytest.approx(float(mp.ncdf(-x)), rel=2e-15)
        for x in (-3.1, -40.7, -1e4):
            wanted = mp.log(mp.erfc(-mp.mpf(x) / mp.sqrt(2)) / 2)
            assert call("log_ndtr", [x])[0] == pytest.approx(float(wanted), rel=1e-15)


@pytest.mark.parametrize("pair", [("erf", "erfinv"), ("ndtr", "ndtri")])
def test_inverses(pair):
    x = np.linspace(-2, 2, 101)
    np.testing.assert_allclose(call(pair[1], call(pair[0], x)), x, rtol=1e-12, atol=1e-15)


def test_limits_of_the_inverses():
    np.testing.assert_array_equal(
        call("erfinv", [-1, 1, 1.5, -2, 0]), [-math.inf, math.inf, math.nan, math.nan, 0]
    )
    np.testing.assert_array_equal(
        call("ndtri", [0, 1, -0.1, 1.1, 0.5]), [-math.inf, math.inf, math.nan, math.nan, 0]
    )


@pytest.mark.parametrize("name", ["erf", "erfc", "erfcx", "erfinv", "ndtr", "ndtri", "log_ndtr"])
def test_gradients(name):
    x = rng.uniform(0.1, 0.9, size=(2, 3))
    check_grad(getattr(gpunn.special, name), [x])


def test_names():
    assert gpunn.erf is gpunn.special.erf and gpunn.Tensor.erfinv is gpunn.special.erfinv
    x = gpunn.tensor([0.5])
    assert gpunn.erf_(x) is x and x.item() == pytest.approx(math.erf(0.5))
    assert gpunn.erf(gpunn.tensor([1])).dtype is gpunn.float32
    assert gpunn.erfc(x.bfloat16()).dtype is gpunn.bfloat16


def test_exact_values_at_zero():
    for name, wanted in (("erfcx", 1), ("erfc", 1), ("ndtr", 0.5), ("erfinv", 0)):
        assert call(name, [0.0])[0] == wanted
