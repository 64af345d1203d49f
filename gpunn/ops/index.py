"""Indexing with `x[...]`: views for slices and integers, copies for lists, masks and tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.autograd.graph import (
    adopt,
    check_inplace,
    mode,
    needs,
    result,
    touch,
    unbroadcast,
    view,
    vjp,
)  # fmt: skip
from gpunn.autograd.graph import namespace as ns
from gpunn.device import CPU
from gpunn.dtypes import F32, F64
from gpunn.ops._rows import NUMBERS, cast, proper, same_device, size_error, write_out
from gpunn.ops.accumulate import add_at
from gpunn.ops.convert import to_device
from gpunn.ops.index_key import (
    Key,
    advanced_error,
    basic_error,
    check_step,
    is_basic,
    split_key,
    take_key,
    width_of,
)  # fmt: skip
from gpunn.ops.overwrite import write_at_key
from gpunn.ops.strided import OVERLAP, SMALL
from gpunn.ops.views import expand, expand_error, reshape
from gpunn.tensor import Tensor, address, method, root, wrap

INT64, BOOL = np.dtype(np.int64), np.dtype(np.bool_)

# --- reading ------------------------------------------------------------------------------


@vjp((None, None), name="SliceBackward0")
def _slice_vjp(g: Any, shape: Any, key: Any) -> Any:
    if isinstance(g, Tensor):
        return put(g.new_zeros(shape), key, g, False)  # type: ignore[attr-defined]
    whole = ns(g).zeros(shape, g.dtype)
    whole[key] = g
    return whole


@vjp((None, None), name="SelectBackward0")
def _select_vjp(g: Any, shape: Any, key: Any) -> Any:
    return _slice_vjp(g, shape, key)


@vjp((None, None), name="UnsqueezeBackward0")
def _new_dim_vjp(g: Any, shape: Any, key: Any) -> Any:
    return _slice_vjp(g, shape, key)


_NAMED = {int: _select_vjp, type(None): _new_dim_vjp}  # by the last part of the key


@vjp((None, None), name="IndexBackward0")
def _advanced_vjp(g: Any, shape: Any, key: Any) -> Any:
    """Elements that were read several times add up."""
    if isinstance(g, Tensor):
        return put(g.new_zeros(shape), key, g, True)  # type: ignore[attr-defined]
    whole = ns(g).zeros(shape, g.dtype)
    add_at(whole, key, g)
    return whole


def getitem(x: Tensor, key: Any) -> Tensor:
    """x[key]: a view for integers, slices, None and `...`; a copy for masks and index tensors."""
    a = x.array
    kind = type(key)
    if kind is int:
        try:
            y = a[key, ...]
        except IndexError:
            raise basic_error((key,), a.shape) from None
        return view(y, x, _select_vjp, (a.shape, key))
    if kind is slice:
        if key.step is not None:
            check_step(key)
        try:
            y = a[key]
        except IndexError:
            raise basic_error((key,), a.shape) from None
        return view(y, x, _slice_vjp, (a.shape, key))
    if kind is tuple and is_basic(key):
        return get_view(x, key)
    if kind is Tensor and key.device is x.device:
        y = _picked_rows(a, key.array)
        if y is not None:
            return result(y, x, _advanced_vjp, (x,), (a.shape, (key.array,)))
    elif key is None or key is Ellipsis:
        return get_view(x, (key,))
    basic, arrays = split_key(key, x)
    if basic is not None:
        x = get_view(x, basic)
    return x if arrays is None else getitem_raw(x, arrays)


def _picked_rows(a: Any, index: Any) -> Any:
    """a[index] for one index vector or mask, None where the general way has to do it."""
    try:
        if index.dtype is INT64 and index.ndim and type(a) is np.ndarray:
            return a.take(index, 0)
        if index.dtype is BOOL and index.ndim and index.shape == a.shape[: index.ndim]:
            return a[index]
    except (IndexError, ValueError):
        pass
    return None


def get_view(x: Tensor, key: Key) -> Tensor:
    """x[key] for a key of integers, slices, None and `...`."""
    y = take_view(x.array, key)
    named = _NAMED.get(type(key[-1]), _slice_vjp) if key else _slice_vjp
    return view(y, x, named, (x.array.shape, key))


def take_view(a: Any, key: Key) -> Any:
    """a[key] on a raw array for a key of integers, slices, None and `...`, always a view."""
    try:
        y = a[key]
    except IndexError:
        raise basic_error(key, a.shape) from None
    return y if type(y) is type(a) else a[(*key, ...)]  # NumPy gives a scalar without


def getitem_raw(x: Tensor, key: Key) -> Tensor:
    """x[key] for a key of full slices and arrays."""
    return result(take_key(x.array, key), x, _advanced_vjp, (x,), (x.array.shape, key))


# --- writing ------------------------------------------------------------------------------


@vjp((None, None, None), name="IndexPutBackward0", masked=True)
def _put_vjp(g: Any, key: Any, accumulate: bool, shape: Any, needs: tuple[bool, bool]) -> Any:
    """What was overwritten loses its gradient to the values."""
    tensors = isinstance(g, Tensor)
    part = None
    if needs[1]:
        part = unbroadcast(_picked(g, key) if tensors else g[key], shape)
    if not needs[0]:
        return None, part
    if not accumulate:
        if tensors:
            g = put(g, key, wrap(ns(g.array).zeros((), g.array.dtype), g.device), False)
        else:
            g = g.copy()
            g[key] = 0
    return g, part


def _picked(x: Tensor, key: Any) -> Tensor:
    return result(x.array[key], x, _advanced_vjp, (x,), (x.array.shape, key))


def put(x: Tensor, key: Any, values: Tensor, accumulate: bool) -> Tensor:
    """A copy of x with values written, or added, at a raw key."""
    y = x.array.copy()
    if accumulate:
        add_at(y, key, values.array)
    else:
        write_at_key(y, key, values.array)
    return result(y, x, _put_vjp, (x, values), (key, accumulate, values.array.shape))


_C_NAMES = {
    "float32": "float", "float64": "double", "float16": "at::Half", "bfloat16": "at::BFloat16",
    "int32": "int", "complex64": "c10::complex<float>", "complex128": "c10::complex<double>",
    "bool": "bool",
}  # fmt: skip


def number(value: Any, dtype: Any) -> Any:
    """A Python number as a 0-dim NumPy array; PyTorch's error where it does not fit the dtype."""
    kind = dtype.kind
    if kind == "f" and type(value) is float and -6e4 < value < 6e4:
        return np.array(value, dtype)
    try:
        if kind in "iu":
            limits = np.iinfo(dtype)
            if isinstance(value, float) and not limits.min <= value <= limits.max:
                raise OverflowError
            value = int(value)
            if kind == "u" and value < 0:  # wraps, where the bits fit
                value += limits.max + 1
            return np.array(value, dtype)
        made = np.array(bool(value) if kind == "b" else value, dtype)
        if dtype is F32 and abs(value) != np.inf and abs(made) == np.inf:
            raise OverflowError
        return made
    except (OverflowError, TypeError, ValueError):
        name = _C_NAMES.get(dtype.name, dtype.name + "_t")
        raise RuntimeError(f"value cannot be converted to type {name} without overflow") from None


