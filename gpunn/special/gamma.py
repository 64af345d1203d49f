"""The gamma function's family: lgamma, digamma, polygamma, mvlgamma, zeta, igamma, igammac.

Between 0.5 and 3 lgamma and digamma are polynomials times their zeros; above, Stirling's formula
with its correction as a polynomial; below, the recurrence and the reflection formula. (NIST
Digital Library of Mathematical Functions, chapters 5, 8 and 25.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import half, inplace, on, publish, unary, write_out
from gpunn.special import _tables as table
from gpunn.special._series import computed, horner, special
from gpunn.special.erf import erfc_array
from gpunn.tensor import Tensor

_LOG_PI = math.log(math.pi)
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
digamma: Any  # used in the gradient of lgamma

# --- bodies: float64 arrays in, float64 arrays out ----------------------------------------


def _binet(x: Any, xp: Any) -> Any:
    """What Stirling's formula lacks to lgamma(x), x >= 3."""
    return horner(18 / (x * x) - 1, table.BINET) / x


def _lgamma_near(x: Any, before: Any) -> Any:
    """lgamma(x) of 0.5 <= x <= 3, `before` = x - 1."""
    return before * (x - 2) * horner((1 / (x + 1) - 11 / 24) * 4.8, table.LGAMMA)


def lgamma_array(x: Any, xp: Any) -> Any:
    """log |gamma(x)| of a float64 array."""
    z = xp.where(x <= 0, 1 - x, x)
    low = z < 0.5
    z = xp.where(low, z + 1, z)
    near = xp.minimum(z, 3.0)
    far = xp.maximum(z, 3.0)
    y = xp.where(
        z < 3, _lgamma_near(near, near - 1),
        (far - 0.5) * (xp.log(far) - 1) + (_HALF_LOG_2PI - 0.5) + _binet(far, xp),
    )  # fmt: skip
    y = xp.where(low, y - xp.log(xp.where(low, x, 1.0)), y)
    if not (x <= 0).any():
        return y
    mirrored = _LOG_PI - xp.log(abs(xp.sin(math.pi * (x - xp.rint(x))))) - y
    whole = (x <= 0) & (x == xp.floor(x))
    return xp.where(whole, np.inf, xp.where(x <= 0, mirrored, y))


def digamma_array(x: Any, xp: Any) -> Any:
    """The derivative of log gamma(x) of a float64 array."""
    z = xp.where(x <= 0, 1 - x, x)
    low = z < 1
    z = xp.where(low, z + 1, z)
    near = xp.minimum(z, 3.0)
    far = xp.maximum(z, 3.0)
    to_root = (near - 1.4616321449683622) - 9.549995429965697e-17
    square = far * far
    y = xp.where(
        z < 3, to_root * horner(8 / (near + 1) - 3, table.DIGAMMA),
        xp.log(far) - 0.5 / far - horner(18 / square - 1, table.DIGAMMA_FAR) / square,
    )  # fmt: skip
    y = xp.where(low, y - 1 / xp.where(low, x, 1.0), y)
    if not (x <= 0).any():
        return y
    mirrored = y - math.pi / xp.tan(math.pi * (x - xp.rint(x)))
    mirrored = xp.where(x == xp.floor(x), np.nan, mirrored)
    mirrored = xp.where(x == 0, xp.copysign(np.inf, -x), mirrored)
    return xp.where(x <= 0, mirrored, y)


# B(2k) / (2k)!, for the Euler-Maclaurin formula
_BERNOULLI = tuple(
    b / math.factorial(2 * k + 2) for k, b in enumerate((
        1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798,
        -174611 / 330, 854513 / 138, -236364091 / 2730,
    ))
)  # fmt: skip


def _zeta_of_positive(s: Any, q: Any) -> Any:
    """The sum of (q + k)**-s, q > 0: ten terms, the rest by the Euler-Maclaurin formula."""
    total = q**-s
    for k in range(1, 10):
        total += (q + k) ** -s
    a = q + 10
    power = a**-s
    total += power * a / (s - 1) + 0.5 * power
    factor = s * power / a
    for k, b in enumerate(_BERNOULLI):
        total += b * factor
        factor *= (s + (2 * k + 1)) * (s + (2 * k + 2)) / (a * a)
    return total


