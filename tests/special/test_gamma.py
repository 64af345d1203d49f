"""The gamma function's family against Python's math, SciPy and identities."""

import math

import numpy as np
import pytest
from check import check_grad

import gpunn

rng = np.random.default_rng(0)
POSITIVE = np.concatenate([rng.uniform(0, 20, 1000), 10.0 ** rng.uniform(-10, 6, 500)])
NEGATIVE = -rng.uniform(0, 20, 500)


def double(x):
    return gpunn.from_numpy(np.asarray(x, np.float64))


def test_lgamma():
    wanted = np.array([math.lgamma(x) for x in POSITIVE])
    np.testing.assert_allclose(gpunn.lgamma(double(POSITIVE)).numpy(), wanted, rtol=3e-14)
    wanted = np.array([math.lgamma(x) for x in NEGATIVE])
    np.testing.assert_allclose(gpunn.lgamma(double(NEGATIVE)).numpy(), wanted, atol=1e-13)
    edges = gpunn.lgamma(double([0, -0.0, -3, math.inf, -math.inf, 1, 2])).tolist()
    assert edges == [math.inf] * 5 + [0, 0]
    step = 2.0**-30  # next to its zeros it is right, too
    near = gpunn.lgamma(double(1 + step)).item()
    assert near == pytest.approx(-np.euler_gamma * step, rel=2e-9)


def test_digamma():
    x = double(np.concatenate([POSITIVE[POSITIVE > 1e-3], NEGATIVE]))
    step = gpunn.digamma(x + 1) - gpunn.digamma(x) - 1 / x  # the recurrence
    assert (step.abs() <= 1e-13 * (1 + gpunn.digamma(x).abs())).all()
    assert gpunn.digamma(double(1)).item() == pytest.approx(-np.euler_gamma, rel=1e-15)
    assert gpunn.digamma(double(0.5)).item() == pytest.approx(
        -np.euler_gamma - 2 * math.log(2), rel=1e-15
    )
    edges = gpunn.digamma(double([0, -0.0, -2, math.inf])).tolist()
    assert edges[:2] == [-math.inf, math.inf] and math.isnan(edges[2]) and edges[3] == math.inf


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_polygamma(n):
    special = pytest.importorskip("scipy.special", reason="SciPy is the reference")
    x = POSITIVE[POSITIVE > 1e-6]
    np.testing.assert_allclose(
        gpunn.polygamma(n, double(x)).numpy(), special.polygamma(n, x), rtol=5e-14
    )
    x = double(NEGATIVE)
    sign = -1 if n % 2 else 1  # psi(n, x + 1) = psi(n, x) + (-1)**n n! / x**(n + 1)
    jump = sign * math.factorial(n) / x ** (n + 1)
    a, b = gpunn.polygamma(n, x + 1), gpunn.polygamma(n, x)
    assert ((a - b - jump).abs() <= 1e-12 * (1 + a.abs() + b.abs() + jump.abs())).all()


def test_polygamma_forms():
    x = double([1.5])
    assert x.polygamma(1).item() == gpunn.special.polygamma(1, x).item()
    assert x.clone().polygamma_(2).item() == gpunn.polygamma(2, x).item()
    assert gpunn.polygamma(1, gpunn.tensor([1])).dtype is gpunn.float32
    with pytest.raises(RuntimeError, match="does not support negative n"):
        gpunn.polygamma(-1, x)


def test_mvlgamma():
    x = double([2.5, 4.0])
    wanted = [
        math.log(math.pi) * 3 / 2 + sum(math.lgamma(v - j / 2) for j in range(3)) for v in (2.5, 4)
    ]
    np.testing.assert_allclose(gpunn.mvlgamma(x, 3).numpy(), wanted)
    assert gpunn.special.multigammaln is gpunn.mvlgamma
    assert gpunn.mvlgamma(gpunn.tensor([3]), p=1).item() == pytest.approx(math.log(2))
    with pytest.raises(RuntimeError, match="p has to be greater than or equal to 1"):
        gpunn.mvlgamma(x, 0)


