"""Element-wise operations: one row each, its forward and its VJP side by side.

A VJP is written with operators and the functions of `namespace(x)`, which works for arrays and,
when gradients are to be differentiated again, for Tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import NUMBERS, binary, inplace, unary
from gpunn.tensor import Tensor, method

# --- arithmetic ---------------------------------------------------------------------------

_add = binary(
    "add", np.add, lambda g: (g, g),
    summary="input + alpha * other.", example="gpunn.add(gpunn.tensor([1, 2]), 10)\ntensor([11, 12])",
)  # fmt: skip
_sub = binary(
    "sub", np.subtract, lambda g: (g, -g), no_bool=True,
    summary="input - alpha * other.", example="gpunn.sub(gpunn.tensor([1, 2]), 1)\ntensor([0, 1])",
)  # fmt: skip


def _mul_vjp(g: Any, a: Any, b: Any) -> Any:
    return None if b is None else g * _conj(b), None if a is None else g * _conj(a)


mul = multiply = binary(
    "mul", np.multiply, _mul_vjp, "a?b b?a",
    summary="input * other.", example="gpunn.mul(gpunn.tensor([1, 2]), 3)\ntensor([3, 6])",
)  # fmt: skip


def _div_vjp(g: Any, b: Any, y: Any) -> Any:
    return g / _conj(b), None if y is None else -g * _conj(y) / _conj(b)


_true_divide = binary(
    "div", np.true_divide, _div_vjp, "b y?b", to_float=True,
    summary="input / other.", example="gpunn.div(gpunn.tensor([1, 2]), 2)\ntensor([0.5000, 1.0000])",
)  # fmt: skip


_conj_row = unary(
    "conj", np.conjugate, lambda g: g.conj(), None, summary="The complex conjugate.",
    example="gpunn.conj(gpunn.tensor([1 + 2j]))\ntensor([1.-2.j])",
)  # fmt: skip


@method
def conj(input: Tensor) -> Tensor:
    """The complex conjugate; real tensors are returned as they are.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.conj.html

    >>> gpunn.conj(gpunn.tensor([1 + 2j]))
    tensor([1.-2.j])
    """
    return _conj_row(input) if input.array.dtype.kind == "c" else input


def _conj(x: Any) -> Any:
    """The conjugate of an array, Tensor or number; real arrays are not copied."""
    return x.conjugate() if isinstance(x, NUMBERS) else x.conj()


def add(input: Any, other: Any, *, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """input + alpha * other, with broadcasting.

    Shapes: any two that broadcast. dtypes: the operands' common dtype.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.add.html

    >>> gpunn.add(gpunn.tensor([1, 2]), gpunn.tensor([10, 20]), alpha=2)
    tensor([21, 42])
    """
    if alpha == 1:
        return _add(input, other, out=out)
    return _add(input, _scaled(other, alpha, input, "add"), out=out)


def sub(input: Any, other: Any, *, alpha: Any = 1, out: Tensor | None = None) -> Tensor:
    """input - alpha * other, with broadcasting.

    Shapes: any two that broadcast. dtypes: the operands' common dtype, not bool.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.sub.html

    >>> gpunn.sub(gpunn.tensor([1, 2]), gpunn.tensor([10, 20]), alpha=2)
    tensor([-19, -38])
    """
    if alpha == 1:
        return _sub(input, other, out=out)
    return _sub(input, _scaled(other, alpha, input, "sub"), out=out)


def _scaled(other: Any, alpha: Any, input: Any, name: str) -> Any:
    """alpha * other, refusing an alpha that would change the operands' category."""
    involved = [t.dtype.category for t in (input, other) if isinstance(t, Tensor)]
    if isinstance(alpha, float) and max(involved) < dtypes.FLOATING:
        raise RuntimeError("For integral input tensors, argument alpha must not be a floating "
                           "point number.")  # fmt: skip
    if isinstance(alpha, bool) and max(involved) > dtypes.BOOL:
        raise RuntimeError("Boolean alpha only supported for Boolean results.")
    return other * alpha


def _rounded(f: Any) -> Any:
    def forward(a: Any, b: Any, xp: Any) -> Any:
        if a.dtype.kind in "iu" and not b.all():
            raise RuntimeError("ZeroDivisionError")
        return f(a, b, xp)

    return forward


def _trunc_divide(a: Any, b: Any, xp: Any) -> Any:
    if a.dtype.kind == "f":
        return xp.trunc(a / b)
    q = a // b
    return q + ((a % b != 0) & ((a < 0) != (b < 0)))


_floor_div = binary(
    "floor_divide", _rounded(lambda a, b, xp: xp.floor_divide(a, b)),
    lambda g, b: (ns(g).zeros_like(g), ns(g).zeros_like(g)), "b", summary="",
    node_name="DivBackward1",
)  # fmt: skip
_trunc_div = binary(
    "trunc_divide", _rounded(_trunc_divide),
    lambda g, b: (ns(g).zeros_like(g), ns(g).zeros_like(g)), "b", summary="",
    node_name="DivBackward1",
)  # fmt: skip


