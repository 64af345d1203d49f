"""Arithmetic of pairs, element by element: one row each, its forward and its VJP side by side.

A VJP is written with operators and the functions of `namespace(x)`, which works for arrays and,
when gradients are to be differentiated again, for Tensors.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gpunn import dtypes, native
from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import vjp
from gpunn.ops._rows import (
    binary,
    not_implemented,
    public,
    publish,
    several,
    unary,
)  # fmt: skip
from gpunn.ops._rows import conjugate as _conj
from gpunn.tensor import Tensor

# --- sums ---------------------------------------------------------------------------------


def _no_bool(input: Any, other: Any) -> None:
    """Raises where one operand of a subtraction is bool."""
    bools = [v.dtype is dtypes.bool_ if isinstance(v, Tensor) else type(v) is bool
             for v in (input, other)]  # fmt: skip
    if all(bools):
        raise RuntimeError(
            "Subtraction, the `-` operator, with two bool tensors is not supported. Use the `^` or "
            "`logical_xor()` operator instead."
        )
    if any(bools):
        raise RuntimeError(
            "Subtraction, the `-` operator, with a bool tensor is not supported. If you are trying "
            "to invert a mask, use the `~` or `logical_not()` operator instead."
        )


_add = binary(
    "add", np.add, lambda g: (g, g), large=native.add,
    summary="input + other.", example="gpunn.add(gpunn.tensor([1, 2]), 10)\ntensor([11, 12])",
)  # fmt: skip
_sub = binary(
    "sub", np.subtract, lambda g: (g, -g), refuses="b", check=_no_bool,
    summary="input - other.", example="gpunn.sub(gpunn.tensor([1, 2]), 1)\ntensor([0, 1])",
)  # fmt: skip
neg = negative = unary(
    "neg", np.negative, lambda g: -g, None, summary="-x.", refuses="b",
    why="Negation, the `-` operator, on a bool tensor is not supported. If you are trying to "
    "invert a mask, use the `~` or `logical_not()` operator instead.",
    example="gpunn.neg(gpunn.tensor([1., -2.]))\ntensor([-1.,  2.])",
)  # fmt: skip


def add(
    input: Any, other: Any, *legacy: Any, alpha: Any = 1, out: Tensor | None = None
) -> Tensor:
    """input + alpha * other, with broadcasting; add(input, alpha, other) of old scripts, too.

    Shapes: any two that broadcast. dtypes: the operands' common dtype.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.add.html

    >>> gpunn.add(gpunn.tensor([1, 2]), gpunn.tensor([10, 20]), alpha=2)
    tensor([21, 42])
    """
    if legacy:
        alpha, other = _alpha_first("add", other, legacy)
    if type(alpha) is int and alpha == 1:
        return _add(input, other, out=out)
    return _add(input, _scaled(other, alpha, input), out=out)


def sub(
    input: Any, other: Any, *legacy: Any, alpha: Any = 1, out: Tensor | None = None
) -> Tensor:
    """input - alpha * other, with broadcasting; sub(input, alpha, other) of old scripts, too.

    Shapes: any two that broadcast. dtypes: the operands' common dtype, not bool.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.sub.html

    >>> gpunn.sub(gpunn.tensor([1, 2]), gpunn.tensor([10, 20]), alpha=2)
    tensor([-19, -38])
    """
    if legacy:
        alpha, other = _alpha_first("sub", other, legacy)
    if type(alpha) is int and alpha == 1:
        return _sub(input, other, out=out)
    return _sub(input, _scaled(other, alpha, input), out=out)


subtract = sub
add.ufunc, sub.ufunc = np.add, np.subtract  # type: ignore[attr-defined]  # for add_ and sub_


def rsub(input: Any, other: Any, *, alpha: Any = 1) -> Tensor:
    """other - alpha * input.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.sub.html

    >>> gpunn.rsub(gpunn.tensor([1, 2]), 10)
    tensor([9, 8])
    """
    if isinstance(other, Tensor):
        return sub(other, input, alpha=alpha)
    return _sub(other, input if alpha == 1 else _scaled(input, alpha, input))


def _alpha_first(name: str, alpha: Any, legacy: tuple[Any, ...]) -> tuple[Any, Any]:
    """The arguments of the deprecated order: (alpha, other)."""
    if len(legacy) > 1 or isinstance(alpha, Tensor) or not isinstance(legacy[0], Tensor):
        raise TypeError(f"{name}() takes 2 positional arguments: pass alpha= by name")
    _deprecated(name, "Number alpha, Tensor other", "Tensor other, *, Number alpha = 1")
    return alpha, legacy[0]


def _deprecated(name: str, given: str, wanted: str) -> None:
    warnings.warn(
        f"This overload of {name} is deprecated:\n\t{name}({given})\nConsider using one of the "
        f"following signatures instead:\n\t{name}({wanted})",
        stacklevel=4,
    )


def _scaled(other: Any, alpha: Any, input: Any) -> Any:
    """alpha * other, refusing an alpha that would change the operands' category."""
    category = max(t.dtype.category for t in (input, other) if isinstance(t, Tensor))
    if isinstance(alpha, bool) and category > dtypes.BOOL:
        raise RuntimeError("Boolean alpha only supported for Boolean results.")
    if isinstance(alpha, float) and category < dtypes.FLOATING:
        raise RuntimeError(
            "For integral input tensors, argument alpha must not be a floating point number."
        )
    if isinstance(alpha, complex) and category < dtypes.COMPLEX:
        raise RuntimeError(
            "For non-complex input tensors, argument alpha must not be a complex number."
        )
    return other * alpha


