"""Gathering and scattering by index tensors, masks, and searching."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import adopt, check_inplace, result, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import cast, inplace, same_device, size_error, write_out
from gpunn.ops.index import add_at, getitem_raw, put, store
from gpunn.tensor import Tensor, method, normal_dim, wrap

# --- gather -------------------------------------------------------------------------------


def along(indices: Any, axis: int) -> tuple[Any, ...]:
    """The key that picks `indices` along an axis and keeps place in all others."""
    key = []
    for d, n in enumerate(indices.shape):
        if d == axis:
            key.append(indices)
        else:
            key.append(ns(indices).arange(n).reshape((-1,) + (1,) * (indices.ndim - 1 - d)))
    return tuple(key)


@vjp((None,) * 4, name="GatherBackward0")
def pick_vjp(g: Any, shape: Any, axis: int, indices: Any, keepdim: bool) -> Any:
    """The gradient of values taken along an axis."""
    if not keepdim:
        lead = (slice(None),) * axis
        g = g[(*lead, None)]
    key = along(indices, axis)
    if isinstance(g, Tensor):
        return put(g.new_zeros(shape), key, g, True)  # type: ignore[attr-defined]
    whole = ns(g).zeros(shape, g.dtype)
    if indices.shape[axis] == 1:  # one entry a row: none is hit twice
        whole[key] = g
    else:
        add_at(whole, key, g)
    return whole


def check_index(name: str, index: Tensor, n: int, axis: int, negative: bool = False) -> Any:
    """The raw index array, or PyTorch's error for its dtype or an index out of range."""
    a = index.array
    if a.dtype.kind not in "iu":
        raise RuntimeError(f"{name}(): Expected dtype int64 for index, got {index.dtype}")
    if a.size:
        low, high = int(a.min()), int(a.max())
        if low < (-n if negative else 0) or high >= n:
            bad = high if high >= n else low
            kind = IndexError if name in ("index_select", "take") else RuntimeError
            raise kind(f"index {bad} is out of bounds for dimension {axis} with size {n} "
                       f"(index out of range in self, {name})")  # fmt: skip
    return a


def gather(
    input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False, out: Tensor | None = None
) -> Tensor:
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on.

    Shapes: index has input's dimensions, none longer but `dim`; the result has index's shape.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.gather.html

    >>> gpunn.gather(gpunn.tensor([[1, 2], [3, 4]]), 1, gpunn.tensor([[0], [1]]))
    tensor([[1],
            [4]])
    """
    same_device("gather", (input, index))
    x = input.array
    axis = normal_dim(dim, x.ndim)
    a = index.array
    if a.size == 0 and a.dtype.kind in "iu":
        made = result(input.device.xp.empty(a.shape, x.dtype), input)
        return made if out is None else write_out(out, made, "gather")
    _check_ranks("gather", x, a, axis)
    check_index("gather", index, x.shape[axis] if x.ndim else 1, axis)
    if x.ndim == 0 or a.ndim == 0:
        made = (input.reshape(-1)[index.reshape(-1)]).reshape(a.shape)  # type: ignore[index, operator]
        return made if out is None else write_out(out, made, "gather")
    made = result(x[along(a, axis)], input, pick_vjp, (input,), (x.shape, axis, a, True))
    return made if out is None else write_out(out, made, "gather")


def _check_ranks(name: str, x: Any, index: Any, axis: int) -> None:
    if (x.ndim or 1) != (index.ndim or 1):
        raise RuntimeError(
            f"{name}(): Index tensor must have the same number of dimensions as input tensor "
            f"(index {list(index.shape)}, input {list(x.shape)})"
        )
    for d in range(min(x.ndim, index.ndim)):
        if d != axis and index.shape[d] > x.shape[d]:
            raise RuntimeError(
                f"{name}(): Size does not match at dimension {d} expected index "
                f"{list(index.shape)} to be no larger than self {list(x.shape)} apart from "
                f"dimension {axis}"
            )


def take_along_dim(
    input: Tensor, indices: Tensor, dim: int | None = None, *, out: Tensor | None = None
) -> Tensor:
    """`gather` with broadcasting: what argsort or argmax found, taken out.

    >>> gpunn.take_along_dim(gpunn.tensor([[1, 2]]), gpunn.tensor([[1]]), dim=1)
    tensor([[2]])
    """
    if indices.array.dtype.kind not in "iu" or indices.array.dtype.itemsize < 8:
        raise RuntimeError("torch.take_along_dim(): dtype of indices should be Long but got "
                           f"{indices.dtype.name.capitalize()}")  # fmt: skip
    if dim is None:
        made = input.reshape(-1)[indices.reshape(-1)]  # type: ignore[index, operator]
        return made if out is None else write_out(out, made, "take_along_dim")
    if input.ndim != indices.ndim:
        raise RuntimeError(
            "torch.take_along_dim(): input and indices should have the same number of dimensions, "
            f"but got {input.ndim} dimensions for input, and {indices.ndim} dimensions for indices"
        )
    axis = normal_dim(dim, input.ndim)
    shape = [max(a, b) for a, b in zip(input.shape, indices.shape, strict=True)]
    here, there = list(shape), list(shape)
    here[axis], there[axis] = input.shape[axis], indices.shape[axis]
    return gather(input.expand(here), axis, indices.expand(there), out=out)  # type: ignore[attr-defined]


def take(input: Tensor, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The elements of the flat input at `index`, in index's shape.

    >>> gpunn.take(gpunn.tensor([[1, 2], [3, 4]]), gpunn.tensor([0, 3]))
    tensor([1, 4])
    """
    if index.array.dtype.kind not in "iu":
        raise RuntimeError(f"take(): Expected a long tensor for index, but got {index.dtype}")
    if input.array.size == 0 and index.array.size:
        raise IndexError("take(): tried to take from an empty tensor")
    check_index("take", index, input.array.size, 0, negative=True)
    made = getitem_raw(input.reshape(-1), (index.array,))  # type: ignore[operator]
    return made if out is None else write_out(out, made, "take")


