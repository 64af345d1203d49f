"""Choosing between elements: maximum, minimum, where, clamp, heaviside, nan_to_num."""

from __future__ import annotations

from typing import Any, overload

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import Node, mode, result, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.device import CPU
from gpunn.dtypes import F32, F64
from gpunn.ops._rows import (
    adapt,
    binary,
    not_a_tensor,
    not_implemented,
    operands,
    public,
    publish,
    same_device,
    several,
    size_error,
    write_out,
)  # fmt: skip
from gpunn.tensor import Tensor, wrap


def where_array(mask: Any, a: Any, b: Any) -> Any:
    """`where` of raw arrays of one dtype. CuPy's gives float32 for bfloat16."""
    made = ns(a).where(mask, a, b)
    return made if made.dtype is a.dtype else made.astype(a.dtype, copy=False)


def only(mask: Any, g: Any) -> Any:
    """g where mask holds, 0 elsewhere: for VJPs, with arrays or Tensors."""
    if not isinstance(g, Tensor):
        return where_array(mask, g, g.dtype.type(0))
    return where(mask if isinstance(mask, Tensor) else wrap(mask, g.device), g, 0.0)


# --- the larger and the smaller -----------------------------------------------------------


def _max_share(g: Any, a: Any, b: Any) -> Any:
    """The gradient goes to the larger; equal ones share it; NaN gives it to both."""
    shared = ns(g).where(a == b, g * 0.5, g)
    return only(~(a < b), shared), only(~(b < a), shared)


def _min_share(g: Any, a: Any, b: Any) -> Any:
    return _max_share(g, -1 * a, -1 * b)


def _fmax_share(g: Any, a: Any, b: Any) -> Any:
    first = (a >= b) | (b != b)
    return only(first, g), only(~first, g)


def _fmin_share(g: Any, a: Any, b: Any) -> Any:
    return _fmax_share(g, -1 * a, -1 * b)


def _extreme(name: str, ufunc: Any, share: Any, summary: str, at: str, gives: str) -> Any:
    return binary(
        name, ufunc, share, "a b", refuses="c", summary=summary,
        why=f"{name} not implemented for complex tensors.",
        example=f"gpunn.{name}(gpunn.tensor([1., {at}]), gpunn.tensor([3., 2.]))\n"
        f"tensor([{gives}])",
    )  # fmt: skip


maximum = _extreme("maximum", np.maximum, _max_share,
                   "The larger of the two; NaN if one is NaN.", "5.", "3., 5.")  # fmt: skip
minimum = _extreme("minimum", np.minimum, _min_share,
                   "The smaller of the two; NaN if one is NaN.", "5.", "1., 2.")  # fmt: skip
fmax = _extreme("fmax", np.fmax, _fmax_share, "The larger of the two; a NaN counts as missing.",
                "gpunn.nan", "3., 2.")  # fmt: skip
fmin = _extreme("fmin", np.fmin, _fmin_share, "The smaller of the two; a NaN counts as missing.",
                "gpunn.nan", "1., 2.")  # fmt: skip


def _same_dtypes(input: Any, other: Any) -> None:
    if isinstance(input, Tensor) and isinstance(other, Tensor) and input.dtype is not other.dtype:
        raise RuntimeError("heaviside is not yet implemented for tensors with different dtypes.")


_heaviside = binary(
    "heaviside", lambda a, b, xp: xp.where(a == 0, b, (a > 0).astype(a.dtype)),
    not_implemented("heaviside"), refuses="c", check=_same_dtypes,
    why="heaviside is not yet implemented for complex tensors.",
)  # fmt: skip


