"""Exponentials, logarithms, trigonometry, rounding and signs: rows of one tensor."""

from __future__ import annotations

import math
from collections import namedtuple
from typing import Any

import numpy as np

from gpunn import dtypes, native
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import results, vjp
from gpunn.dtypes import F32, F64
from gpunn.ops._rows import conjugate as _conj
from gpunn.ops._rows import half, on, public, publish, refusal, unary, write_out
from gpunn.ops.choose import only
from gpunn.tensor import Tensor

_LARGE = 4096  # elements from which on the C++ code is quicker than NumPy's several passes
_LN2, _LN10 = math.log(2), math.log(10)


def _row(name: str, forward: Any, vjp: Any, saves: Any, summary: str, at: str, gives: str,
         **kw: Any) -> Any:  # fmt: skip
    """A row of floats with its example: name(tensor([at])) is tensor([gives])."""
    example = f"gpunn.{name}(gpunn.tensor([{at}]))\ntensor([{gives}])"
    kw.setdefault("to_float", True)
    return unary(name, forward, vjp, saves, summary=summary, example=example, **kw)




def _is_real(x: Any) -> bool:
    return not x.is_complex() if isinstance(x, Tensor) else x.dtype.kind != "c"


# --- exponentials and logarithms ----------------------------------------------------------


def _log10(x: Any, xp: Any) -> Any:
    """NumPy's is not exact at the powers of 10 in float32."""
    return xp.log10(x.astype(F64)).astype(F32) if x.dtype == F32 else xp.log10(x)


exp = _row("exp", np.exp, lambda g, y: g * _conj(y), -1, "e ** x.", "1.", "2.7183")
exp2 = _row("exp2", np.exp2, lambda g, y: g * (_conj(y) * _LN2), -1, "2 ** x.", "3.", "8.")
expm1 = _row("expm1", np.expm1, lambda g, y: g * (_conj(y) + 1), -1,
             "e ** x - 1, exact for small x.", "1.", "1.7183")  # fmt: skip
log = _row("log", np.log, lambda g, x: g / _conj(x), 0, "The natural logarithm.", "10.", "2.3026")
log2 = _row("log2", np.log2, lambda g, x: g / _conj(x * _LN2), 0, "The logarithm to base 2.",
            "8.", "3.")  # fmt: skip
log10 = _row("log10", _log10, lambda g, x: g / _conj(x * _LN10), 0, "The logarithm to base 10.",
             "100.", "2.")  # fmt: skip
log1p = _row("log1p", np.log1p, lambda g, x: g / _conj(x + 1), 0,
             "log(1 + x), exact for small x.", "1.", "0.6931")  # fmt: skip
sqrt = _row("sqrt", np.sqrt, lambda g, y: g / (2 * _conj(y)), -1, "The square root.", "9.", "3.")
rsqrt = _row("rsqrt", lambda x, xp: 1 / xp.sqrt(x), lambda g, y: g * _conj(-0.5 * y * y * y), -1,
             "1 / sqrt(x).", "4.", "0.5000")  # fmt: skip
reciprocal = _row("reciprocal", lambda x, xp: 1 / x, lambda g, y: -g * _conj(y * y), -1, "1 / x.",
                  "4.", "0.2500")  # fmt: skip

# --- trigonometry (radians) ---------------------------------------------------------------

sin = _row("sin", np.sin, lambda g, x: g * _conj(ns(x).cos(x)), 0, "The sine of x radians.",
           "1.", "0.8415")  # fmt: skip
cos = _row("cos", np.cos, lambda g, x: -g * _conj(ns(x).sin(x)), 0, "The cosine of x radians.",
           "1.", "0.5403")  # fmt: skip
tan = _row("tan", np.tan, lambda g, y: g * _conj(1 + y * y), -1, "The tangent of x radians.",
           "1.", "1.5574")  # fmt: skip
asin = arcsin = _row("asin", np.arcsin, lambda g, x: g / _conj(ns(x).sqrt(1 - x * x)), 0,
                     "The arcsine in radians.", "1.", "1.5708")  # fmt: skip
acos = arccos = _row("acos", np.arccos, lambda g, x: -g / _conj(ns(x).sqrt(1 - x * x)), 0,
                     "The arccosine in radians.", "0.", "1.5708")  # fmt: skip
atan = arctan = _row("atan", np.arctan, lambda g, x: g / _conj(1 + x * x), 0,
                     "The arctangent in radians.", "1.", "0.7854")  # fmt: skip
sinh = _row("sinh", np.sinh, lambda g, x: g * _conj(ns(x).cosh(x)), 0, "The hyperbolic sine.",
            "1.", "1.1752")  # fmt: skip
cosh = _row("cosh", np.cosh, lambda g, x: g * _conj(ns(x).sinh(x)), 0, "The hyperbolic cosine.",
            "1.", "1.5431")  # fmt: skip
tanh = _row("tanh", np.tanh, lambda g, y: g * _conj(1 - y * y), -1, "The hyperbolic tangent.",
            "1.", "0.7616")  # fmt: skip
