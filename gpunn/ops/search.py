"""Searching: where elements are non-zero, among others, or between sorted ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.ops._rows import half, proper, refusal, same_device, write_out
from gpunn.ops.gather import along
from gpunn.tensor import Tensor, method, wrap

# --- nonzero ------------------------------------------------------------------------------


@method
def nonzero(input: Tensor, *, out: Tensor | None = None, as_tuple: bool = False) -> Any:
    """The places of all non-zero elements: a row each, or a tuple of one vector a dimension.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nonzero.html

    >>> gpunn.nonzero(gpunn.tensor([0, 3, 4]))
    tensor([[1],
            [2]])
    """
    x = input.array
    xp = input.device.xp
    if as_tuple:
        return tuple(wrap(p, input.device) for p in xp.atleast_1d(x).nonzero())
    if x.ndim == 0:
        made = wrap(xp.empty((1 if x else 0, 0), np.int64), input.device)
    else:
        made = wrap(xp.stack(x.nonzero(), axis=1), input.device)
    if out is None:
        return made
    if out.dtype is not dtypes.int64:
        raise RuntimeError(
            "nonzero: Expected out tensor to have scalar type Long but got scalar type "
            f"{proper(out.dtype)}"
        )
    return write_out(out, made, "nonzero")


@method
def nonzero_static(
    input: Tensor, *, size: int, fill_value: int = -1, out: Tensor | None = None
) -> Tensor:
    """`nonzero` with exactly `size` rows: cut off, or filled up with fill_value.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nonzero_static.html

    >>> gpunn.nonzero_static(gpunn.tensor([0, 3, 4]), size=3)
    tensor([[ 1],
            [ 2],
            [-1]])
    """
    if size < 0:
        raise RuntimeError("nonzero_static: 'size' must be an non-negative integer")
    found = nonzero(input).array[:size]
    y = input.device.xp.full((size, input.array.ndim), fill_value, np.int64)
    y[: len(found)] = found
    made = wrap(y, input.device)
    return made if out is None else write_out(out, made, "nonzero_static")


@method
def argwhere(input: Tensor) -> Tensor:
    """`nonzero`, a row for each place.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.argwhere.html

    >>> gpunn.argwhere(gpunn.tensor([[0, 3]]))
    tensor([[0, 1]])
    """
    return nonzero(input)


# --- among sorted values ------------------------------------------------------------------


def searchsorted(
    sorted_sequence: Tensor, values: Any, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, out: Tensor | None = None, sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Where values would be inserted into the (rows of the) sorted sequence to keep its order.

    Shapes: a vector and any values; or (..., n) and values (..., m) row by row. `right` or side
    "right" inserts behind equal ones. `sorter` sorts the sequence. int64, or int32 if asked.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.searchsorted.html

    >>> gpunn.searchsorted(gpunn.tensor([1, 3, 5]), gpunn.tensor([3, 4]))
    tensor([1, 2])
    """
    if side not in (None, "left", "right"):
        raise RuntimeError(
            f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}"
        )
    if side == "left" and right:
        raise RuntimeError("torch.searchsorted(): side and right can't be set to opposites, got "
                           "side of left while right was True")  # fmt: skip
    edges, v = _comparable(sorted_sequence, values)
    _check_search(edges, v, sorter)
    if sorter is not None:
        edges = edges[along(sorter.array, edges.ndim - 1)]
    where: Any = "right" if right or side == "right" else "left"
    kind: Any = np.int32 if out_int32 else np.int64
    if out is not None and out.array.dtype != kind:
        raise RuntimeError(
            "torch.searchsorted(): output tensor's dtype is wrong, it can only be Int(int32) or "
            "Long(int64) depending on whether out_int32 flag is True, but we got output tensor's "
            f"dtype {proper(out.dtype)} and out_int32 flag is {out_int32}"
        )
    xp = sorted_sequence.device.xp
    if edges.ndim == 1:
        found = xp.asarray(edges.searchsorted(v, where)).astype(kind)
    else:
        found = xp.empty(v.shape, kind)
        for at in np.ndindex(*v.shape[:-1]):
            found[at] = edges[at].searchsorted(v[at], where)
    made = wrap(found, sorted_sequence.device)
    return made if out is None else write_out(out, made, "searchsorted")


def _comparable(boundaries: Tensor, values: Any) -> tuple[Any, Any]:
    """Both raw arrays in a dtype in which they can be compared."""
    edges = boundaries.array
    if edges.dtype.kind == "c":
        raise refusal("searchsorted_out", edges.dtype)
    if isinstance(values, Tensor):
        same_device("torch.searchsorted()", (boundaries, values))
        v = values.array
        common = dtypes.promote_types(boundaries.dtype, values.dtype).numpy
    else:
        v, common = boundaries.device.xp.asarray(values), edges.dtype
    if half(common):
        common = np.dtype(np.float32)
    return edges.astype(common, copy=False), v.astype(common, copy=False)


