"""Scattering: values written, added or combined at places named by index tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.ops._rows import inplace, same_device, write_out
from gpunn.ops.accumulate import add_at
from gpunn.ops.gather import along, check_along, index_array
from gpunn.ops.index import getitem_raw, number, put, put_raw
from gpunn.ops.index_key import Key
from gpunn.ops.index_write import at_least_1d, vector_key
from gpunn.ops.views import reshape
from gpunn.tensor import Tensor, method, normal_dim, wrap

# --- scatter ------------------------------------------------------------------------------


def _place(x: Tensor, dim: int, index: Tensor, src: Any, name: str) -> Key:
    """The key of a scatter, with the checks of all its forms."""
    same_device(name, (x, index, src))
    a = x.array
    axis = normal_dim(dim, a.ndim)
    i = index_array(name, index)
    if isinstance(src, Tensor):
        if src.dtype is not x.dtype:
            raise RuntimeError(
                f"{name}(): Expected self.dtype to be equal to src.dtype (got {x.dtype} and "
                f"{src.dtype})"
            )
        if i.size and (i.ndim or 1) != (src.array.ndim or 1):
            raise RuntimeError(
                "Index tensor must have the same number of dimensions as src tensor (index "
                f"{list(i.shape)}, src {list(src.array.shape)})"
            )
        if any(n > m for n, m in zip(i.shape, src.array.shape, strict=False)):
            raise RuntimeError(
                f"Expected index {list(i.shape)} to be no larger than self {list(a.shape)} apart "
                f"from dimension {axis} and to be no larger size than src {list(src.array.shape)}"
            )
    if i.size:
        i = check_along("scatter", a, i, axis)
    return (i.reshape(-1),) if a.ndim == 0 or i.ndim == 0 else along(i, axis)


def _values(x: Tensor, index: Any, src: Any) -> Tensor:
    """The part of src that index pairs with; a number as a 0-dim Tensor."""
    if not isinstance(src, Tensor):
        return wrap(x.device.xp.asarray(number(src, x.array.dtype)), x.device)
    if index.ndim == 0 or x.array.ndim == 0 or src.array.ndim == 0:
        return reshape(src, -1)[: index.size]  # type: ignore[index]
    if src.array.shape == index.shape:
        return src
    return src[tuple(slice(0, n) for n in index.shape)]  # type: ignore[index]


def _scatter(
    name: str, x: Tensor, dim: int, index: Tensor, src: Any, add: bool, in_place: bool
) -> Tensor:
    key = _place(x, dim, index, src, name)
    if index.array.size == 0:
        return x if in_place else x.clone()  # type: ignore[attr-defined]
    return put_raw(x, key, _values(x, index.array, src), add, in_place)


def _source(src: Any, value: Any, reduce: str | None) -> Any:
    if reduce not in (None, "add", "multiply"):
        raise RuntimeError("reduce argument must be either add or multiply.")
    if src is None and value is None:
        raise TypeError("scatter() missing required argument: src, a Tensor or number")
    return value if src is None else src


def _scatter_with(input: Tensor, dim: int, index: Tensor, source: Any, reduce: str) -> Tensor:
    kind = {"add": "sum", "multiply": "prod"}[reduce]
    if not isinstance(source, Tensor):
        one = number(source, input.array.dtype)
        source = wrap(ns(input.array).full(index.array.shape, one[()], one.dtype), input.device)
    return scatter_reduce(input, dim, index, source, kind)


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
    reduce: str | None = None, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A copy of input with src (a tensor or number) written at index along dim.

    Where an index repeats, one of the values wins. `reduce` "add" or "multiply" combines.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.scatter.html

    >>> gpunn.scatter(gpunn.zeros(3), 0, gpunn.tensor([1]), 5.0)
    tensor([0., 5., 0.])
    """
    source = _source(src, value, reduce)
    if reduce is None:
        made = _scatter("scatter", input, dim, index, source, False, False)
    else:
        made = _scatter_with(input, dim, index, source, reduce)
    return made if out is None else write_out(out, made, "scatter")


@method
def scatter_(
    self: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
    reduce: str | None = None,
) -> Tensor:  # fmt: skip
    """In-place version of `scatter`."""
    source = _source(src, value, reduce)
    if reduce is not None:
        return _scatter_with_(self, dim, index, source, reduce)
    return _scatter("scatter", self, dim, index, source, False, True)


_scatter_with_ = inplace(_scatter_with, "scatter")


@autocasts("scatter_add")
def scatter_add(
    input: Tensor, dim: int, index: Tensor, src: Tensor, *, out: Tensor | None = None
) -> Tensor:
    """A copy of input with src added at index along dim; repeated indices add up.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.scatter_add.html

    >>> gpunn.scatter_add(gpunn.zeros(2), 0, gpunn.tensor([1, 1]), gpunn.ones(2))
    tensor([0., 2.])
    """
    made = _scatter("scatter_add", input, dim, index, _tensor("scatter_add", src), True, False)
    return made if out is None else write_out(out, made, "scatter_add")