def test_zeta():
    s = double([2, 4, 2, 3])
    q = double([1, 1, 0.5, 2])
    wanted = [math.pi**2 / 6, math.pi**4 / 90, math.pi**2 / 2, 1.2020569031595942 - 1]
    np.testing.assert_allclose(gpunn.special.zeta(s, q).numpy(), wanted, rtol=1e-14)
    special = pytest.importorskip("scipy.special", reason="SciPy is the reference")
    s, q = rng.uniform(1.01, 30, 500), 10.0 ** rng.uniform(-3, 3, 500)
    np.testing.assert_allclose(
        gpunn.special.zeta(double(s), double(q)).numpy(), special.zeta(s, q), rtol=1e-13
    )
    edges = gpunn.special.zeta(double([1, 0.5, 2, 2.5, 2]), double([2, 2, -1, -1.5, -1.5]))
    assert edges[[0, 2]].tolist() == [math.inf] * 2 and edges[[1, 3]].isnan().all()
    assert edges[4].item() == pytest.approx(9.377, abs=3e-3)


@pytest.mark.parametrize("size", [0.01, 1, 11, 13, 100, 1e4])
def test_incomplete_gamma(size):
    special = pytest.importorskip("scipy.special", reason="SciPy is the reference")
    a = size * rng.uniform(0.5, 2, 300)
    x = a * np.exp(rng.normal(size=300) * min(3, 2 / math.sqrt(size)))
    for f, reference in ((gpunn.igamma, special.gammainc), (gpunn.igammac, special.gammaincc)):
        got = f(double(a), double(x)).numpy()
        np.testing.assert_allclose(got, reference(a, x), rtol=1e-11, atol=2e-15)
    total = gpunn.igamma(double(a), double(x)) + gpunn.igammac(double(a), double(x))
    np.testing.assert_allclose(total.numpy(), 1, rtol=1e-14)


def test_incomplete_gamma_of_a_large_order():
    got = gpunn.igamma(double(971749.3937838514), double(967256.0505096308))
    assert got.item() == pytest.approx(2.4987011157127967e-06, rel=1e-13)  # by quadrature


def test_incomplete_gamma_of_whole_orders():
    """Q(n, x) is exp(-x) times the first n terms of the series of exp(x)."""
    x = np.linspace(0.1, 60, 50)
    for n in (1, 2, 15, 40):
        wanted = np.exp(-x) * sum(x**k / math.factorial(k) for k in range(n))
        got = gpunn.igammac(double(float(n)), double(x)).numpy()
        np.testing.assert_allclose(got, wanted, rtol=2e-13)


def test_limits_of_incomplete_gamma():
    inf, nan = math.inf, math.nan
    a = double([0, 0, 1, inf, 1, inf, -1, 1])
    x = double([0, 1, 0, 1, inf, inf, 1, -1])
    np.testing.assert_array_equal(gpunn.igamma(a, x).numpy(), [nan, 1, 0, 0, 1, nan, nan, nan])
    np.testing.assert_array_equal(gpunn.igammac(a, x).numpy(), [nan, 0, 1, 1, 0, nan, nan, nan])
    with pytest.raises(RuntimeError, match="igamma_cpu"):
        gpunn.igamma(gpunn.tensor([1]), gpunn.tensor([1]))


def test_gradients():
    x = rng.uniform(0.3, 4, size=(2, 3))
    for f in (gpunn.lgamma, gpunn.digamma, lambda x: gpunn.polygamma(2, x),
              lambda x: gpunn.mvlgamma(x + 2, 3), lambda x: gpunn.igamma(double(2.5), x),
              lambda x: gpunn.igammac(double(2.5), x),
              lambda x: gpunn.special.zeta(double(3.5), x)):  # fmt: skip
        check_grad(f, [x])


@pytest.mark.parametrize(
    "f, name", [(gpunn.igamma, "igamma: input"), (gpunn.special.zeta, "zeta")]
)
def test_gradients_that_pytorch_has_not(f, name):
    a = double([2.5]).requires_grad_()
    with pytest.raises(RuntimeError, match=f"derivative for '{name}' is not implemented"):
        f(a, double([1.5])).sum().backward()


def test_float32_is_the_rounded_value():
    x = POSITIVE.astype(np.float32)
    wide = gpunn.lgamma(double(x)).numpy().astype(np.float32)
    np.testing.assert_array_equal(gpunn.lgamma(gpunn.from_numpy(x)).numpy(), wide)
    assert gpunn.special.gammaln is gpunn.lgamma and gpunn.special.psi is gpunn.digamma