def _as_source(x: Tensor, value: Any) -> Tensor:
    """The right side of `x[...] = value`: a Tensor or number, else TypeError."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, NUMBERS):
        return wrap(x.device.xp.asarray(number(value, x.array.dtype)), x.device)
    kind = "numpy.ndarray" if isinstance(value, np.ndarray) else type(value).__name__
    raise TypeError(
        f"can't assign a {kind} to a torch.{proper(x.dtype)}Tensor: use gpunn.tensor(value)"
    )


def setitem(x: Tensor, key: Any, value: Any) -> None:
    """x[key] = value, in place; value is cast to x's dtype and broadcast."""
    items = key if type(key) is tuple else (key,)
    if not is_basic(items):
        if type(key) is Tensor and _set_rows(x, key, value):
            return
        items, arrays = split_key(key, x)  # type: ignore[assignment]
        if arrays is not None:
            store(x if items is None else get_view(x, items), arrays, value, False)
            return
    check_inplace(x, True)
    a = x.array
    kind = type(value)
    recorded = mode.grad and (x._requires_grad or needs(value))
    plain = (kind is float or kind is int) and (a.dtype is F32 or a.dtype is F64)
    if plain and not recorded and -3e38 < value < 3e38 and 0 not in a.strides:
        try:
            a[items] = value
        except IndexError:
            raise basic_error(items, a.shape) from None
        touch(x)
        return
    part = take_view(a, items)
    source = _as_source(x, value)
    if _same_place(part, source, recorded):
        return
    if source.array.ndim > part.ndim:
        source = drop_ones(source, part.ndim)
    target = wrap(part, x.device)
    target._base = x if x._base is None else x._base
    target._requires_grad = x._requires_grad
    copy_into(target, source)


