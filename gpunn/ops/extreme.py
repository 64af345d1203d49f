"""Extremes and order: max, min, arg-extremes, sort, top-k, medians, quantiles, cumulative ops."""

from __future__ import annotations

from collections import namedtuple
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.ops._rows import cast, document, half, inplace, write_out
from gpunn.ops.choose import maximum, minimum
from gpunn.ops.gather import gather, pick_vjp
from gpunn.ops.reduce import axes_of, restore
from gpunn.tensor import Tensor, normal_dim, wrap


def _pair(name: str) -> Any:
    """PyTorch's return type of functions that give values and indices."""
    made = namedtuple(name, ["values", "indices"])  # noqa: PYI024
    made.__module__ = "torch.return_types"

    def show(self: Any) -> str:
        return f"torch.return_types.{name}(\nvalues={self[0]!r},\nindices={self[1]!r})"

    made.__repr__ = show  # type: ignore[method-assign, assignment]
    return made


def _write_pair(out: Any, pair: Any, name: str) -> Any:
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
    if x.size == 0:
        dims = range(x.ndim) if axes is None else axes
        if axes is None or any_zero(x, dims):
            raise IndexError(
                f"{name}(): Expected reduction dim {next(iter(dims), 0)} to have non-zero size."
                if axes is not None else
                f"{name}(): Expected reduction dim to be specified for input.numel() == 0. Specify "
                "the reduction dim with the 'dim' argument."
            )  # fmt: skip


def any_zero(x: Any, dims: Any) -> bool:
    return 0 in [x.shape[d] for d in dims]


amax = _extreme("amax", "maximum")
amin = _extreme("amin", "minimum")


def aminmax(input: Tensor, *, dim: Any = None, keepdim: bool = False, out: Any = None) -> Any:
    """(minimum, maximum) over all elements or over `dim`.

    >>> gpunn.aminmax(gpunn.tensor([3, 1, 2])).max
    tensor(3)
    """
    made = _MinMax(amin(input, dim, keepdim), amax(input, dim, keepdim))
    return _write_pair(out, made, "aminmax")


_MinMax = namedtuple("aminmax", ["min", "max"])


# --- max, min with indices; arg-extremes --------------------------------------------------


def _max_like(name: str, arg: str, whole: Any, pairwise: Any) -> Any:
    kind = _pair(name)

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
        values = take_pairs(input, indices, dim, keepdim)
        return _write_pair(out, kind(values, _drop(indices, dim, keepdim)), name)

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


def _drop(indices: Any, dim: int, keepdim: bool) -> Tensor:
    if keepdim or indices.ndim == 0:
        return wrap(indices)
    return wrap(np.ascontiguousarray(indices.squeeze(dim)) if type(indices) is np.ndarray else
                indices.squeeze(dim))  # fmt: skip


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
    return ns(x).asarray(getattr(wide, arg)(axis=axis, keepdims=keepdim)).astype(np.int64, copy=False)


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

# --- sorting ------------------------------------------------------------------------------

_Sort, _TopK, _Kth, _Median, _NanMedian, _Mode = map(
    _pair, ("sort", "topk", "kthvalue", "median", "nanmedian", "mode")
)
_CumMax, _CumMin = _pair("cummax"), _pair("cummin")


def order(input: Tensor, dim: int, descending: bool, stable: bool = True) -> Any:
    """The raw indices that sort along dim; NaN counts as largest, equal ones keep their order."""
    x = input.array
    if x.dtype.kind == "c":
        raise RuntimeError("sort: complex tensors have no order")
    wide = x.astype(F32) if half(x.dtype) else x
    if x.ndim == 0:
        return input.device.xp.zeros((), np.int64)
    axis = normal_dim(dim, x.ndim)
    if not descending:
        return wide.argsort(axis=axis, kind="stable")
    xp = ns(x)
    found = xp.flip(xp.flip(wide, axis).argsort(axis=axis, kind="stable"), axis)
    return x.shape[axis] - 1 - found


def sort(
    input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False, *, out: Any = None
) -> Any:
    """(values, indices) sorted along dim, always stably; NaN is the largest.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.sort.html

    >>> gpunn.sort(gpunn.tensor([3, 1, 2])).values
    tensor([1, 2, 3])
    """
    normal_dim(dim, input.array.ndim)
    indices = order(input, dim, descending)
    made = _Sort(take_pairs(input, indices, dim, True), wrap(indices, input.device))
    return _write_pair(out, made, "sort")


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The indices that sort along dim.

    >>> gpunn.argsort(gpunn.tensor([3, 1, 2]))
    tensor([1, 2, 0])
    """
    normal_dim(dim, input.array.ndim)
    return wrap(order(input, dim, descending), input.device)


def msort(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The values sorted along the first dimension.

    >>> gpunn.msort(gpunn.tensor([3, 1, 2]))
    tensor([1, 2, 3])
    """
    made = sort(input, 0).values
    return made if out is None else write_out(out, made, "msort")


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
    x = input.array
    axis = normal_dim(dim, x.ndim)
    n = x.shape[axis] if x.ndim else 1
    if not 0 <= k <= n:
        raise RuntimeError(f"selected index k out of range: k = {k} of {n} along dim {dim}")
    indices = order(input, axis, largest)
    if x.ndim:
        indices = indices[(slice(None),) * axis + (slice(0, k),)]
    indices = ns(x).ascontiguousarray(indices) if x.ndim else indices
    made = _TopK(take_pairs(input, indices, axis, True), wrap(indices, input.device))
    return _write_pair(out, made, "topk")