# --- products and quotients ---------------------------------------------------------------


def _mul_vjp(g: Any, a: Any, b: Any) -> Any:
    return None if b is None else g * _conj(b), None if a is None else g * _conj(a)


mul = multiply = binary(
    "mul", np.multiply, _mul_vjp, "a?b b?a",
    summary="input * other.", example="gpunn.mul(gpunn.tensor([1, 2]), 3)\ntensor([3, 6])",
)  # fmt: skip


def _div_vjp(g: Any, b: Any, y: Any) -> Any:
    ga = g / _conj(b)
    return ga, None if y is None else -ga * _conj(y)


_true_divide = binary(
    "div", np.true_divide, _div_vjp, "b y?b", to_float=True,
    summary="input / other.",
    example="gpunn.div(gpunn.tensor([1, 2]), 2)\ntensor([0.5000, 1.0000])",
)  # fmt: skip


def _no_zero(f: Any) -> Any:
    """f, with PyTorch's error for integers divided by zero."""

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


def _flat_vjp(g: Any) -> Any:
    zero = ns(g).zeros_like(g)
    return zero, zero


def _rounded(name: str, forward: Any, vjp: Any, summary: str = "", example: str = "") -> Any:
    return binary(name, _no_zero(forward), vjp, refuses="bc", summary=summary, example=example,
                  node_name="DivBackward1")  # fmt: skip


