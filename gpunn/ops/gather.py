"""Gathering: elements picked by index tensors and masks, as copies."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.ops._rows import proper, same_device, write_out
from gpunn.ops.accumulate import add_at
from gpunn.ops.bounds import bounded
from gpunn.ops.index import getitem_raw, put, write_apart
from gpunn.ops.shape import broadcast_tensors
from gpunn.ops.views import expand, reshape
from gpunn.tensor import Tensor, method, normal_dim, wrap

# --- what indices must be -----------------------------------------------------------------


def along(indices: Any, axis: int) -> tuple[Any, ...]:
    """The key that picks `indices` along an axis and keeps place in all others."""
    n = indices.ndim
    arange = ns(indices).arange
    return tuple(
        indices if d == axis else arange(size).reshape((-1,) + (1,) * (n - 1 - d))
        for d, size in enumerate(indices.shape)
    )


_WORDS = "Expected dtype int32/int64 for index"


def index_array(name: str, index: Tensor, words: str = _WORDS) -> Any:
    """The raw index array; RuntimeError where it is not int32 or int64."""
    a = index.array
    if a.dtype.kind != "i" or a.dtype.itemsize < 4:
        raise RuntimeError(f"{name}(): {words} (got {index.dtype})")
    return a


def check_along(name: str, x: Any, index: Any, axis: int, what: str = "self") -> Any:
    """The index that gather and scatter can pair with x: its dimensions, sizes, range checked."""
    if (x.ndim or 1) != (index.ndim or 1):
        raise RuntimeError(
            f"Index tensor must have the same number of dimensions as {what} tensor "
            f"(index {list(index.shape)}, {what} {list(x.shape)})"
        )
    for d in range(min(x.ndim, index.ndim)):
        if d != axis and index.shape[d] > x.shape[d]:
            if what == "self":
                raise RuntimeError(
                    f"Expected index {list(index.shape)} to be no larger than self "
                    f"{list(x.shape)} apart from dimension {axis}"
                )
            raise RuntimeError(
                f"Size does not match at dimension {d} expected index {list(index.shape)} to be no "
                f"larger than self {list(x.shape)} apart from dimension {axis}"
            )
    n = x.shape[axis] if x.ndim else 1
    return bounded(name, index, n, lambda bad: RuntimeError(
        f"index {bad} is out of bounds for dimension {axis} with size {n}"
    ))  # fmt: skip


# --- gather and take ----------------------------------------------------------------------


@vjp((None,) * 4, name="GatherBackward0")
def pick_vjp(g: Any, shape: Any, axis: int, indices: Any, keepdim: bool) -> Any:
    """The gradient of values taken along an axis."""
    if not keepdim:
        g = g[(*[slice(None)] * axis, None)]
    key = along(indices, axis)
    if isinstance(g, Tensor):
        return put(g.new_zeros(shape), key, g, True)  # type: ignore[attr-defined]
    whole = ns(g).zeros(shape, g.dtype)
    if indices.shape[axis] == 1:  # one entry a row: none is hit twice
        whole[key] = g
    else:
        add_at(whole, key, g)
    return whole


def gather(
    input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, out: Tensor | None = None
) -> Tensor:
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on.

    Shapes: index has input's dimensions, none longer but `dim`; the result has index's shape.
    RuntimeError for an index out of range.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.gather.html

    >>> gpunn.gather(gpunn.tensor([[1, 2], [3, 4]]), 1, gpunn.tensor([[0], [1]]))
    tensor([[1],
            [4]])
    """
    x = input.array
    if input.device is not index.device:
        same_device("gather", (input, index))
    axis = normal_dim(dim, x.ndim)
    if out is not None and out.dtype is not input.dtype:
        raise RuntimeError(
            f"gather(): Expected out tensor to have dtype {input.dtype}, but got {out.dtype} "
            "instead"
        )
    a = index.array
    if a.size:
        a = check_along("gather", x, index_array("gather", index), axis, "input")
    else:
        a = a.astype(np.int64)
    if a.size == 0 or x.ndim == 0 or a.ndim == 0:
        made = reshape(getitem_raw(reshape(input, x.size), (a.reshape(-1),)), a.shape)
    else:
        made = result(x[along(a, axis)], input, pick_vjp, (input,), (x.shape, axis, a, True))
    return made if out is None else write_apart(out, made, "gather", (input, index))


def take_along_dim(
    input: Tensor, indices: Tensor, dim: int | None = None, *, out: Tensor | None = None
) -> Tensor:
    """`gather` with broadcasting: what argsort or argmax found, taken out.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.take_along_dim.html

    >>> gpunn.take_along_dim(gpunn.tensor([[1, 2]]), gpunn.tensor([[1]]), dim=1)
    tensor([[2]])
    """
    if indices.dtype is not dtypes.int64:
        raise RuntimeError(
            "torch.take_along_dim(): dtype of indices should be Long but got "
            f"{proper(indices.dtype)}"
        )
    if input.device is not indices.device:
        same_device("torch.take_along_dim()", (input, indices))
    if dim is None:
        made = getitem_raw(reshape(input, input.array.size), (indices.array.reshape(-1),))
        return made if out is None else write_out(out, made, "take_along_dim")
    n = input.array.ndim
    if n != indices.array.ndim:
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, "
            f"but got {n} dimensions for input, and {indices.array.ndim} dimensions for indices"
        )
    axis = normal_dim(dim, n)
    here, there = list(input.array.shape), list(indices.array.shape)
    if n:
        here[axis] = there[axis] = 1
    common = list(np.broadcast_shapes(tuple(here), tuple(there)))
    here, there = list(common), list(common)
    if n:
        here[axis], there[axis] = input.array.shape[axis], indices.array.shape[axis]
    picks = expand(indices, there).array
    size = input.array.shape[axis] if n else 1
    picks = ns(picks).where((picks < 0) & (picks >= -size), picks + size, picks)
    return gather(expand(input, here), axis, wrap(picks, indices.device), out=out)