def _set_rows(x: Tensor, index: Tensor, value: Any) -> bool:
    """x[index] = value for one index vector or mask, where nothing is to be recorded or cast."""
    a, i = x.array, index.array
    if not (i.dtype is INT64 or (i.dtype is BOOL and i.shape == a.shape[: i.ndim])) or not i.ndim:
        return False
    if index.device is not CPU or x.device is not CPU or 0 in a.strides:
        return False
    if type(value) is Tensor:
        v = value.array
        if v.dtype is not a.dtype or value.device is not CPU or v.ndim > a.ndim - i.ndim + 1:
            return False
    elif type(value) is float and a.dtype.kind == "f" and -6e4 < value < 6e4:
        v = value
    else:
        return False
    if mode.grad and (x._requires_grad or needs(value)):
        return False
    check_inplace(x)
    try:
        a[i] = v
    except (IndexError, ValueError):  # the general way says so in PyTorch's words
        return False
    touch(x)
    return True


def _same_place(part: Any, source: Tensor, recorded: bool) -> bool:
    """Whether source is that very part of memory: `x[0] += y` ends with writing x[0] to itself."""
    a = source.array
    if source._base is None or not (recorded or a.nbytes > SMALL):  # quicker to write it
        return False
    return (
        a.shape == part.shape and a.strides == part.strides
        and a.dtype is part.dtype and address(a) == address(part)
    )  # fmt: skip


def drop_ones(source: Tensor, ndim: int) -> Tensor:
    """source without leading dimensions of length 1 beyond `ndim`."""
    shape = source.array.shape
    more = len(shape) - ndim
    if more > 0 and all(n == 1 for n in shape[:more]):
        return reshape(source, shape[more:])
    return source


def fill(part: Any, source: Tensor) -> None:
    """part[...] = source on a raw array, cast and broadcast; PyTorch's errors."""
    refuse_overlap(part)
    array = source.array
    if array.dtype.kind == "c" and part.dtype.kind != "c":
        array = array.real
    try:
        part[...] = array
    except ValueError:
        raise expand_error(part.shape, array.shape) from None


def refuse_overlap(a: Any) -> None:
    """RuntimeError for memory in which an expanded dimension repeats elements."""
    if 0 in a.strides and a.size and any(
        s == 0 and n > 1 for s, n in zip(a.strides, a.shape, strict=True)
    ):
        raise RuntimeError(OVERLAP)


def write_apart(out: Tensor, made: Tensor, name: str, inputs: Sequence[Tensor]) -> Tensor:
    """Fills an `out=` argument that must not share memory with the inputs."""
    refuse_overlap(out.array)
    memory = root(out.array)
    for t in inputs:
        if root(t.array) is memory and ns(memory).may_share_memory(out.array, t.array):
            raise RuntimeError(
                f"{name}: unsupported operation: some elements of the input tensor and the "
                "written-to tensor refer to a single memory location. Please clone() the tensor "
                "before performing the operation."
            )
    made._requires_grad = made._requires_grad or any(t._requires_grad for t in inputs)
    return write_out(out, made, name)


@vjp(name="CopyBackwards")
def _copy_vjp(g: Any) -> Any:
    return ns(g).zeros_like(g), g


@method
def copy_(self: Tensor, src: Any, non_blocking: bool = False) -> Tensor:
    """Writes src, cast and broadcast, into this tensor, in place.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.copy_.html

    >>> gpunn.zeros(2).copy_(gpunn.tensor([1, 2]))
    tensor([1., 2.])
    """
    if not isinstance(src, Tensor):
        if not isinstance(src, NUMBERS):
            raise TypeError(
                f"copy_(): argument 'other' (position 1) must be Tensor, not {type(src).__name__}"
            )
        src = _as_source(self, src)
    check_inplace(self)
    mine, theirs = self.array.shape, src.array.shape
    if mine != theirs and any(
        n not in (1, m) for n, m in zip(theirs[::-1], (*mine[::-1], *theirs), strict=False)
    ):
        raise size_error(mine, theirs)
    if src is not self:
        copy_into(self, src)
    return self


