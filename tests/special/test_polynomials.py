"""Orthogonal polynomials against SciPy's."""

import numpy as np
import pytest

import gpunn

scipy = pytest.importorskip("scipy.special", reason="SciPy is the reference")
x = np.linspace(-0.95, 0.95, 21)
NAMES = {
    "chebyshev_polynomial_t": "eval_chebyt", "chebyshev_polynomial_u": "eval_chebyu",
    "hermite_polynomial_h": "eval_hermite", "hermite_polynomial_he": "eval_hermitenorm",
    "laguerre_polynomial_l": "eval_laguerre", "legendre_polynomial_p": "eval_legendre",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_values(name, n):
    got = getattr(gpunn.special, name)(gpunn.tensor(x), n).numpy()
    np.testing.assert_allclose(got, getattr(scipy, NAMES[name])(n, x), rtol=1e-10, atol=1e-12)