asinh = arcsinh = _row("asinh", np.arcsinh, lambda g, x: g / _conj(ns(x).sqrt(x * x + 1)), 0,
                       "The inverse hyperbolic sine.", "1.", "0.8814")  # fmt: skip


def _acosh_vjp(g: Any, x: Any) -> Any:
    xp = ns(x)
    root = xp.sqrt(x * x - 1) if _is_real(x) else xp.sqrt(x - 1) * xp.sqrt(x + 1)
    return g / _conj(root)


acosh = arccosh = _row(
    "acosh", np.arccosh, _acosh_vjp, 0, "The inverse hyperbolic cosine.", "2.", "1.3170",
)  # fmt: skip
atanh = arctanh = _row("atanh", np.arctanh, lambda g, x: g / _conj(1 - x * x), 0,
                       "The inverse hyperbolic tangent.", "0.5", "0.5493")  # fmt: skip
deg2rad = _row("deg2rad", lambda x, xp: x * x.dtype.type(math.pi / 180),
               lambda g: g * (math.pi / 180), None, "Degrees as radians.", "180.", "3.1416",
               refuses="c", why="deg2rad is not supported for complex tensors.")  # fmt: skip
rad2deg = _row("rad2deg", lambda x, xp: x * x.dtype.type(180 / math.pi),
               lambda g: g * (180 / math.pi), None, "Radians as degrees.", "0.", "0.",
               refuses="c", why="rad2deg is not supported for complex tensors.")  # fmt: skip


def _sinc_forward(x: Any, xp: Any) -> Any:
    p = x * math.pi
    return xp.where(x == 0, x.dtype.type(1), xp.sin(p) / p).astype(x.dtype)


def _sinc_vjp(g: Any, x: Any) -> Any:
    xp = ns(x)
    p = x * math.pi
    slope = (p * xp.cos(p) - xp.sin(p)) / (p * x)
    return g * _conj(xp.where(x == 0, xp.zeros_like(x), slope))


sinc = _row("sinc", _sinc_forward, _sinc_vjp, 0, "sin(pi x) / (pi x), 1 at 0.", "0.", "1.")

# --- the logistic function ----------------------------------------------------------------


def _sigmoid_forward(x: Any, xp: Any) -> Any:
    """1 / (1 + e**-x): right to the last bits for large negative x, too, where it is tiny."""
    if x.size > _LARGE and xp is np and x.dtype.kind == "f":
        y = native.unary("sigmoid", x)
        if y is not None:
            return y
    if x.ndim == 0:
        return 1 / (1 + xp.exp(-x))
    y = xp.negative(x)
    xp.exp(y, out=y)
    y += 1
    return xp.reciprocal(y, out=y)


sigmoid = _row("sigmoid", _sigmoid_forward, lambda g, y: g * _conj(y * (1 - y)), -1,
               "The logistic function 1 / (1 + e ** -x).", "2.", "0.8808")  # fmt: skip


def _logit_row(eps: float | None) -> Any:
    def forward(x: Any, xp: Any) -> Any:
        z = x if eps is None else xp.clip(x, eps, 1 - eps)
        return xp.log(z / (1 - z))

    def vjp(g: Any, x: Any) -> Any:
        slope = g / (x * (1 - x))
        if eps is not None:
            return only((x >= eps) & (x <= 1 - eps), slope)
        xp = ns(g)
        return xp.where((x >= 0) & (x <= 1), slope, xp.full_like(slope, math.nan))

    return unary("logit", forward, vjp, to_float=True, refuses="c")


_logit = _logit_row(None)


def logit(input: Tensor, eps: float | None = None, *, out: Tensor | None = None) -> Tensor:
    """log(x / (1 - x)); x is first limited to [eps, 1 - eps] where eps is given.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.logit.html

    >>> gpunn.logit(gpunn.tensor([0.5]))
    tensor([0.])
    """
    return (_logit if eps is None else _logit_row(eps))(input, out=out)


# --- signs and rounding -------------------------------------------------------------------


def _flat(g: Any) -> Any:
    return ns(g).zeros_like(g)


def _sign_forward(x: Any, xp: Any) -> Any:
    """-1, 0 or 1, also of NaN, which NumPy leaves NaN."""
    if x.dtype.kind == "b":
        return x.copy()
    return xp.sign(x) if x.dtype.kind == "i" else xp.subtract(x > 0, x < 0, dtype=x.dtype)


def _sgn_forward(x: Any, xp: Any) -> Any:
    """x / |x|, 0 at 0."""
    if x.dtype.kind != "c":
        return _sign_forward(x, xp)
    size = xp.abs(x)
    return xp.where(size == 0, 0, x / xp.where(size == 0, 1, size)).astype(x.dtype)


def _sgn_vjp(g: Any, x: Any) -> Any:
    if _is_real(x):
        return _flat(g)
    xp = ns(x)
    size, s = xp.abs(x), on(sgn, x)
    return xp.where(size == 0, xp.zeros_like(g), (g - (g / s).real * s) / size)


