"""Orthogonal polynomials against NumPy's."""

import math

import numpy as np
import pytest
from numpy.polynomial import chebyshev, hermite, hermite_e, laguerre, legendre

import gpunn

X = np.linspace(-1.7, 1.7, 41)


def call(name, x, n):
    return getattr(gpunn.special, name)(gpunn.from_numpy(np.asarray(x)), n).numpy()


def basis(n):
    return [0] * n + [1]


NUMPY = {
    "chebyshev_polynomial_t": chebyshev.chebval, "hermite_polynomial_h": hermite.hermval,
    "hermite_polynomial_he": hermite_e.hermeval, "laguerre_polynomial_l": laguerre.lagval,
    "legendre_polynomial_p": legendre.legval,
}  # fmt: skip


@pytest.mark.parametrize("n", [0, 1, 2, 5, 9, 12])
@pytest.mark.parametrize("name", NUMPY)
def test_against_numpy(name, n):
    wanted = NUMPY[name](X, basis(n))
    size = np.abs(wanted).max() + 1
    np.testing.assert_allclose(call(name, X, n), wanted, rtol=1e-11, atol=1e-13 * size)


@pytest.mark.parametrize("n", [0, 1, 3, 8, 9, 20])
def test_chebyshev_polynomials_by_their_angles(n):
    a = np.linspace(0.1, 3.0, 30)
    x = np.cos(a)
    wanted = {
        "u": np.sin((n + 1) * a) / np.sin(a), "v": np.cos((n + 0.5) * a) / np.cos(a / 2),
        "w": np.sin((n + 0.5) * a) / np.sin(a / 2), "t": np.cos(n * a),
    }  # fmt: skip
    for kind, values in wanted.items():
        name = f"chebyshev_polynomial_{kind}"
        np.testing.assert_allclose(call(name, x, n), values, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(call(f"shifted_{name}", (x + 1) / 2, n), values, rtol=1e-8,
                                   atol=1e-10)  # fmt: skip


@pytest.mark.parametrize("n", [2, 3, 10, 11])
def test_ends(n):
    ends = np.array([1.0, -1.0])
    sign = 1 if n % 2 == 0 else -1
    assert call("chebyshev_polynomial_t", ends, n).tolist() == [1, sign]
    assert call("chebyshev_polynomial_u", ends, n).tolist() == [n + 1, sign * (n + 1)]
    assert call("chebyshev_polynomial_v", ends, n).tolist() == [1, sign * (2 * n + 1)]
    assert call("chebyshev_polynomial_w", ends, n).tolist() == [2 * n + 1, sign]
    assert call("legendre_polynomial_p", ends, n).tolist() == [1, sign]
    assert call("laguerre_polynomial_l", [0.0], n).tolist() == [1]


def test_degrees_are_tensors():
    x, n = gpunn.tensor([[0.5], [2.0]]), gpunn.tensor([-1, 0, 1, 2])
    y = gpunn.special.chebyshev_polynomial_t(x, n)
    assert y.tolist() == [[0, 1, 0.5, -0.5], [0, 1, 2, 7]]
    assert gpunn.special.hermite_polynomial_h(2.0, gpunn.tensor([2.9])).item() == 14
    assert gpunn.special.legendre_polynomial_p(gpunn.tensor([2]), n=2).item() == 5.5
    assert not gpunn.special.laguerre_polynomial_l(x.requires_grad_(), n).requires_grad
    out = gpunn.empty(2, 1)
    assert gpunn.special.hermite_polynomial_he(x.detach(), 1, out=out) is out


def test_degrees_beyond_all_numbers():
    x = gpunn.tensor([0.5, 3.0])
    for n in (math.nan, math.inf, 1e30):
        assert gpunn.special.chebyshev_polynomial_t(x, n).tolist() == [0, 0]
    assert gpunn.special.hermite_polynomial_h(x, 10_000).isnan().all()  # inf - inf
    assert gpunn.special.chebyshev_polynomial_u(x[:1], 10**6).abs().item() < 2
