"""Launchers of kernels/batch_norm.cu: batch norm, and rows that kernels/norm.cu does not serve.

Each returns None where the kernels do not serve the dtypes. Arrays are (N, C, *); statistics are
float32, or float64 for float64.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, Source

Array = Any
Triple = tuple[Array, Array, Array]
_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
_THREADS = 256


def pairs(choice: dict[str, Any]) -> bool:
    """The types of arrays and parameters that go together: equal ones, and 16 bits with float32."""
    return choice["W"] == choice["T"] or (choice["W"] == _F32 and choice["T"].itemsize == 2)


_source = Source("batch_norm", T=FLOATS, W=FLOATS, only=pairs)


def parameter_type(x: Array, *parameters: Array, dtype: Any = None) -> Any:
    """The dtype of the parameters, of x where there are none; None where kernels do not serve."""
    found = {p.dtype for p in parameters if p is not None} or {dtype or x.dtype}
    kind = found.pop()
    serves = x.dtype in FLOATS and not found and pairs({"T": x.dtype, "W": kind})
    return kind if serves else None


def wide(dtype: np.dtype) -> np.dtype:
    """The dtype of sums."""
    return _F64 if dtype == _F64 else _F32


def batch_norm_stats(x: Array) -> tuple[Array, Array] | None:
    """The mean and the biased variance of each channel of x (N, C, *)."""
    if x.dtype not in FLOATS:
        return None
    mean, variance = (launch.empty(x.shape[1], wide(x.dtype)) for _ in range(2))
    _moments(x, _Bins.of_channels(x), x.dtype, mean, variance)
    return mean, variance


def batch_norm_apply(x: Array, scale: Array, shift: Array) -> Array | None:
    """x * scale[c] + shift[c] for each channel c of x (N, C, *); scale and shift are wide."""
    if x.dtype not in FLOATS or scale.dtype != wide(x.dtype) or shift.dtype != scale.dtype:
        return None
    return _apply(x, None, launch.contiguous(scale), None, launch.contiguous(shift), scale.dtype)


def batch_norm_forward(
    x: Array, weight: Array, bias: Array, running_mean: Array, running_var: Array, training: bool,
    momentum: float, eps: float,
) -> Triple | None:  # fmt: skip
    """(y, mean, rstd); in training the running statistics that there are move, in place."""
    running = running_mean, running_var
    kind = parameter_type(x, weight, bias, *running)
    if kind is None or not all(a is None or a.flags.c_contiguous for a in running):
        return None
    mean, rstd = (launch.empty(x.shape[1], wide(x.dtype)) for _ in range(2))
    if training:
        _moments(x, _Bins.of_channels(x), kind, mean, None, rstd, *running, eps, momentum)
    else:
        _launch("running_moments", x, kind, launch.blocks(mean.size, _THREADS), _THREADS,
                (*running, mean, rstd, eps, mean.size))  # fmt: skip
    return _apply(x, mean, rstd, _tight(weight), _tight(bias), kind), mean, rstd


def batch_norm_backward(
    x: Array, dy: Array, weight: Array, mean: Array, rstd: Array, training: bool,
    needs: tuple[bool, bool, bool], dtype: Any = None,
) -> Triple | None:  # fmt: skip
    """The gradients of x, weight and bias of y = (x - mean) rstd weight + bias, where needed.

    In training mean and rstd come from x, and x's gradient goes through them. `dtype` is that of
    the bias where there is no weight.
    """
    kind = parameter_type(x, weight, dtype=dtype)
    if kind is None or dy.dtype != x.dtype:
        return None
    x, dy, weight = launch.contiguous(x), launch.contiguous(dy), _tight(weight)
    channels, coefs, dweight, dbias = x.shape[1], None, None, None
    if training and needs[0] or needs[1] or needs[2]:
        bins = _Bins.of_channels(x)
        sums, splits = _products(x, dy, None, mean, rstd, bins, channels, True, kind)
        dweight, dbias = _channel_sums(sums, x, 1, channels, splits, needs, kind)
        if training and needs[0]:
            coefs = _coefficients(sums, x, weight, channels, 1, splits, channels,
                                  x.size // channels, False, kind)  # fmt: skip
    dx = _input_grad(x, dy, weight, mean, rstd, coefs, channels, True, kind) if needs[0] else None
    return dx, dweight, dbias


def group_forward(
    x: Array, weight: Array, bias: Array, eps: float, groups: int, rms: bool, kind: Any
) -> Triple:
    """row_norm_forward of x (images, channels, size); y has the rows' shape."""
    statistics = x.shape[0] * groups
    rstd = launch.empty(statistics, wide(x.dtype))
    mean = None if rms else launch.empty(statistics, rstd.dtype)
    bins = _Bins(statistics, 1, x.size // statistics)
    _moments(x, bins, kind, mean, None, rstd, eps=eps, rms=rms)
    y = _apply(x, mean, rstd, weight, bias, kind, groups, False)
    return y.reshape(statistics, -1), mean, rstd


def group_backward(
    x: Array, dy: Array, weight: Array, mean: Array, rstd: Array, groups: int, rms: bool,
    needs: tuple[bool, bool, bool], kind: Any,
) -> Triple:  # fmt: skip
    """row_norm_backward of x (images, channels, size); dx has the rows' shape."""
    images, channels, size = x.shape
    statistics, per = images * groups, channels // groups
    coefs = dweight = dbias = dx = None
    if size > 1:
        planes = _Bins(images * channels, 1, size)
        sums, splits = _products(x, dy, None, mean, rstd, planes, groups, False, kind, per)
        dweight, dbias = _channel_sums(sums, x, images, channels, splits, needs, kind)
        if needs[0]:
            coefs = _coefficients(sums, x, weight, statistics, per, splits, groups, per * size,
                                  rms, kind)  # fmt: skip
    else:
        if needs[1] or needs[2]:
            columns = _Bins(channels, images, 1)
            sums, splits = _products(x, dy, None, mean, rstd, columns, groups, False, kind)
            dweight, dbias = _channel_sums(sums, x, 1, channels, splits, needs, kind)
        if needs[0]:
            rows = _Bins(statistics, 1, per)
            sums, splits = _products(x, dy, weight, mean, rstd, rows, groups, False, kind)
            coefs = _coefficients(sums, x, None, statistics, 1, splits, groups, per, rms, kind)
    if needs[0]:
        dx = _input_grad(x, dy, weight, mean, rstd, coefs, groups, False, kind)
        dx = dx.reshape(statistics, -1)
    return dx, dweight, dbias


# --- one kernel each ----------------------------------------------------------------------------


class _Bins:
    """What sums run over: each of `count` bins has `segments` stretches of `length` values."""

    def __init__(self, count: int, segments: int, length: int):
        self.count, self.segments, self.length = count, segments, length
        self.columns = length == 1 and segments > 1  # bins are the columns of a matrix

    @classmethod
    def of_channels(cls, x: Array) -> _Bins:
        return cls(x.shape[1], x.shape[0], math.prod(x.shape[2:]))

    def team(self) -> int:
        """The threads of a team: a warp for a small bin."""
        return 32 if self.segments * self.length <= 1024 else _THREADS

    def splits(self, dtype: np.dtype) -> int:
        """The parts of each bin, none of them short: 12 blocks for each multiprocessor, which are
        whole rounds where 3 fit at once (moments of 16 bits), and where 4 do (the others)."""
        values = self.segments * self.length
        if self.columns:
            blocks, least = -(-self.count // 32), 8 * 16
        else:
            blocks = self.count * self.team() // _THREADS
            least = self.team() * 64 // dtype.itemsize
        wanted = 12 * launch.multiprocessors() // max(blocks, 1)
        return max(1, min(wanted, values // least, 1024))

    def launch_shape(self, splits: int) -> tuple[int, Any]:
        """Grid and block."""
        if self.columns:
            return launch.blocks(-(-self.count // 32) * splits, 1), (32, 8)
        return launch.blocks(self.count * splits, _THREADS // self.team()), _THREADS


def _moments(
    x: Array, bins: _Bins, kind: Any, mean: Array, variance: Array, rstd: Array = None,
    running_mean: Array = None, running_var: Array = None, eps: float = 0.0, momentum: float = 0.0,
    rms: bool = False,
) -> None:  # fmt: skip
    """Fills those of the arrays that are given."""
    x, splits = launch.contiguous(x), bins.splits(x.dtype)
    parts = launch.empty(3 * bins.count * splits, wide(x.dtype)) if splits > 1 else None
    out = (mean, variance, rstd, running_mean, running_var, eps, momentum, rms)
    grid, block = bins.launch_shape(splits)
    if bins.columns:
        _launch("moments_columns", x, kind, grid, block,
                (x, parts, *out, bins.segments, bins.count, splits))  # fmt: skip
    else:
        _launch("moments", x, kind, grid, block,
                (x, parts, *out, bins.count, bins.segments, bins.length, splits,
                 bins.team()))  # fmt: skip
    if parts is not None:
        values = bins.segments * bins.length
        _launch("moments_finish", x, kind, launch.blocks(bins.count, 8), _THREADS,
                (parts, *out, bins.count, splits, values))  # fmt: skip


def _products(
    x: Array, dy: Array, weight: Array, mean: Array, rstd: Array, bins: _Bins, groups: int,
    by_batch: bool, kind: Any, per_statistic: int = 1,
) -> tuple[Array, int]:  # fmt: skip
    """(sums, splits): sums (2, bins, splits) of g and of g * (x - mean) * rstd."""
    splits = bins.splits(x.dtype)
    sums = launch.empty((2, bins.count, splits), rstd.dtype)
    grid, block = bins.launch_shape(splits)
    if bins.columns:
        _launch("products_columns", x, kind, grid, block,
                (x, dy, mean, rstd, sums, bins.segments, bins.count, groups, by_batch,
                 splits))  # fmt: skip
    else:
        _launch("products", x, kind, grid, block,
                (x, dy, weight, mean, rstd, sums, bins.count, bins.segments, bins.length,
                 per_statistic, groups, splits, bins.team()))  # fmt: skip
    return sums, splits


def _coefficients(
    sums: Array, x: Array, weight: Array, statistics: int, per: int, splits: int, groups: int,
    n: int, rms: bool, kind: Any,
) -> Array:  # fmt: skip
    coefs = launch.empty((2, statistics), sums.dtype)
    _launch("coefficients", x, kind, launch.blocks(statistics, 8), _THREADS,
            (sums, weight, coefs, statistics, per, splits, groups, n, rms))  # fmt: skip
    return coefs


def _channel_sums(
    sums: Array, x: Array, images: int, channels: int, splits: int,
    needs: tuple[bool, bool, bool], kind: Any,
) -> tuple[Array, Array]:  # fmt: skip
    dweight, dbias = (launch.empty(channels, kind) if need else None for need in needs[1:])
    if needs[1] or needs[2]:
        _launch("channel_sums", x, kind, launch.blocks(channels, 8), _THREADS,
                (sums, dweight, dbias, images, channels, splits))  # fmt: skip
    return dweight, dbias


def _apply(
    x: Array, mean: Array, rstd: Array, weight: Array, bias: Array, kind: Any, groups: int = 1,
    by_batch: bool = True,
) -> Array:  # fmt: skip
    x = launch.contiguous(x)
    y = launch.empty_like(x)
    _launch("apply", x, kind, _grid(x), _THREADS,
            (x, mean, rstd, weight, bias, y, _layout(x, groups, by_batch)))  # fmt: skip
    return y


def _input_grad(
    x: Array, dy: Array, weight: Array, mean: Array, rstd: Array, coefs: Array, groups: int,
    by_batch: bool, kind: Any,
) -> Array:  # fmt: skip
    dx = launch.empty_like(x)
    _launch("input_grad", x, kind, _grid(x), _THREADS,
            (x, dy, weight, mean, rstd, coefs, dx, _layout(x, groups, by_batch)))  # fmt: skip
    return dx


def _launch(name: str, x: Array, kind: Any, grid: Any, block: Any, args: Any) -> None:
    _source.get(name, T=x.dtype, W=kind)(grid, block, args)


def _grid(x: Array) -> int:
    return launch.blocks(x.size * x.dtype.itemsize // 16 + 1, _THREADS)


_DIVISOR = np.dtype([("by", "i8"), ("magic", "u8"), ("shift", "i4")], align=True)
_LAYOUT = np.dtype(
    [("size", _DIVISOR), ("channels", _DIVISOR), ("per", _DIVISOR), ("images", "i8"),
     ("by_batch", "i4")], align=True,
)  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _divisor(by: int) -> tuple[int, int, int]:
    """`Divisor` of batch_norm.cu."""
    bits = (by - 1).bit_length()
    return (by, -(-(1 << 63 + bits) // by), bits - 1) if by > 1 else (by, 0, 0)


def _layout(x: Array, groups: int, by_batch: bool) -> np.ndarray:
    """`Layout` of batch_norm.cu for x (N, C, *)."""
    channels = x.shape[1]
    parts = (math.prod(x.shape[2:]), channels, channels // groups)
    return np.array((*map(_divisor, parts), x.shape[0], by_batch), _LAYOUT)


def _tight(a: Array) -> Array:
    return None if a is None else launch.contiguous(a)