def take(input: Tensor, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The elements of the flat input at `index`, in index's shape.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.take.html

    >>> gpunn.take(gpunn.tensor([[1, 2], [3, 4]]), gpunn.tensor([0, 3]))
    tensor([1, 4])
    """
    a = flat_index("take", input, index)
    if input.array.size == 0 and a.size:
        raise IndexError("take(): tried to take from an empty tensor")
    made = getitem_raw(reshape(input, input.array.size), (a,)) if a.ndim else reshape(
        getitem_raw(reshape(input, input.array.size), (a.reshape(1),)), ())  # fmt: skip
    return made if out is None else write_apart(out, made, "take", (input, index))


def flat_index(name: str, input: Tensor, index: Tensor) -> Any:
    """The raw index of take and put, which counts from the end where it is negative."""
    same_device(name, (input, index))
    a, n = index.array, input.array.size
    if a.dtype != np.int64:
        raise RuntimeError(
            f"{name}(): Expected a long tensor for index, but got {proper(index.dtype)}"
        )
    return bounded(name, a, n, lambda bad: IndexError(
        f"out of range: tried to access index {bad} on a tensor of {n} elements."
    ), below=n) if n else a  # fmt: skip


def index_select(input: Tensor, dim: int, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The entries of a dimension named by a vector of indices, as a copy.

    IndexError for an index out of range.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.index_select.html

    >>> gpunn.index_select(gpunn.tensor([[1, 2], [3, 4]]), 0, gpunn.tensor([1, 1]))
    tensor([[3, 4],
            [3, 4]])
    """
    if input.device is not index.device:
        same_device("index_select", (input, index))
    x = input.array
    axis = normal_dim(dim, x.ndim)
    if index.array.ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    a = index_array("index_select", index, "Expected dtype int32 or int64 for index").reshape(-1)
    if x.ndim == 0 and a.size != 1:
        raise RuntimeError(
            f"index_select(): Index to scalar can have only 1 value, got {a.size} value(s)"
        )
    n = x.shape[axis] if x.ndim else 1
    a = bounded("index_select", a, n, lambda bad: IndexError(
        f"index out of range in self: index {bad} of dimension {axis} with size {n}"
    ))  # fmt: skip
    if x.ndim == 0:
        made = input.clone()  # type: ignore[attr-defined]
    else:
        saved = (x.shape, axis, a)
        made = result(x.take(a, axis), input, _index_select_vjp, (input,), saved)
    return made if out is None else write_apart(out, made, "index_select", (input, index))


@vjp((None, None, None))
def _index_select_vjp(g: Any, shape: Any, axis: int, index: Any) -> Any:
    key = (*[slice(None)] * axis, index)
    if isinstance(g, Tensor):
        return put(g.new_zeros(shape), key, g, True)  # type: ignore[attr-defined]
    whole = ns(g).zeros(shape, g.dtype)
    add_at(whole, key, g)
    return whole


def masked_select(input: Tensor, mask: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The elements where mask is true, as a vector.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.masked_select.html

    >>> gpunn.masked_select(gpunn.tensor([1, 2]), gpunn.tensor([False, True]))
    tensor([2])
    """
    same_device("masked_select", (input, mask))
    if mask.array.dtype != np.bool_:
        raise RuntimeError(
            f"masked_select: expected BoolTensor for mask, got {mask.dtype}. Use mask.bool()"
        )
    x, m = broadcast_tensors(input, mask)
    if x.array.ndim == 0:
        x, m = reshape(x, 1), reshape(m, 1)
    made = getitem_raw(x, (m.array,))
    return made if out is None else write_apart(out, made, "masked_select", (input, mask))


# --- the reverse: classes as vectors ------------------------------------------------------


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A vector of zeros with a 1 at the class, for each class index.

    Shapes: tensor any, int64; the result (*, num_classes), int64. Without num_classes it is the
    largest class plus one. RuntimeError for classes outside [0, num_classes).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.one_hot.html

    >>> F.one_hot(gpunn.tensor([0, 2]))
    tensor([[1, 0, 0],
            [0, 0, 1]])
    """
    a = tensor.array
    if a.dtype != np.int64:
        raise RuntimeError("one_hot is only applicable to index tensor of type LongTensor.")
    if a.size == 0 and num_classes <= 0:
        raise RuntimeError("Can not infer total number of classes from empty tensor.")
    if a.size and int(a.min()) < 0:
        raise RuntimeError("Class values must be non-negative.")
    if num_classes == -1:
        num_classes = int(a.max()) + 1
    elif a.size and int(a.max()) >= num_classes:
        raise RuntimeError("Class values must be smaller than num_classes.")
    y = ns(a).zeros((a.size, num_classes), np.int64)
    y[ns(a).arange(a.size), a.reshape(-1)] = 1
    return wrap(y.reshape(*a.shape, num_classes), tensor.device)


__all__ = ["gather", "index_select", "masked_select", "take", "take_along_dim"]
for _f in (gather, index_select, masked_select, take, take_along_dim):
    method(_f)
