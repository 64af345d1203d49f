"""The keys of `x[key]`: what selects a view, and the index arrays.

A key that holds arrays is taken apart: what selects a view (integers, slices, None, `...`) is done
first, the arrays then index that view. So integers do not count as index arrays, as in PyTorch
and unlike in NumPy.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import namespace as ns
from gpunn.ops.bounds import bounded
from gpunn.ops.create import tensor
from gpunn.tensor import ARRAY_TYPES, Tensor, wrap

_BASIC = {int, slice, type(None), type(Ellipsis)}
_FULL = slice(None)
Key = tuple[Any, ...]


def is_basic(key: Key) -> bool:
    """Whether a key holds integers, slices, None and one `...` only; ValueError for bad steps."""
    ellipses = 0
    for item in key:
        kind = type(item)
        if kind not in _BASIC:
            return False
        if kind is slice and item.step is not None:
            check_step(item)
        elif item is ...:
            ellipses += 1
    return ellipses < 2


def check_step(s: slice) -> None:
    if s.step is not None and int(s.step) <= 0:
        zero = int(s.step) == 0
        raise ValueError("slice step cannot be zero" if zero else "step must be greater than zero")


def split_key(key: Any, x: Tensor) -> tuple[Key | None, Key | None]:
    """The key in two: what selects a view of x, and the full slices and arrays that index that
    view. None stands for a part that does nothing."""
    if type(key) is list and _stands_for_tuple(key):
        key = tuple(key)
    items = list(map(_item, key if type(key) is tuple else (key,), repeat(x)))
    first = next((i for i, item in enumerate(items) if item is ...), None)
    items = [item for i, item in enumerate(items) if item is not ... or i == first]
    if all(type(i) in _BASIC for i in items):
        return tuple(items), None
    shape = x.array.shape
    missing = len(shape) - sum(map(width_of, items))
    if missing < 0:
        raise IndexError(f"too many indices for tensor of dimension {len(shape)}")
    basic: list[Any] = []
    arrays: list[Any] = []
    dim = 0
    for item in items:
        if item is Ellipsis:
            count, missing = missing, 0  # a second one stands for nothing
            basic += [_FULL] * count
            arrays += [_FULL] * count
            dim += count
        elif type(item) is int:
            basic.append(item)
            dim += 1
        elif item is None or type(item) is slice:
            basic.append(item)
            arrays.append(_FULL)
            dim += item is not None
        elif item.dtype == np.bool_ and item.ndim == 0:  # a new dimension, kept or empty
            basic.append(None)
            arrays.append(ns(item).arange(int(item)))
        else:
            width = width_of(item)
            _check_mask(item, shape, dim)
            basic += [_FULL] * width
            arrays.append(item if type(item) is np.ndarray else _in_bounds(item, shape, dim))
            dim += width
    plain = all(type(b) is slice and b == _FULL for b in basic)
    return None if plain else tuple(basic), tuple(arrays)


def _stands_for_tuple(key: list[Any]) -> bool:
    """PyTorch reads a short list that holds slices, None, tensors or sequences as a tuple."""
    kinds = (slice, type(None), type(Ellipsis), Tensor, list, tuple, np.ndarray)
    if len(key) > 32 or not any(isinstance(i, kinds) for i in key):
        return False
    warnings.warn(
        "Using a non-tuple sequence for multidimensional indexing is deprecated; use "
        "x[tuple(seq)] instead of x[seq], or x[gpunn.tensor(seq)]",
        stacklevel=4,
    )
    return True


def _item(item: Any, x: Tensor) -> Any:
    """One part of a key: an int, slice, None, `...`, or an array on x's device."""
    kind = type(item)
    if kind in _BASIC:
        if kind is slice:
            check_step(item)
        return item
    if isinstance(item, (bool, np.bool_)):
        return ns(x.array).asarray(bool(item))
    if isinstance(item, np.integer):
        return int(item)
    return _index_array(item, x)


