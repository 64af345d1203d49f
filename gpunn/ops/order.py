"""Order: sorting, the largest k, the k-th, medians, the most frequent value, quantiles."""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import needs, result
from gpunn.dtypes import F32
from gpunn.ops._rows import half, write_out
from gpunn.ops.cumulative import accumulate
from gpunn.ops.extreme import pair_at, pair_type
from gpunn.ops.gather import gather
from gpunn.tensor import Tensor, normal_dim, wrap

_Sort, _TopK, _Kth, _Median, _NanMedian, _Mode = map(
    pair_type, ("sort", "topk", "kthvalue", "median", "nanmedian", "mode")
)

# --- sorting ------------------------------------------------------------------------------


def order(x: Any, axis: int, descending: bool = False) -> Any:
    """The indices that sort a raw array along an axis; NaN counts as largest, equal ones keep
    their order."""
    if not descending:
        return x.argsort(axis=axis, kind="stable")
    xp = ns(x)
    found = xp.flip(xp.flip(x, axis).argsort(axis=axis, kind="stable"), axis)
    return x.shape[axis] - 1 - found


def _comparable(name: str, input: Tensor, dim: int) -> tuple[Any, int]:
    """The raw array with at least one dimension, in a dtype that NumPy compares, and the axis."""
    x = input.array
    axis = normal_dim(dim, x.ndim)
    if x.dtype.kind == "c":
        raise RuntimeError(f"{name}(): does not support complex inputs, they have no order")
    return (x.astype(F32) if half(x.dtype) else x).reshape(x.shape or (1,)), axis


def sort(
    input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False, *, out: Any = None
) -> Any:
    """(values, indices) sorted along dim, always stably; NaN is the largest.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.sort.html

    >>> gpunn.sort(gpunn.tensor([3, 1, 2])).values
    tensor([1, 2, 3])
    """
    x, axis = _comparable("sort", input, dim)
    return pair_at(_Sort, "sort", input, order(x, axis, descending), axis, True, out)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort along dim.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.argsort.html

    >>> gpunn.argsort(gpunn.tensor([3, 1, 2]))
    tensor([1, 2, 0])
    """
    x, axis = _comparable("argsort", input, dim)
    return wrap(order(x, axis, descending).reshape(input.array.shape), input.device)


def _sorted(input: Tensor, dim: int) -> Tensor:
    """The values sorted along dim; without a gradient their indices need not be found."""
    x = input.array
    if needs(input) or half(x.dtype) or x.dtype.kind == "c" or x.ndim == 0:
        return sort(input, dim).values
    return result(ns(x).sort(x, axis=dim), input)


def msort(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The values sorted along the first dimension.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.msort.html

    >>> gpunn.msort(gpunn.tensor([3, 1, 2]))
    tensor([1, 2, 3])
    """
    made = _sorted(input, 0)
    return made if out is None else write_out(out, made, "msort")


# --- selection ----------------------------------------------------------------------------


def _part(x: Any, axis: int, part: slice) -> Any:
    return x[(slice(None),) * axis + (part,)]


def _select(x: Any, k: int, axis: int, largest: bool) -> Any:
    """The indices of the k largest, or smallest, along an axis, in order: a partition, then a
    sort of k."""
    xp, n = ns(x), x.shape[axis]
    if k * 4 > n:
        return _part(order(x, axis, largest), axis, slice(0, k))
    if k == 0:
        return xp.zeros((*x.shape[:axis], 0, *x.shape[axis + 1 :]), np.int64)
    places = xp.argpartition(x, n - k if largest else k - 1, axis=axis)
    places = _part(places, axis, slice(n - k, n) if largest else slice(0, k))
    places = xp.sort(places, axis=axis)  # equal values in the order of their indices
    inner = order(xp.take_along_axis(x, places, axis), axis, largest)
    return xp.take_along_axis(places, inner, axis)


def topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True, *,
    out: Any = None,
) -> Any:  # fmt: skip
    """(values, indices) of the k largest, or smallest, along dim, in order.

    RuntimeError where k exceeds the length.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.topk.html

    >>> gpunn.topk(gpunn.tensor([3, 1, 2]), 2).values
    tensor([3, 2])
    """
    x, axis = _comparable("topk", input, dim)
    n = x.shape[axis]
    if not 0 <= k <= n:
        raise RuntimeError(f"selected index k out of range: k = {k} of {n} along dim {dim}")
    indices = _select(x, k, axis, largest)
    if k == 0 and input.array.ndim == 0:
        indices = ns(x).zeros(1, np.int64)
    indices = ns(x).ascontiguousarray(indices)
    return pair_at(_TopK, "topk", input, indices, axis, True, out)


