"""Indexing with `x[...]`: views for slices and integers, copies for lists, masks and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import adopt, check_inplace, needs, result, view, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import cast, same_device
from gpunn.ops.create import tensor
from gpunn.tensor import Tensor, wrap

_BASIC = (int, slice, type(Ellipsis), type(None), np.integer)


# --- the key ------------------------------------------------------------------------------


def raw_key(key: Any, x: Tensor) -> tuple[Any, bool]:
    """The key for NumPy, and whether it selects a view."""
    kind = type(key)
    if kind is int or kind is slice:
        if kind is slice:
            _check_slice(key)
            return _plain_slice(key), True
        return key, True
    items = list(key) if kind is tuple else [key]
    if kind is list and _is_nested_key(key):
        items = list(key)
    if all(isinstance(i, _BASIC) and not isinstance(i, bool) for i in items):
        return tuple(_plain_slice(i) if type(i) is slice else i for i in items), True
    return _advanced_key(items, x), False


def _is_nested_key(key: list[Any]) -> bool:
    """PyTorch reads a short list that holds slices, None or sequences as a tuple."""
    return len(key) <= 32 and any(
        isinstance(i, (slice, type(None), type(Ellipsis))) for i in key
    )


def _check_slice(s: slice) -> None:
    if s.step is not None and int(s.step) <= 0:
        raise ValueError("step must be greater than zero")


def _plain_slice(s: slice) -> slice:
    """A slice whose bounds may be 0-dim tensors."""
    _check_slice(s)
    bounds = (s.start, s.stop, s.step)
    if any(isinstance(b, Tensor) for b in bounds):
        return slice(*(int(b.item()) if isinstance(b, Tensor) else b for b in bounds))
    return s


def _advanced_key(items: list[Any], x: Tensor) -> tuple[Any, ...]:
    out: list[Any] = []
    for item in items:
        if isinstance(item, slice):
            out.append(_plain_slice(item))
        elif isinstance(item, (bool, np.bool_)):
            out.append(bool(item))
        elif isinstance(item, _BASIC):
            out.append(item)
        else:
            out.append(_index_array(item, x))
    _check_bounds(out, x.array.shape)
    return tuple(out)


def _index_array(item: Any, x: Tensor) -> Any:
    """One index list, array or tensor as an integer or bool array on x's device."""
    if not isinstance(item, Tensor):
        if isinstance(item, np.ndarray):
            item = wrap(item)
        elif isinstance(item, Sequence) and not isinstance(item, str):
            item = tensor(item, dtype=None if len(item) else dtypes.int64)
        else:
            raise TypeError(
                f"only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables "
                f"are valid indices (got {type(item).__name__})"
            )
    a = item.array
    if a.dtype.kind not in "biu":
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    if a.dtype == np.uint8:
        a = a.astype(np.bool_)
    if item.device is not x.device:
        if item.device.type != "cpu":
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor "
                f"({x.device}), got {item.device}"
            )
        a = x.device.xp.asarray(a)
    return a


def _check_bounds(items: list[Any], shape: tuple[int, ...]) -> None:
    """IndexErrors in PyTorch's words, before NumPy sees the key."""
    taken = sum(
        i.ndim if getattr(i, "dtype", None) == np.bool_ else 1
        for i in items
        if i is not None and i is not Ellipsis and not isinstance(i, bool)
    )
    if taken > len(shape):
        raise IndexError(f"too many indices for tensor of dimension {len(shape)}")
    dim = 0
    for i in items:
        if i is None or isinstance(i, bool):
            continue
        if i is Ellipsis:
            dim += len(shape) - taken
        elif getattr(i, "dtype", None) == np.bool_:
            for k, n in enumerate(i.shape):
                if n != shape[dim + k]:
                    raise IndexError(
                        f"The shape of the mask {list(i.shape)} at index {k} does not match the "
                        f"shape of the indexed tensor {list(shape)} at index {dim + k}"
                    )
            dim += i.ndim
        else:
            if not isinstance(i, slice) and not isinstance(i, (int, np.integer)) and i.size:
                n = shape[dim]
                low, high = int(i.min()), int(i.max())
                if low < -n or high >= n:
                    bad = high if high >= n else low
                    raise IndexError(
                        f"index {bad} is out of bounds for dimension {dim} with size {n}"
                    )
            dim += 1


def _basic_error(key: Any, x: Any) -> IndexError:
    """PyTorch's words for an integer index out of range."""
    items = key if isinstance(key, tuple) else (key,)
    count = sum(1 for i in items if i is not None and i is not Ellipsis)
    if x.ndim == 0:
        return IndexError(
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python to convert a 0-dim "
            "tensor to a number"
        )
    if count > x.ndim:
        return IndexError(f"too many indices for tensor of dimension {x.ndim}")
    dim = 0
    for i in items:
        if i is None:
            continue
        if i is Ellipsis:
            dim += x.ndim - count
            continue
        if not isinstance(i, slice) and not -x.shape[dim] <= i < x.shape[dim]:
            return IndexError(
                f"index {i} is out of bounds for dimension {dim} with size {x.shape[dim]}"
            )
        dim += 1
    return IndexError(f"index {key} does not fit shape {list(x.shape)}")


# --- reading ------------------------------------------------------------------------------


