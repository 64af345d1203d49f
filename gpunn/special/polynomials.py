"""Orthogonal polynomials by their recurrences (Abramowitz and Stegun, table 22.7).

The degree n is a tensor, too: its fraction is dropped, and a negative one gives 0. Chebyshev's
polynomials of high degree inside of (-1, 1) come from their trigonometric forms. All is done in
the dtype of the operands, so that numbers too large for it become infinite, then NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunn.special._series import special
from gpunn.tensor import Tensor


def _degree(n: Any, xp: Any) -> Any:
    """n without its fraction; -1, which gives 0, where it is no number of 64 bits."""
    return xp.where(abs(n) < 2.0**63, xp.trunc(n), -1)


def _recurrence(x: Any, n: Any, xp: Any, first: Any, step: Callable[..., Any]) -> Any:
    """The polynomial of degree n: 1, first(x), then step(k, x, q, p) from degrees k and k - 1."""
    p, q = xp.ones_like(x), first(x)
    y = xp.where(n == 0, p, xp.where(n > 0, q, x.dtype.type(0)))
    k = 1
    while bool(((n > k) & (q == q)).any()):  # NaN, which follows infinities, stays NaN
        p, q = q, step(k, x, q, p)
        y = xp.where(n > k, q, y)
        k += 1
    return y


def _chebyshev_step(k: int, x: Any, q: Any, p: Any) -> Any:
    return 2 * x * q - p


def _chebyshev(
    first: Any, trigonometric: Any, at_one: Any, at_minus_one: Any, direct: int = 8
) -> Any:
    """A Chebyshev polynomial from its degree 1, its form in theta = acos(x), which is used for
    degrees above `direct`, and its values at 1 and -1."""

    def body(x: Any, n: Any, xp: Any) -> Any:
        x, n = xp.broadcast_arrays(x, _degree(n, xp).astype(x.dtype))
        wave = (abs(x) < 1) & (n > direct)
        y = _recurrence(x, xp.where(wave | (abs(x) == 1), 0, n), xp, first, _chebyshev_step)
        theta = xp.arccos(xp.where(wave, x, x.dtype.type(0.5)))
        y = xp.where(wave, trigonometric(theta, n, xp), y)
        even = n % 2 == 0
        y = xp.where(x == 1, at_one(n), xp.where(x == -1, at_minus_one(n, even, xp), y))
        return xp.where(n < 0, 0, y).astype(x.dtype)

    return body


def _sign(even: Any, xp: Any) -> Any:
    return xp.where(even, 1.0, -1.0)


_BODIES = {
    "t": _chebyshev(
        lambda x: x, lambda a, n, xp: xp.cos(n * a),
        lambda n: 1.0, lambda n, even, xp: _sign(even, xp), 6,
    ),
    "u": _chebyshev(
        lambda x: 2 * x, lambda a, n, xp: xp.sin((n + 1) * a) / xp.sin(a),
        lambda n: n + 1, lambda n, even, xp: _sign(even, xp) * (n + 1),
    ),
    "v": _chebyshev(
        lambda x: 2 * x - 1, lambda a, n, xp: xp.cos((n + 0.5) * a) / xp.cos(a / 2),
        lambda n: 1.0, lambda n, even, xp: _sign(even, xp) * (2 * n + 1),
    ),
    "w": _chebyshev(
        lambda x: 2 * x + 1, lambda a, n, xp: xp.sin((n + 0.5) * a) / xp.sin(a / 2),
        lambda n: 2 * n + 1, lambda n, even, xp: _sign(even, xp),
    ),
}  # fmt: skip


def _simple(first: Any, step: Any) -> Any:
    def body(x: Any, n: Any, xp: Any) -> Any:
        x, n = xp.broadcast_arrays(x, _degree(n, xp))
        return _recurrence(x, n, xp, first, step).astype(x.dtype)

    return body


def _polynomial(name: str, body: Any, what: str, gives: str) -> Any:
    """The public function of x and n."""
    row = special(name, body, None, "", f"{what} of degree n; no gradient.", "0.5; 2.", gives,
                  direct=True)  # fmt: skip

    def polynomial(input: Any, n: Any, *, out: Tensor | None = None) -> Tensor:
        return row(input, n, out=out)

    polynomial.__name__ = polynomial.__qualname__ = name
    polynomial.__doc__ = row.__doc__
    return polynomial


def _shifted(body: Any) -> Any:
    return lambda x, n, xp: body(2 * x - 1, n, xp)


def _of_chebyshev(kind: str, nth: str, gives: str, shifted: str) -> tuple[Any, Any]:
    name, what = f"chebyshev_polynomial_{kind}", f"Chebyshev's polynomial of the {nth} kind"
    body = _BODIES[kind]
    return _polynomial(name, body, what, gives), _polynomial(
        f"shifted_{name}", _shifted(body), f"{what} at 2x - 1,", shifted
    )


chebyshev_polynomial_t, shifted_chebyshev_polynomial_t = _of_chebyshev(
    "t", "first", "-0.5000", "-1."
)
chebyshev_polynomial_u, shifted_chebyshev_polynomial_u = _of_chebyshev("u", "second", "0.", "-1.")
chebyshev_polynomial_v, shifted_chebyshev_polynomial_v = _of_chebyshev("v", "third", "-1.", "-1.")
chebyshev_polynomial_w, shifted_chebyshev_polynomial_w = _of_chebyshev("w", "fourth", "1.", "-1.")
hermite_polynomial_h = _polynomial(
    "hermite_polynomial_h", _simple(lambda x: 2 * x, lambda k, x, q, p: 2 * (x * q - k * p)),
    "The physicists' Hermite polynomial", "-1.",
)  # fmt: skip
hermite_polynomial_he = _polynomial(
    "hermite_polynomial_he", _simple(lambda x: x, lambda k, x, q, p: x * q - k * p),
    "The probabilists' Hermite polynomial", "-0.7500",
)  # fmt: skip
laguerre_polynomial_l = _polynomial(
    "laguerre_polynomial_l",
    _simple(lambda x: 1 - x, lambda k, x, q, p: ((2 * k + 1 - x) * q - k * p) / (k + 1)),
    "The Laguerre polynomial", "0.1250",
)  # fmt: skip
legendre_polynomial_p = _polynomial(
    "legendre_polynomial_p",
    _simple(lambda x: x, lambda k, x, q, p: ((2 * k + 1) * x * q - k * p) / (k + 1)),
    "The Legendre polynomial", "-0.1250",
)  # fmt: skip