@method
def scatter_add_(self: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """In-place version of `scatter_add`."""
    return _scatter("scatter_add", self, dim, index, _tensor("scatter_add_", src), True, True)


def _tensor(name: str, src: Any) -> Tensor:
    if not isinstance(src, Tensor):
        raise TypeError(
            f"{name}(): argument 'src' (position 3) must be Tensor, not {type(src).__name__}"
        )
    return src


# --- combining: scatter_reduce, index_reduce ----------------------------------------------


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *,
    include_self: bool = True, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A copy of input with src combined at index along dim: sum, prod, mean, amax or amin.

    `include_self=False` leaves input's own values out of the combination.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.scatter_reduce.html

    >>> i, s = gpunn.tensor([0, 0]), gpunn.tensor([2., 3.])
    >>> gpunn.scatter_reduce(gpunn.ones(1), 0, i, s, "prod")
    tensor([6.])
    """
    if reduce not in ("sum", "prod", "mean", "amax", "amin"):
        raise RuntimeError(
            f"reduce argument must be either sum, prod, mean, amax or amin, got {reduce}"
        )
    key = _place(input, dim, index, src, "scatter")
    if index.array.size == 0:
        made = input.clone()  # type: ignore[attr-defined]
    else:
        made = _combined(input, key, _values(input, index.array, src), reduce, include_self)
    return made if out is None else write_out(out, made, "scatter_reduce")


def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
    include_self: bool = True, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A copy of input whose entries named by index are combined with source's: prod, mean, amax
    or amin.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.index_reduce_.html

    >>> i, s = gpunn.tensor([0, 0]), gpunn.tensor([2., 3.])
    >>> gpunn.index_reduce(gpunn.ones(1), 0, i, s, "prod")
    tensor([6.])
    """
    if reduce not in ("prod", "mean", "amax", "amin"):
        raise RuntimeError(
            f"index_reduce(): Expected reduce to be one of prod, mean, amax or amin but got "
            f"{reduce}."
        )
    key = vector_key("index_reduce_", input, dim, index, source)
    made = _combined(input, key, at_least_1d(source), reduce, include_self)
    return made if out is None else write_out(out, made, "index_reduce")


def _combined(x: Tensor, key: Key, part: Tensor, reduce: str, include_self: bool) -> Tensor:
    """x combined with part at a raw key."""
    if x.array.ndim == 0:
        return reshape(_combined(reshape(x, 1), key, part, reduce, include_self), ())
    if reduce == "sum" and include_self:
        return put(x, key, part, True)
    xp = ns(x.array)
    hits = xp.zeros(x.array.shape, np.int64)
    add_at(hits, key, xp.ones(part.array.shape, np.int64))
    if reduce in ("sum", "mean"):
        return _summed(x, key, part, hits, reduce == "mean", include_self)
    y = x.array.copy()
    if not include_self:
        y[hits > 0] = _neutral(reduce, x.array.dtype)
    _combine_at(y, key, part.array, reduce)
    saved = (x.array, part.array, y, key, hits, reduce, include_self)
    made = result(y, x, _product_vjp if reduce == "prod" else _extreme_vjp, (x, part), saved)
    if made.node is not None:
        made.node.saved = (x.array, part.array, made.array, *saved[3:])
    return made


def _summed(
    x: Tensor, key: Key, part: Tensor, hits: Any, mean: bool, include_self: bool
) -> Tensor:
    start = x if include_self else x.masked_fill(wrap(hits > 0, x.device), 0)  # type: ignore[attr-defined]
    total = put(start, key, part, True)
    if not mean:
        return total
    count = wrap(ns(hits).maximum(hits + (1 if include_self else 0), 1), x.device)
    if x.dtype.category < dtypes.FLOATING:
        return total.div(count, rounding_mode="floor").to(x.dtype)  # type: ignore[attr-defined]
    return total / count.to(x.dtype)  # type: ignore[attr-defined, operator]


def _combine_at(y: Any, key: Key, values: Any, reduce: str) -> None:
    name = {"prod": "multiply", "amax": "maximum", "amin": "minimum"}[reduce]
    if type(y) is np.ndarray:
        getattr(np, name).at(y, key, values)
        return
    if reduce != "prod":
        _extreme_at_cuda(y, key, values, name)
        return
    host = y.get()  # CuPy has no product at repeated indices
    there: Any = tuple(k if type(k) is slice else k.get() for k in key)
    np.multiply.at(host, there, values.get())
    y.set(host)


def _extreme_at_cuda(y: Any, key: Key, values: Any, name: str) -> None:
    """CuPy compares 32 and 64-bit numbers only, int64 not among them, and passes over NaN."""
    xp, d = ns(y), y.dtype
    at = getattr(xp, name).at
    bad = None if d.kind in "biu" else xp.isnan(y).astype(np.int32)
    if d == np.int64:  # ordered as uint64 is, once the sign bits are turned
        sign = np.uint64(1 << 63)
        wide = y.view(np.uint64) ^ sign
        at(wide, key, values.astype(d, copy=False).view(np.uint64) ^ sign)
        y[...] = (wide ^ sign).view(d)
    elif y.itemsize < 4:
        wide = y.astype(np.float32 if bad is not None else np.int32)
        at(wide, key, values.astype(wide.dtype))
        y[...] = wide
    else:
        at(y, key, values)
    if bad is not None:
        xp.maximum.at(bad, key, xp.isnan(values).astype(np.int32))
        y[bad > 0] = np.nan


def _neutral(reduce: str, dtype: Any) -> Any:
    if reduce == "prod":
        return 1
    d = dtypes.of(dtype)
    if d.category >= dtypes.FLOATING:
        return -np.inf if reduce == "amax" else np.inf
    if d is dtypes.bool_:
        return reduce == "amin"
    info = dtypes.iinfo(d)
    return info.min if reduce == "amax" else info.max


_SAVES = (0, 1, -1, None, None, None, None)


@vjp(_SAVES, name="ScatterReduceBackward0")
def _product_vjp(
    g: Any, x: Any, part: Any, y: Any, key: Any, hits: Any, reduce: str, include_self: bool
) -> Any:
    """Each factor's gradient is the product of the others: where one factor is 0, only that one
    has a gradient, and where several are, none has."""
    tensors = isinstance(g, Tensor)
    xp = ns(g)
    own = include_self or hits == 0  # where x is a factor
    zeros = ((x.array if tensors else x) == 0) & own
    zero_part = (part.array if tensors else part) == 0
    count = zeros.astype(np.int64)
    add_at(count, key, zero_part.astype(np.int64))
    masks = [own & ~zeros, zeros, zero_part, count == 1]
    own, zeros, zero_part, one = (wrap(m, g.device) if tensors else m for m in masks)
    one_x, one_part = xp.where(own, x, 1), xp.where(zero_part, 1, part)
    read = (lambda t: getitem_raw(t, key)) if tensors else (lambda t: t[key])
    rest, whole = g * _products(one_x, one_part, key), g * y
    lone_x = xp.where(one, rest, 0)
    lone_part = read(lone_x)
    if tensors:  # of two zeros, each is the other's factor: nothing here, but it has a gradient
        two = wrap(count == 2, g.device)
        pair = put(xp.where(zeros, x, 0), key, xp.where(zero_part, part, 0), True)
        lone_x = xp.where(two, rest * (pair - x), lone_x)
        lone_part = xp.where(read(two), read(rest) * (read(pair) - part), lone_part)
    gx = xp.where(own, whole / one_x, xp.where(zeros, lone_x, 0))
    if not include_self:
        kept = hits == 0
        gx = xp.where(wrap(kept, g.device) if tensors else kept, g, gx)
    return gx, xp.where(zero_part, lone_part, read(whole) / one_part)


def _products(x: Any, part: Any, key: Key) -> Any:
    """The products at a key, of raw arrays or Tensors."""
    if isinstance(x, Tensor):
        return _combined(x, key, part, "prod", True)
    y = x.copy()
    _combine_at(y, key, part, "prod")
    return y


@vjp(_SAVES, name="ScatterReduceBackward0")
def _extreme_vjp(
    g: Any, x: Any, part: Any, y: Any, key: Any, hits: Any, reduce: str, include_self: bool
) -> Any:
    """All that equal the extreme share the gradient."""
    tensors = isinstance(g, Tensor)
    ax, apart, ay = (x.array, part.array, y.array) if tensors else (x, part, y)
    tie_x = (ax == ay) & (include_self or hits == 0)
    tie_part = ay[key] == apart
    ties = tie_x.astype(ay.dtype)
    add_at(ties, key, tie_part.astype(ay.dtype))
    ties[ties == 0] = 1
    weights = tie_x.astype(ay.dtype) / ties, tie_part.astype(ay.dtype) / ties[key]
    wx, wpart = (wrap(w, g.device) for w in weights) if tensors else weights
    return g * wx, (getitem_raw(g, key) if tensors else g[key]) * wpart


__all__ = ["index_reduce", "scatter", "scatter_add", "scatter_reduce"]
for _f in (index_reduce, scatter, scatter_add, scatter_reduce):
    method(_f)
for _name in ("index_reduce", "scatter_reduce"):
    setattr(Tensor, _name + "_", inplace(globals()[_name], _name))
