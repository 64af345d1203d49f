"""Writing at places named by an index vector, a flat index, or a slice: index_add and its kin."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import cast, proper, same_device, write_out
from gpunn.ops.bounds import bounded
from gpunn.ops.gather import flat_index, index_array
from gpunn.ops.index import get_view, number, put_raw, store
from gpunn.ops.index import put as put_at
from gpunn.ops.index_key import Key, split_key
from gpunn.ops.views import reshape
from gpunn.tensor import Tensor, method, normal_dim, wrap

# --- index_add, index_copy, index_fill ----------------------------------------------------


def vector_key(name: str, x: Tensor, dim: int, index: Tensor, source: Any) -> Key:
    """The key of an operation on the entries of a dimension that a vector names."""
    same_device(name, (x, index, source))
    shape = x.array.shape
    axis = normal_dim(dim, len(shape))
    if index.array.ndim > 1:
        raise IndexError(
            f"{name}(): Index is supposed to be a vector, but got dim: {index.array.ndim} with "
            f"size: {list(index.array.shape)}"
        )
    i = index_array(name, index)
    if source is not None:
        _check_source(name, x, source, axis, i.size)
    n = shape[axis] if shape else 1

    def error(bad: int) -> Exception:
        words = f"index {bad} is out of bounds for dimension {axis} with size {n}"
        if name == "index_add_":
            return RuntimeError(words)
        start = f"{name}()" if name == "index_copy_" else "index out of range in self"
        return IndexError(f"{start}: {words}")

    i = bounded(name, i, n, error)
    return (*[slice(None)] * axis, i.reshape(-1))


def _check_source(name: str, x: Tensor, source: Tensor, axis: int, count: int) -> None:
    a, shape = source.array, x.array.shape
    if source.dtype is not x.dtype:
        raise RuntimeError(
            f"{name}(): self ({proper(x.dtype)}) and source ({proper(source.dtype)}) must have the "
            "same scalar type"
        )
    copies = name == "index_copy_"
    if a.ndim and shape and a.ndim != len(shape) and copies:
        raise IndexError(
            f"{name}(): When source and destination are not scalars, their dimensionality must "
            f"match. Source dimensionality ({a.ndim}), destination dimensionality ({len(shape)})"
        )
    have = a.shape[axis] if axis < a.ndim else 1
    if have != count:
        kind = IndexError if copies else RuntimeError
        raise kind(
            f"{name}(): Number of indices ({count}) should be equal to source.size(dim)"
            + (f" ({have})" if copies else f": ({have}), for dim: {axis}")
        )
    mine = [n for d, n in enumerate(shape) if d != axis]
    theirs = [n for d, n in enumerate(a.shape) if d != axis]
    if mine != theirs and not (len(shape) <= 1 and a.ndim <= 1):
        raise RuntimeError(
            f"{name}(): Source/destination tensor must have same slice shapes. Destination slice "
            f"shape: {mine} at dimension {axis} and source slice shape: {theirs} at dimension 0."
            if copies else
            "source tensor shape must match self tensor shape, excluding the specified dimension. "
            f"Got self.shape = {list(shape)} source.shape = {list(a.shape)}"
        )  # fmt: skip


def at_least_1d(source: Tensor) -> Tensor:
    return source if source.array.ndim else reshape(source, 1)


def _index_add(
    x: Tensor, dim: int, index: Tensor, source: Tensor, alpha: Any, here: bool
) -> Tensor:
    key = vector_key("index_add_", x, dim, index, source)
    scale = number(alpha, x.array.dtype).item()
    scaled = source if scale == 1 else source * scale  # type: ignore[operator]
    return put_raw(x, key, at_least_1d(scaled), True, here)


def index_add(
    input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A copy of input with alpha * source added to the entries named by index.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.index_add_.html

    >>> gpunn.index_add(gpunn.zeros(2), 0, gpunn.tensor([1, 1]), gpunn.ones(2))
    tensor([0., 2.])
    """
    made = _index_add(input, dim, index, source, alpha, False)
    return made if out is None else write_out(out, made, "index_add")


