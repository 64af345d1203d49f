"""Writing results into memory that exists: `out=`, and the in-place forms `x.op_()`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from gpunn import dtypes
from gpunn.amp.casts import AUTOCAST, uncast
from gpunn.autograd.graph import Node, Output, adopt, check_inplace, mode, touch
from gpunn.autograd.graph import _clock as clock
from gpunn.device import CPU
from gpunn.dtypes import F32, F64
from gpunn.ops._operands import cast, proper
from gpunn.tensor import ARRAY_TYPES, Tensor, root, wrap


def write_out(out: Tensor, value: Tensor, name: str) -> Tensor:
    """Fills an `out=` argument; one of another shape is given new memory, with a warning."""
    if mode.grad and (out._requires_grad or value._requires_grad):
        raise RuntimeError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )
    if not dtypes.can_cast(value.dtype, out.dtype):
        raise RuntimeError(
            f"result type {proper(value.dtype)} can't be cast to the desired output type "
            f"{proper(out.dtype)}"
        )
    if out.device is not value.device:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, "
            f"{out.device} and {value.device}! ({name})"
        )
    if out.array.shape != value.array.shape:
        if out.array.size:
            warnings.warn(
                f"An output with one or more elements was resized since it had shape "
                f"{list(out.array.shape)}, which does not match the required output shape "
                f"{list(value.array.shape)} ({name}). Pass an out= of that shape, or an empty one.",
                stacklevel=3,
            )
        out.array = out.device.xp.empty(value.array.shape, out.array.dtype)
    out.array[...] = value.array
    adopt(out, wrap(value.array, value.device))
    return out


def inplace(op: Callable[..., Any], name: str | None = None) -> Callable[..., Any]:
    """The in-place form `x.op_(...)`: computes op, writes it into x, and takes over its history."""
    stem = name or op.__name__
    ufunc = getattr(op, "ufunc", None)

    def op_(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_inplace(self)
        if ufunc is not None and not kwargs and _straight(ufunc, self, args):
            return self
        start = clock() if mode.grad else 0
        value = uncast(op, self, *args, **kwargs) if AUTOCAST else op(self, *args, **kwargs)
        if value._requires_grad and mode.grad:
            _keep_saved(value, self.array, start)
        return write(self, value, stem)

    op_.__name__ = op_.__qualname__ = stem + "_"
    op_.__wrapped__ = op  # type: ignore[attr-defined]  # whose parameters it shows
    op_.__doc__ = f"In-place version of `{stem}`: changes this tensor and returns it."
    return op_


def _straight(ufunc: Any, target: Tensor, args: tuple[Any, ...]) -> bool:
    """Has NumPy's function write into target, where there is nothing to convert or record."""
    a = target.array
    d = a.dtype
    if not (d is F32 or d is F64) or target.device is not CPU or not a.flags.c_contiguous:
        return False
    if mode.grad and target._requires_grad:
        return False
    values = []
    for v in args:
        if type(v) is not float and type(v) is not int:
            if not isinstance(v, Tensor) or v.array.dtype is not d or v.device is not CPU:
                return False
            if mode.grad and v._requires_grad:
                return False
            v = v.array
        values.append(v)
    try:
        ufunc(a, *values, a)
    except (ValueError, TypeError):  # shapes, too many arguments: the general path says so
        return False
    touch(target)
    return True


def _keep_saved(value: Tensor, memory: Any, start: int) -> None:
    """Nodes recorded since `start` that saved the memory about to be overwritten get a copy."""
    owner = root(memory)
    copies: dict[int, Any] = {}
    stack = [value.node]
    while stack:
        v = stack.pop()
        node = v.node if type(v) is Output else v
        if not isinstance(node, Node) or node.seq < start:
            continue
        stack.extend(node.parents)
        saved = node.saved
        for i, array in enumerate(saved):
            if type(array) in ARRAY_TYPES and root(array) is owner:
                copy = copies.setdefault(id(array), array.copy())
                node.saved = (*node.saved[:i], copy, *node.saved[i + 1 :])


def write(target: Tensor, value: Tensor, name: str) -> Tensor:
    """target[...] = value, with value's history: the second half of every in-place operation."""
    a, v = target.array, value.array
    if v.shape != a.shape:
        raise RuntimeError(
            f"output with shape {list(a.shape)} doesn't match the broadcast shape {list(v.shape)} "
            f"({name}_)"
        )
    if v.dtype is not a.dtype:
        if not dtypes.can_cast(value.dtype, target.dtype):
            raise RuntimeError(
                f"result type {proper(value.dtype)} can't be cast to the desired output type "
                f"{proper(target.dtype)}"
            )
        value = cast(value, a.dtype)
    if a.size and any(s == 0 and n > 1 for s, n in zip(a.strides, a.shape, strict=True)):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )
    a[...] = value.array
    adopt(target, value)
    return target


def publish(space: dict[str, Any], names: list[str], in_place: list[str] = []) -> None:  # noqa: B006
    """Makes operations of a module methods of Tensor, those of `in_place` also as `x.op_()`.

    An in-place form that PyTorch has as a function, too (`exp_`), goes into the module.
    """
    for name in names:
        setattr(Tensor, name, space[name])
    for name in in_place:
        made = inplace(space[name], name)
        setattr(Tensor, name + "_", made)
        if name in _FUNCTIONS_IN_PLACE:
            space[name + "_"] = made


def public(names: list[str], in_place: list[str]) -> list[str]:
    """`__all__` of a module: names, and the in-place forms that are functions, too."""
    return [*names, *(f"{n}_" for n in in_place if n in _FUNCTIONS_IN_PLACE)]


_FUNCTIONS_IN_PLACE = frozenset([
    "abs", "acos", "acosh", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctanh", "asin",
    "asinh", "atan", "atanh", "ceil", "clamp", "clamp_max", "clamp_min", "clip", "cos", "cosh",
    "deg2rad", "erf", "erfc", "exp", "exp2", "expm1", "fix", "floor", "frac", "gcd", "i0", "lcm",
    "ldexp", "log", "log10", "log1p", "log2", "logit", "nan_to_num", "neg", "negative", "rad2deg",
    "reciprocal", "round", "rsqrt", "sigmoid", "sin", "sinc", "sinh", "sqrt", "square", "tan",
    "tanh", "trunc", "xlogy",
])  # fmt: skip