def kthvalue(
    input: Tensor, k: int, dim: int = -1, keepdim: bool = False, *, out: Any = None
) -> Any:
    """(value, index) of the k-th smallest along dim, counted from 1.

    >>> gpunn.kthvalue(gpunn.tensor([3, 1, 2]), 2).values
    tensor(2)
    """
    x = input.array
    axis = normal_dim(dim, x.ndim)
    n = x.shape[axis] if x.ndim else 1
    if not 1 <= k <= n:
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {axis}")
    indices = order(input, axis, False)
    if x.ndim:
        indices = indices[(slice(None),) * axis + (slice(k - 1, k),)]
    made = _Kth(take_pairs(input, indices, axis, keepdim), _drop(indices, axis, keepdim))
    return _write_pair(out, made, "kthvalue")


def _median_of(input: Tensor, dim: Any, keepdim: bool, kind: Any, skip_nan: bool, out: Any) -> Any:
    if dim is None:
        flat = input.reshape(-1)  # type: ignore[operator]
        if flat.array.size == 0:
            return result(np.asarray(np.nan, input.array.dtype), input)
        return _median_of(flat, 0, False, kind, skip_nan, None)[0]
    x = input.array
    axis = normal_dim(dim, x.ndim)
    if x.ndim == 0:
        made = kind(input.clone(), wrap(np.zeros((), np.int64)))  # type: ignore[attr-defined]
        return _write_pair(out, made, "median")
    xp = ns(x)
    n = x.shape[axis]
    if n == 0:
        raise IndexError(f"median(): Expected reduction dim {axis} to have non-zero size.")
    ranks = order(input, axis, False)
    nans = (x != x).sum(axis=axis, keepdims=True)
    place = xp.full(nans.shape, (n - 1) // 2)
    if skip_nan:
        place = xp.maximum((n - nans - 1) // 2, 0)
    else:
        place = xp.where(nans > 0, n - nans, place)
    indices = xp.take_along_axis(ranks, place, axis)
    made = kind(take_pairs(input, indices, axis, keepdim), _drop(indices, axis, keepdim))
    return _write_pair(out, made, "median")


def median(input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None) -> Any:
    """The median (the lower of two), over all elements, or (values, indices) over dim.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.median.html

    >>> gpunn.median(gpunn.tensor([3., 1., 2.]))
    tensor(2.)
    """
    return _median_of(input, dim, keepdim, _Median, False, out)


def nanmedian(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, out: Any = None
) -> Any:
    """The median of what is not NaN: see `median`."""
    return _median_of(input, dim, keepdim, _NanMedian, True, out)


def mode(input: Tensor, dim: int = -1, keepdim: bool = False, *, out: Any = None) -> Any:
    """(value, index) of the most frequent value along dim; the smallest of several.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.mode.html

    >>> gpunn.mode(gpunn.tensor([1, 2, 2])).values
    tensor(2)
    """
    x = input.array
    if x.ndim == 0:
        return _Mode(input.clone(), wrap(np.zeros((), np.int64)))  # type: ignore[attr-defined]
    axis = normal_dim(dim, x.ndim)
    if x.shape[axis] == 0:
        raise IndexError(f"mode(): Expected reduction dim {axis} to have non-zero size.")
    rows = np.moveaxis(x, axis, -1)
    found = np.empty(rows.shape[:-1], np.int64)
    for at in np.ndindex(*rows.shape[:-1]):
        values, counts = np.unique(rows[at], return_counts=True)
        found[at] = np.flatnonzero(rows[at] == values[counts.argmax()])[-1]
    indices = np.expand_dims(found, axis)
    made = _Mode(take_pairs(input, indices, axis, keepdim), _drop(indices, axis, keepdim))
    return _write_pair(out, made, "mode")


# --- quantiles ----------------------------------------------------------------------------


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


def nanquantile(
    input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
    interpolation: str = "linear", out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The quantiles of what is not NaN: see `quantile`."""
    made = _quantile(input, q, dim, keepdim, interpolation, True)
    return made if out is None else write_out(out, made, "nanquantile")


def _quantile(
    input: Tensor, q: Any, dim: Any, keepdim: bool, interpolation: str, skip_nan: bool
) -> Tensor:
    """Sorts, and interpolates between two gathered neighbours: differentiable by composition."""
    from gpunn.ops.create import tensor

    if input.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError("quantile() input tensor must be either float or double dtype")
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
    values = qs.array
    if ((values < 0) | (values > 1)).any():
        raise RuntimeError("quantile() q values must be in the range [0, 1]")
    ndim = input.array.ndim
    x = input.reshape(-1) if dim is None or ndim == 0 else input.movedim(dim, -1)  # type: ignore[operator, attr-defined]
    if x.array.size == 0:
        raise RuntimeError("quantile() input tensor must be non-empty")
    xp, n = input.device.xp, x.array.shape[-1]
    ranked = sort(x, -1).values
    nans = (x.array != x.array).sum(axis=-1, keepdims=True)
    last = xp.maximum(n - nans, 1) - 1 if skip_nan else xp.full_like(nans, n - 1)
    place = last * values.reshape(-1).astype(np.float64)
    if not skip_nan:
        place = xp.where(nans > 0, n - 1.0, place)
    low, high = xp.floor(place), xp.ceil(place)
    chosen = {"lower": low, "higher": high, "nearest": xp.rint(place)}.get(interpolation)
    if chosen is not None:
        y = gather(ranked, -1, wrap(chosen.astype(np.int64), x.device))
    else:
        share = place - low if interpolation == "linear" else xp.full_like(place, 0.5)
        a = gather(ranked, -1, wrap(low.astype(np.int64), x.device))
        b = gather(ranked, -1, wrap(high.astype(np.int64), x.device))
        y = a.lerp(b, wrap(share.astype(x.array.dtype), x.device))  # type: ignore[attr-defined]
    if keepdim:
        y = y.reshape((1,) * ndim + (-1,)) if dim is None else y.unsqueeze(dim if dim >= 0 else (  # type: ignore[attr-defined]
            dim - 1))  # fmt: skip
    return y.movedim(-1, 0) if qs.ndim else y.squeeze(-1)  # type: ignore[attr-defined]


# --- cumulative ---------------------------------------------------------------------------


@vjp((None,))
def _cumsum_vjp(g: Any, axis: int) -> Any:
    xp = ns(g)
    return xp.flip(xp.cumsum(xp.flip(g, (axis,)), axis=axis), (axis,))


def _running(name: str, input: Tensor, dim: int, dtype: Any) -> tuple[Any, int]:
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype).numpy)
    x = input.array
    axis = normal_dim(dim, x.ndim)
    if x.dtype.kind in "biu" and dtype is None:
        x = x.astype(np.int64)
    wide = x.astype(F32) if half(x.dtype) else x
    y = getattr(ns(x), name)(wide, axis=axis, dtype=wide.dtype) if x.ndim else wide.copy()
    return (input, y.astype(x.dtype, copy=False)), axis


def cumsum(
    input: Tensor, dim: Any = None, *, dtype: Any = None, out: Tensor | None = None, axis: Any = None
) -> Tensor:
    """Running sums along dim.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cumsum.html

    >>> gpunn.cumsum(gpunn.tensor([1, 2, 3]), 0)
    tensor([1, 3, 6])
    """
    (x, y), d = _running("cumsum", input, axis if dim is None else dim, dtype)
    made = result(y, x, _cumsum_vjp if y.ndim else _same_vjp, (x,), (d,))
    return made if out is None else write_out(out, made, "cumsum")


@vjp((None,))
def _same_vjp(g: Any, _: Any) -> Any:
    return g


@vjp((0, None))
def _cumprod_vjp(g: Any, x: Any, axis: int) -> Any:
    """Exact where elements are zero: the gradient of each prefix product, summed."""
    xp = ns(g)
    n = x.shape[axis]
    lead = (slice(None),) * axis
    parts = []
    ones = xp.ones_like(x[(*lead, slice(0, 1))])
    for i in range(n):
        tail = xp.cumprod(
            xp.concatenate([ones, x[(*lead, slice(i + 1, n))]], axis=axis), axis=axis
        )
        before = x[(*lead, slice(0, i))].prod(axis, keepdims=True) if not isinstance(
            x, Tensor) else prod_keep(x[(*lead, slice(0, i))], axis)  # fmt: skip
        part = (g[(*lead, slice(i, n))] * (tail * before).conj()).sum(axis=axis, keepdims=True)
        parts.append(part)
    return xp.concatenate(parts, axis=axis)


def prod_keep(x: Tensor, axis: int) -> Tensor:
    from gpunn.ops.reduce import prod

    return prod(x, axis, True)


def cumprod(
    input: Tensor, dim: Any = None, *, dtype: Any = None, out: Tensor | None = None, axis: Any = None
) -> Tensor:
    """Running products along dim.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cumprod.html

    >>> gpunn.cumprod(gpunn.tensor([1, 2, 3]), 0)
    tensor([1, 2, 6])
    """
    (x, y), d = _running("cumprod", input, axis if dim is None else dim, dtype)
    made = result(y, x, _cumprod_vjp if y.ndim else _same_vjp, (x,), (x.array, d) if y.ndim else (d,))
    return made if out is None else write_out(out, made, "cumprod")


def _running_extreme(name: str, kind: Any) -> Any:
    def running(input: Tensor, dim: int, *, out: Any = None) -> Any:
        x = input.array
        axis = normal_dim(dim, x.ndim)
        if x.ndim == 0:
            return _write_pair(out, kind(input.clone(), wrap(np.zeros((), np.int64))), name)  # type: ignore[attr-defined]
        ufunc = np.maximum if name == "cummax" else np.minimum
        wide = x.astype(F32) if half(x.dtype) else x
        best = ufunc.accumulate(wide, axis=axis)
        place = np.arange(x.shape[axis]).reshape((-1,) + (1,) * (x.ndim - 1 - axis))
        hit = (wide == best) | (wide != wide)
        indices = np.maximum.accumulate(np.where(hit, place, 0), axis=axis)
        made = kind(take_pairs(input, indices, axis, True), wrap(indices, input.device))
        return _write_pair(out, made, name)

    document(running, name, f"(values, indices) of the running {name[3:]}imum along dim.",
             f"gpunn.{name}(gpunn.tensor([1, 3, 2]), 0).values\n"
             f"tensor([{'1, 3, 3' if name == 'cummax' else '1, 1, 1'}])", "unchanged",
             "unchanged; indices are int64")  # fmt: skip
    return running


cummax = _running_extreme("cummax", _CumMax)
cummin = _running_extreme("cummin", _CumMin)


def logcumsumexp(input: Tensor, dim: int, *, out: Tensor | None = None) -> Tensor:
    """log of the running sums of exp(x) along dim, without overflow.

    >>> gpunn.logcumsumexp(gpunn.zeros(2), 0)
    tensor([0.0000, 0.6931])
    """
    x = input if input.dtype.category >= dtypes.FLOATING else cast(
        input, dtypes.get_default_dtype().numpy
    )  # fmt: skip
    axis = normal_dim(dim, x.array.ndim)
    if x.array.ndim == 0:
        made = x.clone()  # type: ignore[attr-defined]
    else:
        wide = x.array.astype(F32) if half(x.array.dtype) else x.array
        y = np.logaddexp.accumulate(wide, axis=axis).astype(x.array.dtype)
        made = result(y, x, _logcumsumexp_vjp, (x,), (x.array, y, axis))
        if made.node is not None:
            made.node.saved = (x.array, made.array, axis)
    return made if out is None else write_out(out, made, "logcumsumexp")


@vjp((0, -1, None))
def _logcumsumexp_vjp(g: Any, x: Any, y: Any, axis: int) -> Any:
    xp = ns(g)
    share = g * xp.exp(-1 * y)
    return xp.exp(x) * xp.flip(xp.cumsum(xp.flip(share, (axis,)), axis=axis), (axis,))


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
    append: Tensor | None = None, *, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The n-th differences of neighbours along dim.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.diff.html

    >>> gpunn.diff(gpunn.tensor([1, 4, 9]))
    tensor([3, 5])
    """
    from gpunn.ops.shape import cat

    if input.array.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    axis = normal_dim(dim, input.array.ndim)
    parts = [t for t in (prepend, input, append) if t is not None]
    x = cat(parts, axis) if len(parts) > 1 else input
    for _ in range(n):
        length = x.array.shape[axis]
        a, b = x.narrow(axis, 1, length - 1) if length else x, x.narrow(axis, 0, length - 1) if (  # type: ignore[attr-defined]
            length) else x  # fmt: skip
        x = a ^ b if x.dtype is dtypes.bool_ else a - b  # type: ignore[operator]
    return x if out is None else write_out(out, x, "diff")


_METHODS = [
    "amax", "amin", "aminmax", "argmax", "argmin", "argsort", "cummax", "cummin", "cumprod",
    "cumsum", "diff", "kthvalue", "logcumsumexp", "max", "median", "min", "mode", "msort",
    "nanmedian", "nanquantile", "quantile", "sort", "topk",
]  # fmt: skip
__all__ = list(_METHODS)
for _name in _METHODS:
    setattr(Tensor, _name, globals()[_name])
for _name in ("cumsum", "cumprod"):
    setattr(Tensor, _name + "_", inplace(globals()[_name], _name))