@method
def index_add_(self: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """In-place version of `index_add`."""
    return _index_add(self, dim, index, source, alpha, True)


@autocasts("index_copy")
def index_copy(
    input: Tensor, dim: int, index: Tensor, source: Tensor, *, out: Tensor | None = None
) -> Tensor:
    """A copy of input with source written to the entries named by index.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.index_copy_.html

    >>> gpunn.index_copy(gpunn.zeros(2), 0, gpunn.tensor([1]), gpunn.ones(1))
    tensor([0., 1.])
    """
    key = vector_key("index_copy_", input, dim, index, source)
    made = put_raw(input, key, at_least_1d(source), False, False)
    return made if out is None else write_out(out, made, "index_copy")


@method
def index_copy_(self: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """In-place version of `index_copy`."""
    key = vector_key("index_copy_", self, dim, index, source)
    return put_raw(self, key, at_least_1d(source), False, True)


def fill_value(name: str, x: Tensor, value: Any) -> Tensor:
    """The number or 0-dim tensor that fills, in x's dtype."""
    if isinstance(value, Tensor):
        if value.array.ndim:
            raise RuntimeError(
                f"{name}_ only supports a 0-dimensional value tensor, but got tensor with "
                f"{value.array.ndim} dimension(s)."
            )
        if value.dtype.is_complex and not x.dtype.is_complex:
            raise RuntimeError(f"value cannot be converted to type {x.dtype} without overflow")
        value = cast(value, x.array.dtype)
        return value if value.device is x.device else value.to(x.device)  # type: ignore[attr-defined]
    return wrap(x.device.xp.asarray(number(value, x.array.dtype)), x.device)


def _index_fill(x: Tensor, dim: int, index: Tensor, value: Any, here: bool) -> Tensor:
    same_device("index_fill_", (x, index))
    a = index.array
    axis = normal_dim(dim, x.array.ndim)
    if a.dtype != np.int64:
        raise IndexError("index_fill_(): Expected dtype int64 for index.")
    if a.ndim > 1:
        raise RuntimeError("Index has to be a vector/scalar")
    is_complex = value.dtype.is_complex if isinstance(value, Tensor) else type(value) is complex
    if is_complex and not x.dtype.is_complex:
        raise RuntimeError(
            "index_fill_(): Converting complex Scalar to non-complex type is not supported"
        )
    n = x.array.shape[axis] if x.array.ndim else 1
    a = bounded("index_fill_", a, n, lambda bad: IndexError(
        f"index {bad} is out of bounds for dimension {axis} with size {n}"
    ), below=n)  # fmt: skip
    if isinstance(value, Tensor) and value._requires_grad:  # counts once where it is written twice
        a = ns(a).unique(ns(a).where(a < 0, a + n, a))
    key = (*[slice(None)] * axis, a.reshape(-1))
    return put_raw(x, key, fill_value("index_fill", x, value), False, here)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of input with a number written to the entries named by index.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.index_fill_.html

    >>> gpunn.index_fill(gpunn.zeros(2), 0, gpunn.tensor([1]), 7)
    tensor([0., 7.])
    """
    return _index_fill(input, dim, index, value, False)


@method
def index_fill_(self: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """In-place version of `index_fill`."""
    return _index_fill(self, dim, index, value, True)


@method
def index_put_(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """self[indices] = values, or += with accumulate, in place.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.index_put_.html

    >>> gpunn.zeros(2).index_put_((gpunn.tensor([1, 1]),), gpunn.ones(2), accumulate=True)
    tensor([0., 2.])
    """
    if not isinstance(values, Tensor):
        raise TypeError(
            f"index_put_(): argument 'values' (position 2) must be Tensor, not "
            f"{type(values).__name__}"
        )
    x: Any = self
    basic, key = split_key(tuple(slice(None) if i is None else i for i in indices), x)
    if basic is not None:  # a 0-dim index
        x = get_view(x, basic)
    if key is None:
        if values.dtype is not x.dtype:
            raise RuntimeError(
                "Index put requires the source and destination dtypes match, got "
                f"{proper(x.dtype)} for the destination and {proper(values.dtype)} for the source."
            )
        x.add_(values) if accumulate else x.copy_(values)
    else:
        store(x, key, values, accumulate)
    return self


@autocasts("index_put")
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of input with input[indices] = values, or += with accumulate.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.index_put.html

    >>> gpunn.index_put(gpunn.zeros(2), (gpunn.tensor([1]),), gpunn.tensor(7.))
    tensor([0., 7.])
    """
    return index_put_(input.clone(), indices, values, accumulate)  # type: ignore[attr-defined]


def _put(x: Tensor, index: Tensor, source: Tensor, accumulate: bool, here: bool) -> Tensor:
    if source.dtype is not x.dtype:
        raise RuntimeError(
            f"put_(): self and source expected to have the same dtype, but got self.dtype = "
            f"{proper(x.dtype)} and source.dtype = {proper(source.dtype)}"
        )
    same_device("put_", (x, source))
    i = flat_index("put_", x, index)
    if i.size != source.array.size:
        raise IndexError(
            "put_(): Expected source and index to have the same number of elements, but got "
            f"source.numel() = {source.array.size}, index.numel() = {i.size}"
        )
    if x.array.size == 0 and i.size:
        raise IndexError("put_(): tried to put elements into an empty tensor")
    if not i.size:
        return x if here else x.clone()  # type: ignore[attr-defined]
    xp = ns(i)
    flat = xp.where(i < 0, i + x.array.size, i).reshape(-1)
    key = xp.unravel_index(flat, x.array.shape or (1,))
    return put_raw(x, tuple(key), reshape(source, i.size), accumulate, here)


@method
def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of input with source written, or added, at the places `index` of the flat tensor.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.put_.html

    >>> gpunn.zeros(2, 2).put(gpunn.tensor([1, -1]), gpunn.tensor([5., 6.]))
    tensor([[0., 5.],
            [0., 6.]])
    """
    return _put(input, index, source, accumulate, False)


@method
def put_(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """In-place version of `put`."""
    return _put(self, index, source, accumulate, True)


# --- parts along one dimension ------------------------------------------------------------


def _scattered(input: Tensor, src: Tensor, key: Key) -> Tensor:
    """A copy of input with src written at a key of integers and slices."""
    shape = get_view(input.detach(), key).array.shape
    if src.array.shape != shape:
        raise RuntimeError(
            "expected src to have a size equal to the slice of self. src size = "
            f"{list(src.array.shape)}, slice size = {list(shape)}"
        )
    return put_at(input, key, src.to(input), False)  # type: ignore[attr-defined]


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of input with src written at one entry of a dimension.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.select_scatter.html

    >>> gpunn.select_scatter(gpunn.zeros(2, 2), gpunn.ones(2), 0, 1)
    tensor([[0., 0.],
            [1., 1.]])
    """
    input.detach().select(dim, index)  # type: ignore[attr-defined]
    axis = normal_dim(dim, input.array.ndim)
    return _scattered(input, src, (*[slice(None)] * axis, int(index)))


def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1,
    *, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A copy of input with src written at a slice of a dimension.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.slice_scatter.html

    >>> gpunn.slice_scatter(gpunn.zeros(3), gpunn.ones(2), 0, 1)
    tensor([0., 1., 1.])
    """
    if step <= 0:
        raise RuntimeError("slice step must be positive")
    axis = normal_dim(dim, input.array.ndim)
    made = _scattered(input, src, (*[slice(None)] * axis, slice(start, end, step)))
    return made if out is None else write_out(out, made, "slice_scatter")


__all__ = [
    "index_add", "index_copy", "index_fill", "index_put", "index_put_", "put", "select_scatter",
    "slice_scatter",
]  # fmt: skip
for _f in (index_add, index_copy, index_fill, index_put, select_scatter, slice_scatter):
    method(_f)
