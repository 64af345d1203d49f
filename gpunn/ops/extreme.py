"""Extremes: amax, amin, max and min with their indices, argmax, argmin."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.ops._rows import document, half, write_out
from gpunn.ops.choose import maximum, minimum
from gpunn.ops.gather import pick_vjp
from gpunn.ops.reduce import axes_of, restore
from gpunn.tensor import Tensor, normal_dim, wrap


def pair_type(name: str, fields: tuple[str, str] = ("values", "indices")) -> Any:
    """PyTorch's return type of functions that give two tensors."""
    made = namedtuple(name, fields)  # type: ignore[misc]  # noqa: PYI024
    made.__module__ = "torch.return_types"

    def show(self: Any) -> str:
        parts = ",\n".join(f"{f}={v!r}" for f, v in zip(fields, self, strict=True))
        return f"torch.return_types.{name}(\n{parts})"

    made.__repr__ = show  # type: ignore[method-assign, assignment]
    return made


def write_pair(out: Any, pair: Any, name: str) -> Any:
    """Fills a pair of `out=` arguments."""
    if out is None:
        return pair
    return type(pair)(*(write_out(o, v, name) for o, v in zip(out, pair, strict=True)))


# --- amax, amin ---------------------------------------------------------------------------


@vjp((0, -1, None, None))
def _extreme_vjp(g: Any, x: Any, y: Any, axes: Any, keepdim: bool) -> Any:
    """Elements that share the extreme share the gradient."""
    shape = tuple(x.shape)
    g, y = restore(g, shape, axes, keepdim), restore(y, shape, axes, keepdim)
    mask = (x == y) | ((x != x) & (y != y))
    if isinstance(g, Tensor):
        mask = mask.to(g.dtype)  # type: ignore[attr-defined]
        return g * mask / mask.sum(axis=axes, keepdims=True)
    mask = mask.astype(g.dtype)
    return g * mask / mask.sum(axis=axes, keepdims=True)


def _extreme(name: str, what: str) -> Any:
    def reduce(
        input: Tensor, dim: Any = None, keepdim: bool = False, *, out: Tensor | None = None,
        axis: Any = None, keepdims: bool = False,
    ) -> Tensor:  # fmt: skip
        dim = axis if dim is None else dim
        keepdim = keepdim or keepdims
        x = input.array
        axes = axes_of(dim, x.ndim)
        _not_empty(name, x, axes)
        y = getattr(x, name[1:])(axis=axes, keepdims=keepdim)
        made = result(y, input, _extreme_vjp, (input,), (x, _as_array(y, x), axes, keepdim))
        if made.node is not None:
            made.node.saved = (x, made.array, axes, keepdim)
        return made if out is None else write_out(out, made, name)

    document(reduce, name, f"The {what} over all elements or over `dim`; ties share the gradient.",
             f"gpunn.{name}(gpunn.tensor([3, 1, 2]))\ntensor({3 if name == 'amax' else 1})",
             "`dim` an int or several", "unchanged")  # fmt: skip
    return reduce


def _as_array(y: Any, x: Any) -> Any:
    return y if hasattr(y, "base") and not isinstance(y, np.generic) else np.asarray(y)


def _not_empty(name: str, x: Any, axes: Any) -> None:
    """Raises for a reduction over no elements."""
    if x.size:
        return
    if axes is None:
        raise RuntimeError(
            f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify "
            "the reduction dim with the 'dim' argument."
        )
    for axis in axes:
        if x.shape[axis] == 0:
            raise IndexError(
                f"{name}(): Expected reduction dim {axis % x.ndim} to have non-zero size."
            )


amax = _extreme("amax", "maximum")
amin = _extreme("amin", "minimum")


def aminmax(input: Tensor, *, dim: Any = None, keepdim: bool = False, out: Any = None) -> Any:
    """(min, max) over all elements or over `dim`; ties share the gradient.

    RuntimeError for no elements. Source:
    https://docs.pytorch.org/docs/stable/generated/torch.aminmax.html

    >>> gpunn.aminmax(gpunn.tensor([3, 1, 2])).max
    tensor(3)
    """
    if dim is None and input.array.size == 0:
        raise RuntimeError(
            "aminmax(): cannot compute aminmax over an empty dimension as the operation has no "
            f"identity. (shape {list(input.array.shape)})"
        )
    for o in out or ():
        if o.dtype is not input.dtype:
            raise RuntimeError(
                f"Expected out tensor to have dtype {_C_NAMES.get(input.dtype.name, input.dtype)}, "
                f"but got {_C_NAMES.get(o.dtype.name, o.dtype)} instead"
            )
    made = _MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))
    return write_pair(out, made, "aminmax")