def zeta_array(s: Any, q: Any, xp: Any) -> Any:
    """Hurwitz' zeta function of float64 arrays; negative q for whole s."""
    below = q < 0
    rest = xp.where(below, xp.ceil(q) - q, 0.5)  # the terms below 0, and then the first above it
    y = _zeta_of_positive(s, xp.where(below, 1 - rest, q))
    if below.any():
        sign = xp.where(s % 2 == 0, 1.0, -1.0)
        size = xp.where(below, -q, 1.0)
        terms = sign * (_zeta_of_positive(s, rest) - _zeta_of_positive(s, size + 1))
        y = xp.where(below, xp.where(s == xp.floor(s), y + terms, np.nan), y)
    y = xp.where((q <= 0) & (q == xp.floor(q)), np.inf, y)
    return xp.where(s == 1, np.inf, xp.where((s < 1) | (q != q), np.nan, y))


def polygamma_array(n: int, x: Any, xp: Any) -> Any:
    """The derivative number n of digamma of a float64 array."""
    if n == 0:
        return digamma_array(x, xp)
    size = float(math.factorial(n)) if n <= 170 else math.inf
    return (size if n % 2 else -size) * zeta_array(xp.full_like(x, n + 1), x, xp)


# --- the incomplete gamma functions -------------------------------------------------------


def _log1p_rest(m: Any) -> Any:
    """m - log(1 + m) for |m| <= 0.6, without cancellation."""
    r = m / (2 + m)
    z = r * r
    tail = 1 / 49
    for k in range(47, 1, -2):
        tail = tail * z + 1 / k
    return m * r - 2 * r * z * tail


def _front(a: Any, x: Any, xp: Any) -> Any:
    """x**a exp(-x) / gamma(a + 1)."""
    m = xp.clip((x - a) / a, -0.6, 0.6)
    ratio = x / a
    rest = xp.where(abs(ratio - 1) < 0.6, _log1p_rest(m), ratio - 1 - xp.log(ratio))
    large = xp.maximum(a, 3.0)
    far = xp.exp(-a * rest - _binet(large, xp)) / xp.sqrt(2 * math.pi * a)
    return xp.where(a < 3, xp.exp(a * xp.log(x) - x - lgamma_array(a + 1, xp)), far)


def _lower_series(a: Any, x: Any) -> Any:
    """1 + x / (a + 1) + x² / ((a + 1)(a + 2)) + ...: lower(a, x) over `_front`."""
    term, total = x / (a + 1), 1 + x / (a + 1)
    for n in range(2, 1000):
        term = term * x / (a + n)
        total = total + term
        if not (term > total * 1e-17).any():
            break
    return total


def _upper_fraction(a: Any, x: Any, xp: Any) -> Any:
    """gamma(a, x) / (x**a exp(-x)) for x > a + 1 or so: Lentz' method."""
    b = x + 1 - a
    c, d = xp.full_like(x, 1e300), 1 / b
    y, open_ = d, x == x
    for n in range(1, 1000):
        step = n * (a - n)
        b = b + 2
        d = 1 / (b + step * d)
        c = b + step / c
        change = c * d
        y = xp.where(open_, y * change, y)
        open_ &= abs(change - 1) > 3e-16
        if not open_.any():
            break
    return y


def _upper_of_small(a: Any, x: Any, xp: Any) -> Any:
    """The upper function for x <= 1.1, a <= 1.1: the series of DLMF 8.7.3; tiny values, too."""
    log_gamma = _lgamma_near(1 + a, a)
    term, total = -x, -x / (a + 1)
    for n in range(2, 40):
        term = term * -x / n
        total = total + term / (a + n)
    power = a * xp.log(x) - log_gamma
    return -xp.expm1(power) - a * xp.exp(power) * total


