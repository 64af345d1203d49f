"""Indices that must lie in a dimension: on the CPU checked at once, on a GPU without waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.cuda.kernels import index as kernels

INT64, UINT64 = np.dtype(np.int64), np.dtype(np.uint64)


def out_of_range(a: Any, n: int, below: int = 0) -> int | None:
    """An index of a NumPy array outside [-below, n), None where there is none."""
    if not a.size:
        return None
    if not below and a.dtype is INT64 and int(np.maximum.reduce(a.view(UINT64), axis=None)) < n:
        return None  # negative ones are large as unsigned
    low, high = int(a.min()), int(a.max())
    return high if high >= n else low if low < -below else None


def bounded(
    name: str, index: Any, n: int, error: Callable[[int], Exception], below: int = 0
) -> Any:
    """The raw `index`, all of it in [-below, n).

    On the CPU a bad index raises `error(index)`. On a GPU a safe copy is returned, in which it is
    0, and operation `name`'s error comes when the host next looks (`gpunn.cuda.set_sync_debug`).
    """
    if type(index) is np.ndarray:
        bad = out_of_range(index, n, below)
    else:
        if n:
            safe = kernels.checked(name, index, n, below)
            if safe is not None:
                return safe
        bad = out_of_range(index.get(), n, below)
    if bad is not None:
        raise error(bad)
    return index