def _index_array(item: Any, x: Tensor) -> Any:
    """An index list, array or tensor as an integer or bool array on x's device; a 0-dim integer
    as an int."""
    if isinstance(item, np.ndarray) or type(item) in ARRAY_TYPES:
        item = wrap(item)
    elif isinstance(item, str):
        raise TypeError("new(): invalid data type 'str'")
    elif isinstance(item, Sequence):
        item = tensor(item, dtype=None if len(item) else dtypes.int64, device=x.device)
    elif not isinstance(item, Tensor):
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are "
            f"valid indices (got {type(item).__name__})"
        )
    a = item.array
    if a.dtype.kind not in "biu" or a.dtype.name in ("int8", "int16"):
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    if a.dtype == np.uint8:
        warnings.warn(
            "indexing with dtype torch.uint8 is now deprecated, please use a dtype torch.bool "
            "instead.",
            stacklevel=5,
        )
        a = a.astype(np.bool_)
    if a.ndim == 0 and a.dtype != np.bool_:
        return int(a)
    if item.device is not x.device:
        if item.device.type != "cpu":
            raise RuntimeError(
                f"indices should be either on cpu or on the same device as the indexed tensor "
                f"({x.device}), got {item.device}"
            )
        a = x.device.xp.asarray(a)
    return a


def width_of(item: Any) -> int:
    """How many dimensions of the tensor one part of a key names."""
    if item is None or item is Ellipsis:
        return 0
    return item.ndim if getattr(item, "dtype", None) == np.bool_ else 1


def _check_mask(item: Any, shape: tuple[int, ...], dim: int) -> None:
    if item.dtype == np.bool_ and item.shape != shape[dim : dim + item.ndim]:
        k = next(k for k, n in enumerate(item.shape) if n != shape[dim + k])
        raise IndexError(
            f"The shape of the mask {list(item.shape)} at index {k} does not match the shape of "
            f"the indexed tensor {list(shape)} at index {dim + k}"
        )


def _in_bounds(item: Any, shape: tuple[int, ...], dim: int) -> Any:
    """An index array on a GPU, where nothing else would notice a bad index; masks as they are."""
    if item.dtype == np.bool_:
        return item
    n = shape[dim]
    return bounded("index", item, n, lambda bad: IndexError(
        f"index {bad} is out of bounds for dimension {dim} with size {n}"
    ), below=n)  # fmt: skip


def basic_error(key: Key, shape: tuple[int, ...]) -> IndexError:
    """PyTorch's words for integers and slices that do not fit."""
    count = sum(1 for i in key if i is not None and i is not Ellipsis)
    if not shape:
        return IndexError(
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python to convert a 0-dim "
            "tensor to a number"
        )
    if count > len(shape):
        return IndexError(f"too many indices for tensor of dimension {len(shape)}")
    dim = 0
    for i in key:
        if i is Ellipsis:
            dim += len(shape) - count
        elif i is not None:
            if not isinstance(i, slice) and not -shape[dim] <= i < shape[dim]:
                return IndexError(
                    f"index {i} is out of bounds for dimension {dim} with size {shape[dim]}"
                )
            dim += 1
    return IndexError(f"index {key} does not fit shape {list(shape)}")


def advanced_error(key: Key, shape: tuple[int, ...]) -> IndexError:
    """PyTorch's words for index arrays that do not fit."""
    dim = 0
    for i in key:
        if type(i) is not slice and i.dtype != np.bool_ and i.size:
            n = shape[dim]
            low, high = int(i.min()), int(i.max())
            if low < -n or high >= n:
                return IndexError(
                    f"index {high if high >= n else low} is out of bounds for dimension {dim} with "
                    f"size {n}"
                )
        dim += width_of(i)
    shapes = ", ".join(str(list(i.shape)) for i in key if type(i) is not slice)
    return IndexError(
        f"shape mismatch: indexing tensors could not be broadcast together with shapes {shapes}"
    )


def take_key(a: Any, key: Key) -> Any:
    """a[key] for a key of full slices and arrays; IndexError in PyTorch's words."""
    try:
        return a[key]
    except IndexError:
        raise advanced_error(key, a.shape) from None
