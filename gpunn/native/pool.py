"""Max and average pooling through kernels/pool.cpp, in 1 to 3 D; None where it has no answer."""

from __future__ import annotations

import ctypes
from functools import lru_cache

import numpy as np

from gpunn.native.loader import address, contiguous, function, optional

Ints = tuple[int, ...]


def max_pool_forward(
    x: np.ndarray, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, out: Ints,
    indices: bool = True,
) -> tuple[np.ndarray, np.ndarray | None] | None:  # fmt: skip
    """The greatest of each window of x (*lead, *in), and its int64 place in its plane if wanted.

    `out` is the spatial size of the results (*lead, *out), as ceil_mode makes it. Every window
    must begin inside the input or its left padding.
    """
    call = function("max_pool_forward", "pppp", x.dtype)
    if call is None:
        return None
    lead = x.shape[: x.ndim - len(out)]
    y = np.empty((*lead, *out), x.dtype)
    index = np.empty(y.shape, np.int64) if indices else None
    if y.size:
        shape = _shape(x.shape, out, kernel, stride, padding, dilation)
        x = contiguous(x)
        call(shape, address(x), address(y), optional(index))
    return y, index


def max_pool_backward(dy: np.ndarray, index: np.ndarray, size: Ints) -> np.ndarray | None:
    """The gradient of max_pool_forward's x, of spatial size `size`: dy added at index."""
    call = function("max_pool_backward", "pppp", dy.dtype)
    if call is None or index.dtype != np.int64:
        return None
    n = len(size)
    lead, out = dy.shape[: dy.ndim - n], dy.shape[dy.ndim - n :]
    dx = np.zeros((*lead, *size), dy.dtype) if dy.size == 0 else np.empty((*lead, *size), dy.dtype)
    if dy.size:
        shape = _shape(dx.shape, out, (1,) * n, (1,) * n, (0,) * n, (1,) * n)
        dy, index = contiguous(dy), contiguous(index)
        call(shape, address(dy), address(index), address(dx))
    return dx


def avg_pool_forward(
    x: np.ndarray, kernel: Ints, stride: Ints, padding: Ints, out: Ints,
    count_include_pad: bool = True, divisor: int | None = None,
) -> np.ndarray | None:  # fmt: skip
    """The mean (or sum / divisor) of each window of x (*lead, *in), into (*lead, *out)."""
    call = function("avg_pool_forward", "ppiip", x.dtype)
    if call is None:
        return None
    y = np.empty((*x.shape[: x.ndim - len(out)], *out), x.dtype)
    if y.size:
        shape = _shape(x.shape, out, kernel, stride, padding, (1,) * len(out))
        x = contiguous(x)
        call(shape, address(x), int(count_include_pad), divisor or 0, address(y))
    return y


def avg_pool_backward(
    dy: np.ndarray, size: Ints, kernel: Ints, stride: Ints, padding: Ints,
    count_include_pad: bool = True, divisor: int | None = None,
) -> np.ndarray | None:  # fmt: skip
    """The gradient of avg_pool_forward's x, of spatial size `size`."""
    call = function("avg_pool_backward", "ppiip", dy.dtype)
    if call is None:
        return None
    n = len(size)
    dx = np.zeros((*dy.shape[: dy.ndim - n], *size), dy.dtype)
    if dy.size:
        shape = _shape(dx.shape, dy.shape[dy.ndim - n :], kernel, stride, padding, (1,) * n)
        dy = contiguous(dy)
        call(shape, address(dy), int(count_include_pad), divisor or 0, address(dx))
    return dx


@lru_cache(maxsize=4096)
def _shape(
    x: Ints, out: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> ctypes.Array:
    """The 19 numbers that kernels/pool.cpp reads."""
    n = len(out)
    planes = 1
    for extent in x[: len(x) - n]:
        planes *= extent
    rows = [(x[len(x) - n :], 1), (out, 1), (kernel, 1), (stride, 1), (padding, 0), (dilation, 1)]
    numbers = [planes]
    for values, fill in rows:
        numbers += [fill] * (3 - n) + [int(v) for v in values]
    return (ctypes.c_int64 * 19)(*numbers)
