"""Adding values up at indices that may repeat: the gradient of every indexed read.

On the CPU the order of additions is that of the indices, so results are the same each time. On a
GPU they are under `use_deterministic_algorithms(True)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import settings
from gpunn.autograd.graph import namespace as ns
from gpunn.cuda.kernels import embedding as kernels
from gpunn.dtypes import F32, F64

_SMALL = 4096  # values; below, NumPy's general way is as quick
_NATIVE = 32_768  # values; above, the C++ library pays
_CHUNK = 32_768  # values whose positions are computed at a time: they stay in the cache


def add_at(whole: Any, key: Any, values: Any) -> None:
    """whole[key] += values where the key may name an element several times."""
    if type(whole) is not np.ndarray:
        _add_at_cuda(whole, key, values)
    elif _all_bool(key):
        whole[key] += values
    elif np.size(values) < _SMALL or not whole.flags.c_contiguous:
        np.add.at(whole, key, values)
    else:
        items = key if type(key) is tuple else (key,)
        rows = _rows(items, whole.shape, np.ndarray)
        if rows is None:
            np.add.at(whole, key, values)
            return
        width = whole.shape[len(items) :]
        size = int(np.prod(width))
        values = np.broadcast_to(values, (*rows.shape, *width)).reshape(-1, size)
        _add_rows(whole.reshape(-1, size), rows.reshape(-1), values)


def _all_bool(key: Any) -> bool:
    """Masks and slices name no element twice."""
    return all(
        not hasattr(k, "dtype") or k.dtype == np.bool_
        for k in (key if isinstance(key, tuple) else (key,))
    )


def _rows(items: tuple[Any, ...], shape: tuple[int, ...], kind: Any) -> Any:
    """A key of full slices and then index arrays as indices of rows, None for other keys.

    The rows are those of the array with the dimensions that the key names put together; `kind` is
    the arrays' type.
    """
    lead = next((d for d, k in enumerate(items) if type(k) is not slice), 0)
    arrays = items[lead:]
    if not arrays or any(type(a) is not kind or a.dtype.kind not in "iu" for a in arrays):
        return None
    if any(k != slice(None) for k in items[:lead]):
        return None
    if kind is not np.ndarray and lead == 0 and len(arrays) == 1:
        return arrays[0]  # the kernels count from the end themselves
    rows: Any = 0
    for a, n in zip(arrays, shape[lead:], strict=False):
        a = a.astype(np.int64, copy=False)
        if kind is np.ndarray:  # on a GPU the key was checked, or names some other row
            low, high = (int(a.min()), int(a.max())) if a.size else (0, -1)
            if low < -n or high >= n:
                return None  # NumPy says what is wrong
        rows = rows * n + ns(a).where(a < 0, a + n, a)
    for d in range(lead - 1, -1, -1):
        inner = int(np.prod(shape[d + 1 : len(items)]))
        rows = ns(rows).arange(shape[d]).reshape((-1,) + (1,) * rows.ndim) * inner + rows
    return rows


def _add_rows(whole: Any, rows: Any, values: Any) -> None:
    """whole[rows[i]] += values[i] for (count, width) arrays in C order."""
    dtype = whole.dtype
    if values.size >= _NATIVE and (dtype is F32 or dtype is F64) and values.dtype is dtype:
        from gpunn import native

        added = native.embedding_backward(values, rows, len(whole))
        if added is not None:
            whole += added
            return
    if dtype.kind in "Vef" and dtype.itemsize == 2:  # 16-bit floats add up in float32
        total = np.zeros(whole.shape, np.float32)
        _add_rows(total, rows, values.astype(np.float32))
        whole += total.astype(dtype)
        return
    width = whole.shape[1]
    flat, step = whole.reshape(-1), max(_CHUNK // max(width, 1), 1)
    columns = np.arange(width)
    for i in range(0, len(rows), step):
        where = rows[i : i + step, None] * width + columns
        part = values[i : i + step].astype(dtype, copy=False)
        np.add.at(flat, where.reshape(-1), part.reshape(-1))  # one dimension: NumPy's quick way


# --- CuPy's arrays ------------------------------------------------------------------------


def _add_at_cuda(whole: Any, key: Any, values: Any) -> None:
    """Floats through the kernels. CuPy adds to 32 and 64-bit numbers only, and to int64 as to
    uint64: the bits are the same."""
    xp = ns(whole)
    if _all_bool(key):
        whole[key] += values
    elif whole.dtype.kind not in "biu":
        if not _add_floats(whole, key, values):
            settings.alert_not_deterministic("adding at repeated indices to 2^31 elements")
            xp.add.at(whole, key, values)
    elif whole.dtype == np.int64:
        xp.add.at(whole.view(np.uint64), key, xp.asarray(values, np.int64).view(np.uint64))
    elif whole.itemsize < 4:
        wide = whole.astype(np.int32)
        xp.add.at(wide, key, values)
        whole[...] = wide
    else:
        xp.add.at(whole, key, values)


def _add_floats(whole: Any, key: Any, values: Any) -> bool:
    """Adds rows of floats up by the kernels; whether it was done."""
    xp = ns(whole)
    items = key if type(key) is tuple else (key,)
    rows = _rows(items, whole.shape, type(whole))
    width = whole.shape[len(items) :]
    if rows is None:  # any other key: as the numbers of the elements it names
        rows, width = xp.arange(whole.size).reshape(whole.shape)[key], ()
    if rows.size == 0 or whole.size == 0:
        return True
    if rows.dtype.itemsize < 4 or rows.dtype.kind == "u":
        rows = rows.astype(np.int64)
    values = xp.broadcast_to(xp.asarray(values, whole.dtype), (*rows.shape, *width))
    target = whole if whole.flags.c_contiguous else xp.ascontiguousarray(whole)
    flat = target.reshape(-1, int(np.prod(width)))
    values = xp.ascontiguousarray(values).reshape(-1, flat.shape[1])
    if whole.dtype.kind == "c":  # pairs of floats
        flat, values = flat.view(flat.real.dtype), values.view(flat.real.dtype)
    if not kernels.index_add_rows(flat, rows.reshape(-1), values):
        return False
    if target is not whole:
        whole[...] = target
    return True