def _abs_vjp(g: Any, x: Any) -> Any:
    return g * on(sgn, x)


absolute = _row("abs", np.absolute, _abs_vjp, 0, "The absolute value.", "-2.", "2.",
                to_float=False, refuses="b")  # fmt: skip
sign = _row(
    "sign", _sign_forward, lambda g: _flat(g), None, "-1, 0 or 1.", "-2.", "-1.", to_float=False,
    refuses="c",
    why="Unlike NumPy, torch.sign is not intended to support complex numbers. Please use torch.sgn "
    "instead.",
)  # fmt: skip
sgn = _row("sgn", _sgn_forward, _sgn_vjp, 0, "The sign; x / |x| for complex numbers.", "-2.", "-1.",
           to_float=False)  # fmt: skip


def positive(input: Tensor) -> Tensor:
    """input itself; RuntimeError for bool.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.positive.html

    >>> gpunn.positive(gpunn.tensor([1.]))
    tensor([1.])
    """
    if input.dtype is dtypes.bool_:
        raise RuntimeError("The `+` operator, on a bool tensor is not supported.")
    return input


def _rounding(name: str, ufunc: Any, summary: str, gives: str) -> Any:
    return _row(name, ufunc, lambda g: _flat(g), None, summary, "-1.5", gives, to_float=False,
                keep_integers=True, refuses="bc")  # fmt: skip


floor = _rounding("floor", np.floor, "The next integer below.", "-2.")
ceil = _rounding("ceil", np.ceil, "The next integer above.", "-1.")
trunc = fix = _rounding("trunc", np.trunc, "The integer part.", "-1.")
_round = _rounding("round", np.rint, "The nearest integer, halves to even.", "-2.")
frac = _row("frac", lambda x, xp: x - xp.trunc(x), lambda g: g, None, "The fractional part.",
            "-1.5", "-0.5000", to_float=False, refuses="biuc")  # fmt: skip


def _round_row(decimals: int) -> Any:
    scale = 10.0 ** max(decimals, -decimals)

    def forward(x: Any, xp: Any) -> Any:
        return xp.rint(x * scale) / scale if decimals > 0 else xp.rint(x / scale) * scale

    return unary("round", forward, lambda g: _flat(g), None, refuses="biuc")


def round(input: Tensor, *, decimals: int = 0, out: Tensor | None = None) -> Tensor:  # noqa: A001
    """The nearest integer, halves to even; or the nearest multiple of 10 ** -decimals.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.round.html

    >>> gpunn.round(gpunn.tensor([0.5, 1.5, 2.346]), decimals=2)
    tensor([0.5000, 1.5000, 2.3500])
    """
    return (_round_row(decimals) if decimals else _round)(input, out=out)


# --- mantissa and exponent ----------------------------------------------------------------

_Frexp: Any = namedtuple("frexp", ["mantissa", "exponent"])  # type: ignore[name-match] # noqa: PYI024
_Frexp.__module__ = "torch.return_types"


@vjp((None,), name="FrexpBackward0")
def _frexp_vjp(gs: Any, scale: Any) -> Any:
    return gs[0] * scale


def frexp(input: Tensor, *, out: tuple[Tensor, Tensor] | None = None) -> Any:
    """(mantissa, exponent) with input = mantissa * 2 ** exponent and 0.5 <= |mantissa| < 1.

    dtypes: floating; the exponent is int32. The mantissa has a gradient.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.frexp.html

    >>> gpunn.frexp(gpunn.tensor([8.])).exponent
    tensor([4], dtype=torch.int32)
    """
    x = input.array
    if x.dtype.kind in "biuc":
        raise refusal("frexp", x.dtype, "torch.frexp() only supports floating-point dtypes")
    xp = input.device.xp
    mantissa, exponent = xp.frexp(x.astype(np.float32) if half(x.dtype) else x)
    arrays = (mantissa.astype(x.dtype), exponent.astype(np.int32))
    scale = xp.ldexp(xp.ones_like(mantissa), -exponent).astype(x.dtype)
    made = _Frexp(*results(arrays, input, _frexp_vjp, (input,), (scale,), differentiable=1))
    if out is None:
        return made
    return _Frexp(*(write_out(o, v, "frexp") for o, v in zip(out, made, strict=True)))


abs = absolute  # noqa: A001
_METHODS = [
    "abs", "absolute", "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan",
    "arctanh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "deg2rad", "exp", "exp2",
    "expm1", "fix", "floor", "frac", "log", "log10", "log1p", "log2", "logit", "rad2deg",
    "reciprocal", "round", "rsqrt", "sgn", "sigmoid", "sign", "sin", "sinc", "sinh", "sqrt", "tan",
    "tanh", "trunc",
]  # fmt: skip
_METHODS_ONLY_OUT = ["frexp", "positive"]
publish(globals(), [*_METHODS, *_METHODS_ONLY_OUT], _METHODS)
__all__ = [*public(_METHODS, _METHODS), *_METHODS_ONLY_OUT]
Tensor.__abs__ = absolute  # type: ignore[attr-defined]