def div(
    input: Any, other: Any, *, rounding_mode: str | None = None, out: Tensor | None = None
) -> Tensor:
    """input / other; integers divide to the default float.

    `rounding_mode`: None, "trunc" (towards zero) or "floor"; the last two keep integers.
    Shapes: any two that broadcast. Integer division by zero raises RuntimeError.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.div.html

    >>> gpunn.div(gpunn.tensor([-7, 7]), 2, rounding_mode="floor")
    tensor([-4,  3])
    """
    if rounding_mode is None:
        return _true_divide(input, other, out=out)
    if rounding_mode == "floor":
        return _floor_div(input, other, out=out)
    if rounding_mode == "trunc":
        return _trunc_div(input, other, out=out)
    raise RuntimeError(
        f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
        f"'{rounding_mode}'"
    )


divide = div


def _pow_vjp(g: Any, a: Any, b: Any, y: Any) -> Any:
    xp = ns(g)
    ga = gb = None
    if b is not None:
        ga = g * _conj(b * a ** (b - 1)) if not _is_zero(b) else xp.zeros_like(g)
        if not isinstance(b, NUMBERS):
            ga = xp.where(b == 0, xp.zeros_like(ga), ga)
    if y is not None:
        safe = xp.where(a == 0, xp.ones_like(a), a) if not isinstance(a, NUMBERS) else a
        log = xp.log(safe) if not isinstance(a, NUMBERS) else np.log(a if a else 1)
        gb = g * _conj(y * log)
        if not isinstance(a, NUMBERS):
            gb = xp.where((a == 0) & (b >= 0), xp.zeros_like(gb), gb) if _real(a) else gb
    return ga, gb


def _is_zero(b: Any) -> bool:
    return isinstance(b, NUMBERS) and b == 0


def _real(a: Any) -> bool:
    return not (a.is_complex() if isinstance(a, Tensor) else a.dtype.kind == "c")


def _pow_forward(a: Any, b: Any, xp: Any) -> Any:
    if a.dtype.kind in "iu" and a.dtype.kind == b.dtype.kind and (b < 0).any():
        # NumPy refuses; PyTorch gives the integer part: 1 and -1 alone survive
        size = xp.where(a == 1, 1, xp.where(a == -1, xp.where(b % 2 == 0, 1, -1), 0))
        return xp.where(b < 0, size.astype(a.dtype), xp.power(a, xp.where(b < 0, 0, b)))
    return xp.power(a, b)


_power = binary(
    "pow", _pow_forward, _pow_vjp, "a b y?b", summary="input ** exponent.",
    example="gpunn.pow(gpunn.tensor([1., 2., 3.]), 2)\ntensor([1., 4., 9.])",
)  # fmt: skip
_square = unary(
    "square", np.square, lambda g, x: g * (2 * _conj(x)), summary="x ** 2.", node_name="PowBackward0",
    example="gpunn.square(gpunn.tensor([1., -2.]))\ntensor([1., 4.])",
)  # fmt: skip
square = _square


