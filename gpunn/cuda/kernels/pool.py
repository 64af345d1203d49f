"""Max, average and adaptive pooling through kernels/pool.cu; None where it has no answer.

x is (*lead, *in), of 1 to 3 pooled dimensions; results are (*lead, *out), new and C-contiguous.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, INDICES, Source

Ints = tuple[int, ...]
BLOCK = 256
SEVERAL = ((192, "_warp"), (24, "_8"))  # entries of a window from which on 32 or 8 threads take it
LANES = {"_warp": 32, "_8": 8}
SHORT = 1 << 30  # entries of an array up to which indices of 32 bits do
TAPS = 256  # the largest window whose taps are numbered in a byte

_source = Source(
    "pool", T=FLOATS, I=INDICES, FIRST=(0, 1),
    only=lambda choice: choice["FIRST"] == 0 or choice["I"] == np.int32,
)  # fmt: skip
_DIVIDER = np.dtype([("by", "u4"), ("multiplier", "u4"), ("shift", "u4")])
_FILL = {"in": 1, "out": 1, "kernel": 1, "stride": 1, "padding": 0, "dilation": 1}
_WINDOWS = np.dtype(
    [(name, "i4", (3,)) for name in _FILL]
    + [(name, _DIVIDER, (3,)) for name in ("by_in", "by_out", "by_stride")]
)


def _divider(by: int) -> tuple[int, int, int]:
    """The `Divider` of pool.cu."""
    shift = (by - 1).bit_length()
    return by, (((1 << shift) - by) << 32) // by + 1, shift


@lru_cache(maxsize=4096)
def _windows(*rows: Ints) -> tuple[Any, int, str]:
    """The `Windows` of pool.cu, of rows in the order of _FILL; the larger of its two planes; and
    the ending of the names of kernels made for such windows."""
    made = np.zeros((), _WINDOWS)
    for i, (name, fill) in enumerate(_FILL.items()):
        values = rows[i] if i < len(rows) else ()
        made[name] = (fill,) * (3 - len(values)) + values
    for name in ("in", "out", "stride"):
        made["by_" + name] = [_divider(int(v)) for v in np.maximum(made[name].reshape(-1), 1)]
    depth, (slab, height, width) = int(made["in"][0]), made["kernel"].tolist()
    square = depth == slab == 1 and height == width and width in (2, 3)
    ending = f"_{width}x{width}" if square else ""
    return made, max(math.prod(rows[0]), math.prod(rows[1])), ending


def _pooling(
    size: Ints, out: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints = ()
) -> Any:
    """`_windows` of one size; one that is a whole plane is a row of it."""
    if kernel == size and max(out) == 1 and not any(padding) and set(dilation) <= {1}:
        whole = (math.prod(size),)
        return _windows(whole, (1,), whole, (1,))
    return _windows(size, out, kernel, stride, padding, dilation)


def _kernel(name: str, dtype: Any, planes: int, windows: Any) -> Any:
    """The variant for these sizes, or None."""
    w, largest, _ = windows
    if largest >= 1 << 31 or not _source.serves(T=dtype):
        return None
    if planes * largest >= SHORT:
        return _source.get(name, T=dtype, I=np.dtype(np.int64), FIRST=0)
    first = int(w["in"][0] == w["out"][0] == w["kernel"][0] == 1)
    return _source.get(name, T=dtype, I=np.dtype(np.int32), FIRST=first)


def _forward(
    name: str, x: Any, out: Ints, entries: int, windows: Any, won: Any = (), after: Any = ()
) -> Any:
    """[y, and what won: an array of each dtype in `won`, None for None]."""
    lead = x.shape[: x.ndim - len(out)]
    planes = math.prod(lead)
    own = "" if name.startswith("adaptive") else windows[2]
    ending = next((ending for least, ending in SEVERAL if entries >= least), own)
    kernel = _kernel(name + ending, x.dtype, planes, windows)
    if kernel is None:
        return None
    x = launch.contiguous(x)
    shape = (*lead, *out)
    made: list[Any] = [None if d is None else launch.empty(shape, d) for d in (x.dtype, *won)]
    if made[0].size:
        grid = launch.blocks(made[0].size * LANES.get(ending, 1), BLOCK)
        kernel(grid, BLOCK, (x, *made, planes, windows[0], *after))
    return made


def _backward(
    name: str, dy: Any, size: Ints, windows: Any, won: Any = (), after: Any = ()
) -> Any:
    lead = dy.shape[: dy.ndim - len(size)]
    planes = math.prod(lead)
    kernel = _kernel(name, dy.dtype, planes, windows)
    if kernel is None:
        return None
    dx = launch.empty((*lead, *size), dy.dtype)
    if dx.size:
        args = (launch.contiguous(dy), *won, dx, planes, windows[0], *after)
        kernel(launch.blocks(dx.size, BLOCK), BLOCK, args)
    return dx


def _plane_backward(dy: Any, size: Ints, divisor: int) -> Any:
    """The gradient of averages over whole planes."""
    lead, entries = dy.shape[: dy.ndim - len(size)], math.prod(size)
    kernel = _kernel("avg_plane_backward", dy.dtype, math.prod(lead), _windows(size, (1,)))
    if kernel is None:
        return None
    dx = launch.empty((*lead, *size), dy.dtype)
    if dx.size:
        by = np.array(_divider(entries), _DIVIDER)
        args = (launch.contiguous(dy), dx, dx.size, by, divisor)
        kernel(launch.blocks(dx.size, BLOCK), BLOCK, args)
    return dx


def max_pool_forward(
    x: Any, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, out: Ints,
    places: bool = True,
) -> tuple[Any, Any] | None:  # fmt: skip
    """(the greatest of each window, its int64 place in its plane).

    Without `places`, where windows are small, the uint8 number of the tap instead.
    """
    entries = math.prod(kernel)
    taps = not places and entries <= TAPS
    w = _pooling(x.shape[x.ndim - len(out) :], out, kernel, stride, padding, dilation)
    won = (np.uint8, None) if taps else (None, np.int64)
    made = _forward("max_pool_forward", x, out, entries, w, won)
    return None if made is None else (made[0], made[1] if taps else made[2])


def max_pool_backward(
    dy: Any, winners: Any, size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> Any:
    """The gradient of max_pool_forward's x, of spatial size `size`; `winners` is its second
    result."""
    w = _pooling(size, dy.shape[dy.ndim - len(size) :], kernel, stride, padding, dilation)
    won = (winners, None) if winners.dtype == np.uint8 else (None, winners)
    return _backward("max_pool_backward", dy, size, w, won)


def avg_pool_forward(
    x: Any, kernel: Ints, stride: Ints, padding: Ints, out: Ints, count_include_pad: bool = True,
    divisor: int | None = None,
) -> Any:  # fmt: skip
    """The mean (or sum / divisor) of each window."""
    w = _pooling(x.shape[x.ndim - len(out) :], out, kernel, stride, padding)
    after = (count_include_pad, divisor or 0)
    made = _forward("avg_pool_forward", x, out, math.prod(kernel), w, (), after)
    return None if made is None else made[0]


def avg_pool_backward(
    dy: Any, size: Ints, kernel: Ints, stride: Ints, padding: Ints,
    count_include_pad: bool = True, divisor: int | None = None,
) -> Any:  # fmt: skip
    """The gradient of avg_pool_forward's x, of spatial size `size`."""
    out = dy.shape[dy.ndim - len(size) :]
    if kernel == size and max(out) == 1 and not any(padding):
        return _plane_backward(dy, size, divisor or math.prod(size))
    w = _pooling(size, out, kernel, stride, padding)
    return _backward("avg_pool_backward", dy, size, w, (), (count_include_pad, divisor or 0))


