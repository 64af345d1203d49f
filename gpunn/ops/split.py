"""Splitting: views of parts of a tensor along one dimension."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import views, vjp
from gpunn.ops._rows import document, write_out
from gpunn.ops.index import get_view
from gpunn.tensor import Tensor, method, normal_dim

_FULL = slice(None)


def _lead(d: int) -> tuple[Any, ...]:
    """The key of the dimensions in front of d."""
    return (_FULL,) * d


# --- one part -----------------------------------------------------------------------------


@method
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """A view of `length` entries of a dimension from `start`.

    RuntimeError or IndexError where they do not exist.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.narrow.html

    >>> gpunn.narrow(gpunn.arange(5), 0, 1, 2)
    tensor([1, 2])
    """
    if isinstance(start, Tensor):
        if start.array.ndim or start.array.dtype.kind not in "iu":
            raise RuntimeError("start must be an 0-dim integral Tensor.")
        start = int(start.array)
    x = input.array
    if x.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    d = normal_dim(dim, x.ndim)
    n = x.shape[d]
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -n <= start <= n:
        raise IndexError(
            f"start out of range (expected to be in range of [{-n}, {n}], but got {start})"
        )
    first = start + n if start < 0 else start
    if first + length > n:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return get_view(input, (*_lead(d), slice(first, first + length)))


@method
def narrow_copy(
    input: Tensor, dim: int, start: int, length: int, *, out: Tensor | None = None
) -> Tensor:
    """`narrow` as a copy.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.narrow_copy.html

    >>> gpunn.narrow_copy(gpunn.arange(5), 0, 1, 2)
    tensor([1, 2])
    """
    if dim >= input.array.ndim > 0:
        raise RuntimeError(f"narrow_copy(): Expected dim < {input.array.ndim}, but got {dim}")
    part = narrow(input, dim, start, length)
    return part.clone() if out is None else write_out(out, part, "narrow_copy")  # type: ignore[attr-defined]


@method
def select(input: Tensor, dim: int, index: Any) -> Tensor:
    """A view of one entry of a dimension, which disappears.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.select.html

    >>> gpunn.select(gpunn.tensor([[1, 2], [3, 4]]), 1, 0)
    tensor([1, 3])
    """
    x = input.array
    if x.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    d, i = normal_dim(dim, x.ndim), int(index)
    if not -x.shape[d] <= i < x.shape[d]:
        raise IndexError(
            f"select(): index {i} out of range for tensor of size {list(x.shape)} at dimension {d}"
        )
    return get_view(input, (*_lead(d), i))


# --- all parts, from one node -------------------------------------------------------------


@vjp((None, None))
def _unbind_vjp(gs: list[Any], shape: tuple[int, ...], d: int) -> Any:
    return _together(gs, shape, [(*_lead(d), i) for i in range(shape[d])])


@vjp((None, None))
def _split_vjp(gs: list[Any], shape: tuple[int, ...], keys: list[Any]) -> Any:
    return _together(gs, shape, keys)


@vjp((None, None))
def _split_with_sizes_vjp(gs: list[Any], shape: tuple[int, ...], keys: list[Any]) -> Any:
    return _together(gs, shape, keys)


def _together(gs: list[Any], shape: tuple[int, ...], keys: list[Any]) -> Any:
    """The gradients of the parts written at their keys; zeros where none came."""
    known = next(g for g in gs if g is not None)
    if isinstance(known, Tensor):
        whole = known.new_zeros(shape)  # type: ignore[attr-defined]
    else:
        whole = ns(known).zeros(shape, known.dtype)
    for key, g in zip(keys, gs, strict=True):
        if g is not None:
            whole[key] = g
    return whole


@method
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The entries of a dimension as a tuple of views.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unbind.html

    >>> gpunn.unbind(gpunn.tensor([[1, 2], [3, 4]]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    x = input.array
    d = normal_dim(dim, x.ndim)
    if x.ndim == 0:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    lead = _lead(d)
    return views([x[(*lead, i, ...)] for i in range(x.shape[d])], input, _unbind_vjp, (x.shape, d))


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive pieces: of one size (the last may be shorter) or of given sizes.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.split.html

    >>> gpunn.split(gpunn.arange(5), 2)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    size = split_size_or_sections
    if isinstance(size, Tensor) and size.array.ndim == 0:
        size = int(size)  # type: ignore[call-overload]
    if not isinstance(size, (int, np.integer)):
        return _split_sizes(tensor, [int(s) for s in size], dim)
    x = tensor.array
    if x.ndim == 0:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    d = normal_dim(dim, x.ndim)
    n = x.shape[d]
    if size < 0:
        raise RuntimeError(f"split expects split_size be non-negative, but got split_size={size}")
    if size == 0 and n:
        raise RuntimeError(
            f"split_size can only be 0 if dimension size is 0, but got dimension size of {n}"
        )
    lead = _lead(d)
    keys = [(*lead, slice(i, i + size)) for i in range(0, n, size or 1)] or [(*lead, _FULL)]
    return views([x[k] for k in keys], tensor, _split_vjp, (x.shape, keys))


def _split_sizes(tensor: Tensor, sizes: list[int], dim: int) -> tuple[Tensor, ...]:
    x = tensor.array
    if x.ndim == 0:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    d = normal_dim(dim, x.ndim)
    if builtins.sum(sizes) != x.shape[d] or any(s < 0 for s in sizes):
        raise RuntimeError(
            f"split_with_sizes expects split_sizes to sum exactly to {x.shape[d]} (input tensor's "
            f"size at dimension {d}), but got split_sizes={sizes}"
        )
    keys, start = [], 0
    for s in sizes:
        keys.append((*_lead(d), slice(start, start + s)))
        start += s
    return views([x[k] for k in keys], tensor, _split_with_sizes_vjp, (x.shape, keys))


Tensor.split = split  # type: ignore[attr-defined]


@method
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> Any:
    """`split` into pieces of given sizes.

    >>> gpunn.split_with_sizes(gpunn.arange(3), [1, 2])
    (tensor([0]), tensor([1, 2]))
    """
    return _split_sizes(input, [int(s) for s in split_sizes], dim)


@method
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of nearly equal size.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.chunk.html

    >>> gpunn.chunk(gpunn.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if input.array.ndim == 0:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    n = input.array.shape[normal_dim(dim, input.array.ndim)]
    if n == 0:
        return _split_sizes(input, [0] * chunks, dim)
    return split(input, -(-n // chunks), dim)


# --- parts with nodes of their own, which may be changed in place -------------------------


def _parts(input: Tensor, d: int, edges: list[tuple[int, int]]) -> tuple[Tensor, ...]:
    return tuple(get_view(input, (*_lead(d), slice(a, b))) for a, b in edges)


@method
def unsafe_split(tensor: Tensor, split_size: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`split` into pieces that may be changed in place; gradients stay right here.

    >>> gpunn.unsafe_split(gpunn.arange(3), 2)
    (tensor([0, 1]), tensor([2]))
    """
    pieces = split(tensor.detach(), split_size, dim)
    d = normal_dim(dim, tensor.array.ndim)
    return _parts(tensor, d, _edges([p.array.shape[d] for p in pieces]))