def kthvalue(
    input: Tensor, k: int, dim: int = -1, keepdim: bool = False, *, out: Any = None
) -> Any:
    """(value, index) of the k-th smallest along dim, counted from 1.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.kthvalue.html

    >>> gpunn.kthvalue(gpunn.tensor([3, 1, 2]), 2).values
    tensor(2)
    """
    x, axis = _comparable("kthvalue", input, dim)
    if input.array.ndim and x.shape[axis] == 0:
        raise IndexError(f"kthvalue(): Expected reduction dim {axis} to have non-zero size.")
    if not 1 <= k <= x.shape[axis]:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {axis}")
    if out is not None and np.may_share_memory(out[0].array, input.array):
        raise RuntimeError(
            "unsupported operation: some elements of the input tensor and the written-to tensor "
            "refer to a single memory location. Please clone() the tensor before performing the "
            "operation. (kthvalue)"
        )
    indices = _part(ns(x).argpartition(x, k - 1, axis=axis), axis, slice(k - 1, k))
    return pair_at(_Kth, "kthvalue", input, indices, axis, keepdim, out)


# --- medians ------------------------------------------------------------------------------


def _median_of(input: Tensor, dim: Any, keepdim: bool, kind: Any, skip_nan: bool, out: Any) -> Any:
    if dim is None:
        flat = input.reshape(-1)
        if flat.array.size == 0:
            empty = float("nan") if flat.dtype.category >= dtypes.FLOATING else _least(flat.dtype)
            made = result(input.device.xp.asarray(empty, flat.array.dtype), input)
        else:
            made = _median_of(flat, 0, False, kind, skip_nan, None)[0]
        return made if out is None else write_out(out, made, "median")
    x, axis = _comparable("median", input, dim)
    if x.shape[axis] == 0:
        raise IndexError(f"median(): Expected reduction dim {axis} to have non-zero size.")
    indices = _median_places(x, axis, skip_nan)
    return pair_at(kind, "median", input, indices, axis, keepdim, out)


def _least(d: Any) -> Any:
    return False if d is dtypes.bool_ else dtypes.iinfo(d).min


