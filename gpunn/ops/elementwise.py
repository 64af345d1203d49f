"""Element-wise operations: one row each, its forward and its VJP side by side.

A VJP is written with operators and the functions of `namespace(x)`, which works for arrays and,
when gradients are to be differentiated again, for Tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import Node, mode, result
from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import (
    NUMBERS, adapt, binary, inplace, operands, same_device, size_error, unary, write_out,
)  # fmt: skip
from gpunn.ops._rows import conjugate as _conj
from gpunn.tensor import Tensor, method, wrap

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


# --- logic and bits -----------------------------------------------------------------------


def _logical(name: str, ufunc: Any, word: str) -> Any:
    return binary(
        name, lambda a, b, xp: getattr(xp, ufunc.__name__)(a, b), None, compares=True,
        summary=f"input {word} other, where non-zero counts as true.",
        example=f"gpunn.{name}(gpunn.tensor([True]), gpunn.tensor([False]))\n"
        f"tensor([{ufunc(True, False)!s:>5}])".replace("[ True", "[True"),
    )  # fmt: skip


logical_and = _logical("logical_and", np.logical_and, "and")
logical_or = _logical("logical_or", np.logical_or, "or")
logical_xor = _logical("logical_xor", np.logical_xor, "xor")
logical_not = unary(
    "logical_not", np.logical_not, None, summary="True where x is zero.",
    example="gpunn.logical_not(gpunn.tensor([0, 2]))\ntensor([ True, False])",
)  # fmt: skip


def _integral(name: str, ufunc: Any, symbol: str, bools: bool = True) -> Any:
    def forward(a: Any, b: Any, xp: Any) -> Any:
        if a.dtype.kind not in ("biu" if bools else "iu"):
            raise RuntimeError(
                f"\"{name}_cpu\" not implemented for '{a.dtype.name.capitalize()}': it works on "
                "integers"
            )
        return getattr(xp, ufunc.__name__)(a, b)

    return binary(
        name, forward, None, summary=f"input {symbol} other, bit by bit.",
        example=f"gpunn.{name}(gpunn.tensor([6]), 3)\ntensor([{ufunc(6, 3)}])",
    )  # fmt: skip


bitwise_and = _integral("bitwise_and", np.bitwise_and, "&")
bitwise_or = _integral("bitwise_or", np.bitwise_or, "|")
bitwise_xor = _integral("bitwise_xor", np.bitwise_xor, "^")


def _bitwise_not(x: Any, xp: Any) -> Any:
    if x.dtype.kind not in "biu":
        raise RuntimeError(f"\"bitwise_not_cpu\" not implemented for '{x.dtype.name}'")
    return xp.invert(x)


bitwise_not = unary(
    "bitwise_not", _bitwise_not, None, summary="Every bit turned round; logical not for bool.",
    example="gpunn.bitwise_not(gpunn.tensor([0, 5]))\ntensor([-1, -6])",
)  # fmt: skip


def _shift(name: str, ufunc: Any, symbol: str) -> Any:
    def forward(a: Any, b: Any, xp: Any) -> Any:
        if a.dtype.kind not in "iu":
            raise RuntimeError(f"\"{name}_cpu\" not implemented for '{a.dtype.name}'")
        bits = a.dtype.itemsize * 8
        bad = (b < 0) | (b >= bits)
        y = getattr(xp, ufunc.__name__)(a, xp.where(bad, 0, b))
        over = xp.where(a < 0, -1, 0) if symbol == ">>" else 0
        return xp.where(bad, over, y).astype(a.dtype)

    return binary(
        name, forward, None, summary=f"input {symbol} other.",
        example=f"gpunn.{name}(gpunn.tensor([4]), 1)\ntensor([{ufunc(4, 1)}])",
    )  # fmt: skip


bitwise_left_shift = _shift("bitwise_left_shift", np.left_shift, "<<")
bitwise_right_shift = _shift("bitwise_right_shift", np.right_shift, ">>")

# --- pairs --------------------------------------------------------------------------------


def _fmax_share(g: Any, a: Any, b: Any) -> Any:
    xp = ns(g)
    first = (a >= b) | (b != b)
    return xp.where(first, g, xp.zeros_like(g)), xp.where(first, xp.zeros_like(g), g)


def _fmin_share(g: Any, a: Any, b: Any) -> Any:
    xp = ns(g)
    first = (a <= b) | (b != b)
    return xp.where(first, g, xp.zeros_like(g)), xp.where(first, xp.zeros_like(g), g)


fmax = binary(
    "fmax", np.fmax, _fmax_share, "a b", summary="The larger of the two; a NaN counts as missing.",
    example="gpunn.fmax(gpunn.tensor([1., float('nan')]), gpunn.tensor([3., 2.]))\ntensor([3., 2.])",
)  # fmt: skip
fmin = binary(
    "fmin", np.fmin, _fmin_share, "a b", summary="The smaller of the two; a NaN counts as missing.",
    example="gpunn.fmin(gpunn.tensor([1., float('nan')]), gpunn.tensor([3., 2.]))\ntensor([1., 2.])",
)  # fmt: skip


def _atan2_vjp(g: Any, a: Any, b: Any) -> Any:
    scaled = g / (a * a + b * b)
    return scaled * b, scaled * -a


atan2 = arctan2 = binary(
    "atan2", np.arctan2, _atan2_vjp, "a b", to_float=True,
    summary="The angle of the point (other, input) in radians.",
    example="gpunn.atan2(gpunn.tensor([1.]), gpunn.tensor([1.]))\ntensor([0.7854])",
)  # fmt: skip
hypot = binary(
    "hypot", np.hypot, lambda g, a, b, y: (g * (a / y), g * (b / y)), "a b y",
    summary="sqrt(input ** 2 + other ** 2).",
    example="gpunn.hypot(gpunn.tensor([3.]), gpunn.tensor([4.]))\ntensor([5.])",
)  # fmt: skip


def _copysign_vjp(g: Any, a: Any, y: Any) -> Any:
    xp = ns(g)
    return g * xp.where(a == 0, xp.zeros_like(a), xp.sign(a) * xp.sign(y)), xp.zeros_like(g)


copysign = binary(
    "copysign", np.copysign, _copysign_vjp, "a y", to_float=True,
    summary="The size of input with the sign of other.",
    example="gpunn.copysign(gpunn.tensor([1.]), -2)\ntensor([-1.])",
)  # fmt: skip
nextafter = binary(
    "nextafter", np.nextafter, None, summary="The next representable number towards other.",
    example="gpunn.nextafter(gpunn.tensor([1.]), gpunn.tensor([2.])) > 1\ntensor([True])",
)  # fmt: skip
heaviside = binary(
    "heaviside", lambda a, b, xp: xp.where(a == 0, b, (a > 0).astype(a.dtype)), None,
    summary="0 below zero, 1 above, other at zero.",
    example="gpunn.heaviside(gpunn.tensor([-1., 0., 2.]), gpunn.tensor([0.5]))\n"
    "tensor([0.0000, 0.5000, 1.0000])",
)  # fmt: skip
gcd = binary("gcd", np.gcd, None, summary="The greatest common divisor of integers.",
             example="gpunn.gcd(gpunn.tensor([12]), gpunn.tensor([18]))\ntensor([6])")  # fmt: skip
lcm = binary("lcm", np.lcm, None, summary="The least common multiple of integers.",
             example="gpunn.lcm(gpunn.tensor([4]), gpunn.tensor([6]))\ntensor([12])")  # fmt: skip


def _logaddexp_vjp(g: Any, a: Any, b: Any, y: Any) -> Any:
    xp = ns(g)
    return g * xp.exp(a - y), g * xp.exp(b - y)


logaddexp = binary(
    "logaddexp", np.logaddexp, _logaddexp_vjp, "a b y",
    summary="log(e ** input + e ** other), without overflow.",
    example="gpunn.logaddexp(gpunn.tensor([0.]), gpunn.tensor([0.]))\ntensor([0.6931])",
)  # fmt: skip
logaddexp2 = binary(
    "logaddexp2", np.logaddexp2, lambda g, a, b, y: (g * 2 ** (a - y), g * 2 ** (b - y)), "a b y",
    summary="log2(2 ** input + 2 ** other), without overflow.",
    example="gpunn.logaddexp2(gpunn.tensor([0.]), gpunn.tensor([0.]))\ntensor([1.])",
)  # fmt: skip


def _xlogy_forward(a: Any, b: Any, xp: Any) -> Any:
    return xp.where((a == 0) & ~xp.isnan(b), a.dtype.type(0), a * xp.log(b))


def _xlogy_vjp(g: Any, a: Any, b: Any) -> Any:
    xp = ns(g)
    zero = xp.zeros_like(g)
    return xp.where((a == 0) & (b <= 0), zero, g * xp.log(b)), g * a / b


xlogy = binary(
    "xlogy", _xlogy_forward, _xlogy_vjp, "a b", to_float=True,
    summary="input * log(other), 0 where input is 0.",
    example="gpunn.xlogy(gpunn.tensor([0., 2.]), gpunn.tensor([0., 1.]))\ntensor([0., 0.])",
)  # fmt: skip


def true_divide(dividend: Any, divisor: Any, *, out: Tensor | None = None) -> Tensor:
    """`div` without rounding."""
    return _true_divide(dividend, divisor, out=out)


def floor_divide(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
    """input // other: rounded towards minus infinity."""
    return _floor_div(input, other, out=out)


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """other - alpha * input."""
    return sub(other, input, alpha=alpha) if isinstance(other, Tensor) else -(
        input * alpha
    ) + other  # fmt: skip