@method
def unsafe_split_with_sizes(
    input: Tensor, split_sizes: Sequence[int], dim: int = 0
) -> tuple[Tensor, ...]:
    """`split_with_sizes` into pieces that may be changed in place; gradients stay right here.

    >>> gpunn.unsafe_split_with_sizes(gpunn.arange(3), [1, 2])
    (tensor([0]), tensor([1, 2]))
    """
    split_with_sizes(input.detach(), split_sizes, dim)
    return _parts(input, normal_dim(dim, input.array.ndim), _edges(list(split_sizes)))


@method
def unsafe_chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """`chunk` into pieces that may be changed in place; gradients stay right here.

    >>> gpunn.unsafe_chunk(gpunn.arange(3), 2)
    (tensor([0, 1]), tensor([2]))
    """
    pieces = chunk(input.detach(), chunks, dim)
    d = normal_dim(dim, input.array.ndim)
    return _parts(input, d, _edges([p.array.shape[d] for p in pieces]))


def _edges(sizes: list[int]) -> list[tuple[int, int]]:
    found, start = [], 0
    for s in sizes:
        found.append((start, start + s))
        start += s
    return found


def _cuts(name: str, value: Any) -> Any:
    """`indices_or_sections`: an int, or a list of ints."""
    if isinstance(value, Tensor):
        if value.array.ndim > 1 or value.array.dtype != np.int64:
            raise RuntimeError(
                f"{name} expected tensor_indices_or_sections to be a zero-dimensional or "
                f"one-dimensional tensor of dtype long, but got a tensor with {value.array.ndim} "
                f"dims and dtype {value.dtype}"
            )
        return value.tolist()
    return value


@method
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of pieces whose sizes differ by at most one, or that end at given indices.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.tensor_split.html

    >>> gpunn.tensor_split(gpunn.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if input.array.ndim == 0:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a "
                           "tensor with 0 dims")  # fmt: skip
    d = normal_dim(dim, input.array.ndim)
    cuts, n = _cuts("tensor_split", indices_or_sections), input.array.shape[d]
    if not isinstance(cuts, int):
        ends = [slice(a, b).indices(n)[:2] for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
        return _parts(input, d, [(a, max(a, b)) for a, b in ends])
    if cuts <= 0:
        raise RuntimeError(f"number of sections must be larger than 0, got {cuts}")
    return _parts(input, d, _edges([n // cuts + (i < n % cuts) for i in range(cuts)]))


def _directed_split(name: str, axis: int, least: int) -> Any:
    def split_along(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
        if input.array.ndim < least:
            raise RuntimeError(
                f"torch.{name} requires a tensor with at least {least} dimension, but got a tensor "
                f"with {input.array.ndim} dimensions!"
            )
        d = 0 if input.array.ndim == 1 else axis
        n = input.array.shape[d]
        cuts = _cuts(name, indices_or_sections)
        if isinstance(cuts, str):
            raise TypeError(
                f"{name}() received an invalid combination of arguments - got (Tensor, str), but "
                "the sections are an int or a tuple of ints"
            )
        if isinstance(cuts, int) and (cuts <= 0 or n % cuts):
            raise RuntimeError(
                f"torch.{name} attempted to split along dimension {d}, but the size of the "
                f"dimension {n} is not divisible by the split_size {cuts}!"
            )
        return tensor_split(input, cuts, d)

    document(split_along, name, f"`tensor_split` along dimension {axis}.",
             f"len(gpunn.{name}(gpunn.zeros(2, 2, 2), 2))\n2", "any", "any")  # fmt: skip
    return method(split_along)


hsplit = _directed_split("hsplit", 1, 1)
vsplit = _directed_split("vsplit", 0, 2)
dsplit = _directed_split("dsplit", 2, 3)

__all__ = [
    "chunk", "dsplit", "hsplit", "narrow", "narrow_copy", "select", "split", "split_with_sizes",
    "tensor_split", "unbind", "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "vsplit",
]  # fmt: skip
