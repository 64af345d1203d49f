"""Bessel functions against SciPy's."""

import numpy as np
import pytest

import gpunn

scipy = pytest.importorskip("scipy.special", reason="SciPy is the reference")
x = np.random.default_rng(0).uniform(0.1, 20, 200)
NAMES = {"i0": "i0", "i0e": "i0e", "i1": "i1", "i1e": "i1e", "bessel_j0": "j0", "bessel_j1": "j1",
         "bessel_y0": "y0", "bessel_y1": "y1", "modified_bessel_i0": "i0",
         "modified_bessel_k0": "k0", "modified_bessel_k1": "k1",
         "scaled_modified_bessel_k0": "k0e"}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_values(name):
    got = getattr(gpunn.special, name)(gpunn.tensor(x)).numpy()
    np.testing.assert_allclose(got, getattr(scipy, NAMES[name])(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name, slope", [("i0", scipy.i1), ("i0e", None)])
def test_gradients(name, slope):
    t = gpunn.tensor(x, requires_grad=True)
    getattr(gpunn.special, name)(t).sum().backward()
    wanted = scipy.i1(x) if slope else scipy.i1e(x) - scipy.i0e(x)
    np.testing.assert_allclose(t.grad.numpy(), wanted, rtol=1e-8)
