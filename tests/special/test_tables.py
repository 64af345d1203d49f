"""The tables are what they say: their polynomials against mpmath at a few points."""

import pytest

from gpunn.special import _tables as tables

mp = pytest.importorskip("mpmath", reason="mpmath is the reference")


def stirling(x):
    return (x - mp.mpf(1) / 2) * mp.log(x) - x + mp.log(2 * mp.pi) / 2


def zeta_of(x):
    return 2 * mp.sqrt(x) ** 3 / 3


def waves(order):
    """The amplitudes of j and y of x, times x for the second."""

    def parts(x):
        c, size = x - mp.pi / 4 - order * mp.pi / 2, mp.sqrt(mp.pi * x / 2)
        j, y = mp.besselj(order, x), mp.bessely(order, x)
        return (size * (j * mp.cos(c) + y * mp.sin(c)),
                x * size * (y * mp.cos(c) - j * mp.sin(c)))  # fmt: skip

    return parts


def airy_waves(x):
    z = zeta_of(x)
    c, size = z - mp.pi / 4, mp.sqrt(mp.pi * mp.sqrt(x))
    a, b = mp.airyai(-x), mp.airybi(-x)
    return size * (a * mp.cos(c) - b * mp.sin(c)), z * size * (a * mp.sin(c) + b * mp.cos(c))


def without_zeros(order):
    def smooth(x):
        r, s = mp.besseljzero(order, 1), mp.besseljzero(order, 2)
        return mp.besselj(order, x) / ((x**2 - r**2) * (x**2 - s**2) * x**order)

    return smooth


def root_of_digamma():
    return mp.findroot(mp.digamma, 1.4616)


CASES = {  # table: (function of x, variable of x, points x)
    "ERFCX": (lambda x: (1 + 2 * x) * mp.erfc(x) * mp.exp(x * x), lambda x: 1 - 7.5 / (x + 3.75),
              (0.1, 2, 20)),
    "ERF": (lambda x: mp.erf(x) / x, lambda x: 4 * x * x - 1, (0.1, 0.5, 0.7)),
    "LGAMMA": (lambda x: mp.loggamma(x) / ((x - 1) * (x - 2)),
               lambda x: (1 / (x + 1) - mp.mpf(11) / 24) * 4.8, (0.5, 1.3, 2.9)),
    "BINET": (lambda x: x * (mp.loggamma(x) - stirling(x)), lambda x: 18 / x**2 - 1, (3, 7, 90)),
    "DIGAMMA": (lambda x: mp.digamma(x) / (x - root_of_digamma()), lambda x: 8 / (x + 1) - 3,
                (1, 1.8, 2.9)),
    "DIGAMMA_FAR": (lambda x: x * x * (mp.log(x) - 1 / (2 * x) - mp.digamma(x)),
                    lambda x: 18 / x**2 - 1, (3, 7, 90)),
    "I0": (lambda x: mp.besseli(0, x), lambda x: (x / 8) ** 2, (0.5, 4, 8)),
    "I1": (lambda x: mp.besseli(1, x) / x, lambda x: (x / 8) ** 2, (0.5, 4, 8)),
    "I0_FAR": (lambda x: mp.sqrt(x) * mp.exp(-x) * mp.besseli(0, x), lambda x: 16 / x - 1, (8, 50)),
    "I1_FAR": (lambda x: mp.sqrt(x) * mp.exp(-x) * mp.besseli(1, x), lambda x: 16 / x - 1, (8, 50)),
    "K0": (lambda x: mp.besselk(0, x) + mp.log(x / 2) * mp.besseli(0, x),
           lambda x: x * x / 2 - 1, (0.1, 1, 2)),
    "K1": (lambda x: x * (mp.besselk(1, x) - mp.log(x / 2) * mp.besseli(1, x)),
           lambda x: x * x / 2 - 1, (0.1, 1, 2)),
    "K0_FAR": (lambda x: mp.sqrt(x) * mp.exp(x) * mp.besselk(0, x), lambda x: 4 / x - 1, (2, 9)),
    "K1_FAR": (lambda x: mp.sqrt(x) * mp.exp(x) * mp.besselk(1, x), lambda x: 4 / x - 1, (2, 9)),
    "J0": (without_zeros(0), lambda x: x * x / 32 - 1, (0.1, 4, 7.9)),
    "J1": (without_zeros(1), lambda x: x * x / 32 - 1, (0.1, 4, 7.9)),
    "Y0": (lambda x: mp.bessely(0, x) - 2 / mp.pi * mp.log(x) * mp.besselj(0, x),
           lambda x: x * x / 32 - 1, (0.1, 4, 7.9)),
    "Y1": (lambda x: (mp.bessely(1, x) - 2 / mp.pi * (mp.log(x) * mp.besselj(1, x) - 1 / x)) / x,
           lambda x: x * x / 32 - 1, (0.1, 4, 7.9)),
    "P0": (lambda x: waves(0)(x)[0], lambda x: 128 / x**2 - 1, (8, 30)),
    "Q0": (lambda x: waves(0)(x)[1], lambda x: 128 / x**2 - 1, (8, 30)),
    "P1": (lambda x: waves(1)(x)[0], lambda x: 128 / x**2 - 1, (8, 30)),
    "Q1": (lambda x: waves(1)(x)[1], lambda x: 128 / x**2 - 1, (8, 30)),
    "AIRY": (lambda x: mp.exp(x) * mp.airyai(x), lambda x: (2 * x + 1) / 5, (-3, 0, 2)),
    "AIRY_FAR": (lambda x: 2 * mp.sqrt(mp.pi * mp.sqrt(x)) * mp.exp(zeta_of(x)) * mp.airyai(x),
                 lambda x: 2 * zeta_of(2) / zeta_of(x) - 1, (2, 9)),
    "AIRY_COS": (lambda x: airy_waves(x)[0], lambda x: 2 * (zeta_of(3) / zeta_of(x)) ** 2 - 1,
                 (3, 12)),
    "AIRY_SIN": (lambda x: airy_waves(x)[1], lambda x: 2 * (zeta_of(3) / zeta_of(x)) ** 2 - 1,
                 (3, 12)),
    "TEMME": (lambda eta: eta / _mu(eta), lambda eta: eta, (0.05, 0.3, -0.5)),
}  # fmt: skip


def _mu(eta):
    """The mu of eta's sign with eta² / 2 = mu - log(1 + mu)."""
    return mp.findroot(lambda m: m - mp.log(1 + m) - eta**2 / 2, eta + eta**2 / 3)


@pytest.mark.parametrize("name", CASES)
def test_a_table(name):
    function, variable, points = CASES[name]
    coefficients = getattr(tables, name)
    with mp.workdps(40):
        for x in map(mp.mpf, points):
            got = mp.polyval(list(coefficients)[::-1], variable(x))
            wanted = function(x)
            assert abs(got - wanted) <= 3e-16 * max(map(abs, coefficients)), (name, x)


def test_every_table_is_tested():
    assert {n for n in vars(tables) if n.isupper()} == set(CASES)
