"""The error function and the normal distribution: erf, erfc, erfcx, erfinv, ndtr, ndtri, log_ndtr.

erfcx(x) = exp(x²) erfc(x) is smooth and of one polynomial on the whole half-line x >= 0 in the
variable of Shepherd and Laframboise, "Chebyshev approximation of (1 + 2x) exp(x²) erfc x in
0 <= x < inf" (Mathematics of Computation 36, 1981); the others follow from it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn import native
from gpunn.autograd.graph import namespace as ns
from gpunn.dtypes import F32
from gpunn.ops._rows import on, public, publish
from gpunn.special import _tables as table
from gpunn.special._series import computed, horner, special

_ROOT_HALF = math.sqrt(0.5)
_ROOT_PI = math.sqrt(math.pi)
erfcx: Any  # used in gradients before it is made

# --- bodies: float64 arrays in, float64 arrays out ----------------------------------------


def erfcx_of_positive(x: Any) -> Any:
    """erfcx(x) of x >= 0."""
    return horner(1 - 7.5 / (x + 3.75), table.ERFCX) / (1 + 2 * x)


def exp_of_square(x: Any, factor: float, xp: Any) -> Any:
    """exp(factor x²) without the rounding error of x²: for x >= 0, 40 taken where it is more."""
    x = xp.minimum(x, 40.0)
    high = xp.floor(x * 16) / 16  # its square is exact
    return xp.exp(factor * high * high) * xp.exp(factor * (x - high) * (x + high))


def _erfcx(x: Any, xp: Any) -> Any:
    a = abs(x)
    y = erfcx_of_positive(a)
    return xp.where(x < 0, 2 * exp_of_square(a, 1, xp) - y, y)


def _erf_near(x: Any, xp: Any) -> Any:
    """erf(x) of |x| <= sqrt(1/2), of those beyond it something else."""
    x = xp.clip(x, -_ROOT_HALF, _ROOT_HALF)
    return x * horner(4 * x * x - 1, table.ERF)


def erfc_array(x: Any, xp: Any) -> Any:
    """erfc(x) of a float64 array."""
    a = abs(x)
    y = exp_of_square(a, -1, xp) * erfcx_of_positive(a)
    return xp.where(a < 0.5, 1 - _erf_near(x, xp), xp.where(x < 0, 2 - y, y))


def erf_array(x: Any, xp: Any) -> Any:
    """erf(x) of a float64 array."""
    a = xp.minimum(abs(x), 6.0)
    far = xp.copysign(1 - xp.exp(-a * a) * erfcx_of_positive(a), x)
    return xp.where(a < _ROOT_HALF, _erf_near(x, xp), far)


_ERF32 = (1.12837925, 0.102769861, -1.95278218e-4, -6.14849258e-4, 8.46019776e-5, -4.79587914e-6,
          2.77165204e-8, 5.41588254e-9)  # fmt: skip


def _erf32(x: Any) -> Any:
    """erf(x) of a float32 array: tanh(x p(x²)), p fitted to atanh(erf(x)) / x for |x| <= 4.

    Within 3.1 units in the last place; NumPy's tanh is the quickest function of this shape.
    """
    x = np.clip(x, -4.0, 4.0)
    z = x * x
    y = z * _ERF32[-1]
    for c in _ERF32[-2:0:-1]:
        y += c
        y *= z
    y += _ERF32[0]
    y *= x
    return np.tanh(y)


_erf64 = computed(erf_array, "erf")


def erf_forward(x: Any, xp: Any) -> Any:
    """erf of a raw float32 or float64 array of any shape."""
    if x.size > 256 and xp is np:
        y = native.unary("erf", x)
        if y is not None:
            return y
    if xp is not np or x.dtype is not F32:
        return _erf64(x, xp)
    if x.size <= 16384:
        return _erf32(x)
    flat = x.reshape(-1)
    y = np.empty(flat.shape, F32)
    for i in range(0, flat.size, 16384):
        y[i : i + 16384] = _erf32(flat[i : i + 16384])
    return y.reshape(x.shape)


_GILES = (1.50140941, 0.246640727, -0.00417768164, -0.00125372503, 0.00021858087, -4.39150654e-06,
          -3.5233877e-06, 3.43273939e-07, 2.81022636e-08)  # fmt: skip


def _erfinv_near(x: Any, xp: Any) -> Any:
    """For |x| <= 0.7: Giles' approximation, then one step of Halley's method.

    Source: M. Giles, "Approximating the erfinv function" (GPU Computing Gems, 2011).
    """
    w = -xp.log1p(-x * x) - 2.5
    y = x * horner(w, _GILES)
    error = (erf_array(y, xp) - x) * (_ROOT_PI / 2) * xp.exp(y * y)
    return y - error / (1 + y * error)


def _normal_tail(q: Any, xp: Any) -> Any:
    """The y >= 0 with P(normal > y) = q, for 0 <= q <= 0.2, by Halley's method on log P.

    It starts from formula 26.2.23 of Abramowitz and Stegun, right to 5e-4.
    """
    log_q = xp.log(q)
    t = xp.sqrt(-2 * log_q)
    y = t - horner(t, (2.515517, 0.802853, 0.010328)) / horner(
        t, (1.0, 1.432788, 0.189269, 0.001308)
    )
    for _ in range(2):
        tail = erfcx_of_positive(y * _ROOT_HALF)
        error = xp.log(tail / 2) - y * y / 2 - log_q
        slope = math.sqrt(2 / math.pi) / tail  # of -log P
        y = y + 2 * error * slope / (2 * slope * slope + error * slope * (slope - y))
    return xp.where(q == 0, np.inf, y)


def _erfinv(x: Any, xp: Any) -> Any:
    a = abs(x)
    near = _erfinv_near(xp.where(a < 0.7, x, 0.0), xp)
    far = _normal_tail(xp.where(a < 0.7, 0.1, (1 - a) / 2), xp) * _ROOT_HALF
    return xp.where(a < 0.7, near, xp.copysign(far, x))


def _ndtri(p: Any, xp: Any) -> Any:
    q = xp.minimum(p, 1 - p)
    central = q > 0.15
    near = _erfinv_near(xp.where(central, 2 * p - 1, 0.0), xp) / _ROOT_HALF
    far = _normal_tail(xp.where(central, 0.1, q), xp)
    return xp.where(central, near, xp.copysign(far, p - 0.5))


def _ndtr(x: Any, xp: Any) -> Any:
    a = abs(x)
    y = exp_of_square(a, -0.5, xp) * erfcx_of_positive(a * _ROOT_HALF) / 2
    return xp.where(x > 0, 1 - y, y)


def _log_ndtr(x: Any, xp: Any) -> Any:
    t = x * _ROOT_HALF
    low = xp.log(erfcx_of_positive(xp.maximum(-t, 0.0)) / 2) - t * t
    return xp.where(x < -1, low, xp.log1p(-erfc_array(t, xp) / 2))


# --- the functions ------------------------------------------------------------------------


def _gauss(g: Any, x: Any, factor: float) -> Any:
    return g * (ns(x).exp(-x * x) * factor)


erf = special("erf", erf_forward, lambda g, x: _gauss(g, x, 2 / _ROOT_PI), 0,
              "The error function: 2 / sqrt(pi) times the integral of exp(-t²) from 0 to x.",
              "0.5", "0.5205", direct=True, prefix="")  # fmt: skip
erfc = special("erfc", erfc_array, lambda g, x: _gauss(g, x, -2 / _ROOT_PI), 0,
               "1 - erf(x), right for large x, too.", "0.5", "0.4795", cupy="erfc",
               prefix="")  # fmt: skip
erfcx = special("erfcx", _erfcx, lambda g, x: g * (2 * x * on(erfcx, x) - 2 / _ROOT_PI), 0,
                "exp(x²) erfc(x).", "2.", "0.2554", cupy="erfcx")  # fmt: skip
erfinv = special("erfinv", _erfinv, lambda g, y: g * (ns(y).exp(y * y) * (_ROOT_PI / 2)), -1,
                 "The inverse of erf; NaN outside of [-1, 1].", "0.5", "0.4769", cupy="erfinv",
                 prefix="")  # fmt: skip
ndtr = special(
    "ndtr", _ndtr, lambda g, x: g * (ns(x).exp(-0.5 * x * x) / math.sqrt(2 * math.pi)), 0,
    "The probability that a standard normal variable is below x.", "0.", "0.5000", cupy="ndtr",
)  # fmt: skip
ndtri = special(
    "ndtri", _ndtri, lambda g, y: g * (ns(y).exp(0.5 * y * y) * math.sqrt(2 * math.pi)), -1,
    "The inverse of ndtr; NaN outside of [0, 1].", "0.8413447", "1.0000", cupy="ndtri",
)  # fmt: skip
log_ndtr = special(
    "log_ndtr", _log_ndtr, lambda g, x: g / on(erfcx, x * -_ROOT_HALF) * math.sqrt(2 / math.pi), 0,
    "log(ndtr(x)), right for large negative x, too.", "0.", "-0.6931", cupy="log_ndtr",
)  # fmt: skip

_METHODS = ["erf", "erfc", "erfinv"]
publish(globals(), _METHODS, _METHODS)
__all__ = public(_METHODS, _METHODS)