def _uniform(a: Any, x: Any, sign: float, xp: Any) -> Any:
    """Both functions for a >= 12 and x near a (sign 1: upper): Temme's uniform expansion.

    Source: N. M. Temme, "The asymptotic expansion of the incomplete gamma functions" (SIAM
    Journal on Mathematical Analysis 10, 1979).
    """
    m = (x - a) / a
    rest = _log1p_rest(m)
    eta = xp.copysign(xp.sqrt(2 * rest), m)
    f = table.TEMME
    b, later = f[-1] + 0 * a, f[-1] * 0  # coefficients k and k + 1 of a series in eta
    total = b
    for k in range(len(f) - 3, -1, -1):
        b, later = f[k + 1] + (k + 2) * later / a, b
        total = total * eta + b
    correction = xp.exp(-a * rest) / xp.sqrt(2 * math.pi * a) * total / (1 + later / a)
    return erfc_array(sign * eta * xp.sqrt(a / 2), xp) / 2 + sign * correction


def _incomplete(upper: bool) -> Any:
    def body(a: Any, x: Any, xp: Any) -> Any:
        y = xp.full_like(x, np.nan)
        usual = (a > 0) & (x > 0) & xp.isfinite(a) & xp.isfinite(x)
        uniform = usual & (a >= 12) & (abs(x - a) < 0.6 * a)
        small = usual & (a <= 1.1) & (x <= 1.1)
        far = usual & ~uniform & ~small & (x > a + 1)
        near = usual & ~uniform & ~far & ~(small if upper else uniform)

        def fill(mask: Any, f: Any) -> None:
            if mask.any():
                y[mask] = f(a[mask], x[mask])

        fill(uniform, lambda a, x: _uniform(a, x, 1.0 if upper else -1.0, xp))
        if upper:
            fill(small, lambda a, x: _upper_of_small(a, x, xp))
        fill(near, lambda a, x: _turned(upper, _front(a, x, xp) * _lower_series(a, x)))
        fill(far, lambda a, x: _turned(
            not upper, a * _front(a, x, xp) * _upper_fraction(a, x, xp)))  # fmt: skip
        zero, one = (1.0, 0.0) if upper else (0.0, 1.0)
        y = xp.where((a >= 0) & (x == 0) & ~(a == 0), zero, y)
        y = xp.where((a == 0) & (x > 0), one, y)
        y = xp.where((a == np.inf) & ~(x < 0) & ~xp.isinf(x), zero, y)
        return xp.where((x == np.inf) & ~(a < 0) & ~xp.isinf(a), one, y)

    return body


def _turned(other: bool, y: Any) -> Any:
    """One of the two functions from the other: they add to 1."""
    return 1 - y if other else y


# --- the functions ------------------------------------------------------------------------


def _lgamma_cupy(theirs: Any, x: Any) -> Any:
    """CuPy's lgamma, like SciPy's, is -inf at -inf; PyTorch's is inf there."""
    return theirs.gammaln(ns(x).where(x == -np.inf, np.inf, x))


lgamma = special("lgamma", lgamma_array, lambda g, x: g * on(digamma, x), 0,
                 "The logarithm of |gamma(x)|.", "4.", "1.7918", cupy=_lgamma_cupy,
                 prefix="", at_top=True)  # fmt: skip
digamma = special("digamma", digamma_array, lambda g, x: g * on(_polygamma(1), x), 0,
                  "The derivative of lgamma.", "1.", "-0.5772", cupy="digamma",
                  prefix="", at_top=True)  # fmt: skip
gammaln, psi = lgamma, digamma
_rows: dict[int, Any] = {0: digamma}


def _polygamma(n: int) -> Any:
    """The row of the derivative number n of digamma."""
    if n not in _rows:
        _rows[n] = unary(
            "polygamma", computed(lambda x, xp: polygamma_array(n, x, xp)),
            lambda g, x: g * on(_polygamma(n + 1), x), to_float=True, refuses="c",
        )  # fmt: skip
    return _rows[n]


