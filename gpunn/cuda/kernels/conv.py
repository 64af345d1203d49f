"""Convolution through kernels/conv*.cu: forward, input gradient, weight gradient, in 1 to 3 D.

The twins of `gpunn.native`'s functions of the same names. Each returns None for dtypes that no
kernel serves (complex, integers) and for sizes past the kernels' 32-bit counts.

Which kernel:
- few channels in a group (depthwise): conv_depthwise.cu, one result after the other;
- 1x1, stride 1, float32 and float64: one matrix product for all samples, cuBLAS's; there is nothing
  to gather, and nothing that it does not do better;
- float16, bfloat16, and float32 where TF32 is allowed: conv_tensor.cu, on the tensor cores;
- else conv.cu.
Before sm_80 tensor cores know float16 alone: there bfloat16 is left to the caller, who computes in
float32, and TF32 is float32.
All are deterministic: the same device and shapes give the same bits.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from gpunn.backends import switches
from gpunn.cuda import detect
from gpunn.cuda.kernels import conv_tuning as tuning
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.conv_geometry import Ints, Sizes, forward, input_grad
from gpunn.cuda.kernels.conv_tuning import Tile
from gpunn.cuda.kernels.loader import FLOATS, Source
from gpunn.dtypes import BF16

F32, F64 = np.dtype(np.float32), np.dtype(np.float64)
ACTIVATIONS = {"none": 0, "relu": 1}
DIRECT = 16  # products of a group's channels up to which tiles would be mostly empty
_CHUNK = 16  # bytes that conv_tensor.cu moves at once

_plain = Source(
    "conv", T=(F32, F64), BM=(128, 64, 32), BN=(128, 64), BK=(8, 16), TM=(8, 4), TN=(8, 4),
    only=lambda v: tuple(v[k] for k in tuning.PLAIN_NAMES) in tuning.PLAIN,
)  # fmt: skip
_tensor = Source(
    "conv_tensor", T=(np.dtype(np.float16), BF16, F32), BM=(128, 64, 32), BN=(128, 64), WM=(64, 32),
    WN=(64, 32), only=lambda v: tuple(v[k] for k in tuning.TENSOR_NAMES) in tuning.TENSOR,
)  # fmt: skip
_direct = Source("conv_depthwise", T=FLOATS, KERNEL=(0, 3, 5))
_layout = Source("conv_layout", T=FLOATS)


def conv_forward(
    x: Any, w: Any, b: Any, stride: Ints, padding: Ints, dilation: Ints, groups: int, out: Ints,
    activation: str = "none", tile: Tile | None = None,
) -> Any:  # fmt: skip
    """The convolution of x (N, C, *size) with w (O, C / groups, *kernel), plus b (O) or None.

    `padding` is that on the left, `out` the spatial size of the result; `activation` ("none",
    "relu") is applied to it. `tile` overrules the choice of a kernel's tile.
    """
    if not _serves(x, w):
        return None
    y = launch.empty((x.shape[0], w.shape[0], *out), x.dtype)
    if y.size == 0:
        return y
    sizes = forward(x.shape, w.shape, tuple(out), stride, padding, dilation, groups)
    if not sizes.fits:
        return None
    if tile is None and _is_product(x.dtype, sizes):
        _matrix_product(w.reshape(w.shape[:2]), x, b, activation, y)
        return y
    _gather(sizes, False, x, w, b, y, activation, tile)
    return y


def conv_input_grad(
    dy: Any, w: Any, size: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int,
    b: Any = None, activation: str = "none", tile: Tile | None = None,
) -> Any:  # fmt: skip
    """The gradient of conv_forward's x, of spatial size `size`; with b (C): conv_transpose.

    dy is (N, O, *out), w (O, C / groups, *kernel); the result (N, C, *size).
    """
    if not _serves(dy, w):
        return None
    dx = launch.empty((dy.shape[0], w.shape[1] * groups, *size), dy.dtype)
    if dx.size == 0:
        return dx
    sizes = input_grad(dy.shape, w.shape, tuple(size), stride, padding, dilation, groups)
    if not sizes.fits:
        return None
    if tile is None and _is_product(dy.dtype, sizes):
        _matrix_product(w.reshape(w.shape[:2]).T, dy, b, activation, dx)
        return dx
    _gather(sizes, True, dy, w, b, dx, activation, tile)
    return dx


def conv_weight_grad(
    x: Any, dy: Any, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int,
    tile: Tile | None = None, splits: int | None = None,
) -> Any:  # fmt: skip
    """The gradient of conv_forward's w, of spatial size `kernel`: (O, C / groups, *kernel).

    x is (N, C, *size), dy (N, O, *out). The places of all samples are shared out to `splits` blocks
    for each tile, whose sums are then added up in order.
    """
    if not _serves(x, dy):
        return None
    shape = (dy.shape[1], x.shape[1] // groups, *kernel)
    if dy.size == 0 or math.prod(shape) == 0:
        return launch.zeros(shape, x.dtype)
    sizes = forward(x.shape, shape, dy.shape[2:], stride, padding, dilation, groups)
    if not sizes.fits:
        return None
    x, dy, dw = launch.contiguous(x), launch.contiguous(dy), launch.empty(shape, x.dtype)
    family = _family(x.dtype, sizes, tile)
    run = partial(_WEIGHT_GRAD[family], sizes, x, dy, dw, splits)
    run(tile or tuning.choose(family, "weight_grad", sizes, x.dtype, run))
    return dw


# --- choosing -----------------------------------------------------------------------------


def _tf32() -> bool:
    return switches.allow_tf32 and launch.capability() >= (8, 0)


def _serves(x: Any, other: Any) -> bool:
    """Whether kernels for the arrays' dtype exist on the current device."""
    if x.dtype not in FLOATS or other.dtype != x.dtype:
        return False
    return x.dtype != BF16 or launch.capability() >= (8, 0)