_div_floor = _rounded("div_floor", lambda a, b, xp: xp.floor_divide(a, b), _flat_vjp)
_div_trunc = _rounded("div_trunc", _trunc_divide, _flat_vjp)
floor_divide = _rounded(
    "floor_divide", lambda a, b, xp: xp.floor_divide(a, b), not_implemented("floor_divide"),
    "input // other: rounded towards minus infinity; no gradient.",
    "gpunn.floor_divide(gpunn.tensor([-7, 7]), 2)\ntensor([-4,  3])",
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
        return _div_floor(input, other, out=out)
    if rounding_mode == "trunc":
        return _div_trunc(input, other, out=out)
    raise RuntimeError(
        f"div expected rounding_mode to be one of None, 'trunc', or 'floor' but found "
        f"'{rounding_mode}'"
    )


divide = div
div.ufunc = np.true_divide  # type: ignore[attr-defined]  # for div_


def true_divide(input: Any, other: Any, *, out: Tensor | None = None) -> Tensor:
    """`div` without rounding.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.true_divide.html

    >>> gpunn.true_divide(gpunn.tensor([1, 2]), 2)
    tensor([0.5000, 1.0000])
    """
    return _true_divide(input, other, out=out)


def _quotient(a: Any, b: Any, mode: str) -> Any:
    """What a remainder leaves out, of arrays or Tensors."""
    if isinstance(a, Tensor):
        return div(a, b, rounding_mode=mode)
    return ns(a).floor_divide(a, b) if mode == "floor" else ns(a).trunc(a / b)


remainder = binary(
    "remainder", _no_zero(lambda a, b, xp: xp.remainder(a, b)),
    lambda g, a, b: (g, -g * _quotient(a, b, "floor")), "a b", refuses="bc",
    summary="The remainder with the sign of `other`, Python's %.",
    example="gpunn.remainder(gpunn.tensor([-3., 3.]), 2)\ntensor([1., 1.])",
)  # fmt: skip
fmod = binary(
    "fmod", _no_zero(lambda a, b, xp: xp.fmod(a, b)),
    lambda g, a, b: (g, -g * _quotient(a, b, "trunc")), "a b", refuses="bc",
    summary="The remainder with the sign of `input`, C's fmod.",
    example="gpunn.fmod(gpunn.tensor([-3., 3.]), 2)\ntensor([-1.,  1.])",
)  # fmt: skip
gcd = binary(
    "gcd", np.gcd, None, refuses="bfVc", summary="The greatest common divisor of integers.",
    example="gpunn.gcd(gpunn.tensor([12]), gpunn.tensor([18]))\ntensor([6])",
)  # fmt: skip
lcm = binary(
    "lcm", np.lcm, None, refuses="bfVc", summary="The least common multiple of integers.",
    example="gpunn.lcm(gpunn.tensor([4]), gpunn.tensor([6]))\ntensor([12])",
)  # fmt: skip

# --- geometry and neighbours --------------------------------------------------------------


def _atan2_vjp(g: Any, a: Any, b: Any) -> Any:
    """0 at the origin, where there is no angle."""
    xp = ns(g)
    square = a * a + b * b
    scaled = g / xp.where(square == 0, xp.ones_like(square), square)
    return scaled * b, scaled * -a


atan2 = arctan2 = binary(
    "atan2", np.arctan2, _atan2_vjp, "a b", to_float=True, refuses="c",
    summary="The angle of the point (other, input) in radians.",
    example="gpunn.atan2(gpunn.tensor([1.]), gpunn.tensor([1.]))\ntensor([0.7854])",
)  # fmt: skip
hypot = binary(
    "hypot", np.hypot, lambda g, a, b, y: (g * (a / y), g * (b / y)), "a b y", refuses="biuc",
    summary="sqrt(input ** 2 + other ** 2).",
    example="gpunn.hypot(gpunn.tensor([3.]), gpunn.tensor([4.]))\ntensor([5.])",
)  # fmt: skip


def _copysign_vjp(g: Any, a: Any, y: Any) -> Any:
    xp = ns(g)
    return g * xp.where(a == 0, xp.zeros_like(a), y / a), xp.zeros_like(g)


copysign = binary(
    "copysign", np.copysign, _copysign_vjp, "a y", to_float=True, refuses="c",
    summary="The size of input with the sign of other.",
    example="gpunn.copysign(gpunn.tensor([1.]), -2)\ntensor([-1.])",
)  # fmt: skip


def _nextafter_vjp(g: Any, a: Any, b: Any) -> Any:
    xp = ns(g)
    zero = xp.zeros_like(g)
    return xp.where(a == b, zero, g), zero


nextafter = binary(
    "nextafter", np.nextafter, _nextafter_vjp, "a b", refuses="biuc", exact=True,
    summary="The next representable number towards other.",
    example="gpunn.nextafter(gpunn.tensor([1.]), gpunn.tensor([2.])) > 1\ntensor([True])",
)  # fmt: skip

# --- three operands -----------------------------------------------------------------------


@vjp((0, 1, 2, None), name="AddcmulBackward0")
def _addcmul_vjp(g: Any, a: Any, b: Any, c: Any, value: Any) -> Any:
    return g, g * _conj(c * value), g * _conj(b * value)


def _value_first(name: str, tensors: tuple[Any, ...], value: Any) -> tuple[Any, Any, Any]:
    """(tensor1, tensor2, value), also from the deprecated order (value, tensor1, tensor2)."""
    if len(tensors) == 2:
        return (*tensors, value)
    if len(tensors) != 3 or isinstance(tensors[0], Tensor):
        raise TypeError(f"{name}() takes 3 tensors, got {len(tensors) + 1}: pass value= by name")
    _deprecated(name, "Number value, Tensor tensor1, Tensor tensor2",
                "Tensor tensor1, Tensor tensor2, *, Number value = 1")  # fmt: skip
    return tensors[1], tensors[2], tensors[0]


@autocasts("addcmul")
def addcmul(
    input: Tensor, *tensors: Any, tensor1: Any = None, tensor2: Any = None, value: Any = 1,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """input + value * tensor1 * tensor2: addcmul(input, tensor1, tensor2, value=1).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.addcmul.html

    >>> gpunn.addcmul(gpunn.zeros(1), gpunn.ones(1), gpunn.ones(1), value=2)
    tensor([2.])
    """
    named = tuple(t for t in (tensor1, tensor2) if t is not None)
    tensor1, tensor2, value = _value_first("addcmul", tensors + named, value)
    return several(
        "addcmul", (input, tensor1, tensor2), lambda a, b, c, xp: a + _whole(value, a) * b * c,
        _addcmul_vjp, (value,), refuses="b", out=out,
    )  # fmt: skip


def _whole(value: Any, like: Any) -> Any:
    """A factor as a number that leaves integers integers."""
    return int(value) if like.dtype.kind in "iu" else value


@vjp((0, 1, 2, None), name="AddcdivBackward0")
def _addcdiv_vjp(g: Any, a: Any, b: Any, c: Any, value: Any) -> Any:
    return g, g * _conj(value / c), -g * _conj(value * b / (c * c))


@autocasts("addcdiv")
def addcdiv(
    input: Tensor, *tensors: Any, tensor1: Any = None, tensor2: Any = None, value: Any = 1,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """input + value * tensor1 / tensor2: addcdiv(input, tensor1, tensor2, value=1).

    RuntimeError where both are integers.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.addcdiv.html

    >>> gpunn.addcdiv(gpunn.zeros(1), gpunn.ones(1), gpunn.ones(1), value=2)
    tensor([2.])
    """
    named = tuple(t for t in (tensor1, tensor2) if t is not None)
    tensor1, tensor2, value = _value_first("addcdiv", tensors + named, value)
    if all(t.dtype.category < dtypes.FLOATING for t in (tensor1, tensor2)):
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported, and in a future release addcdiv "
            "will perform a true division of tensor1 and tensor2. Make one of them floating."
        )
    return several(
        "addcdiv", (input, tensor1, tensor2), lambda a, b, c, xp: a + value * b / c, _addcdiv_vjp,
        (value,), out=out,
    )  # fmt: skip


@vjp((0, 1, 2), name="LerpBackward0")
def _lerp_vjp(g: Any, a: Any, b: Any, w: Any) -> Any:
    return g * _conj(1 - w), g * _conj(w), g * _conj(b - a)


def _lerp_forward(a: Any, b: Any, w: Any, xp: Any) -> Any:
    """Exact at both ends: counted from the nearer one."""
    step = b - a
    if xp is np and not w.ndim:
        return a + w * step if abs(w) < 0.5 else b - step * (1 - w)
    return xp.where(abs(w) < 0.5, a + w * step, b - step * (1 - w))


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
    return several(
        "lerp", (input, end, weight), _lerp_forward, _lerp_vjp, refuses="biu", out=out,
        why=f"\"lerp_kernel_tensor\" not implemented for '{input.dtype.name}'",
    )  # fmt: skip


_METHODS = [
    "add", "addcdiv", "addcmul", "arctan2", "atan2", "copysign", "div", "divide", "floor_divide",
    "fmod", "gcd", "hypot", "lcm", "lerp", "mul", "multiply", "neg", "negative", "nextafter",
    "remainder", "sub", "subtract", "true_divide",
]  # fmt: skip
publish(globals(), _METHODS, _METHODS)
__all__ = [*public(_METHODS, _METHODS), "rsub"]