_MinMax = pair_type("aminmax", ("min", "max"))
_C_NAMES = {
    "float32": "float", "float64": "double", "int64": "long int", "int32": "int",
    "int16": "short int", "int8": "signed char", "uint8": "unsigned char",
}  # fmt: skip


# --- max, min with indices; arg-extremes --------------------------------------------------


def _max_like(name: str, arg: str, whole: Any, pairwise: Any) -> Any:
    kind = pair_type(name)

    def reduce(
        input: Tensor, dim: Any = None, keepdim: bool = False, *, out: Any = None,
        other: Tensor | None = None, axis: Any = None,
    ) -> Any:  # fmt: skip
        dim = axis if dim is None else dim
        if isinstance(dim, Tensor) or other is not None:
            return pairwise(input, dim if other is None else other, out=out)
        if dim is None:
            if input.array.size == 0:
                raise RuntimeError(
                    f"{name}(): Expected reduction dim to be specified for input.numel() == 0. "
                    "Specify the reduction dim with the 'dim' argument."
                )
            made = whole(input)
            return made if out is None else write_out(out, made, name)
        indices = arg_extreme(arg, input, dim, True)
        return pair_at(kind, name, input, indices, dim, keepdim, out)

    document(
        reduce, name, f"The {name}imum over all elements; with `dim` the pair (values, indices); "
        "with a second tensor element by element.",
        f"gpunn.{name}(gpunn.tensor([3, 1, 2]), 0).indices\ntensor({0 if name == 'max' else 1})",
        "`dim` one dimension", "unchanged; indices are int64",
    )  # fmt: skip
    return reduce


def take_pairs(input: Tensor, indices: Any, dim: int, keepdim: bool) -> Tensor:
    """The values at indices along dim, recorded."""
    x = input.array
    if x.ndim == 0:
        return input.clone()  # type: ignore[attr-defined]
    axis = normal_dim(dim, x.ndim)
    y = ns(x).take_along_axis(x, indices, axis)
    if not keepdim:
        y = y.squeeze(axis)
    return result(y, input, pick_vjp, (input,), (x.shape, axis, indices, keepdim))


def pair_at(
    kind: Any, name: str, input: Tensor, indices: Any, dim: int, keepdim: bool, out: Any
) -> Any:
    """The pair (values, indices) for raw indices along dim, which has length 1 unless `keepdim`."""
    x = input.array
    axis = normal_dim(dim, x.ndim)
    values = take_pairs(input, indices, axis, keepdim)
    if not keepdim and x.ndim:
        indices = input.device.xp.asarray(indices.squeeze(axis), order="C")
    indices = indices.reshape(values.array.shape)
    return write_pair(out, kind(values, wrap(indices, input.device)), name)


def arg_extreme(arg: str, input: Tensor, dim: int, keepdim: bool) -> Any:
    """The raw indices of extremes along dim; NaN counts as extreme."""
    x = input.array
    axis = normal_dim(dim, x.ndim)
    if x.ndim == 0:
        return input.device.xp.zeros((), np.int64)
    if x.shape[axis] == 0:
        raise IndexError(f"{arg[3:]}(): Expected reduction dim {axis} to have non-zero size.")
    if x.dtype.kind == "c":
        raise RuntimeError(f"{arg}: not implemented for complex tensors, they have no order")
    wide = x.astype(F32) if half(x.dtype) else x
    found = ns(x).asarray(getattr(wide, arg)(axis=axis, keepdims=keepdim))
    return found.astype(np.int64, copy=False)


max = _max_like("max", "argmax", amax, maximum)  # noqa: A001
min = _max_like("min", "argmin", amin, minimum)  # noqa: A001


def _arg(name: str) -> Any:
    def reduce(
        input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Tensor | None = None
    ) -> Tensor:
        x = input
        if dim is None:
            if x.array.size == 0:
                raise IndexError(
                    f"{name}(): Expected reduction dim to be specified for input.numel() == 0. "
                    "Specify the reduction dim with the 'dim' argument."
                )
            found = arg_extreme(name, x.detach().reshape(-1), 0, False)  # type: ignore[operator]
            if keepdim:
                found = found.reshape((1,) * x.array.ndim)
        else:
            found = arg_extreme(name, x, dim, keepdim)
        made = result(found, input)
        return made if out is None else write_out(out, made, name)

    document(reduce, name, f"The index of the {name[3:]}imum over all elements or over `dim`.",
             f"gpunn.{name}(gpunn.tensor([3, 1, 2]))\ntensor({0 if name == 'argmax' else 1})",
             "`dim` one dimension", "int64")  # fmt: skip
    return reduce


argmax = _arg("argmax")
argmin = _arg("argmin")

_METHODS = ["amax", "amin", "aminmax", "argmax", "argmin", "max", "min"]
__all__ = list(_METHODS)
for _name in _METHODS:
    setattr(Tensor, _name, globals()[_name])