def pow(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:  # noqa: A001
    """input ** exponent, element by element; one of the two may be a number.

    Integers to a negative integer number raise RuntimeError, as in PyTorch.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.pow.html

    >>> gpunn.pow(gpunn.tensor([1., 2., 3.]), 2)
    tensor([1., 4., 9.])
    """
    if type(exponent) in (int, float) and isinstance(input, Tensor):
        category = input.dtype.category
        if exponent == 2 and category >= dtypes.FLOATING:
            return _square(input, out=out)
        if type(exponent) is int and exponent < 0 and category == dtypes.INTEGER:
            raise RuntimeError("Integers to negative integer powers are not allowed.")
    return _power(input, exponent, out=out)


def _remainder(a: Any, b: Any, xp: Any) -> Any:
    if a.dtype.kind in "iu" and not b.all():
        raise RuntimeError("ZeroDivisionError")
    return xp.remainder(a, b)


def _quotient_vjp(g: Any, a: Any, b: Any, q: Any) -> Any:
    return g, -g * q


remainder = binary(
    "remainder", _remainder,
    lambda g, a, b: (g, -g * ns(g).floor(a / b)), "a b",
    summary="The remainder with the sign of `other`, Python's %.",
    example="gpunn.remainder(gpunn.tensor([-3., 3.]), 2)\ntensor([1., 1.])",
)  # fmt: skip


def _fmod(a: Any, b: Any, xp: Any) -> Any:
    if a.dtype.kind in "iu" and not b.all():
        raise RuntimeError("ZeroDivisionError")
    return xp.fmod(a, b)


fmod = binary(
    "fmod", _fmod, lambda g, a, b: (g, -g * ns(g).trunc(a / b)), "a b",
    summary="The remainder with the sign of `input`, C's fmod.",
    example="gpunn.fmod(gpunn.tensor([-3., 3.]), 2)\ntensor([-1.,  1.])",
)  # fmt: skip


def _max_share(g: Any, a: Any, b: Any) -> Any:
    """The gradient goes to the larger; equal ones share it."""
    xp = ns(g)
    half = xp.where(a == b, g * 0.5, xp.zeros_like(g))
    return xp.where(a > b, g, half), xp.where(b > a, g, half)


def _min_share(g: Any, a: Any, b: Any) -> Any:
    return _max_share(g, -1 * a, -1 * b)


maximum = binary(
    "maximum", np.maximum, _max_share, "a b", summary="The larger of the two; NaN if one is NaN.",
    example="gpunn.maximum(gpunn.tensor([1, 5]), gpunn.tensor([3, 2]))\ntensor([3, 5])",
)  # fmt: skip
minimum = binary(
    "minimum", np.minimum, _min_share, "a b", summary="The smaller of the two; NaN if one is NaN.",
    example="gpunn.minimum(gpunn.tensor([1, 5]), gpunn.tensor([3, 2]))\ntensor([1, 2])",
)  # fmt: skip
neg = negative = unary(
    "neg", np.negative, lambda g: -g, None, summary="-x.",
    example="gpunn.neg(gpunn.tensor([1., -2.]))\ntensor([-1.,  2.])",
)  # fmt: skip

# --- exponential, trigonometric -----------------------------------------------------------

exp = unary(
    "exp", np.exp, lambda g, y: g * _conj(y), -1, to_float=True, summary="e ** x.",
    example="gpunn.exp(gpunn.tensor([0., 1.]))\ntensor([1.0000, 2.7183])",
)  # fmt: skip
log = unary(
    "log", np.log, lambda g, x: g / _conj(x), to_float=True, summary="The natural logarithm.",
    example="gpunn.log(gpunn.tensor([1., 10.]))\ntensor([0.0000, 2.3026])",
)  # fmt: skip
sqrt = unary(
    "sqrt", np.sqrt, lambda g, y: g / (2 * _conj(y)), -1, to_float=True, summary="The square root.",
    example="gpunn.sqrt(gpunn.tensor([4., 9.]))\ntensor([2., 3.])",
)  # fmt: skip
sin = unary(
    "sin", np.sin, lambda g, x: g * _conj(ns(x).cos(x)), to_float=True, summary="The sine of x in radians.",
    example="gpunn.sin(gpunn.tensor([0.]))\ntensor([0.])",
)  # fmt: skip
cos = unary(
    "cos", np.cos, lambda g, x: -g * _conj(ns(x).sin(x)), to_float=True, summary="The cosine of x in radians.",
    example="gpunn.cos(gpunn.tensor([0.]))\ntensor([1.])",
)  # fmt: skip
tanh = unary(
    "tanh", np.tanh, lambda g, y: g * _conj(1 - y * y), -1, to_float=True, summary="The hyperbolic tangent.",
    example="gpunn.tanh(gpunn.tensor([0., 1.]))\ntensor([0.0000, 0.7616])",
)  # fmt: skip


def _sigmoid_forward(x: Any, xp: Any) -> Any:
    """1 / (1 + e**-x), by way of tanh: it overflows nowhere."""
    if x.dtype.kind == "c":
        return 1 / (1 + xp.exp(-x))
    y = xp.tanh(x * 0.5)
    y += 1
    y *= 0.5
    return y


sigmoid = unary(
    "sigmoid", _sigmoid_forward, lambda g, y: g * _conj(y * (1 - y)), -1, to_float=True,
    summary="The logistic function 1 / (1 + e ** -x).",
    example="gpunn.sigmoid(gpunn.tensor([0., 2.]))\ntensor([0.5000, 0.8808])",
)  # fmt: skip
relu = unary(
    "relu", lambda x, xp: xp.maximum(x, x.dtype.type(0)), lambda g, y: g * (y > 0), -1,
    summary="max(x, 0); NaN stays NaN.",
    example="gpunn.relu(gpunn.tensor([-1., 2.]))\ntensor([0., 2.])",
)  # fmt: skip

# --- comparison ---------------------------------------------------------------------------


def _compare(name: str, ufunc: Any, sign: str) -> Any:
    return binary(
        name, ufunc, None, compares=True, summary=f"input {sign} other, as bool.",
        example=f"gpunn.{name}(gpunn.tensor([1, 2]), 2)\n"
        f"tensor([{ufunc(1, 2)!s:>5}, {ufunc(2, 2)!s:>5}])",
    )  # fmt: skip


eq = _compare("eq", np.equal, "==")
ne = not_equal = _compare("ne", np.not_equal, "!=")
lt = less = _compare("lt", np.less, "<")
le = less_equal = _compare("le", np.less_equal, "<=")
gt = greater = _compare("gt", np.greater, ">")
ge = greater_equal = _compare("ge", np.greater_equal, ">=")

__all__ = [
    "add", "conj", "cos", "div", "divide", "eq", "exp", "fmod", "ge", "greater", "greater_equal",
    "gt", "le", "less", "less_equal", "log", "lt", "maximum", "minimum", "mul", "multiply", "ne",
    "neg", "negative", "not_equal", "pow", "relu", "remainder", "sigmoid", "sin", "sqrt", "square",
    "sub", "tanh",
]  # fmt: skip
for _name in __all__:
    setattr(Tensor, _name, globals()[_name])
    if _name not in ("conj", "relu"):
        setattr(Tensor, _name + "_", inplace(globals()[_name], _name))