def index_select(input: Tensor, dim: int, index: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The entries of a dimension named by a vector of indices, as a copy.

    IndexError for an index out of range.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.index_select.html

    >>> gpunn.index_select(gpunn.tensor([[1, 2], [3, 4]]), 0, gpunn.tensor([1, 1]))
    tensor([[3, 4],
            [3, 4]])
    """
    same_device("index_select", (input, index))
    axis = normal_dim(dim, input.array.ndim)
    if index.array.ndim > 1:
        raise IndexError("index_select(): Index is supposed to be a vector")
    n = input.array.shape[axis] if input.array.ndim else 1
    a = check_index("index_select", index, n, axis)
    if input.array.ndim == 0:
        if index.array.size != 1:
            raise IndexError("index_select(): Index to scalar must have exactly 1 value")
        made = input.clone()  # type: ignore[attr-defined]
    else:
        made = getitem_raw(input, (slice(None),) * axis + (a.reshape(-1),))
    return made if out is None else write_out(out, made, "index_select")


# --- scatter ------------------------------------------------------------------------------


def _scatter_key(name: str, x: Tensor, dim: int, index: Tensor, src: Any) -> tuple[Any, Any]:
    """(key, values) of a scatter, checked."""
    same_device(name, (x, index, src))
    axis = normal_dim(dim, x.array.ndim)
    a = index.array
    if a.size:
        _check_ranks(name, x.array, a, axis)
        check_index(name, index, x.array.shape[axis] if x.array.ndim else 1, axis)
    elif a.dtype.kind not in "iu":
        raise RuntimeError(f"{name}(): Expected dtype int64 for index")
    if isinstance(src, Tensor):
        if src.dtype is not x.dtype:
            raise RuntimeError(
                f"{name}(): Expected self.dtype to be equal to src.dtype, got {x.dtype} and "
                f"{src.dtype}"
            )
        if a.ndim and any(n > m for n, m in zip(a.shape, src.array.shape, strict=False)):
            raise RuntimeError(
                f"Expected index {list(a.shape)} to be no larger than src "
                f"{list(src.array.shape)} ({name})"
            )
    if x.array.ndim == 0 or a.ndim == 0:
        return (a.reshape(-1),), None
    return along(a, axis), None


def _scattered(name: str, x: Tensor, dim: int, index: Tensor, src: Any, add: bool) -> Tensor:
    key, _ = _scatter_key(name, x, dim, index, src)
    if index.array.size == 0:
        return x.clone()  # type: ignore[attr-defined]
    if isinstance(src, Tensor):
        if index.array.ndim == 0 or src.array.ndim == 0:
            part = src.reshape(-1)[: index.array.size]  # type: ignore[operator, index]
        else:
            part = src[tuple(slice(0, n) for n in index.array.shape)]  # type: ignore[index]
    else:
        part = wrap(ns(x.array).full(index.array.shape, src, x.array.dtype), x.device)
    if x.array.ndim == 0:
        return put(x.reshape(1), key, part.reshape(-1), add).reshape(())  # type: ignore[operator]
    if x.array.ndim and index.array.ndim == 0:
        part = part.reshape(-1)  # type: ignore[operator]
    return put(x, key, part, add)


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
    source = value if src is None else src
    if reduce is not None:
        if reduce not in ("add", "multiply"):
            raise RuntimeError("reduce argument must be either add or multiply.")
        whole = source if isinstance(source, Tensor) else wrap(
            ns(input.array).full(index.array.shape, source, input.array.dtype), input.device
        )  # fmt: skip
        kind = {"add": "sum", "multiply": "prod"}[reduce]
        made = scatter_reduce(input, dim, index, whole, kind)
    else:
        made = _scattered("scatter", input, dim, index, source, False)
    return made if out is None else write_out(out, made, "scatter")


def scatter_add(
    input: Tensor, dim: int, index: Tensor, src: Tensor, *, out: Tensor | None = None
) -> Tensor:
    """A copy of input with src added at index along dim; repeated indices add up.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.scatter_add.html

    >>> gpunn.scatter_add(gpunn.zeros(2), 0, gpunn.tensor([1, 1]), gpunn.ones(2))
    tensor([0., 2.])
    """
    made = _scattered("scatter_add", input, dim, index, src, True)
    return made if out is None else write_out(out, made, "scatter_add")


_REDUCES = ("sum", "prod", "mean", "amax", "amin")


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
    if reduce not in _REDUCES:
        raise RuntimeError(
            f"reduce argument must be one of sum, prod, mean, amax, amin, got {reduce}"
        )
    key, _ = _scatter_key("scatter_reduce", input, dim, index, src)
    if index.array.size == 0:
        made = input.clone()  # type: ignore[attr-defined]
    else:
        flat = input.array.ndim == 0 or index.array.ndim == 0
        part = src.reshape(-1)[: index.array.size] if flat else (  # type: ignore[operator, index]
            src[tuple(slice(0, n) for n in index.array.shape)]  # type: ignore[index]
        )  # fmt: skip
        x = input.reshape(-1) if input.array.ndim == 0 else input  # type: ignore[operator]
        made = _combine(x, key, part, reduce, include_self).reshape(input.array.shape)  # type: ignore[operator]
    return made if out is None else write_out(out, made, "scatter_reduce")


def _combine(x: Tensor, key: Any, part: Tensor, reduce: str, include_self: bool) -> Tensor:
    """x combined with part at a raw key."""
    xp = ns(x.array)
    hits = xp.zeros(x.array.shape, np.int64)
    add_at(hits, key, 1)
    touched = wrap(hits > 0, x.device)
    if reduce in ("sum", "mean"):
        start = x if include_self else x.where(~touched, 0)  # type: ignore[attr-defined]
        total = put(start, key, part, True)
        if reduce == "sum":
            return total
        count = wrap(xp.maximum(hits + (1 if include_self else 0), 1), x.device)
        if x.dtype.category < dtypes.FLOATING:
            return total.div(count, rounding_mode="floor").to(x.dtype)  # type: ignore[attr-defined]
        return total / count.to(x.dtype)  # type: ignore[attr-defined, operator]
    y = x.array.copy()
    if not include_self:
        y[hits > 0] = _neutral(reduce, x.array.dtype)
    ufunc = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}[reduce]
    if type(y) is np.ndarray:
        ufunc.at(y, key, part.array)
    else:
        import cupyx

        getattr(cupyx, f"scatter_{reduce[1:]}")(y, key, part.array)
    own = x.array if include_self else None
    saved = (own, part.array, y, key, hits, reduce, include_self)
    made = result(y, x, _combine_vjp, (x, part), (x.array, *saved[1:]))
    if made.node is not None:
        made.node.saved = (x.array, part.array, made.array, *saved[3:])
    return made


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


@vjp((0, 1, -1, None, None, None, None), name="ScatterReduceBackward0")
def _combine_vjp(
    g: Any, x: Any, part: Any, y: Any, key: Any, hits: Any, reduce: str, include_self: bool
) -> Any:
    """Extremes share the gradient among ties; products divide it (zeros counted apart)."""
    tensors = isinstance(g, Tensor)
    read = (lambda t: getitem_raw(t, key)) if tensors else (lambda t: t[key])
    if tensors:
        hits = wrap(hits, g.device)
    xp = ns(g)
    kept = hits == 0
    zero = xp.zeros_like(g)
    if reduce == "prod":
        gx = xp.where(kept, g, g * y / x if include_self else zero)
        return gx, read(g * y) / part
    tie_x = (x == y) if include_self else (x == y) & kept
    tie_part = read(y) == part
    as_number = (lambda m: m.to(g.dtype)) if tensors else (lambda m: m.astype(g.dtype))  # type: ignore[attr-defined]
    if tensors:
        ties = put(as_number(tie_x), key, as_number(tie_part), True)
    else:
        ties = as_number(tie_x).copy()
        add_at(ties, key, as_number(tie_part))
    share = g / xp.where(ties == 0, xp.ones_like(ties), ties)
    return share * as_number(tie_x), read(share) * as_number(tie_part)


# --- index_add, index_copy, index_fill, index_put -----------------------------------------


def _index_key(name: str, x: Tensor, dim: int, index: Tensor) -> tuple[int, Any]:
    same_device(name, (x, index))
    axis = normal_dim(dim, x.array.ndim)
    if index.array.ndim > 1:
        raise IndexError(f"{name}(): Index is supposed to be a vector, but got dim: "
                         f"{index.array.ndim}")  # fmt: skip
    n = x.array.shape[axis] if x.array.ndim else 1
    a = check_index("index_select", index, n, axis)
    return axis, (slice(None),) * axis + (a.reshape(-1),)


def _check_source(name: str, x: Tensor, source: Tensor) -> None:
    if source.dtype is not x.dtype:
        raise RuntimeError(
            f"{name}(): self ({x.dtype.name.capitalize()}) and source "
            f"({source.dtype.name.capitalize()}) must have the same scalar type"
        )


def index_add(
    input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A copy of input with alpha * source added to the entries named by index.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.index_add_.html

    >>> gpunn.index_add(gpunn.zeros(2), 0, gpunn.tensor([1, 1]), gpunn.ones(2))
    tensor([0., 2.])
    """
    _, key = _index_key("index_add", input, dim, index)
    _check_source("index_add", input, source)
    scaled = source if alpha == 1 else source * alpha  # type: ignore[operator]
    if input.array.ndim == 0:
        made = put(input.reshape(1), key, scaled.reshape(-1), True).reshape(())  # type: ignore[operator]
    else:
        if source.array.ndim == 0:
            scaled = scaled.reshape(1)  # type: ignore[operator]
        try:
            made = put(input, key, scaled, True)
        except ValueError:
            raise size_error(input.array[key].shape, source.array.shape) from None
    return made if out is None else write_out(out, made, "index_add")


def index_copy(
    input: Tensor, dim: int, index: Tensor, source: Tensor, *, out: Tensor | None = None
) -> Tensor:
    """A copy of input with source written to the entries named by index.

    >>> gpunn.index_copy(gpunn.zeros(2), 0, gpunn.tensor([1]), gpunn.ones(1))
    tensor([0., 1.])
    """
    _, key = _index_key("index_copy", input, dim, index)
    _check_source("index_copy", input, source)
    if input.array.ndim == 0:
        made = put(input.reshape(1), key, source.reshape(-1), False).reshape(())  # type: ignore[operator]
    else:
        made = put(input, key, source, False)
    return made if out is None else write_out(out, made, "index_copy")


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy of input with a number written to the entries named by index.

    >>> gpunn.index_fill(gpunn.zeros(2), 0, gpunn.tensor([1]), 7)
    tensor([0., 7.])
    """
    axis = normal_dim(dim, input.array.ndim)
    n = input.array.shape[axis] if input.array.ndim else 1
    a = check_index("index_select", index, n, axis, negative=True)
    if isinstance(value, Tensor):
        if value.array.ndim:
            raise RuntimeError("index_fill_ only supports a 0-dimensional value tensor, but got "
                               f"tensor with {value.array.ndim} dimension(s).")  # fmt: skip
        fill = cast(value, input.array.dtype)
    else:
        fill = wrap(ns(input.array).asarray(value, dtype=input.array.dtype), input.device)
    if input.array.ndim == 0:
        return put(input.reshape(1), (a.reshape(-1),), fill, False).reshape(())  # type: ignore[operator]
    return put(input, (slice(None),) * axis + (a.reshape(-1),), fill, False)


def _put_key(x: Tensor, indices: Any) -> Any:
    from gpunn.ops.index import raw_key

    return raw_key(tuple(slice(None) if i is None else i for i in indices), x)[0]


def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of input with input[indices] = values, or += with accumulate.

    >>> gpunn.index_put(gpunn.zeros(2), (gpunn.tensor([1]),), gpunn.tensor(7.))
    tensor([0., 7.])
    """
    if values.dtype is not input.dtype:
        raise RuntimeError(
            f"Index put requires the source and destination dtypes match, got {input.dtype} for "
            f"the destination and {values.dtype} for the source."
        )
    return put(input, _put_key(input, indices), values, accumulate)


@method
def index_put_(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """self[indices] = values, or += with accumulate, in place."""
    store(self, _put_key(self, indices), values, accumulate)
    return self


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of input with src written at one entry of dim."""
    axis = normal_dim(dim, input.array.ndim)
    return put(input, (slice(None),) * axis + (index,), src, False)


def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Tensor:
    """A copy of input with src written at a slice of dim."""
    axis = normal_dim(dim, input.array.ndim)
    return put(input, (slice(None),) * axis + (slice(start, end, step),), src, False)


# --- masks --------------------------------------------------------------------------------


def _mask(name: str, mask: Tensor) -> Any:
    if mask.array.dtype.kind != "b":
        raise RuntimeError(
            f"{name}: expected BoolTensor for mask; {name} only supports boolean masks, but got "
            f"mask with dtype {mask.dtype}"
        )
    return mask.array


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A copy of input with `value`, a number, where mask is true.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.masked_fill_.html

    >>> gpunn.tensor([1, 2]).masked_fill(gpunn.tensor([True, False]), 0)
    tensor([0, 2])
    """
    from gpunn.ops.choose import where

    _mask("masked_fill", mask)
    if isinstance(value, Tensor):
        if value.array.ndim:
            raise RuntimeError("masked_fill_ only supports a 0-dimensional value tensor, but got "
                               f"tensor with {value.array.ndim} dimension(s).")  # fmt: skip
        if not dtypes.can_cast(value.dtype, input.dtype):
            raise RuntimeError(f"value cannot be converted to type {input.dtype} without overflow")
        fill = cast(value, input.array.dtype)
    else:
        if dtypes.of_scalar(value).category > max(input.dtype.category, dtypes.INTEGER):
            raise RuntimeError(f"value cannot be converted to type {input.dtype} without overflow")
        fill = wrap(input.device.xp.asarray(value).astype(input.array.dtype), input.device)
    return where(mask, fill, input)


def masked_select(input: Tensor, mask: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The elements where mask is true, as a vector.

    >>> gpunn.masked_select(gpunn.tensor([1, 2]), gpunn.tensor([False, True]))
    tensor([2])
    """
    from gpunn.ops.shape import broadcast_tensors

    _mask("masked_select", mask)
    x, m = broadcast_tensors(input, mask)
    made = getitem_raw(x, (m.array,))
    made = made.reshape(-1) if x.array.ndim == 0 else made  # type: ignore[operator]
    return made if out is None else write_out(out, made, "masked_select")


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of input whose elements under the mask are taken from source, in order."""
    from gpunn.ops.shape import broadcast_tensors

    if source.dtype is not input.dtype:
        raise RuntimeError("masked_scatter: expected self and source to have same dtypes but got "
                           f"{input.dtype} and {source.dtype}")  # fmt: skip
    x, m = broadcast_tensors(input, mask)
    a = _mask("masked_scatter", m)
    count = int(a.sum())
    if source.array.size < count:
        raise RuntimeError(f"masked_scatter: source has {source.array.size} elements, the mask "
                           f"selects {count}")  # fmt: skip
    flat = source.reshape(-1)[:count]  # type: ignore[index, operator]
    return put(x, (a,), flat.reshape(count) if a.ndim else flat.reshape(()) if count else flat, False)  # type: ignore[operator]


# --- searching ----------------------------------------------------------------------------


def nonzero(input: Tensor, *, out: Tensor | None = None, as_tuple: bool = False) -> Any:
    """The places of all non-zero elements: a row each, or a tuple of one vector a dimension.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nonzero.html

    >>> gpunn.nonzero(gpunn.tensor([0, 3, 4]))
    tensor([[1],
            [2]])
    """
    x = input.array
    xp = input.device.xp
    places = xp.atleast_1d(x).nonzero() if as_tuple or x.ndim else ()
    if as_tuple:
        return tuple(wrap(p, input.device) for p in places)
    if x.ndim == 0:
        made = wrap(xp.empty((1 if x else 0, 0), np.int64), input.device)
    else:
        made = wrap(xp.stack(places, axis=1).astype(np.int64), input.device)
    return made if out is None else write_out(out, made, "nonzero")


def argwhere(input: Tensor) -> Tensor:
    """`nonzero`, a row for each place."""
    return nonzero(input)


def searchsorted(
    sorted_sequence: Tensor, values: Any, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, out: Tensor | None = None, sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Where values would be inserted into the (rows of the) sorted sequence to keep its order.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.searchsorted.html

    >>> gpunn.searchsorted(gpunn.tensor([1, 3, 5]), gpunn.tensor([3, 4]))
    tensor([1, 2])
    """
    if side is not None and side not in ("left", "right"):
        raise RuntimeError(f"torch.searchsorted(): side can only be 'left' or 'right' but got {side}")
    if side == "left" and right:
        raise RuntimeError("torch.searchsorted(): side and right can't be set to opposites, got "
                           "side of left while right was True")  # fmt: skip
    xp = sorted_sequence.device.xp
    edges = sorted_sequence.array
    if not isinstance(values, Tensor):
        if edges.ndim != 1:
            raise RuntimeError("input value can be a scalar only when boundaries tensor dimension "
                               "is 1")  # fmt: skip
        v = xp.asarray(values)
    else:
        if values.dtype is not sorted_sequence.dtype:
            raise RuntimeError(
                "torch.searchsorted(): boundary and input value tensors should have same dtype, "
                f"but got boundary tensor dtype {sorted_sequence.dtype} and input value tensor "
                f"dtype {values.dtype}"
            )
        v = values.array
    if edges.ndim != 1 and edges.shape[:-1] != v.shape[:-1]:
        raise RuntimeError(
            "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 "
            f"dimensions of boundaries tensor and input value tensor must match, but we got "
            f"boundaries tensor {list(edges.shape)} and input value tensor {list(v.shape)}"
        )
    if sorter is not None:
        edges = xp.take_along_axis(edges, sorter.array, -1)
    where = "right" if right or side == "right" else "left"
    kind = np.int32 if out_int32 else np.int64
    if edges.ndim == 1:
        found = xp.asarray(edges.searchsorted(v, where)).astype(kind)
    else:
        found = xp.empty(v.shape, kind)
        for at in np.ndindex(*v.shape[:-1]):
            found[at] = edges[at].searchsorted(v[at], where)
    made = wrap(found, sorted_sequence.device)
    return made if out is None else write_out(out, made, "searchsorted")


def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The index of the bucket between boundaries that each value falls into.

    >>> gpunn.bucketize(gpunn.tensor([3, 6]), gpunn.tensor([1, 3, 5]))
    tensor([1, 3])
    """
    if boundaries.array.ndim != 1:
        raise RuntimeError("boundaries tensor must be 1 dimension, but got dim("
                           f"{boundaries.array.ndim})")  # fmt: skip
    return searchsorted(boundaries, input, out_int32=out_int32, right=right, out=out)


def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Whether each element is among the test elements.

    >>> gpunn.isin(gpunn.tensor([1, 2, 3]), gpunn.tensor([2]))
    tensor([False,  True, False])
    """
    like = elements if isinstance(elements, Tensor) else test_elements
    a = elements.array if isinstance(elements, Tensor) else np.asarray(elements)
    b = test_elements.array if isinstance(test_elements, Tensor) else np.asarray(test_elements)
    return wrap(like.device.xp.asarray(np.isin(a, b, invert=invert)), like.device)


def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """The distinct elements (or slices of dim), sorted, with the inverse map and counts if asked.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unique.html

    >>> gpunn.unique(gpunn.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    x = input.array
    axis = None if dim is None else normal_dim(dim, x.ndim)
    flat = x if axis is not None else x.reshape(-1)
    values, inverse, counts = np.unique(
        flat, return_inverse=True, return_counts=True, axis=axis, equal_nan=False
    )
    inverse = inverse.reshape(x.shape if axis is None else -1)
    return _answers(input, values, inverse, counts, return_inverse, return_counts)


def _answers(
    like: Tensor, values: Any, inverse: Any, counts: Any, want_inverse: bool, want_counts: bool
) -> Any:
    made = [wrap(values, like.device)]
    if want_inverse:
        made.append(wrap(inverse.astype(np.int64), like.device))
    if want_counts:
        made.append(wrap(counts.astype(np.int64), like.device))
    return made[0] if len(made) == 1 else tuple(made)


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """Runs of equal elements (or slices of dim) reduced to one each.

    >>> gpunn.unique_consecutive(gpunn.tensor([1, 1, 2, 1]))
    tensor([1, 2, 1])
    """
    x = input.array
    rows = x.reshape(-1) if dim is None else np.moveaxis(x, dim, 0)
    n = rows.shape[0]
    if n == 0:
        empty = np.zeros(0, np.int64)
        return _answers(input, rows, empty, empty, return_inverse, return_counts)
    new = np.ones(n, bool)
    new[1:] = (rows[1:] != rows[:-1]).reshape(n - 1, -1).any(axis=1) if rows.size else False
    owner = np.cumsum(new) - 1
    values = rows[new] if dim is None else np.moveaxis(rows[new], 0, dim)
    inverse = owner.reshape(x.shape) if dim is None else owner
    counts = np.bincount(owner)
    return _answers(input, values, inverse, counts, return_inverse, return_counts)


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each non-negative integer occurs, or the sum of its weights.

    >>> gpunn.bincount(gpunn.tensor([0, 2, 2]))
    tensor([1, 0, 2])
    """
    x = input.array
    if x.ndim != 1 or x.dtype.kind not in "iu" or (x.size and int(x.min()) < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    w = None if weights is None else weights.array
    if w is not None and w.shape != x.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input")
    found = input.device.xp.bincount(x, w, minlength)
    if w is not None:
        found = found.astype(w.dtype if w.dtype == np.float32 else np.float64)
    return wrap(found, input.device)


# --- triangles ----------------------------------------------------------------------------


def _triangle(name: str, what: str, lower: bool) -> Any:
    @vjp((None,))
    def triangle_vjp(g: Any, diagonal: int) -> Any:
        return tri(g, diagonal) if isinstance(g, Tensor) else getattr(ns(g), name)(g, diagonal)

    triangle_vjp.node_name = name.capitalize() + "Backward0"

    def tri(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor:
        x = input.array
        if x.ndim < 2:
            raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")
        m, n = x.shape[-2:]
        rows, columns = np.arange(m)[:, None], np.arange(n)
        keep = columns - rows <= diagonal if lower else columns - rows >= diagonal
        y = ns(x).where(ns(x).asarray(keep), x, x.dtype.type(0))
        made = result(y, input, triangle_vjp, (input,), (diagonal,))
        return made if out is None else write_out(out, made, name)

    from gpunn.ops._rows import document

    document(tri, name, f"The {what} triangle of matrices, the rest 0; `diagonal` shifts its edge.",
             f"gpunn.{name}(gpunn.ones(2, 2)).sum()\ntensor(3.)", "(..., m, n)", "unchanged")  # fmt: skip
    return tri


tril = _triangle("tril", "lower", True)
triu = _triangle("triu", "upper", False)


def _triangle_indices(name: str, lower: bool) -> Any:
    def indices(
        row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None,
        layout: Any = None,
    ) -> Tensor:  # fmt: skip
        from gpunn.ops.create import tensor

        find = np.tril_indices if lower else np.triu_indices
        if row < 0 or col < 0:
            raise RuntimeError(f"row and col must be non-negative, got {row} and {col}")
        pair = np.stack(find(row, offset, col)) if row and col else np.zeros((2, 0), np.int64)
        return tensor(pair, dtype=dtype or dtypes.int64, device=device)

    from gpunn.ops._rows import document

    document(indices, name, "The places of a triangle of a (row, col) matrix, as two rows.",
             f"gpunn.{name}(2, 2).shape\ntorch.Size([2, 3])", "(2, count)", "int64")  # fmt: skip
    return indices


tril_indices = _triangle_indices("tril_indices", True)
triu_indices = _triangle_indices("triu_indices", False)


def diag(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor:
    """A matrix with a vector on its diagonal; or the diagonal of a matrix, as a copy.

    >>> gpunn.diag(gpunn.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    if input.array.ndim == 1:
        made = diag_embed(input, diagonal)
    elif input.array.ndim == 2:
        made = input.diagonal(diagonal).clone()  # type: ignore[attr-defined]
    else:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.array.ndim}D")
    return made if out is None else write_out(out, made, "diag")


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with input's last dimension on a diagonal.

    >>> gpunn.diag_embed(gpunn.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    n = input.array.ndim + 1
    a, b = normal_dim(dim1, n), normal_dim(dim2, n)
    if a == b:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    size = input.array.shape[-1] + abs(offset)
    rest = list(input.array.shape[:-1])
    for d in sorted((a, b)):
        rest.insert(d, size)
    zeros = input.new_zeros(rest)  # type: ignore[attr-defined]
    return zeros.diagonal_scatter(input, offset, a, b)


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with all elements of input on its diagonal."""
    return diag_embed(input.reshape(-1), offset)  # type: ignore[operator]


@method
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Writes src, cast and broadcast, into this tensor, in place."""
    if not isinstance(src, Tensor):
        raise TypeError(
            f"copy_(): argument 'other' (position 1) must be Tensor, not {type(src).__name__}"
        )
    from gpunn.ops.create import to_device
    from gpunn.ops.views import expand

    check_inplace(self)
    source = cast(to_device(src, self.device), self.array.dtype)
    if source.array.shape != self.array.shape:
        source = expand(source, self.array.shape)
    self.array[...] = source.array
    adopt(self, result(source.array, self, _copy_vjp, (self, source)))
    return self


@vjp(name="CopyBackwards")
def _copy_vjp(g: Any) -> Any:
    return ns(g).zeros_like(g), g


_METHODS = [
    "argwhere", "bincount", "diag", "diag_embed", "diagflat", "gather", "index_add", "index_copy",
    "index_fill", "index_put", "index_select", "masked_fill", "masked_scatter", "masked_select",
    "nonzero", "scatter", "scatter_add", "scatter_reduce", "select_scatter", "slice_scatter", "take",
    "take_along_dim", "tril", "triu", "unique", "unique_consecutive",
]  # fmt: skip
__all__ = [
    *_METHODS, "bucketize", "isin", "searchsorted", "tril_indices", "triu_indices",
]  # fmt: skip
for _name in _METHODS:
    setattr(Tensor, _name, globals()[_name])
for _name in ("index_add", "index_copy", "index_fill", "masked_fill", "masked_scatter", "scatter",
              "scatter_add", "scatter_reduce", "tril", "triu"):  # fmt: skip
    setattr(Tensor, _name + "_", inplace(globals()[_name], _name))
