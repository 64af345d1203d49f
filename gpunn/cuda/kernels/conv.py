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
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.backends import switches
from gpunn.cuda.kernels import conv_tuning as tuning
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.conv_geometry import Ints, fits, forward, input_grad
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
    sizes = (x.shape, w.shape, tuple(out), stride, padding, dilation, groups)
    if not fits(forward(*sizes)):
        return None
    if tile is None and _is_product(x.dtype, w.shape, stride, padding, groups):
        return _matrix_product(w.reshape(w.shape[:2]), x, b, activation, y)
    taps = math.prod(w.shape[2:])
    strides = (w.shape[0] // groups * w.shape[1] * taps, w.shape[1] * taps, taps)
    _gather(lambda n: forward(*sizes, n), strides, x, w, b, y, activation, tile)
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
    sizes = (dy.shape, w.shape, tuple(size), stride, padding, dilation, groups)
    if not fits(input_grad(*sizes)):
        return None
    same = tuple(size) == dy.shape[2:]
    if tile is None and same and _is_product(dy.dtype, w.shape, stride, padding, groups):
        return _matrix_product(w.reshape(w.shape[:2]).T, dy, b, activation, dx)
    taps = math.prod(w.shape[2:])
    strides = (w.shape[0] // groups * w.shape[1] * taps, taps, w.shape[1] * taps)
    _gather(lambda n: input_grad(*sizes, n), strides, dy, w, b, dx, activation, tile)
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
    sizes = (x.shape, shape, dy.shape[2:], stride, padding, dilation, groups)
    if not fits(forward(*sizes)):
        return None
    x, dy, dw = launch.contiguous(x), launch.contiguous(dy), launch.empty(shape, x.dtype)
    conv = forward(*sizes)
    family = _family(x.dtype, conv, tile)
    _tuned(family, "weight_grad", conv, x.dtype, tile,
           lambda t: _WEIGHT_GRAD[family](x, dy, dw, sizes, t, splits))  # fmt: skip
    return dw


# --- choosing -----------------------------------------------------------------------------


def _tf32() -> bool:
    return switches.allow_tf32 and launch.capability() >= (8, 0)


def _serves(x: Any, other: Any) -> bool:
    """Whether kernels for the arrays' dtype exist on the current device."""
    if x.dtype not in FLOATS or other.dtype != x.dtype:
        return False
    return x.dtype != BF16 or launch.capability() >= (8, 0)


def _is_product(dtype: Any, w: Ints, stride: Ints, padding: Ints, groups: int) -> bool:
    """Whether the convolution is one matrix product, in a precision that cuBLAS gives by itself."""
    plain = dtype == F64 or (dtype == F32 and not _tf32())
    still = all(s == 1 for s in stride) and not any(padding)
    return plain and still and groups == 1 and math.prod(w[2:]) == 1 and w[1] > 0


def _family(dtype: Any, conv: np.ndarray, tile: Tile | None) -> str:
    """Which kernels serve: "direct", "tensor" or "plain"."""
    if tile is not None:
        return tile.family
    if conv["groups"] > 1 and int(conv["rows"]) * int(conv["depth"]) <= DIRECT:
        return "direct"
    tensor = dtype.itemsize == 2 or (dtype == F32 and _tf32())
    return "tensor" if tensor else "plain"


def _tuned(
    family: str, kind: str, conv: np.ndarray, dtype: Any, tile: Tile | None,
    run: Callable[[Tile], None],
) -> None:  # fmt: skip
    """Runs with the tile that was asked for, measured or estimated to be the best."""
    if tile is None:
        tile = tuning.choose(family, kind, conv, dtype, run)
    run(tile)


def _matrix_product(w: Any, x: Any, b: Any, activation: str, y: Any) -> Any:
    flat = x.reshape(x.shape[0], x.shape[1], -1)
    product = (w @ flat).reshape(y.shape)
    if b is not None:
        product += b.reshape((-1,) + (1,) * (y.ndim - 2))
    return product.clip(0, None) if activation == "relu" else product


def _gather(
    conv: Callable[[int], np.ndarray], strides: Ints, x: Any, w: Any, b: Any, y: Any,
    activation: str, tile: Tile | None,
) -> None:  # fmt: skip
    """y = the product that `conv` describes; `strides` of w: of a group, a row, a channel."""
    x, w = launch.contiguous(x), launch.contiguous(w)
    b = None if b is None else launch.contiguous(b)
    plain = conv(0)
    family = _family(x.dtype, plain, tile)
    how = ACTIVATIONS[activation]
    _tuned(family, "forward", plain, x.dtype, tile,
           lambda t: _FORWARD[family](conv, strides, x, w, b, y, how, t))  # fmt: skip


# --- conv.cu ------------------------------------------------------------------------------


def _pack(
    conv: np.ndarray, strides: Ints, w: Any, height: int, pitch: int, rows_last: bool, tf32: bool
) -> Any:
    """The weights in the order of the kernel: see conv_layout.cu."""
    groups, rows, depth = (int(conv[k]) for k in ("groups", "rows", "depth"))
    taps = math.prod(map(int, conv["kernel"]))
    packed = launch.empty(max(groups * taps * (depth if rows_last else height) * pitch, 1), w.dtype)
    _layout.get("conv_pack", T=w.dtype)(
        launch.blocks(packed.size, 256), 256,
        (w, packed, groups, taps, rows, depth, height, pitch, *strides, rows_last, tf32),
    )  # fmt: skip
    return packed


def _forward_plain(
    make: Any, strides: Ints, x: Any, w: Any, b: Any, y: Any, activation: int, tile: Tile
) -> None:
    conv = make(0)
    pitch = _up(int(conv["rows"]), tile.bm)
    packed = _pack(conv, strides, w, 0, pitch, True, False)
    kernel = _plain.get("conv_forward", T=x.dtype, **tile.constants)
    grid = launch.blocks(tile.count(conv), 1)
    kernel(grid, tile.threads, (x, packed, b, y, conv, pitch, activation))


def _weight_grad_plain(
    x: Any, dy: Any, dw: Any, sizes: Any, tile: Tile, splits: int | None
) -> None:
    conv = forward(*sizes)
    width = math.prod(dw.shape[1:])
    splits, part = _shares(conv, x.dtype, tile, width, splits)
    kernel = _plain.get("conv_weight_grad", T=x.dtype, **tile.constants)
    grid = launch.blocks(tile.count_weights(conv, width) * splits, 1)
    kernel(grid, tile.threads, (x, dy, part, conv, splits))
    _sum(part, dw, splits, dw.shape[1])


def _shares(
    conv: np.ndarray, dtype: Any, tile: Tile, width: int, splits: int | None
) -> tuple[int, Any]:
    """Among how many blocks the places are shared, and the memory for their sums."""
    if splits is None:
        splits = tuning.splits(conv, tile, width)
    rows = int(conv["groups"]) * int(conv["rows"])
    return splits, launch.empty((splits, rows, width), F64 if dtype == F64 else F32)


def _sum(part: Any, dw: Any, splits: int, padded: int) -> None:
    """The shares added up in order; a tap of theirs has `padded` channels."""
    taps = math.prod(dw.shape[2:])
    _layout.get("conv_sum", T=dw.dtype)(
        launch.blocks(part.size // splits, 256), 256,
        (part, dw, splits, dw.shape[0], dw.shape[1], padded, taps),
    )  # fmt: skip


def _up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


# --- conv_depthwise.cu --------------------------------------------------------------------


def _forward_direct(
    make: Any, strides: Ints, x: Any, w: Any, b: Any, y: Any, activation: int, tile: Tile
) -> None:
    conv = make(0)
    size = int(conv["kernel"][1])
    square = size in (3, 5) and conv["kernel"][2] == size and conv["phases"].max() == 1
    kernel = _direct.get("conv_direct", T=x.dtype, KERNEL=size if square else 0)
    grid = launch.blocks(tile.count(conv), 1)
    kernel(grid, tile.threads, (x, w, b, y, conv, *strides, activation))


def _weight_grad_direct(
    x: Any, dy: Any, dw: Any, sizes: Any, tile: Tile, splits: int | None
) -> None:
    conv, depth = forward(*sizes), dw.shape[1]
    splits, part = _shares(conv, x.dtype, tile, math.prod(dw.shape[1:]), splits)
    kernel = _direct.get("conv_direct_weight_grad", T=x.dtype, KERNEL=0)
    grid = launch.blocks(splits * dw.shape[0] * depth, 1)
    kernel(grid, tile.threads, (x, dy, part, conv, splits))
    _sum(part, dw, splits, depth)


# --- conv_tensor.cu -----------------------------------------------------------------------


def _channels_last(x: Any, groups: int) -> Any:
    """x (N, groups * C, *size) as (N, places, groups, C padded to whole chunks)."""
    channels, places = x.shape[1] // groups, math.prod(x.shape[2:])
    padded = _up(channels, _CHUNK // x.dtype.itemsize)
    y = launch.empty((x.shape[0], places, groups, padded), x.dtype)
    tiles = x.shape[0] * groups * -(-places // 32) * -(-padded // 32)
    _layout.get("conv_channels_last", T=x.dtype)(
        launch.blocks(tiles, 1), 256,
        (x, y, x.shape[0] * groups, groups, channels, padded, places, x.dtype == F32),
    )  # fmt: skip
    return y


def _forward_tensor(
    make: Any, strides: Ints, x: Any, w: Any, b: Any, y: Any, activation: int, tile: Tile
) -> None:
    chunk = _CHUNK // x.dtype.itemsize
    padded = _up(int(make(0)["depth"]), chunk)
    conv = make(padded // chunk)
    height = _up(int(conv["rows"]), tile.bm)
    packed = _pack(conv, strides, w, height, padded, False, x.dtype == F32)
    grid, shared = launch.blocks(tile.count(conv), 1), _shared(tile)
    if _is_pointwise(conv, chunk):
        kernel = _tensor.get("conv_pointwise_mma", T=x.dtype, **tile.constants)
        sizes = (x.shape[0], int(conv["rows"]), x.shape[1], math.prod(x.shape[2:]), height, padded)
        kernel(grid, tile.threads, (x, packed, b, y, *sizes, activation), shared)
        return
    x = _channels_last(x, int(conv["groups"]))
    kernel = _tensor.get("conv_forward_mma", T=x.dtype, **tile.constants)
    kernel(grid, tile.threads, (x, packed, b, y, conv, height, padded, activation), shared)


def _shared(tile: Tile) -> int:
    """Bytes: three stages of four chunks for each row and column, 64 spots, a number a column."""
    return 3 * 4 * _CHUNK * (tile.bm + tile.bn) + 64 * 32 + 8 * tile.bn


def _is_pointwise(conv: np.ndarray, chunk: int) -> bool:
    """Whether conv_pointwise_mma serves: places are as in the source, chunks of them in a plane."""
    names = ("kernel", "step", "phases")
    still = all((conv[name] == 1).all() for name in names) and not conv["origin"].any()
    same = (conv["source"] == conv["result"]).all()
    return bool(still and same and conv["groups"] == 1 and conv["source"].prod() % chunk == 0)


def _weight_grad_tensor(
    x: Any, dy: Any, dw: Any, sizes: Any, tile: Tile, splits: int | None
) -> None:
    groups = sizes[-1]
    x, dy = _channels_last(x, groups), _channels_last(dy, groups)
    padded, padded_dy = x.shape[-1], dy.shape[-1]
    conv = forward(*sizes, padded * x.dtype.itemsize // _CHUNK)
    width = math.prod(dw.shape[2:]) * padded
    splits, part = _shares(conv, x.dtype, tile, width, splits)
    kernel = _tensor.get("conv_weight_grad_mma", T=x.dtype, **tile.constants)
    grid = launch.blocks(tile.count_weights(conv, width) * splits, 1)
    kernel(grid, tile.threads, (x, dy, part, conv, padded, padded_dy, splits), _shared(tile))
    _sum(part, dw, splits, padded)


_FORWARD = {"plain": _forward_plain, "direct": _forward_direct, "tensor": _forward_tensor}
_WEIGHT_GRAD = {
    "plain": _weight_grad_plain, "direct": _weight_grad_direct, "tensor": _weight_grad_tensor,
}  # fmt: skip
