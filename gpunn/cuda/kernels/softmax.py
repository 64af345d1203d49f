"""Softmax and log-softmax through kernels/softmax.cu and softmax_short.cu, along any axis.

Each returns None where the kernels do not serve the dtype.
"""

from __future__ import annotations

import math
from typing import Any

from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, Source

SHORT = ((4, 8), (16, 8), (32, 8), (32, 32))  # (LANES, ITEMS): rows of up to 32, 128, 256, 1024
_rows = Source("softmax", T=FLOATS)
_short = Source(
    "softmax_short", T=FLOATS, LANES=(4, 16, 32), ITEMS=(8, 32),
    only=lambda v: (v["LANES"], v["ITEMS"]) in SHORT,
)  # fmt: skip


def softmax_forward(x: Any, axis: int = -1) -> Any:
    """exp(x) / sum of exp(x) along an axis."""
    return _along("softmax", "forward", axis, x)


def softmax_backward(y: Any, dy: Any, axis: int = -1) -> Any:
    """The gradient of softmax_forward's x, from its result y."""
    return _along("softmax", "backward", axis, y, dy)


def log_softmax_forward(x: Any, axis: int = -1) -> Any:
    """x - log(sum of exp(x)) along an axis."""
    return _along("log_softmax", "forward", axis, x)


def log_softmax_backward(y: Any, dy: Any, axis: int = -1) -> Any:
    """The gradient of log_softmax_forward's x, from its result y."""
    return _along("log_softmax", "backward", axis, y, dy)


def threads_for(n: int, itemsize: int) -> int:
    """The threads of a block for a row: enough for two 16-byte accesses each, 128 to 512."""
    wanted = n * itemsize // 32
    return min(512, max(128, 1 << (wanted - 1).bit_length() if wanted > 1 else 0))


def slices_for(n: int) -> int:
    """The slices of a column that threads of a block share: at least 8 values each, up to 8."""
    return min(8, 1 << max(0, (n // 8).bit_length() - 1))


def is_narrow(columns: int, n: int) -> bool:
    """Whether columns are so few and long that copying them into rows is quicker."""
    return n >= 2048 and columns < 32 * launch.multiprocessors()


def _along(name: str, way: str, axis: int, *arrays: Any) -> Any:
    """A kernel of arrays of one shape, whichever is made for the shape and the axis."""
    first = arrays[0]
    if any(a.dtype != first.dtype for a in arrays) or not _rows.serves(T=first.dtype):
        return None
    shape = first.shape
    axis %= len(shape)
    n, inner = shape[axis], math.prod(shape[axis + 1 :])
    if first.size == 0:
        return launch.empty_like(first)
    columns = first.size // n
    if inner > 1 and is_narrow(columns, n):
        moved = [a.swapaxes(axis, -1) for a in arrays]
        return launch.contiguous(_along(name, way, -1, *moved).swapaxes(axis, -1))
    ready = [launch.contiguous(a) for a in arrays]
    made = launch.empty_like(ready[0])
    if inner > 1:
        kernel = _rows.get(f"{name}_{way}_columns", T=first.dtype)
        kernel(launch.blocks(columns, 32), (32, slices_for(n)), (*ready, made, columns, n, inner))
    elif n <= SHORT[-1][0] * SHORT[-1][1]:
        lanes, items = next(s for s in SHORT if n <= s[0] * s[1])
        kernel = _short.get(f"{name}_short_{way}", T=first.dtype, LANES=lanes, ITEMS=items)
        kernel(launch.blocks(columns, 128 // lanes), 128, (*ready, made, columns, n))
    else:
        kept = (2 if (name, way) == ("softmax", "backward") else 1) * (n * first.itemsize + 32)
        # Two blocks are to be at work: each takes 1 KB more, and its scratch. Or else: read twice.
        kept = kept if kept <= launch.shared_limit() // 2 - 1024 else 0
        kernel = _rows.get(f"{name}_{way}", T=first.dtype)
        block = threads_for(n, first.itemsize)
        kernel(launch.blocks(columns, 1), block, (*ready, made, columns, n, kept > 0), shared=kept)
    return made
