"""Joining tensors: cat, stack and what is made of them, products and combinations of vectors."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import AUTOCAST, casts_one
from gpunn.autograd.graph import mode, result, vjp
from gpunn.ops._rows import cast, document, same_device
from gpunn.ops.index import write_apart
from gpunn.ops.views import expand, reshape
from gpunn.tensor import Tensor, normal_dim, wrap

Tensors = Sequence[Tensor]


# --- cat and stack ------------------------------------------------------------------------


@vjp((None, None), name="CatBackward0")
def _cat_vjp(g: Any, axis: int, sizes: list[int]) -> Any:
    parts, start = [], 0
    lead = (slice(None),) * axis
    for n in sizes:
        parts.append(g[(*lead, slice(start, start + n))])
        start += n
    return tuple(parts)


def _tensor_list(name: str, tensors: Any) -> list[Tensor]:
    """The tensors to join as a list; TypeErrors for what is no tensor."""
    if isinstance(tensors, (list, tuple)):
        for i, t in enumerate(tensors):
            if not isinstance(t, Tensor):
                raise TypeError(
                    f"expected Tensor as element {i} in argument 0, but got {type(t).__name__} "
                    f"({name})"
                )
        return list(tensors)
    raise TypeError(
        f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not "
        f"{type(tensors).__name__}"
    )


def _arrays(name: str, tensors: Any) -> tuple[list[Tensor], list[Any]]:
    """The tensors to join, in their common dtype, and their arrays."""
    if type(tensors) is not list and type(tensors) is not tuple:
        tensors = _tensor_list(name, tensors)
    dtype = device = None
    arrays: list[Any] = []
    for t in tensors:
        if not isinstance(t, Tensor):
            _tensor_list(name, tensors)
        a = t.array
        if (a.dtype is not dtype or t.device is not device) and arrays:
            parts = _promoted(name, list(tensors))
            return parts, [t.array for t in parts]
        dtype, device = a.dtype, t.device
        arrays.append(a)
    return tensors, arrays


def _promoted(name: str, tensors: list[Tensor]) -> list[Tensor]:
    """The tensors in their common dtype."""
    same_device(name, tuple(tensors))
    common = dtypes.result_of([(t.dtype, 2 if t.array.ndim else 1) for t in tensors]).numpy
    return [cast(t, common) for t in tensors]


def cat(
    tensors: Tensors, dim: int = 0, *, out: Tensor | None = None, axis: int | None = None
) -> Tensor:
    """The tensors one after the other along an existing dimension.

    Shapes: alike but for `dim`; empty 1-d tensors are passed over. RuntimeError otherwise.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cat.html

    >>> gpunn.cat([gpunn.tensor([1]), gpunn.tensor([2, 3])])
    tensor([1, 2, 3])
    """
    if AUTOCAST and out is None:
        tensors = casts_one("cat", tensors)
    parts, arrays = _arrays("cat", tensors)
    if not parts:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    if (0,) in [a.shape for a in arrays]:
        kept = [i for i, a in enumerate(arrays) if a.shape != (0,)] or [0]
        parts, arrays = [parts[i] for i in kept], [arrays[i] for i in kept]
    d = normal_dim(dim if axis is None else axis, arrays[0].ndim)
    device = parts[0].device
    try:
        y = device.xp.concatenate(arrays, d)
    except ValueError:
        raise _cat_error(arrays, d) from None
    if out is not None:
        return write_apart(out, wrap(y, device), "cat", parts)
    if mode.grad:
        for t in parts:
            if t._requires_grad:
                sizes = [a.shape[d] for a in arrays]
                return result(y, t, _cat_vjp, tuple(parts), (d, sizes))
    return wrap(y, device)


def _cat_error(arrays: list[Any], axis: int) -> RuntimeError:
    first = arrays[0].shape
    for i, a in enumerate(arrays):
        if a.ndim == 0:
            return RuntimeError(f"zero-dimensional tensor (at position {i}) cannot be concatenated")
        if a.ndim != len(first):
            return RuntimeError(
                f"Tensors must have same number of dimensions: got {len(first)} and {a.ndim}"
            )
        for d, (m, n) in enumerate(zip(first, a.shape, strict=True)):
            if d != axis and m != n:
                return RuntimeError(
                    f"Sizes of tensors must match except in dimension {axis}. Expected size {m} "
                    f"but got size {n} for tensor number {i} in the list."
                )
    return RuntimeError("cat: the shapes do not fit")


def concatenate(
    tensors: Tensors, axis: int = 0, *, out: Tensor | None = None, dim: int | None = None
) -> Tensor:
    """`cat` under NumPy's name.

    >>> gpunn.concatenate([gpunn.tensor([1]), gpunn.tensor([2, 3])])
    tensor([1, 2, 3])
    """
    return cat(tensors, axis if dim is None else dim, out=out)


concat = cat


@vjp((None,), name="StackBackward0")
def _stack_vjp(g: Any, axis: int) -> Any:
    lead = (slice(None),) * axis
    return tuple(g[(*lead, i)] for i in range(g.shape[axis]))


def stack(tensors: Tensors, dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Tensors of one shape along a new dimension.

    RuntimeError where the shapes differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.stack.html

    >>> gpunn.stack([gpunn.tensor([1, 2]), gpunn.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    if AUTOCAST and out is None:
        tensors = casts_one("stack", tensors)
    parts, arrays = _arrays("stack", tensors)
    if not parts:
        raise RuntimeError("stack expects a non-empty TensorList")
    shape = arrays[0].shape
    axis = normal_dim(dim, len(shape) + 1)
    for i, a in enumerate(arrays):
        if a.shape != shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(shape)} at entry 0 and "
                f"{list(a.shape)} at entry {i}"
            )
    key = (*[slice(None)] * axis, None)
    device = parts[0].device
    y = device.xp.concatenate([a[key] for a in arrays], axis)
    if out is not None:
        return write_apart(out, wrap(y, device), "stack", parts)
    if mode.grad:
        for t in parts:
            if t._requires_grad:
                return result(y, t, _stack_vjp, tuple(parts), (axis,))
    return wrap(y, device)


# --- dimensions in front ------------------------------------------------------------------


def _at_least(name: str, ndim: int) -> Any:
    def atleast(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], Tensor):
            return _raise_ndim(tensors[0], ndim)
        if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
            tensors = tuple(tensors[0])
        return tuple(_raise_ndim(t, ndim) for t in _tensor_list(name, tensors))

    document(
        atleast, name, f"Each tensor with at least {ndim} dimensions.",
        f"gpunn.{name}(gpunn.tensor(1)).ndim\n{ndim}", "lower ones get dimensions of length 1",
        "unchanged",
    )  # fmt: skip
    return atleast


def _raise_ndim(x: Tensor, ndim: int) -> Tensor:
    shape = x.array.shape
    missing = ndim - len(shape)
    if missing <= 0:
        return x
    behind = 1 if ndim == 3 and shape else 0  # (n,) becomes (1, n, 1), (m, n) (m, n, 1)
    return reshape(x, (*(1,) * (missing - behind), *shape, *(1,) * behind))


atleast_1d, atleast_2d, atleast_3d = (_at_least(f"atleast_{n}d", n) for n in (1, 2, 3))


def _joiner(name: str, raise_to: int, axis: Any, what: str) -> Any:
    def join(tensors: Tensors, *, out: Tensor | None = None) -> Tensor:
        found = _tensor_list(name, tensors)
        if not found:
            raise RuntimeError(f"{name} expects a non-empty TensorList")
        parts = [_raise_ndim(t, raise_to) for t in found]
        d = axis if axis is not None else (0 if parts[0].array.ndim == 1 else 1)
        return cat(parts, d, out=out)

    document(join, name, f"The tensors joined {what}.",
             f"gpunn.{name}([gpunn.ones(1, 1), gpunn.ones(1, 1)]).numel()\n2",
             "alike but for the joined dimension", "the common one")  # fmt: skip
    return join


hstack = _joiner("hstack", 1, None, "along columns (dimension 1; 0 for vectors)")
vstack = row_stack = _joiner("vstack", 2, 0, "along rows (dimension 0)")
dstack = _joiner("dstack", 3, 2, "along depth (dimension 2)")


def column_stack(tensors: Tensors, *, out: Tensor | None = None) -> Tensor:
    """Vectors as columns, next to matrices.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.column_stack.html

    >>> gpunn.column_stack([gpunn.tensor([1, 2]), gpunn.tensor([3, 4])])
    tensor([[1, 3],
            [2, 4]])
    """
    found = _tensor_list("column_stack", tensors)
    if not found:
        raise RuntimeError("column_stack expects a non-empty TensorList")
    return hstack([reshape(t, t.numel(), 1) if t.ndim <= 1 else t for t in found], out=out)


def block_diag(*tensors: Tensor) -> Tensor:
    """A matrix with the given matrices along its diagonal, zeros elsewhere.

    Vectors count as rows. RuntimeError for more than 2 dimensions.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.block_diag.html

    >>> gpunn.block_diag(gpunn.tensor([[1, 2]]), gpunn.tensor([3]))
    tensor([[1, 2, 0],
            [0, 0, 3]])
    """
    found = _tensor_list("block_diag", tensors)
    if not found:
        return wrap(np.zeros((1, 0), dtypes.get_default_dtype().numpy))
    for i, t in enumerate(found):
        if t.array.ndim > 2:
            raise RuntimeError(
                "torch.block_diag: Input tensors must have 2 or fewer dimensions. Input "
                f"{i} has {t.array.ndim} dimensions"
            )
    found = _promoted("block_diag", found)
    blocks = [_raise_ndim(t, 2) for t in found]
    width = sum(b.array.shape[1] for b in blocks)
    rows, start = [], 0
    for b in blocks:
        m, n = b.array.shape
        gap = [b.new_zeros(m, start), b, b.new_zeros(m, width - start - n)]  # type: ignore[attr-defined]
        rows.append(cat(gap, 1))
        start += n
    return cat(rows, 0)


# --- products of vectors ------------------------------------------------------------------


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """The coordinates of a grid, a tensor for each vector, as expanded views.

    Shapes: vectors (or scalars) of lengths n1, n2, ...: all (n1, n2, ...), or with the first two
    exchanged for `indexing` "xy". RuntimeError otherwise.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.meshgrid.html

    >>> gpunn.meshgrid(gpunn.tensor([1, 2]), gpunn.tensor([3]), indexing="ij")[0]
    tensor([[1],
            [2]])
    """
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        tensors = tuple(tensors[0])
    found = _tensor_list("meshgrid", tensors)
    if not found:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError('torch.meshgrid: indexing must be one of "xy" or "ij", but received: '
                           f"{indexing}")  # fmt: skip
    for t in found:
        if t.array.ndim > 1:
            raise RuntimeError(
                f"torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: {t}"
            )
        if t.dtype is not found[0].dtype:
            raise RuntimeError("torch.meshgrid expects all tensors to have the same dtype")
    same_device("meshgrid", tuple(found))
    swap = indexing == "xy" and len(found) > 1
    if swap:
        found[:2] = found[1::-1]
    shape = [t.array.size for t in found]
    grids = [
        expand(reshape(t, (-1 if t.array.size else 0, *(1,) * (len(found) - 1 - i))), shape)
        for i, t in enumerate(found)
    ]
    if swap:
        grids[:2] = grids[1::-1]
    return tuple(grids)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of one element of each vector, a row each.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cartesian_prod.html

    >>> gpunn.cartesian_prod(gpunn.tensor([1, 2]), gpunn.tensor([3, 4]))
    tensor([[1, 3],
            [1, 4],
            [2, 3],
            [2, 4]])
    """
    found = _tensor_list("cartesian_prod", tensors)
    if not found:
        raise RuntimeError("meshgrid expects a non-empty TensorList")
    for t in found:
        if t.array.ndim != 1:
            raise RuntimeError(f"Expect a 1D vector, but got shape {list(t.array.shape)}")
    if len(found) == 1:
        return found[0]
    return stack([reshape(g, -1) for g in meshgrid(found, indexing="ij")], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All combinations of r elements of a vector, a row each, in order.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.combinations.html

    >>> gpunn.combinations(gpunn.tensor([1, 2, 3]))
    tensor([[1, 2],
            [1, 3],
            [2, 3]])
    """
    if input.array.ndim != 1:
        raise RuntimeError(f"Expect a 1D vector, but got shape {list(input.array.shape)}")
    if r < 0:
        raise RuntimeError(f"Expect a non-negative number, but got {r}")
    if r == 0:
        return wrap(input.device.xp.empty(0, input.array.dtype), input.device)
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.array(list(choose(range(input.array.size), r)), np.int64).reshape(-1, r)
    return input[wrap(input.device.xp.asarray(rows), input.device)]  # type: ignore[index]


__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "block_diag", "cartesian_prod", "cat",
    "column_stack", "combinations", "concat", "concatenate", "dstack", "hstack", "meshgrid",
    "row_stack", "stack", "vstack",
]  # fmt: skip
