"""Launchers of kernels/norm.cu: layer, RMS, group and instance norm of rows; see native/norm.py.

Rows too long for the registers, and the backward pass where a weight belongs to several values of
a row, go to kernels/batch_norm.cu.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.cuda.kernels import batch_norm, launch
from gpunn.cuda.kernels.batch_norm import pairs, parameter_type
from gpunn.cuda.kernels.loader import FLOATS, Source

Array = Any
_source = Source("norm", T=FLOATS, W=FLOATS, KEEP=(1, 4), only=pairs)

# (threads of a row, chunks of 16 bytes in each), in the order of the rows' length. A warp needs no
# barriers; one chunk leaves room for more warps; the last are all that the registers hold.
_FORWARD = ((32, 1), (32, 4), (256, 1), (256, 4), (1024, 4))
_BACKWARD = ((32, 1), (32, 4), (256, 1), (256, 4), (512, 4))


def _team(n: int, dtype: np.dtype, teams: Any) -> tuple[int, int] | None:
    """The first of `teams` whose registers hold a row of n, or None."""
    per_chunk = 16 // dtype.itemsize
    return next((t for t in teams if n <= t[0] * t[1] * per_chunk), None)


def row_norm_forward(
    x: Array, weight: Array, bias: Array, eps: float, groups: int = 1, run: int = 1,
    rms: bool = False,
) -> tuple[Array, Array, Array] | None:  # fmt: skip
    """(y, mean, rstd) of the rows of x (rows, n): y = (x - mean) * rstd * weight + bias.

    weight and bias have groups * n / run elements. With rms the mean is None, and taken as 0.
    """
    kind = parameter_type(x, weight, bias)
    if kind is None:
        return None
    rows, n = x.shape
    x, weight, bias = launch.contiguous(x), _tight(weight), _tight(bias)
    team = _team(n, x.dtype, _FORWARD)
    if team is None:
        shape = rows // groups, groups * n // run, run
        return batch_norm.group_forward(x.reshape(shape), weight, bias, eps, groups, rms, kind)
    y, rstd = launch.empty_like(x), launch.empty(rows, batch_norm.wide(x.dtype))
    mean = None if rms else launch.empty(rows, rstd.dtype)
    threads, keep = team
    block = max(threads, 256)
    _source.get("row_norm_forward", T=x.dtype, W=kind, KEEP=keep)(
        launch.blocks(rows, block // threads), block,
        (x, weight, bias, y, mean, rstd, rows, n, groups, run, eps, rms, threads),
    )  # fmt: skip
    return y, mean, rstd


def row_norm_backward(
    x: Array, dy: Array, weight: Array, mean: Array, rstd: Array, groups: int = 1, run: int = 1,
    rms: bool = False, needs: tuple[bool, bool, bool] = (True, True, True), dtype: Any = None,
) -> tuple[Array, Array, Array] | None:  # fmt: skip
    """The gradients of row_norm_forward's x, weight and bias, those that are needed.

    `dtype` is that of the bias where there is no weight.
    """
    kind = parameter_type(x, weight, dtype=dtype)
    if kind is None or dy.dtype != x.dtype:
        return None
    rows, n = x.shape
    x, dy, weight = launch.contiguous(x), launch.contiguous(dy), _tight(weight)
    team = _team(n, x.dtype, _BACKWARD)
    if team is None or groups != 1 or run != 1:
        shape = rows // groups, groups * n // run, run
        return batch_norm.group_backward(
            x.reshape(shape), dy.reshape(shape), weight, mean, rstd, groups, rms, needs, kind
        )
    dx = launch.empty_like(x) if needs[0] else None
    threads, keep = team
    block = max(threads, 256)
    # Each block leaves its part of the sums over the rows, so: as many as fill the device (its
    # registers allow that many blocks at once), no more.
    resident = 3 if keep == 1 else 512 // block
    parts = min(launch.blocks(rows, block // threads), resident * launch.multiprocessors())
    sums = launch.empty((parts, 2, n), rstd.dtype) if needs[1] or needs[2] else None
    _source.get("row_norm_backward", T=x.dtype, W=kind, KEEP=keep)(
        parts, block, (x, dy, weight, mean, rstd, dx, sums, rows, n, rms, threads)
    )
    dweight, dbias = (launch.empty(n, kind) if need else None for need in needs[1:])
    if sums is not None:
        _source.get("row_norm_weight_grad", T=x.dtype, W=kind, KEEP=keep)(
            launch.blocks(2 * -(-n // 32), 1), (32, 16), (sums, dweight, dbias, parts, n)
        )
    return dx, dweight, dbias


def _tight(a: Array) -> Array:
    return None if a is None else launch.contiguous(a)