def _adaptive(size: Ints, out: Ints) -> Any:
    """The `Windows` of adaptive pooling, and the entries of its largest window; None where the
    products of sizes are too large for 32 bits."""
    entries = math.prod(-(-n // max(m, 1)) for n, m in zip(size, out, strict=True))
    if set(out) == {1}:  # whole planes: rows
        size, out = (math.prod(size),), (1,)
    if any((n + 1) * (m + 1) >= 1 << 31 for n, m in zip(size, out, strict=True)):
        return None
    return _windows(size, out), entries


def adaptive_max_forward(x: Any, out: Ints) -> tuple[Any, Any] | None:
    """(the greatest of each of `out` windows, its int64 place in its plane)."""
    found = _adaptive(x.shape[x.ndim - len(out) :], out)
    if found is None:
        return None
    w, entries = found
    made = _forward("adaptive_max_forward", x, out, entries, w, (None, np.int64))
    return None if made is None else (made[0], made[2])


def adaptive_max_backward(dy: Any, places: Any, size: Ints) -> Any:
    """The gradient of adaptive_max_forward's x, of spatial size `size`."""
    found = _adaptive(size, dy.shape[dy.ndim - len(size) :])
    return None if found is None else _backward(
        "adaptive_max_backward", dy, size, found[0], (None, places)
    )  # fmt: skip


def adaptive_avg_forward(x: Any, out: Ints) -> Any:
    """The mean of each of `out` windows."""
    found = _adaptive(x.shape[x.ndim - len(out) :], out)
    if found is None:
        return None
    made = _forward("adaptive_avg_forward", x, out, found[1], found[0], (), (True, 0))
    return None if made is None else made[0]


def adaptive_avg_backward(dy: Any, size: Ints) -> Any:
    """The gradient of adaptive_avg_forward's x, of spatial size `size`."""
    if set(dy.shape[dy.ndim - len(size) :]) == {1}:
        return _plane_backward(dy, size, math.prod(size))
    found = _adaptive(size, dy.shape[dy.ndim - len(size) :])
    return None if found is None else _backward(
        "adaptive_avg_backward", dy, size, found[0], (), (True, 0)
    )  # fmt: skip


def unpool_forward(x: Any, places: Any, out: Ints, name: str) -> Any:
    """x put at its places in planes of zeros of size `out`; a place out of range is an error of
    the operation `name`."""
    if not _source.serves(T=x.dtype):
        return None
    lead, size = x.shape[: x.ndim - len(out)], x.shape[x.ndim - len(out) :]
    y = launch.zeros((*lead, *out), x.dtype)
    if x.size:
        kernel = _source.get("unpool_forward", T=x.dtype, I=np.dtype(np.int32), FIRST=0)
        args = (launch.contiguous(x), launch.contiguous(places), y, x.size, math.prod(size),
                math.prod(out), launch.fault(name))  # fmt: skip
        kernel(launch.blocks(x.size, BLOCK), BLOCK, args)
    return y


def pick_places(x: Any, places: Any, dims: int) -> Any:
    """The entries of x's planes (its last `dims` dimensions) at `places`."""
    if not _source.serves(T=x.dtype):
        return None
    y = launch.empty(places.shape, x.dtype)
    if y.size:
        kernel = _source.get("pick_places", T=x.dtype, I=np.dtype(np.int32), FIRST=0)
        args = (launch.contiguous(x), launch.contiguous(places), y, y.size,
                math.prod(x.shape[x.ndim - dims :]), math.prod(y.shape[y.ndim - dims :]))
        kernel(launch.blocks(y.size, BLOCK), BLOCK, args)  # fmt: skip
    return y