def polygamma(n: int, input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The derivative number n of digamma.

    Shapes: any; the result has the same. dtypes: real; integers give the default float.
    RuntimeError for negative n.
    Source: https://docs.pytorch.org/docs/stable/special.html#torch.special.polygamma

    >>> gpunn.polygamma(1, gpunn.tensor([1.]))
    tensor([1.6449])
    """
    if n < 0:
        raise RuntimeError(f"polygamma(n, x) does not support negative n, got n = {n}.")
    return _polygamma(n)(input, out=out)


def mvlgamma(input: Tensor, p: int, *, out: Tensor | None = None) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension p.

    Shapes: any; the result has the same. RuntimeError for p < 1.
    Source: https://docs.pytorch.org/docs/stable/special.html#torch.special.multigammaln

    >>> gpunn.mvlgamma(gpunn.tensor([2.]), 2)
    tensor([0.4516])
    """
    if p < 1:
        raise RuntimeError(f"p has to be greater than or equal to 1, got {p} (mvlgamma)")
    if input.dtype.category < dtypes.FLOATING:
        input = input.to(dtypes.get_default_dtype())  # type: ignore[attr-defined]
    if half(input.array.dtype):  # rounded once, at the end
        made = mvlgamma(input.float(), p).to(input.dtype)  # type: ignore[attr-defined]
        return made if out is None else write_out(out, made, "mvlgamma")
    total = lgamma(input)
    for j in range(1, p):
        total = total + lgamma(input - 0.5 * j)
    made = total + p * (p - 1) / 4 * _LOG_PI
    return made if out is None else write_out(out, made, "mvlgamma")


multigammaln = mvlgamma


def _no_gradient(name: str, wanted: Any) -> None:
    if wanted is not None:
        raise RuntimeError(f"the derivative for '{name}' is not implemented.")


def _zeta_vjp(g: Any, wanted: Any, s: Any, q: Any) -> Any:
    _no_gradient("zeta", wanted)
    slope = zeta(s + 1, q) if isinstance(g, Tensor) else zeta.on_arrays(s + 1, q)
    return None, g * (-s * slope)


zeta = special("zeta", zeta_array, _zeta_vjp, "b?a a b",
               "Hurwitz' zeta function: the sum of (other + k) ** -input over k = 0, 1, 2, ...",
               "2.; 1.", "1.6449", cupy="zeta")  # fmt: skip


def _gamma_density(g: Any, a: Any, x: Any) -> Any:
    xp = ns(g)
    return g * xp.exp((a - 1) * xp.log(x) - x - on(lgamma, a))


def _igamma_vjp(g: Any, wanted: Any, a: Any, x: Any) -> Any:
    _no_gradient("igamma: input", wanted)
    return None, _gamma_density(g, a, x)


def _igammac_vjp(g: Any, wanted: Any, a: Any, x: Any) -> Any:
    _no_gradient("igammac: input", wanted)
    return None, -_gamma_density(g, a, x)


_INCOMPLETE: dict[str, Any] = {"to_float": False, "refuses": "biuc", "prefix": "",
                               "at_top": True}  # fmt: skip
igamma = gammainc = special(
    "igamma", _incomplete(False), _igamma_vjp, "b?a a b",
    "The regularised lower incomplete gamma function P(input, other).", "4.; 3.", "0.3528",
    cupy="gammainc", **_INCOMPLETE,
)  # fmt: skip
igammac = gammaincc = special(
    "igammac", _incomplete(True), _igammac_vjp, "b?a a b",
    "The regularised upper incomplete gamma function Q(input, other).", "4.; 3.", "0.6472",
    cupy="gammaincc", **_INCOMPLETE,
)  # fmt: skip


def _polygamma_method(self: Tensor, n: int) -> Tensor:
    """The derivative number n of digamma: see `gpunn.polygamma`."""
    return polygamma(n, self)


_METHODS = ["digamma", "igamma", "igammac", "lgamma", "mvlgamma"]
publish(globals(), _METHODS, _METHODS)
Tensor.polygamma = _polygamma_method  # type: ignore[attr-defined]
Tensor.polygamma_ = inplace(_polygamma_method, "polygamma")  # type: ignore[attr-defined]
__all__ = [*_METHODS, "polygamma"]