def copy_into(target: Tensor, src: Tensor) -> None:
    """Writes src into target, recorded."""
    if src.device is not target.device:
        src = to_device(src, target.device)
    if not (mode.grad and (target._requires_grad or src._requires_grad)):
        fill(target.array, src)
        touch(target)
        return
    source = cast(src, target.array.dtype)
    if source.array.shape != target.array.shape:
        source = expand(source, target.array.shape)
    fill(target.array, source)
    if target._base is None:  # requires a gradient still, even of a constant
        source = result(source.array, target, _copy_vjp, (target, source))
    adopt(target, source)


def store(x: Tensor, key: Key, value: Any, accumulate: bool) -> None:
    """x[key] = value, or +=, for a key of full slices and arrays, in place and recorded."""
    source = _matching(x, key, value)
    check_inplace(x)
    write_at(x, key, drop_ones(source, _picked_ndim(key, x.array.ndim)), accumulate)


def write_at(x: Tensor, key: Key, source: Tensor, accumulate: bool) -> None:
    """Writes or adds source, of x's dtype and device, at a key, in place and recorded."""
    a = x.array
    refuse_overlap(a)
    try:
        if accumulate:
            add_at(a, key, source.array)
        else:
            write_at_key(a, key, source.array)
    except IndexError:
        raise advanced_error(key, a.shape) from None
    except ValueError:
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(source.array.shape)} cannot be broadcast "
            f"to indexing result of shape {list(take_key(a, key).shape)}"
        ) from None
    if not (mode.grad and (x._requires_grad or source._requires_grad)):
        touch(x)
        return
    before = wrap(a, x.device)
    before.node, before._requires_grad = x.node, x._requires_grad
    saved = (key, accumulate, source.array.shape)
    adopt(x, result(a, x, _put_vjp, (before, source), saved))


def put_raw(x: Tensor, key: Key, values: Tensor, accumulate: bool, in_place: bool) -> Tensor:
    """values written, or added, at a key: in x itself, or in a copy of it."""
    if x.array.ndim == 0:
        made = put_raw(reshape(x, 1), key, values, accumulate, in_place)
        return x if in_place else reshape(made, ())
    if not in_place:
        return put(x, key, values, accumulate)
    check_inplace(x)
    write_at(x, key, values, accumulate)
    return x


def _matching(x: Tensor, key: Key, value: Any) -> Tensor:
    """The right side of an indexed write: of x's dtype, on its device."""
    source = _as_source(x, value)
    one = source.array.size == 1
    if source.array.dtype != x.array.dtype:
        if not one or len(key) != 1 or key[0].dtype != np.bool_:
            raise RuntimeError(
                "Index put requires the source and destination dtypes match, got "
                f"{proper(x.dtype)} for the destination and {proper(source.dtype)} for the source."
            )
        source = cast(source, x.array.dtype)
    if source.device is not x.device:
        if source.array.ndim or source.device.type != "cpu":
            same_device("index_put_", (x, source))
        source = to_device(source, x.device)
    return source


def _picked_ndim(key: Key, ndim: int) -> int:
    """The number of dimensions of x[key]."""
    arrays = [k for k in key if type(k) is not slice]
    joint = max(1 if k.dtype == np.bool_ else k.ndim for k in arrays)
    return ndim - sum(map(width_of, arrays)) + joint


def _no_deletion(self: Tensor, key: Any) -> None:
    raise TypeError("Tensor does not support deleting items")


def _iterate(x: Tensor) -> Any:
    if x.array.ndim == 0:
        raise TypeError("iteration over a 0-d tensor")
    return iter(x.unbind())  # type: ignore[attr-defined]


Tensor.__getitem__ = getitem  # type: ignore[attr-defined]
Tensor.__setitem__ = setitem  # type: ignore[attr-defined]
Tensor.__delitem__ = _no_deletion  # type: ignore[attr-defined]
Tensor.__iter__ = _iterate  # type: ignore[attr-defined]