def _check_search(edges: Any, v: Any, sorter: Tensor | None) -> None:
    if edges.ndim == 0:
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should have positive dimension, but got 0 "
            "dimension"
        )
    if edges.ndim != 1 and v.ndim == 0:
        raise RuntimeError(
            "torch.searchsorted(): input value can be a scalar only when boundaries tensor "
            f"dimension is 1, but we got boundaries tensor dim({edges.ndim}) and input value's "
            "dim(0) numel(1)"
        )
    if edges.ndim != 1 and (edges.ndim != v.ndim or edges.shape[:-1] != v.shape[:-1]):
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 "
            "dimensions of boundaries tensor and input value tensor must match, but we got "
            f"boundaries tensor {list(edges.shape)} and input value tensor {list(v.shape)}"
        )
    if sorter is None:
        return
    s = sorter.array
    if s.shape != edges.shape:
        raise RuntimeError(
            "torch.searchsorted(): boundary and sorter must have the same size, but got boundary "
            f"tensor {list(edges.shape)}and got sorter tensor {list(s.shape)}"
        )
    if s.dtype != np.int64:
        raise RuntimeError(
            f"torch.searchsorted(): sorter must be a tensor of long dtype but got dtype "
            f"{proper(sorter.dtype)}"
        )
    if s.size and not (int(s.min()) >= 0 and int(s.max()) < edges.shape[-1]):
        raise RuntimeError("torch.searchsorted(): sorter index out of range")


def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The index of the bucket between boundaries that each value falls into.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.bucketize.html

    >>> gpunn.bucketize(gpunn.tensor([3, 6]), gpunn.tensor([1, 3, 5]))
    tensor([1, 3])
    """
    if boundaries.array.ndim != 1:
        raise RuntimeError(
            f"boundaries tensor must be 1 dimension, but got dim({boundaries.array.ndim})"
        )
    return searchsorted(boundaries, input, out_int32=out_int32, right=right, out=out)


# --- among others -------------------------------------------------------------------------


def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Whether each element is among the test elements; one of the two may be a number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.isin.html

    >>> gpunn.isin(gpunn.tensor([1, 2, 3]), gpunn.tensor([2]))
    tensor([False,  True, False])
    """
    tensors = [v for v in (elements, test_elements) if isinstance(v, Tensor)]
    if not tensors:
        raise TypeError(
            "isin() received an invalid combination of arguments: one of the two must be a Tensor, "
            f"got ({type(elements).__name__}, {type(test_elements).__name__})"
        )
    device = same_device("isin", tuple(tensors))
    arrays = []
    for v in (elements, test_elements):
        a = v.array if isinstance(v, Tensor) else device.xp.asarray(v)
        if a.dtype.kind in "bc":
            raise RuntimeError(
                "Unsupported input type encountered for isin(): "
                f"{proper(dtypes.of(a.dtype))}"
            )
        arrays.append(a.astype(np.float32) if half(a.dtype) else a)
    made = wrap(device.xp.asarray(device.xp.isin(*arrays, invert=invert)), device)
    return made if out is None else write_out(out, made, "isin")


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """The coordinates, in a tensor of `shape`, of places in the flat tensor: a tensor a dimension.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unravel_index.html

    >>> gpunn.unravel_index(gpunn.tensor([5, 2]), (2, 3))
    (tensor([1, 0]), tensor([2, 2]))
    """
    a = indices.array
    if a.dtype.kind not in "iu":
        raise TypeError(f"expected 'indices' to be integer dtype, but got {indices.dtype}")
    sizes = (shape,) if isinstance(shape, int) else tuple(shape)
    if any(not isinstance(n, (int, np.integer)) for n in sizes):
        raise TypeError(f"expected 'shape' to be int or sequence of ints, but got {shape}")
    if any(n < 0 for n in sizes):
        raise ValueError(f"'shape' cannot have negative values, but got {tuple(sizes)}")
    a = a.astype(np.int64, copy=False)
    found, step = [], 1
    for n in reversed(sizes):
        found.append(wrap(indices.device.xp.asarray(a // step % n), indices.device))
        step *= n
    return tuple(reversed(found))


__all__ = [
    "argwhere", "bucketize", "isin", "nonzero", "nonzero_static", "searchsorted", "unravel_index",
]  # fmt: skip
