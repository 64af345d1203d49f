"""Adding values up at indices that may repeat: the gradient of every indexed read.

The order of additions is that of the indices, so results are the same each time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace as ns
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
        rows = _rows(items, whole.shape)
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


def _rows(items: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    """A key of full slices and then index arrays as indices of rows, None for other keys.

    The rows are those of the array with the dimensions that the key names put together.
    """
    lead = next((d for d, k in enumerate(items) if type(k) is not slice), 0)
    arrays = items[lead:]
    if not arrays or any(type(a) is not np.ndarray or a.dtype.kind not in "iu" for a in arrays):
        return None
    if any(k != slice(None) for k in items[:lead]):
        return None
    rows: Any = 0
    for a, n in zip(arrays, shape[lead:], strict=False):
        a = a.astype(np.int64, copy=False)
        low, high = (int(a.min()), int(a.max())) if a.size else (0, -1)
        if low < -n or high >= n:
            return None  # NumPy says what is wrong
        if low < 0:
            a = np.where(a < 0, a + n, a)
        rows = rows * n + a
    for d in range(lead - 1, -1, -1):
        inner = int(np.prod(shape[d + 1 : len(items)]))
        rows = np.arange(shape[d]).reshape((-1,) + (1,) * rows.ndim) * inner + rows
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


def _add_at_cuda(whole: Any, key: Any, values: Any) -> None:
    """CuPy adds to 32 and 64-bit numbers only, and to int64 as to uint64: the bits are the same."""
    import cupyx

    if _all_bool(key):
        whole[key] += values
    elif whole.dtype == np.int64:
        values = ns(whole).asarray(values, np.int64)
        cupyx.scatter_add(whole.view(np.uint64), key, values.view(np.uint64))
    elif whole.dtype.kind in "biu" and whole.itemsize < 4:
        wide = whole.astype(np.int32)
        cupyx.scatter_add(wide, key, values)
        whole[...] = wide
    else:
        cupyx.scatter_add(whole, key, values)