def float_power(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:
    """input ** exponent in float64 (complex128 for complex).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.float_power.html

    >>> gpunn.float_power(gpunn.tensor([2]), 3)
    tensor([8.], dtype=torch.float64)
    """
    both = [v for v in (input, exponent) if isinstance(v, Tensor)]
    wide = any(t.dtype.is_complex for t in both) or isinstance(exponent, complex)
    d = dtypes.complex128 if wide else dtypes.float64
    a, b = (v.to(d) if isinstance(v, Tensor) else v for v in (input, exponent))  # type: ignore[attr-defined]
    if not isinstance(a, Tensor):
        from gpunn.ops.create import tensor

        a = tensor(a, dtype=d)
    return pow(a, b, out=out)


def ldexp(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """input * 2 ** other.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.ldexp.html

    >>> gpunn.ldexp(gpunn.tensor([1.]), gpunn.tensor([3]))
    tensor([8.])
    """
    return mul(input, pow(2.0, other), out=out)


def addcmul(
    input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1, out: Tensor | None = None
) -> Tensor:
    """input + value * tensor1 * tensor2.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.addcmul.html

    >>> gpunn.addcmul(gpunn.zeros(1), gpunn.ones(1), gpunn.ones(1), value=2)
    tensor([2.])
    """
    return add(input, _scaled(mul(tensor1, tensor2), value, input, "addcmul"), out=out)


def addcdiv(
    input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Any = 1, out: Tensor | None = None
) -> Tensor:
    """input + value * tensor1 / tensor2; RuntimeError for integers.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.addcdiv.html

    >>> gpunn.addcdiv(gpunn.zeros(1), gpunn.ones(1), gpunn.ones(1), value=2)
    tensor([2.])
    """
    if all(t.dtype.category < dtypes.FLOATING for t in (tensor1, tensor2)):
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported, and in a future release addcdiv "
            "will perform a true division of tensor1 and tensor2. Make one of them floating."
        )
    return add(input, div(tensor1, tensor2) * value, out=out)


def lerp(input: Tensor, end: Tensor, weight: Any, *, out: Tensor | None = None) -> Tensor:
    """input + weight * (end - input).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.lerp.html

    >>> gpunn.lerp(gpunn.tensor([0.]), gpunn.tensor([10.]), 0.5)
    tensor([5.])
    """
    for name, t in (("end", end), ("weight", weight)):
        if isinstance(t, Tensor) and t.dtype is not input.dtype:
            raise RuntimeError(
                f"expected dtype {input.dtype.name} for `{name}` but got dtype {t.dtype.name}"
            )
    return add(input, mul(weight, end - input) if isinstance(weight, Tensor) else (  # type: ignore[operator]
        (end - input) * weight), out=out)  # type: ignore[operator]  # fmt: skip


# --- choosing -----------------------------------------------------------------------------


def _where_vjp(g: Any, mask: Any) -> Any:
    xp = ns(g)
    zero = xp.zeros_like(g)
    if isinstance(g, Tensor):
        mask = wrap(mask, g.device)
    return xp.where(mask, g, zero), xp.where(mask, zero, g)


_where_vjp.saves = (None,)  # type: ignore[attr-defined]
_where_vjp.node_name = "WhereBackward0"  # type: ignore[attr-defined]


def where(condition: Tensor, input: Any = None, other: Any = None, *, out: Tensor | None = None) -> Any:
    """input where condition is true, other elsewhere; with condition alone, `nonzero` as a tuple.

    Shapes: any three that broadcast. dtypes: condition bool; the others' common dtype.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.where.html

    >>> gpunn.where(gpunn.tensor([True, False]), 1, 0)
    tensor([1, 0])
    """
    if input is None and other is None:
        from gpunn.ops.gather import nonzero

        return nonzero(condition, as_tuple=True)
    if condition.array.dtype.kind not in "bu":
        raise RuntimeError(
            f"where expected condition to be a boolean tensor, but got a tensor with dtype "
            f"{condition.dtype}"
        )
    if not isinstance(input, Tensor) and not isinstance(other, Tensor):
        from gpunn.ops.create import tensor

        d = dtypes.promote_types(dtypes.of_scalar(input), dtypes.of_scalar(other))
        input = tensor(input, dtype=d, device=condition.device)
    same_device("where", (condition, input, other))
    (a, b), _ = operands("where", (input, other), False)
    mask = condition.array if condition.array.dtype.kind == "b" else condition.array != 0
    if condition.device is not a.device:
        mask = a.device.xp.asarray(mask)
    try:
        y = a.device.xp.where(mask, a.array, b.array)
    except ValueError:
        shape = size_error(mask.shape, a.array.shape)
        raise shape if "cannot be" not in str(shape) else size_error(
            a.array.shape, b.array.shape
        ) from None
    t = result(y, a)
    if mode.grad and (a._requires_grad or b._requires_grad):
        t._requires_grad = True
        t.node = Node(_where_vjp, (adapt(a, y.shape), adapt(b, y.shape)), (mask,), t.device)
    return t if out is None else write_out(out, t, "where")


def _clamp_vjp(g: Any, x: Any, low: Any, high: Any) -> Any:
    inside = None
    if low is not None:
        inside = x >= low
    if high is not None:
        inside = x <= high if inside is None else inside & (x <= high)
    xp = ns(g)
    return xp.where(inside, g, xp.zeros_like(g))


_clamp_vjp.saves = (0, None, None)  # type: ignore[attr-defined]
_clamp_vjp.node_name = "ClampBackward1"  # type: ignore[attr-defined]


def clamp(input: Tensor, min: Any = None, max: Any = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """input limited to [min, max]; the bounds are numbers or tensors, one may be missing.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.clamp.html

    >>> gpunn.clamp(gpunn.tensor([-2., 0.5, 3.]), 0, 1)
    tensor([0.0000, 0.5000, 1.0000])
    """
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        y = input
        if min is not None:
            y = maximum(y, min) if isinstance(min, Tensor) else clamp(y, min)
        if max is not None:
            y = minimum(y, max) if isinstance(max, Tensor) else clamp(y, None, max)
        return y if out is None else write_out(out, y, "clamp")
    values = tuple(v for v in (input, min, max) if v is not None)
    (x, *_), common = operands("clamp", values, False)
    if x.dtype.is_complex:
        raise RuntimeError("clamp is not supported for complex types")
    a, xp = x.array, x.device.xp
    low = None if min is None else xp.asarray(min).astype(common)
    high = None if max is None else xp.asarray(max).astype(common)
    y = a if low is None else xp.maximum(a, low)
    y = y if high is None else xp.minimum(y, high)
    made = result(y, x, _clamp_vjp, (x,), (a, low, high))
    return made if out is None else write_out(out, made, "clamp")


clip = clamp


def clamp_min(input: Tensor, min: Any, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """`clamp` from below."""
    return clamp(input, min, out=out)


def clamp_max(input: Tensor, max: Any, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """`clamp` from above."""
    return clamp(input, None, max, out=out)


# --- equality of whole tensors ------------------------------------------------------------


@method
def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Where |input - other| <= atol + rtol * |other|, as bool.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.isclose.html

    >>> gpunn.isclose(gpunn.tensor([1.]), gpunn.tensor([1.000001]))
    tensor([True])
    """
    if input.dtype is not other.dtype:
        raise RuntimeError(f"{input.dtype} did not match {other.dtype}")
    if rtol < 0 or atol < 0:
        raise RuntimeError(f"rtol and atol must be greater than or equal to zero, but got {rtol} "
                           f"and {atol}")  # fmt: skip
    xp = input.device.xp
    a, b = input.array, other.array
    if a.dtype.kind in "biu":
        a, b = a.astype(np.float64), b.astype(np.float64)
    elif a.dtype.kind not in "fc":
        a, b = a.astype(np.float32), b.astype(np.float32)
    return wrap(xp.asarray(xp.isclose(a, b, rtol, atol, equal_nan)), input.device)


@method
def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """Whether all elements are close: see `isclose`.

    >>> gpunn.allclose(gpunn.tensor([1.]), gpunn.tensor([1.000001]))
    True
    """
    return bool(isclose(input, other, rtol, atol, equal_nan).array.all())


@method
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and elements.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.equal.html

    >>> gpunn.equal(gpunn.tensor([1]), gpunn.tensor([1]))
    True
    """
    same_device("equal", (input, other))
    return input.array.shape == other.array.shape and bool((input.array == other.array).all())


_METHODS = [
    "add", "addcdiv", "addcmul", "arctan2", "atan2", "bitwise_and", "bitwise_left_shift",
    "bitwise_not", "bitwise_or", "bitwise_right_shift", "bitwise_xor", "clamp", "clamp_max",
    "clamp_min", "clip", "copysign", "div", "divide", "eq", "float_power", "floor_divide", "fmod",
    "gcd", "ge", "greater", "greater_equal", "gt", "heaviside", "hypot", "lcm", "ldexp", "le",
    "lerp", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "lt",
    "mul", "multiply", "ne", "neg", "negative", "nextafter", "not_equal", "pow", "remainder",
    "square", "sub", "subtract", "true_divide", "xlogy",
]  # fmt: skip
_METHODS_ONLY_OUT = ["fmax", "fmin", "logaddexp", "logaddexp2", "maximum", "minimum"]
subtract = sub
__all__ = [
    *_METHODS, *_METHODS_ONLY_OUT, "allclose", "conj", "equal", "isclose", "rsub", "where",
]  # fmt: skip
for _name in _METHODS:
    setattr(Tensor, _name, globals()[_name])
    setattr(Tensor, _name + "_", inplace(globals()[_name], _name))
for _name in _METHODS_ONLY_OUT:
    setattr(Tensor, _name, globals()[_name])


def _where_method(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """self where condition is true, other elsewhere."""
    return where(condition, self, other)


Tensor.where = _where_method  # type: ignore[attr-defined]