def heaviside(input: Tensor, values: Tensor, *, out: Tensor | None = None) -> Tensor:
    """0 below zero, 1 above, `values` at zero; no gradient.

    Shapes: any two that broadcast. dtypes: both the same, not complex.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.heaviside.html

    >>> gpunn.heaviside(gpunn.tensor([-1., 0., 2.]), gpunn.tensor([0.5]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    return _heaviside(input, values, out=out)


# --- where --------------------------------------------------------------------------------


@vjp((None,), name="WhereBackward0")
def _where_vjp(g: Any, mask: Any) -> Any:
    return only(mask, g), only(~mask, g)


@overload
def where(condition: Tensor) -> tuple[Tensor, ...]: ...
@overload
def where(
    condition: Tensor, input: Any, other: Any, *, out: Tensor | None = None
) -> Tensor: ...
def where(
    condition: Tensor, input: Any = None, other: Any = None, *, out: Tensor | None = None
) -> Any:
    """input where condition is true, other elsewhere; with condition alone, `nonzero` as a tuple.

    Shapes: any three that broadcast. dtypes: condition bool; the others' common dtype.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.where.html

    >>> gpunn.where(gpunn.tensor([True, False]), 1, 0)
    tensor([1, 0])
    """
    if input is None and other is None:
        from gpunn.ops.search import nonzero

        return nonzero(condition, as_tuple=True)
    if not isinstance(condition, Tensor):
        raise not_a_tensor("where", condition, "condition")
    if condition.array.dtype.kind not in "bu":
        raise RuntimeError(
            f"where expected condition to be a boolean tensor, but got a tensor with dtype "
            f"{condition.dtype}"
        )
    a, b = _branches(condition, input, other)
    mask = condition.array if condition.array.dtype.kind == "b" else condition.array != 0
    if condition.device is not a.device:
        mask = a.device.xp.asarray(mask)
    try:
        y = where_array(mask, a.array, b.array)
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


def _branches(condition: Tensor, input: Any, other: Any) -> tuple[Tensor, Tensor]:
    """The two choices as Tensors of one dtype and device."""
    tensors = isinstance(input, Tensor), isinstance(other, Tensor)
    if all(tensors):
        same = input.device is other.device is condition.device
        if same and input.array.dtype is other.array.dtype:
            return input, other
    elif not any(tensors):
        from gpunn.ops.create import tensor

        d = dtypes.promote_types(dtypes.of_scalar(input), dtypes.of_scalar(other))
        input = tensor(input, dtype=d, device=condition.device)
    same_device("where", (condition, input, other))
    (a, b), _ = operands("where", (input, other), False)
    return a, b


def _where_method(self: Tensor, condition: Tensor, other: Any) -> Tensor:
    """self where condition is true, other elsewhere."""
    return where(condition, self, other)


# --- clamp --------------------------------------------------------------------------------


@vjp((0, None, None), name="ClampBackward1")
def _clamp_vjp(g: Any, x: Any, low: Any, high: Any) -> Any:
    if low is None:
        return only(x <= high, g)
    return only(x >= low if high is None else (x >= low) & (x <= high), g)


def clamp(input: Tensor, min: Any = None, max: Any = None, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """input limited to [min, max]; the bounds are numbers or tensors, one may be missing.

    Where min > max the result is max. Shapes: any that broadcast. dtypes: the common dtype of
    all three; complex ones raise RuntimeError.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.clamp.html

    >>> gpunn.clamp(gpunn.tensor([-2., 0.5, 3.]), 0, 1)
    tensor([0.0000, 0.5000, 1.0000])
    """
    if not isinstance(input, Tensor):
        raise not_a_tensor("clamp", input)
    if min is None and max is None:
        raise RuntimeError("torch.clamp: At least one of 'min' or 'max' must not be None")
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return _clamp_between(input, min, max, out)
    d = input.array.dtype
    if (d is F32 or d is F64) and input.device is CPU and out is None:
        return result(_limit(input.array, min, max, np), input, _clamp_vjp, (input,),
                      (input.array, min, max))  # fmt: skip
    (x, *_), common = operands("clamp", tuple(v for v in (input, min, max) if v is not None), False)
    if common.kind in "bc":
        raise RuntimeError("clamp is not supported for complex types" if common.kind == "c" else
                           "\"clamp_cpu\" not implemented for 'Bool'")  # fmt: skip
    xp = x.device.xp
    low, high = (None if v is None else xp.asarray(v).astype(common) for v in (min, max))
    y = _limit(x.array, low, high, xp)
    made = result(y, x, _clamp_vjp, (x,), (x.array, low, high))
    return made if out is None else write_out(out, made, "clamp")


def _limit(x: Any, low: Any, high: Any, xp: Any) -> Any:
    y = x if low is None else xp.maximum(x, low)
    return y if high is None else xp.minimum(y, high)


@vjp((0, 1, 2), name="ClampBackward0")
def _clamp_between_vjp(g: Any, x: Any, low: Any, high: Any) -> Any:
    inside = (x >= low) & (x <= high)
    return only(inside, g), only((x < low) & (low < high), g), only((x > high) | (high < low), g)


@vjp((0, 1), name="ClampMinBackward1")
def _clamp_min_vjp(g: Any, x: Any, low: Any) -> Any:
    return only(x >= low, g), only(x < low, g)


@vjp((0, 1), name="ClampMaxBackward1")
def _clamp_max_vjp(g: Any, x: Any, high: Any) -> Any:
    return only(x <= high, g), only(x > high, g)


def _clamp_between(input: Tensor, low: Any, high: Any, out: Tensor | None) -> Tensor:
    """`clamp` where a bound is a tensor: it gets a gradient, too."""
    kw: dict[str, Any] = {"refuses": "c", "why": "clamp is not supported for complex types"}
    if high is None:
        return several("clamp", (input, low), lambda x, a, xp: xp.maximum(x, a), _clamp_min_vjp,
                       out=out, **kw)  # fmt: skip
    if low is None:
        return several("clamp", (input, high), lambda x, b, xp: xp.minimum(x, b), _clamp_max_vjp,
                       out=out, **kw)  # fmt: skip
    return several("clamp", (input, low, high), _limit, _clamp_between_vjp, out=out, **kw)


clip = clamp


def clamp_min(input: Tensor, min: Any, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """`clamp` from below.

    >>> gpunn.clamp_min(gpunn.tensor([-2., 3.]), 0)
    tensor([0., 3.])
    """
    return clamp(input, min, out=out)


def clamp_max(input: Tensor, max: Any, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """`clamp` from above.

    >>> gpunn.clamp_max(gpunn.tensor([-2., 3.]), 0)
    tensor([-2.,  0.])
    """
    return clamp(input, None, max, out=out)


# --- NaN and infinities -------------------------------------------------------------------


@vjp((0,))
def _nan_to_num_vjp(g: Any, x: Any) -> Any:
    return only(ns(x).isfinite(x), g)


def nan_to_num(
    input: Tensor, nan: float | None = 0.0, posinf: float | None = None,
    neginf: float | None = None, *, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """NaN and infinities replaced: by 0 and the largest finite numbers unless given.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nan_to_num.html

    >>> gpunn.nan_to_num(gpunn.tensor([float("nan"), 1.]))
    tensor([0., 1.])
    """
    if not isinstance(input, Tensor):
        raise not_a_tensor("nan_to_num", input)
    x = input.array
    if x.dtype.kind in "biu":
        y = x.copy()
    else:
        info = dtypes.finfo(input.dtype)
        limits = (nan or 0.0, info.max if posinf is None else posinf,
                  info.min if neginf is None else neginf)  # fmt: skip
        y = x.copy()
        for part in (y.real, y.imag) if x.dtype.kind == "c" else (y,):
            _replace(part, *limits)
    made = result(y, input, _nan_to_num_vjp, (input,), (x,))
    return made if out is None else write_out(out, made, "nan_to_num")


def _replace(x: Any, nan: float, high: float, low: float) -> None:
    x[x != x] = nan
    x[x == np.inf] = high
    x[x == -np.inf] = low


_METHODS = ["clamp", "clamp_max", "clamp_min", "clip", "heaviside", "nan_to_num"]
_METHODS_ONLY_OUT = ["fmax", "fmin", "maximum", "minimum"]
publish(globals(), [*_METHODS, *_METHODS_ONLY_OUT], _METHODS)
__all__ = [*public(_METHODS, _METHODS), *_METHODS_ONLY_OUT, "where"]
Tensor.where = _where_method  # type: ignore[attr-defined]