def _median_places(x: Any, axis: int, skip_nan: bool) -> Any:
    """The index of the lower median along an axis; of a NaN where there is one."""
    xp, n = ns(x), x.shape[axis]
    nans = (x != x).sum(axis=axis, keepdims=True)
    k = (n - 1) // 2
    if not nans.any():
        return _part(xp.argpartition(x, k, axis=axis), axis, slice(k, k + 1))
    place = xp.maximum((n - nans - 1) // 2, 0) if skip_nan else xp.where(nans > 0, n - nans, k)
    return xp.take_along_axis(order(x, axis), place, axis)


def median(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """The median (the lower of two), over all elements, or (values, indices) over dim.

    NaN gives NaN. Source: https://docs.pytorch.org/docs/stable/generated/torch.median.html

    >>> gpunn.median(gpunn.tensor([3., 1., 2.]))
    tensor(2.)
    """
    return _median_of(input, dim, keepdim, _Median, False, out)


def nanmedian(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None
) -> Any:
    """The median of what is not NaN: see `median`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nanmedian.html

    >>> gpunn.nanmedian(gpunn.tensor([3., float("nan"), 2.]))
    tensor(2.)
    """
    return _median_of(input, dim, keepdim, _NanMedian, True, out)


def mode(input: Tensor, dim: int = -1, keepdim: bool = False, *, out: Any = None) -> Any:
    """(value, index) of the most frequent value along dim: the smallest of several, its last index.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.mode.html

    >>> gpunn.mode(gpunn.tensor([1, 2, 2])).values
    tensor(2)
    """
    x, axis = _comparable("mode", input, dim)
    if x.shape[axis] == 0:
        raise IndexError(f"mode(): Expected reduction dim {axis} to have non-zero size.")
    xp, n = ns(x), x.shape[axis]
    ranks = order(x, axis)
    ranked = xp.take_along_axis(x, ranks, axis)
    place = xp.arange(n).reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    first = _part(ranked, axis, slice(0, 1)) == _part(ranked, axis, slice(0, 1))
    new = _part(ranked, axis, slice(1, n)) != _part(ranked, axis, slice(0, n - 1))
    new = xp.concatenate([xp.ones_like(first), new], axis=axis)
    start = accumulate("maximum", xp.where(new, place, 0), axis)
    longest = (place - start).argmax(axis=axis, keepdims=True)  # each run at its last element
    indices = xp.take_along_axis(ranks, longest, axis)
    return pair_at(_Mode, "mode", input, indices, axis, keepdim, out)


# --- quantiles ----------------------------------------------------------------------------


@autocasts("quantile")
def quantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
    interpolation: str = "linear", out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The q-th quantiles over all elements or over dim; several q make a dimension in front.

    interpolation: linear, lower, higher, nearest or midpoint. NaN gives NaN.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.quantile.html

    >>> gpunn.quantile(gpunn.tensor([0., 1., 2., 3.]), 0.5)
    tensor(1.5000)
    """
    made = _quantile(input, q, dim, keepdim, interpolation, False)
    return made if out is None else write_out(out, made, "quantile")


@autocasts("nanquantile")
def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
    interpolation: str = "linear", out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The quantiles of what is not NaN: see `quantile`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nanquantile.html

    >>> gpunn.nanquantile(gpunn.tensor([0., float("nan"), 2.]), 0.5)
    tensor(1.)
    """
    made = _quantile(input, q, dim, keepdim, interpolation, True)
    return made if out is None else write_out(out, made, "nanquantile")


def _quantile_args(input: Tensor, q: Any, interpolation: str) -> Tensor:
    """q as a Tensor, or PyTorch's errors."""
    from gpunn.ops.create import tensor

    if input.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError("quantile() input tensor must be either float or double dtype")
    if input.array.size == 0:
        raise RuntimeError("quantile() input tensor must be non-empty")
    if interpolation not in ("linear", "lower", "higher", "nearest", "midpoint"):
        raise RuntimeError(
            "quantile() interpolation must be one of linear, lower, higher, midpoint or nearest, "
            f"but got {interpolation}"
        )
    qs = q if isinstance(q, Tensor) else tensor(q, dtype=input.dtype, device=input.device)
    if qs.ndim > 1:
        raise RuntimeError("quantile() q must be a scalar or 1D tensor")
    if qs.dtype is not input.dtype:
        raise RuntimeError("quantile() q tensor must be same dtype as the input tensor")
    if qs.device is not input.device:
        raise RuntimeError("quantile() q tensor must be on the same device as the input tensor")
    if not ((qs.array >= 0) & (qs.array <= 1)).all():
        raise RuntimeError("quantile() q values must be in the range [0, 1]")
    return qs


def _quantile(
    input: Tensor, q: Any, dim: Any, keepdim: bool, interpolation: str, skip_nan: bool
) -> Tensor:
    """Sorts, and interpolates between two gathered neighbours: differentiable by composition."""
    qs = _quantile_args(input, q, interpolation)
    ndim = input.array.ndim
    axis = None if dim is None else normal_dim(dim, ndim)
    x = input.reshape(-1) if axis is None or ndim == 0 else input.movedim(axis, -1)
    xp, n = input.device.xp, x.array.shape[-1]
    ranked = _sorted(x, -1)
    nans = (x.array != x.array).sum(axis=-1, keepdims=True)
    last = xp.maximum(n - nans, 1) - 1 if skip_nan else xp.full_like(nans, n - 1)
    place = qs.reshape(-1) * wrap(last.astype(x.array.dtype), x.device)
    if not skip_nan:
        place = place.masked_fill(wrap(nans > 0, x.device), n - 1)
    y = _between(ranked, place, interpolation)
    if keepdim and axis is None:
        y = y.reshape((1,) * ndim + (-1,))
    elif keepdim and ndim:
        y = y.unsqueeze(axis)  # type: ignore[arg-type]  # None is served above
    return y.movedim(-1, 0) if qs.ndim else y.squeeze(-1)


def _between(ranked: Tensor, place: Tensor, interpolation: str) -> Tensor:
    """The values at fractional places of sorted rows."""

    def at(whole: Tensor) -> Tensor:
        return gather(ranked, -1, whole.detach().long())

    if interpolation == "lower":
        return at(place.floor())
    if interpolation == "higher":
        return at(place.ceil())
    if interpolation == "nearest":
        return at(place.round())
    low = place.floor()
    share = place - low if interpolation == "linear" else low * 0 + 0.5
    return at(low).lerp(at(place.ceil()), share)


_METHODS = [
    "argsort", "kthvalue", "median", "mode", "msort", "nanmedian", "nanquantile", "quantile",
    "sort", "topk",
]  # fmt: skip
__all__ = list(_METHODS)
for _name in _METHODS:
    setattr(Tensor, _name, globals()[_name])
