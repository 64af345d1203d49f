"""Gamma functions against SciPy's."""

import numpy as np
import pytest
from check import check

import gpunn

scipy = pytest.importorskip("scipy.special", reason="SciPy is the reference")
x = np.random.default_rng(0).uniform(0.2, 8, (5, 7))


@pytest.mark.parametrize("name", ["gammaln", "digamma"])
def test_values_and_gradients(name):
    check(getattr(gpunn.special, name), [x], getattr(scipy, name), dtypes=("float64", "float32"))


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_polygamma(n):
    check(lambda t: gpunn.special.polygamma(n, t), [x], lambda t: scipy.polygamma(n, t),
          dtypes=("float64",))  # fmt: skip


def test_incomplete_gamma():
    a = gpunn.tensor(x)
    b = gpunn.tensor(x[::-1].copy())
    np.testing.assert_allclose(gpunn.special.gammainc(a, b).numpy(), scipy.gammainc(x, x[::-1]),
                               rtol=1e-10)  # fmt: skip
    np.testing.assert_allclose(gpunn.special.gammaincc(a, b).numpy(), scipy.gammaincc(x, x[::-1]),
                               rtol=1e-10, atol=1e-300)  # fmt: skip


def test_poles_and_reflection():
    t = gpunn.tensor([-0.5, -1.5, 0.0], dtype=gpunn.float64)
    got = gpunn.lgamma(t).numpy()
    np.testing.assert_allclose(got[:2], scipy.gammaln([-0.5, -1.5]), rtol=1e-12)
    assert np.isinf(got[2])
