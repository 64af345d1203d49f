"""Exponentials, logarithms, trigonometry, rounding and signs: rows of one tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.ops._rows import conjugate as _conj
from gpunn.ops._rows import inplace, unary, write_out
from gpunn.tensor import Tensor

_LN2, _LN10 = math.log(2), math.log(10)


def _row(name: str, forward: Any, vjp: Any, saves: Any, summary: str, at: str, gives: str,
         **kw: Any) -> Any:  # fmt: skip
    """A row of floats with its example: name(tensor([at])) is tensor([gives])."""
    example = f"gpunn.{name}(gpunn.tensor([{at}]))\ntensor([{gives}])"
    kw.setdefault("to_float", True)
    return unary(name, forward, vjp, saves, summary=summary, example=example, **kw)


# --- exponentials and logarithms ----------------------------------------------------------

exp = _row("exp", np.exp, lambda g, y: g * _conj(y), -1, "e ** x.", "1.", "2.7183")
exp2 = _row("exp2", np.exp2, lambda g, y: g * (_conj(y) * _LN2), -1, "2 ** x.", "3.", "8.")
expm1 = _row("expm1", np.expm1, lambda g, y: g * (_conj(y) + 1), -1,
             "e ** x - 1, exact for small x.", "1.", "1.7183")  # fmt: skip
log = _row("log", np.log, lambda g, x: g / _conj(x), 0, "The natural logarithm.", "10.", "2.3026")
log2 = _row("log2", np.log2, lambda g, x: g / _conj(x * _LN2), 0, "The logarithm to base 2.",
            "8.", "3.")  # fmt: skip
log10 = _row("log10", np.log10, lambda g, x: g / _conj(x * _LN10), 0, "The logarithm to base 10.",
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
acosh = arccosh = _row(
    "acosh", np.arccosh, lambda g, x: g / _conj(ns(x).sqrt(x - 1) * ns(x).sqrt(x + 1)), 0,
    "The inverse hyperbolic cosine.", "2.", "1.3170",
)  # fmt: skip
atanh = arctanh = _row("atanh", np.arctanh, lambda g, x: g / _conj(1 - x * x), 0,
                       "The inverse hyperbolic tangent.", "0.5", "0.5493")  # fmt: skip
deg2rad = _row("deg2rad", lambda x, xp: x * x.dtype.type(math.pi / 180),
               lambda g: g * (math.pi / 180), None, "Degrees as radians.", "180.", "3.1416")  # fmt: skip
rad2deg = _row("rad2deg", lambda x, xp: x * x.dtype.type(180 / math.pi),
               lambda g: g * (180 / math.pi), None, "Radians as degrees.", "0.", "0.")  # fmt: skip


def _sinc_forward(x: Any, xp: Any) -> Any:
    p = x * math.pi
    return xp.where(x == 0, x.dtype.type(1), xp.sin(p) / p).astype(x.dtype)


def _sinc_vjp(g: Any, x: Any) -> Any:
    xp = ns(x)
    p = x * math.pi
    slope = (p * xp.cos(p) - xp.sin(p)) / (p * x)
    return g * _conj(xp.where(x == 0, xp.zeros_like(x), slope))


sinc = _row("sinc", _sinc_forward, _sinc_vjp, 0, "sin(pi x) / (pi x), 1 at 0.", "0.", "1.")


def _sigmoid_forward(x: Any, xp: Any) -> Any:
    """1 / (1 + e**-x), by way of tanh: it overflows nowhere."""
    if x.dtype.kind == "c":
        return 1 / (1 + xp.exp(-x))
    y = xp.tanh(x * x.dtype.type(0.5))
    y = y + x.dtype.type(1)
    return y * x.dtype.type(0.5)


sigmoid = _row("sigmoid", _sigmoid_forward, lambda g, y: g * _conj(y * (1 - y)), -1,
               "The logistic function 1 / (1 + e ** -x).", "2.", "0.8808")  # fmt: skip

# --- signs and rounding -------------------------------------------------------------------


def _flat(g: Any) -> Any:
    return ns(g).zeros_like(g)


def _abs_vjp(g: Any, x: Any) -> Any:
    return g * ns(x).sgn(x) if isinstance(x, Tensor) else g * np_sgn(x, ns(x))


def np_sgn(x: Any, xp: Any) -> Any:
    """x / |x|, 0 at 0."""
    if x.dtype.kind != "c":
        return xp.sign(x)
    size = xp.abs(x)
    return xp.where(size == 0, 0, x / xp.where(size == 0, 1, size)).astype(x.dtype)


def _sgn_vjp(g: Any, x: Any) -> Any:
    if x.dtype.kind != "c" if not isinstance(x, Tensor) else not x.is_complex():
        return _flat(g)
    xp = ns(x)
    size = xp.abs(x)
    s = sgn(x) if isinstance(x, Tensor) else np_sgn(x, xp)
    part = (g / s) if not isinstance(g, Tensor) else g / s
    return xp.where(size == 0, xp.zeros_like(g), (g - xp.real(part) * s) / size)


absolute = _row("abs", np.absolute, _abs_vjp, 0, "The absolute value.", "-2.", "2.", to_float=False)
sign = _row("sign", np.sign, lambda g: _flat(g), None, "-1, 0 or 1.", "-2.", "-1.", to_float=False,
            real=True)  # fmt: skip
sgn = _row("sgn", np_sgn, _sgn_vjp, 0, "The sign; x / |x| for complex numbers.", "-2.", "-1.",
           to_float=False)  # fmt: skip
signbit = unary("signbit", lambda x, xp: xp.signbit(x) if x.dtype.kind == "f" else x < 0, None,
                summary="Whether the sign bit is set.",
                example="gpunn.signbit(gpunn.tensor([-0., 1.]))\ntensor([ True, False])")  # fmt: skip
positive = unary("positive", np.positive, lambda g: g, None, summary="x.",
                 example="gpunn.positive(gpunn.tensor([1.]))\ntensor([1.])")  # fmt: skip


def _rounding(name: str, ufunc: Any, summary: str, gives: str) -> Any:
    return _row(name, ufunc, lambda g: _flat(g), None, summary, "-1.5", gives, to_float=False,
                keep_integers=True, real=True)  # fmt: skip


floor = _rounding("floor", np.floor, "The next integer below.", "-2.")
ceil = _rounding("ceil", np.ceil, "The next integer above.", "-1.")
trunc = fix = _rounding("trunc", np.trunc, "The integer part.", "-1.")
_round = _rounding("round", np.rint, "The nearest integer, halves to even.", "-2.")
frac = _row("frac", lambda x, xp: x - xp.trunc(x), lambda g: g, None, "The fractional part.",
            "-1.5", "-0.5000", to_float=False)  # fmt: skip


def round(input: Tensor, *, decimals: int = 0, out: Tensor | None = None) -> Tensor:  # noqa: A001
    """The nearest integer, halves to even; or the nearest multiple of 10 ** -decimals.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.round.html

    >>> gpunn.round(gpunn.tensor([0.5, 1.5, 2.346]), decimals=0)
    tensor([0., 2., 2.])
    """
    if decimals == 0:
        return _round(input, out=out)
    x = input.array
    if x.dtype.kind not in "fV":
        raise RuntimeError(f"round(decimals={decimals}) is not implemented for {input.dtype}")
    scale = 10.0 ** max(decimals, -decimals)
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    y = np.rint(wide * scale) / scale if decimals > 0 else np.rint(wide / scale) * scale
    made = result(y.astype(x.dtype), input, _round_vjp, (input,))
    return made if out is None else write_out(out, made, "round")


@vjp()
def _round_vjp(g: Any) -> Any:
    return _flat(g)


# --- tests of the values ------------------------------------------------------------------


def _test(name: str, f: Any, summary: str) -> Any:
    def forward(x: Any, xp: Any) -> Any:
        if x.dtype.kind in "biu":
            return xp.full(x.shape, name in ("isfinite", "isreal"))
        return f(x, xp)

    return unary(name, forward, None, summary=summary,
                 example=f"gpunn.{name}(gpunn.tensor([1.]))\n"
                 f"tensor([{'True' if name in ('isfinite', 'isreal') else 'False'}])")  # fmt: skip


isnan = _test("isnan", lambda x, xp: xp.isnan(x), "Whether x is NaN.")
isinf = _test("isinf", lambda x, xp: xp.isinf(x), "Whether x is infinite.")
isfinite = _test("isfinite", lambda x, xp: xp.isfinite(x), "Whether x is neither NaN nor infinite.")
isposinf = _test("isposinf", lambda x, xp: x == np.inf, "Whether x is +infinity.")
isneginf = _test("isneginf", lambda x, xp: x == -np.inf, "Whether x is -infinity.")
isreal = _test("isreal", lambda x, xp: xp.imag(x) == 0 if x.dtype.kind == "c" else
               xp.full(x.shape, True), "Whether the imaginary part is 0.")  # fmt: skip


@vjp((0,))
def _nan_to_num_vjp(g: Any, x: Any) -> Any:
    xp = ns(g)
    return xp.where(xp.isfinite(x), g, xp.zeros_like(g))


def nan_to_num(
    input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None, *,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """NaN and infinities replaced: by 0 and the largest finite numbers unless given.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nan_to_num.html

    >>> gpunn.nan_to_num(gpunn.tensor([float("nan"), 1.]))
    tensor([0., 1.])
    """
    x = input.array
    if x.dtype.kind in "biu":
        y = x.copy()
    else:
        info = dtypes.finfo(input.dtype)
        high = info.max if posinf is None else posinf
        low = info.min if neginf is None else neginf
        xp = input.device.xp
        y = xp.where(xp.isnan(x), x.dtype.type(nan or 0.0), x)
        y = xp.where(y == np.inf, x.dtype.type(high), y)
        y = xp.where(y == -np.inf, x.dtype.type(low), y).astype(x.dtype)
    made = result(y, input, _nan_to_num_vjp, (input,), (x,))
    return made if out is None else write_out(out, made, "nan_to_num")


@vjp((0, None), name="LogitBackward0")
def _logit_vjp(g: Any, x: Any, eps: float | None) -> Any:
    xp = ns(g)
    slope = g / (x * (1 - x))
    if eps is None:
        return slope
    return xp.where((x >= eps) & (x <= 1 - eps), slope, xp.zeros_like(g))


def logit(input: Tensor, eps: float | None = None, *, out: Tensor | None = None) -> Tensor:
    """log(x / (1 - x)); x is first limited to [eps, 1 - eps] where eps is given.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.logit.html

    >>> gpunn.logit(gpunn.tensor([0.5]))
    tensor([0.])
    """
    if input.dtype.category < dtypes.FLOATING:
        input = input.to(dtypes.get_default_dtype())  # type: ignore[attr-defined]
    x = input.array
    wide = x.astype(np.float32) if x.dtype.itemsize == 2 else x
    z = wide if eps is None else input.device.xp.clip(wide, eps, 1 - eps)
    y = input.device.xp.log(z / (1 - z)).astype(x.dtype)
    made = result(y, input, _logit_vjp, (input,), (x, eps))
    return made if out is None else write_out(out, made, "logit")


Tensor.abs = Tensor.absolute = absolute  # type: ignore[attr-defined]
abs = absolute  # noqa: A001
_NAMES = [
    "abs", "absolute", "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan",
    "arctanh", "asin", "asinh", "atan", "atanh", "ceil", "cos", "cosh", "deg2rad", "exp", "exp2",
    "expm1", "fix", "floor", "frac", "log", "log10", "log1p", "log2", "logit", "nan_to_num",
    "rad2deg", "reciprocal", "round", "rsqrt", "sgn", "sigmoid", "sign", "sin", "sinc", "sinh",
    "sqrt", "tan", "tanh", "trunc",
]  # fmt: skip
_PLAIN = ["isfinite", "isinf", "isnan", "isneginf", "isposinf", "isreal", "positive", "signbit"]
__all__ = [*_NAMES, *_PLAIN]
for _name in _NAMES:
    setattr(Tensor, _name, globals()[_name])
    setattr(Tensor, _name + "_", inplace(globals()[_name], _name))
for _name in _PLAIN:
    setattr(Tensor, _name, globals()[_name])
Tensor.__abs__ = absolute  # type: ignore[attr-defined]