@vjp((None, None), name="SliceBackward0")
def _basic_vjp(g: Any, shape: Any, key: Any) -> Any:
    if isinstance(g, Tensor):
        return put(g.new_zeros(shape), key, g, False)  # type: ignore[attr-defined]
    whole = ns(g).zeros(shape, g.dtype)
    whole[key] = g
    return whole


@vjp((None, None), name="SelectBackward0")
def _select_vjp(g: Any, shape: Any, key: Any) -> Any:
    return _basic_vjp(g, shape, key)


@vjp((None, None), name="IndexBackward0")
def _advanced_vjp(g: Any, shape: Any, key: Any) -> Any:
    """Elements that were read several times add up."""
    if isinstance(g, Tensor):
        return put(g.new_zeros(shape), key, g, True)  # type: ignore[attr-defined]
    whole = ns(g).zeros(shape, g.dtype)
    add_at(whole, key, g)
    return whole


def add_at(whole: Any, key: Any, values: Any) -> None:
    """whole[key] += values where the key may name an element several times."""
    if _all_bool(key):
        whole[key] += values
    elif type(whole) is np.ndarray:
        np.add.at(whole, key, values)
    else:
        import cupyx

        cupyx.scatter_add(whole, key, values)


def _all_bool(key: Any) -> bool:
    """Masks and slices name no element twice."""
    return all(
        not hasattr(k, "dtype") or k.dtype == np.bool_
        for k in (key if isinstance(key, tuple) else (key,))
    )


def getitem(x: Tensor, key: Any) -> Tensor:
    """x[key]: a view for integers, slices, None and `...`; a copy for masks and index tensors."""
    raw, basic = raw_key(key, x)
    if basic:
        try:
            y = x.array[raw if raw is Ellipsis or type(raw) is tuple else (raw, ...)]
        except IndexError:
            raise _basic_error(raw, x.array) from None
        if type(y) is not type(x.array):
            y = x.array[(*raw, ...)]
        return view(y, x, _select_vjp if type(key) is int else _basic_vjp, (x.array.shape, raw))
    return result(x.array[raw], x, _advanced_vjp, (x,), (x.array.shape, raw))


# --- writing ------------------------------------------------------------------------------


@vjp((None, None, None), name="IndexPutBackward0")
def _put_vjp(g: Any, key: Any, accumulate: bool, shape: Any) -> Any:
    """What was overwritten loses its gradient to the values."""
    from gpunn.autograd.graph import unbroadcast

    if isinstance(g, Tensor):
        part = unbroadcast(getitem_raw(g, key), shape)
        return (g if accumulate else put(g, key, part * 0, False)), part
    part = unbroadcast(g[key], shape)
    if not accumulate:
        g = g.copy()
        g[key] = 0
    return g, part


def getitem_raw(x: Tensor, key: Any) -> Tensor:
    """x[key] for a key that `raw_key` made."""
    return result(x.array[key], x, _advanced_vjp, (x,), (x.array.shape, key))


def put(x: Tensor, key: Any, values: Tensor, accumulate: bool) -> Tensor:
    """A copy of x with values written, or added, at a raw key."""
    y = x.array.copy()
    if accumulate:
        add_at(y, key, values.array)
    else:
        y[key] = values.array
    return result(y, x, _put_vjp, (x, values), (key, accumulate, values.array.shape))


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """x[key] = value, in place; value is cast to x's dtype and broadcast."""
    raw, _ = raw_key(key, x)
    store(x, raw, value, False)


def store(x: Tensor, raw: Any, value: Any, accumulate: bool) -> None:
    """Writes or adds a value at a raw key, in place and recorded."""
    check_inplace(x)
    if isinstance(value, Tensor):
        if value.device is not x.device and value.array.ndim:
            same_device("index_put_", (x, value))
        source = cast(value, x.array.dtype)
        array = source.array
        if source.device is not x.device:
            array = x.device.xp.asarray(array)
    else:
        source = None
        array = x.device.xp.asarray(value, dtype=x.array.dtype)
    record = needs(x) or needs(source)
    a = x.array
    try:
        if accumulate:
            add_at(a, raw, array)
        else:
            a[raw] = array
    except ValueError:
        shape = tuple(a[raw].shape)
        squeezed = tuple(array.shape)
        while len(squeezed) > len(shape) and squeezed[0] == 1:
            squeezed = squeezed[1:]
        if squeezed != array.shape:
            a[raw] = array.reshape(squeezed)
        else:
            raise RuntimeError(
                f"shape mismatch: value tensor of shape {list(array.shape)} cannot be broadcast to "
                f"indexing result of shape {list(shape)}"
            ) from None
    except IndexError:
        raise _basic_error(raw, a) from None
    if not record:
        adopt(x, wrap(a, x.device))
        return
    values = source if source is not None else wrap(array, x.device)
    history = wrap(a, x.device)
    history.node, history._requires_grad = x.node, x._requires_grad
    made = result(a, x, _put_vjp, (history, values), (raw, accumulate, array.shape))
    adopt(x, made)


Tensor.__getitem__ = getitem  # type: ignore[attr-defined]
Tensor.__setitem__ = setitem  # type: ignore[attr-defined]


def _iterate(x: Tensor) -> Any:
    if x.array.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return (getitem(x, i) for i in range(len(x.array)))


Tensor.__iter__ = _iterate  # type: ignore[attr-defined]