def _is_product(dtype: Any, sizes: Sizes) -> bool:
    """Whether the convolution is one matrix product, in a precision that cuBLAS gives by itself."""
    plain = dtype == F64 or (dtype == F32 and not _tf32())
    return plain and sizes.pointwise and sizes.groups == 1 and sizes.depth > 0


def _family(dtype: Any, sizes: Sizes, tile: Tile | None) -> str:
    """Which kernels serve: "direct", "tensor" or "plain"."""
    if tile is not None:
        return tile.family
    if sizes.groups > 1 and sizes.rows * sizes.depth <= DIRECT:
        return "direct"
    return "tensor" if dtype.itemsize == 2 or (dtype == F32 and _tf32()) else "plain"


def _matrix_product(w: Any, x: Any, b: Any, activation: str, y: Any) -> None:
    """y = w times the channels of every place."""
    xp = detect.load()
    xp.matmul(w, x.reshape(*x.shape[:2], -1), out=y.reshape(*y.shape[:2], -1))
    if b is not None:
        y += b.reshape((-1,) + (1,) * (y.ndim - 2))
    if activation == "relu":
        xp.maximum(y, 0, out=y)


def _gather(
    sizes: Sizes, swapped: bool, x: Any, w: Any, b: Any, y: Any, activation: str,
    tile: Tile | None,
) -> None:  # fmt: skip
    """y = the product that `sizes` describes; `swapped`: w has rows inside of depth."""
    x, w = launch.contiguous(x), launch.contiguous(w)
    b = None if b is None else launch.contiguous(b)
    family = _family(x.dtype, sizes, tile)
    run = partial(_FORWARD[family], sizes, swapped, x, w, b, y, ACTIVATIONS[activation])
    run(tile or tuning.choose(family, "forward", sizes, x.dtype, run))


# --- conv.cu ------------------------------------------------------------------------------


