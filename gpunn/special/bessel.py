"""Bessel functions of the orders 0 and 1, the modified ones, and Airy's Ai.

Near 0 each is a polynomial (times its zeros, plus its logarithm); far away a polynomial in 1 / x
times the leading term of its asymptotic expansion: for the oscillating ones, of the amplitudes of
a sine and a cosine, as in Abramowitz and Stegun 9.2 and 10.4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import on, public, publish
from gpunn.special import _tables as table
from gpunn.special._series import horner, special

# --- bodies: float64 arrays in, float64 arrays out ----------------------------------------


def _modified(order: int, scaled: bool) -> Any:
    """i0, i1, i0e, i1e."""
    small, large = (table.I0, table.I0_FAR) if order == 0 else (table.I1, table.I1_FAR)

    def body(x: Any, xp: Any) -> Any:
        a = abs(x)
        near, far = xp.minimum(a, 8.0), xp.maximum(a, 8.0)
        low = horner(near * near / 64, small)
        high = horner(16 / far - 1, large) / xp.sqrt(far)
        if scaled:
            low = low * xp.exp(-near)
        else:  # in two steps: exp(x) may not be a number where i0(x) is
            half = xp.exp(far / 2)
            high = high * half * half
        if order == 0:
            return xp.where(a < 8, low, high)
        return xp.where(a < 8, low * x, xp.copysign(high, x))

    return body


_i0, _i1 = _modified(0, False), _modified(1, False)
i1: Any  # used in the gradient of i0


def _modified_second(order: int, scaled: bool) -> Any:
    """k0, k1, and exp(x) times them."""
    small, large = (table.K0, table.K0_FAR) if order == 0 else (table.K1, table.K1_FAR)

    def body(x: Any, xp: Any) -> Any:
        near, far = xp.clip(x, 1e-320, 2.0), xp.maximum(x, 2.0)
        log = xp.log(near / 2)
        rest = horner(near * near / 2 - 1, small)
        low = rest - log * _i0(near, xp) if order == 0 else rest / near + log * _i1(near, xp)
        high = horner(4 / far - 1, large) / xp.sqrt(far)
        if scaled:
            low = low * xp.exp(near)
        else:
            high = high * xp.exp(-far)
        y = xp.where(x <= 2, low, high)
        return xp.where(x == 0, np.inf, xp.where(x < 0, np.nan, y))

    return body


_ZEROS = (  # the first two zeros of j0 and of j1, each as a sum of two numbers
    ((2.404825557695773, -1.176691651530894e-16), (5.520078110286311, 8.088597146146722e-17)),
    ((3.8317059702075125, -1.5269184090088067e-16), (7.015586669815619, -9.414165653410389e-17)),
)


def _near_j(order: int, x: Any) -> Any:
    """j0(x) or j1(x) for |x| <= 8."""
    y = horner(x * x / 32 - 1, table.J1 if order else table.J0)
    for high, low in _ZEROS[order]:
        y = y * (x - high - low) * (x + high + low)
    return y * x if order else y


def _waves(order: int, x: Any, xp: Any) -> tuple[Any, Any]:
    """(j(x), y(x)) for x >= 8."""
    t = 128 / (x * x) - 1
    p = horner(t, table.P1 if order else table.P0)
    q = horner(t, table.Q1 if order else table.Q0) / x
    sine, cosine = xp.sin(x), xp.cos(x)
    # cos and sin of x - pi / 4 (- pi / 2), times sqrt(2)
    c, s = (cosine + sine, sine - cosine) if order == 0 else (sine - cosine, -cosine - sine)
    size = 1 / xp.sqrt(math.pi * x)
    return size * (p * c - q * s), size * (p * s + q * c)


def _first_kind(order: int) -> Any:
    """j0, j1."""

    def body(x: Any, xp: Any) -> Any:
        a = abs(x)
        near = xp.where(a < 8, x, 0.0)
        high = _waves(order, xp.maximum(a, 8.0), xp)[0]
        return xp.where(
            a < 8, _near_j(order, near), xp.where(x < 0, -high, high) if order else high
        )

    return body


def _second_kind(order: int) -> Any:
    """y0, y1."""

    def body(x: Any, xp: Any) -> Any:
        near, far = xp.clip(x, 1e-320, 8.0), xp.maximum(x, 8.0)
        rest = horner(near * near / 32 - 1, table.Y1 if order else table.Y0)
        logs = xp.log(near) * _near_j(order, near)
        low = rest + 2 / math.pi * logs if order == 0 else (
            rest * near + 2 / math.pi * (logs - 1 / near)
        )  # fmt: skip
        y = xp.where(x < 8, low, _waves(order, far, xp)[1])
        return xp.where(x == 0, -np.inf, xp.where(x < 0, np.nan, y))

    return body


def _airy_ai(x: Any, xp: Any) -> Any:
    middle = xp.clip(x, -3.0, 2.0)
    y = horner((2 * middle + 1) / 5, table.AIRY) * xp.exp(-middle)
    right = xp.clip(x, 2.0, 200.0)
    z = 2 / 3 * right * xp.sqrt(right)
    far = horner(2 * _Z2 / z - 1, table.AIRY_FAR) * xp.exp(-z) / (
        2 * math.sqrt(math.pi) * xp.sqrt(xp.sqrt(right))
    )
    left = xp.clip(-x, 3.0, 1e200)
    z = 2 / 3 * left * xp.sqrt(left)
    t = 2 * (_Z3 / z) ** 2 - 1
    sine, cosine = xp.sin(z), xp.cos(z)
    wave = horner(t, table.AIRY_COS) * (cosine + sine) + horner(t, table.AIRY_SIN) / z * (
        sine - cosine
    )
    wave = wave / (math.sqrt(2 * math.pi) * xp.sqrt(xp.sqrt(left)))
    y = xp.where(x > 2, far, xp.where(x < -3, wave, y))
    return xp.where(xp.isinf(x), np.nan, y)


_Z2, _Z3 = 2 / 3 * 2**1.5, 2 / 3 * 3**1.5


def _spherical_j0(x: Any, xp: Any) -> Any:
    safe = xp.where(x == 0, 1.0, x)
    return xp.where(xp.isinf(x), 0.0, xp.where(x == 0, 1.0, xp.sin(safe) / safe))


# --- the functions ------------------------------------------------------------------------


def _over(y: Any, x: Any) -> Any:
    """y / x, 0.5 at 0: of i1 and i1e."""
    xp = ns(x)
    half = xp.full_like(x, 0.5)
    return xp.where(x == 0, half, y / xp.where(x == 0, xp.ones_like(x), x))


def _i0e_vjp(g: Any, x: Any) -> Any:
    return g * (on(i1e, x) - ns(x).sign(x) * on(i0e, x))


def _i1_vjp(g: Any, x: Any) -> Any:
    return g * (on(i0, x) - _over(on(i1, x), x))


def _i1e_vjp(g: Any, x: Any) -> Any:
    y = on(i1e, x)
    return g * (on(i0e, x) - y * ns(x).sign(x) - _over(y, x))


i0 = special("i0", _i0, lambda g, x: g * on(i1, x), 0,
             "The modified Bessel function of the first kind, order 0.", "1.", "1.2661", cupy="i0",
             prefix="")  # fmt: skip
i0e = special("i0e", _modified(0, True), _i0e_vjp, 0, "exp(-|x|) i0(x).", "1.", "0.4658",
              cupy="i0e")  # fmt: skip
i1 = special("i1", _i1, _i1_vjp, 0, "The modified Bessel function of the first kind, order 1.",
             "1.", "0.5652", cupy="i1")  # fmt: skip
i1e = special("i1e", _modified(1, True), _i1e_vjp, 0, "exp(-|x|) i1(x).", "1.", "0.2079",
              cupy="i1e")  # fmt: skip


def _plain(name: str, body: Any, what: str, gives: str, cupy: str | None = None) -> Any:
    """A row without gradient, as in PyTorch."""
    return special(name, body, None, None, f"{what}; no gradient.", "1.", gives, cupy=cupy)


airy_ai = _plain("airy_ai", _airy_ai, "The Airy function Ai", "0.1353")
bessel_j0 = _plain("bessel_j0", _first_kind(0), "The Bessel function of the first kind, order 0",
                   "0.7652", "j0")  # fmt: skip
bessel_j1 = _plain("bessel_j1", _first_kind(1), "The Bessel function of the first kind, order 1",
                   "0.4401", "j1")  # fmt: skip
bessel_y0 = _plain("bessel_y0", _second_kind(0), "The Bessel function of the second kind, order 0",
                   "0.0883", "y0")  # fmt: skip
bessel_y1 = _plain("bessel_y1", _second_kind(1), "The Bessel function of the second kind, order 1",
                   "-0.7812", "y1")  # fmt: skip
modified_bessel_i0 = _plain(
    "modified_bessel_i0", _i0, "The modified Bessel function of the first kind, order 0",
    "1.2661", "i0",
)  # fmt: skip
modified_bessel_i1 = _plain(
    "modified_bessel_i1", _i1, "The modified Bessel function of the first kind, order 1",
    "0.5652", "i1",
)  # fmt: skip
modified_bessel_k0 = _plain(
    "modified_bessel_k0", _modified_second(0, False),
    "The modified Bessel function of the second kind, order 0", "0.4210",
)  # fmt: skip
modified_bessel_k1 = _plain(
    "modified_bessel_k1", _modified_second(1, False),
    "The modified Bessel function of the second kind, order 1", "0.6019",
)  # fmt: skip
scaled_modified_bessel_k0 = _plain(
    "scaled_modified_bessel_k0", _modified_second(0, True), "exp(x) modified_bessel_k0(x)",
    "1.1445",
)  # fmt: skip
scaled_modified_bessel_k1 = _plain(
    "scaled_modified_bessel_k1", _modified_second(1, True), "exp(x) modified_bessel_k1(x)",
    "1.6362",
)  # fmt: skip
spherical_bessel_j0 = _plain("spherical_bessel_j0", _spherical_j0, "sin(x) / x, 1 at 0", "0.8415")

publish(globals(), ["i0"], ["i0"])
__all__ = public(["i0"], ["i0"])
