"""Dropout through kernels/dropout.cu: the mask is computed where it is used, never stored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, Source

_source = Source("dropout", T=FLOATS)


def serves(dtype: np.dtype) -> bool:
    """Whether there is a kernel for arrays of this dtype."""
    return _source.serves(T=dtype)


def dropout(x: Any, keep: float, seed: int, offset: int) -> Any:
    """x / keep where an element stays, with probability `keep`, or else 0, of x's shape.

    Element i, in C order, stays as word `offset` + i of the Philox stream of `seed` says: the same
    numbers give the gradient. `offset` is a multiple of 4.
    """
    x = launch.contiguous(x)
    y = launch.empty_like(x)
    if x.size:
        wide = np.float64 if x.dtype == np.float64 else np.float32
        scale = wide(1) / wide(keep) if keep else wide(0)
        last = max(1, math.ceil(math.ldexp(keep, 32))) - 1
        grid = launch.blocks(x.size, 256 * max(4, 16 // x.itemsize))
        args = (x, y, x.size, seed, offset // 4, last, scale)
        _source.get("dropout", T=x.dtype)(grid, 256, args)
    return y