def _channels_last(
    x: Any, blocks: int, groups: int, channels: int, padded: int, tf32: bool
) -> Any:
    """x (blocks, channels, places) as (blocks / groups, places, groups, padded): conv_layout.cu."""
    places = x.size // (blocks * channels) if x.size else 0
    y = launch.empty((blocks // groups, places, groups, padded), x.dtype)
    if y.size:
        tiles = blocks * -(-places // 64) * -(-padded // 64)
        _layout.get("conv_channels_last", T=x.dtype)(
            launch.blocks(tiles, 1), 256, (x, y, blocks, groups, channels, padded, places, tf32)
        )
    return y


def _forward_plain(
    sizes: Sizes, swapped: bool, x: Any, w: Any, b: Any, y: Any, activation: int, tile: Tile
) -> None:
    pitch = _up(sizes.rows, tile.bm)
    blocks = sizes.groups * (sizes.depth if swapped else 1)
    packed = _channels_last(w, blocks, 1, sizes.rows, pitch, False)
    kernel = _plain.get("conv_forward", T=x.dtype, **tile.constants)
    grid = launch.blocks(tile.count(sizes), 1)
    kernel(grid, tile.threads, (x, packed, b, y, sizes.struct(), pitch, activation))


def _weight_grad_plain(
    sizes: Sizes, x: Any, dy: Any, dw: Any, splits: int | None, tile: Tile
) -> None:
    width = sizes.taps * sizes.depth
    splits, part = _shares(sizes, x.dtype, tile, width, splits)
    kernel = _plain.get("conv_weight_grad", T=x.dtype, **tile.constants)
    grid = launch.blocks(tile.count_weights(sizes, width) * splits, 1)
    kernel(grid, tile.threads, (x, dy, part, sizes.struct(), splits))
    _sum(sizes, part, dw, splits, sizes.depth)


def _shares(
    sizes: Sizes, dtype: Any, tile: Tile, width: int, splits: int | None
) -> tuple[int, Any]:
    """Among how many blocks the places are shared, and the memory for their sums."""
    if splits is None:
        splits = tuning.splits(sizes, tile, width)
    rows = sizes.groups * sizes.rows
    return splits, launch.empty((splits, rows, width), F64 if dtype == F64 else F32)


def _sum(sizes: Sizes, part: Any, dw: Any, splits: int, padded: int) -> None:
    """The shares added up in order; a tap of theirs has `padded` channels."""
    _layout.get("conv_sum", T=dw.dtype)(
        launch.blocks(part.size // splits, 256), 256,
        (part, dw, splits, sizes.groups * sizes.rows, sizes.depth, padded, sizes.taps),
    )  # fmt: skip


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


# --- conv_depthwise.cu --------------------------------------------------------------------


def _forward_direct(
    sizes: Sizes, swapped: bool, x: Any, w: Any, b: Any, y: Any, activation: int, tile: Tile
) -> None:
    known = sizes.square if sizes.square in (3, 5) else 0
    kernel = _direct.get("conv_direct", T=x.dtype, KERNEL=known)
    grid = launch.blocks(tile.count(sizes), 1)
    inner, outer = sizes.taps, w.shape[1] * sizes.taps
    strides = (w.size // sizes.groups, *((inner, outer) if swapped else (outer, inner)))
    kernel(grid, tile.threads, (x, w, b, y, sizes.struct(), *strides, activation))


def _weight_grad_direct(
    sizes: Sizes, x: Any, dy: Any, dw: Any, splits: int | None, tile: Tile
) -> None:
    splits, part = _shares(sizes, x.dtype, tile, sizes.taps * sizes.depth, splits)
    kernel = _direct.get("conv_direct_weight_grad", T=x.dtype, KERNEL=0)
    grid = launch.blocks(splits * dw.shape[0] * sizes.depth, 1)
    kernel(grid, tile.threads, (x, dy, part, sizes.struct(), splits))
    _sum(sizes, part, dw, splits, sizes.depth)


# --- conv_tensor.cu -----------------------------------------------------------------------


def _forward_tensor(
    sizes: Sizes, swapped: bool, x: Any, w: Any, b: Any, y: Any, activation: int, tile: Tile
) -> None:
    chunk = _CHUNK // x.dtype.itemsize
    padded = _up(sizes.depth, chunk)
    packed = _rows_first(sizes, swapped, w, padded)
    grid, shared = launch.blocks(tile.count(sizes), 1), _shared(tile)
    if _as_it_is(sizes, x):
        kernel = _tensor.get("conv_pointwise_mma", T=x.dtype, **tile.constants)
        counts = (sizes.samples, sizes.rows, sizes.depth, sizes.plane, padded)
        kernel(grid, tile.threads, (x, packed, b, y, *counts, activation), shared)
        return
    x = _image(sizes, x, sizes.depth)
    kernel = _tensor.get("conv_forward_mma", T=x.dtype, **tile.constants)
    conv = sizes.struct(padded // chunk)
    kernel(grid, tile.threads, (x, packed, b, y, conv, padded, activation), shared)


def _rows_first(sizes: Sizes, swapped: bool, w: Any, padded: int) -> Any:
    """w as (groups, rows, taps, depth padded with zeros)."""
    tf32 = w.dtype == F32
    there = sizes.taps == 1 and sizes.depth == padded and not swapped
    if there and not tf32 and w.data.ptr % _CHUNK == 0:
        return w
    blocks = sizes.groups * (1 if swapped else sizes.rows)
    return _channels_last(w, blocks, 1, sizes.depth, padded, tf32)


def _image(sizes: Sizes, x: Any, channels: int) -> Any:
    """x (N, groups * channels, *size) with channels last, padded to whole chunks."""
    padded = _up(channels, _CHUNK // x.dtype.itemsize)
    blocks = sizes.samples * sizes.groups
    return _channels_last(x, blocks, sizes.groups, channels, padded, x.dtype == F32)


def _as_it_is(sizes: Sizes, *arrays: Any) -> bool:
    """Whether channels need not come last: 1x1, and planes are whole chunks, aligned ones."""
    if not sizes.pointwise or sizes.groups != 1:
        return False
    whole = sizes.plane * arrays[0].dtype.itemsize % _CHUNK == 0
    return whole and all(a.data.ptr % _CHUNK == 0 for a in arrays)


def _shared(tile: Tile) -> int:
    """Bytes: three stages of four chunks for each row and column, 64 spots, a number a column."""
    return 3 * 4 * _CHUNK * (tile.bm + tile.bn) + 64 * 32 + 8 * tile.bn


def _weight_grad_tensor(
    sizes: Sizes, x: Any, dy: Any, dw: Any, splits: int | None, tile: Tile
) -> None:
    padded = _up(sizes.depth, _CHUNK // x.dtype.itemsize)
    width = sizes.taps * padded
    splits, part = _shares(sizes, x.dtype, tile, width, splits)
    if _as_it_is(sizes, x, dy):
        kernel = _tensor.get("conv_pointwise_weight_grad_mma", T=x.dtype, **tile.constants)
        counts = (sizes.samples, sizes.rows, sizes.depth, sizes.plane, width, splits)
        grid = launch.blocks(tile.count_weights(sizes, width) * splits, 1)
        kernel(grid, tile.threads, (x, dy, part, *counts), _shared(tile))
        _sum(sizes, part, dw, splits, padded)
        return
    x, dy = _image(sizes, x, sizes.depth), _image(sizes, dy, sizes.rows)
    padded_dy = dy.shape[-1]
    kernel = _tensor.get("conv_weight_grad_mma", T=x.dtype, **tile.constants)
    conv = sizes.struct(padded * x.dtype.itemsize // _CHUNK)
    grid = launch.blocks(tile.count_weights(sizes, width) * splits, 1)
    kernel(grid, tile.threads, (x, dy, part, conv, padded, padded_dy, splits), _shared(tile))
    _sum(sizes, part, dw, splits, padded)


_FORWARD = {"plain": _forward_plain, "direct": _forward_direct, "tensor": _forward_tensor}
_WEIGHT_GRAD = {
    "plain": _weight_grad_plain, "direct": _weight_grad_direct, "tensor": _weight_grad_tensor,
}  # fmt: skip
