"""Cross-entropy and negative log-likelihood of class indices through kernels/cross_entropy.cu.

Nothing waits for the device: a target out of range is written down as a fault, and the mean's
divisor stays where it is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, Source
from gpunn.cuda.kernels.softmax import is_narrow, slices_for, threads_for

_SHORT = 2048  # classes up to which a warp takes a row
_PARTS = 4096  # losses that one block adds up
_source = Source("cross_entropy", T=FLOATS)


@dataclass
class Call:
    """What the gradient needs beside the input; arrays on the device."""

    target: Any
    weight: Any
    weight_sum: Any
    lse: Any
    divisor: Any
    ignore_index: int
    smoothing: float


def cross_entropy_forward(
    x: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean",
    smoothing: float = 0.0,
) -> tuple[Any, Call] | None:  # fmt: skip
    """(loss, what the gradient needs) of logits x (N, C, ...) or (C,) and targets (N, ...) or ().

    The loss has the dtype of x, and the targets' shape with reduction "none". None where the kernel
    does not serve the dtype or an empty shape. A target out of range is a fault, "cross_entropy".
    """
    if not _serves(x, weight):
        return None
    rows, n, inner, flat = _flat(x)
    call = _call(target, weight, ignore_index, smoothing, flat)
    loss, share, call.lse = (launch.empty((rows,), _wide(x)) for _ in range(3))
    given = (flat, call.target, call.weight, call.weight_sum, loss, share, call.lse)
    last = (ignore_index, smoothing, launch.fault("cross_entropy"))
    _launch("forward", flat, rows, n, inner, given, last)
    return _reduced(loss, share, x.dtype, target.shape, reduction, call), call


def cross_entropy_backward(dy: Any, x: Any, call: Call) -> Any:
    """The gradient of x: dy is one number, or one for each target."""
    rows, n, inner, flat = _flat(x)
    dx = launch.empty_like(flat)
    given = (flat, call.target, call.weight, call.weight_sum, call.lse, launch.contiguous(dy),
             dy.size == 1, call.divisor, dx)  # fmt: skip
    _launch("backward", flat, rows, n, inner, given, (call.ignore_index, call.smoothing))
    if flat.ndim == 2 and x.ndim > 2:  # it was copied into rows
        dx = dx.reshape(x.shape[0], -1, n).swapaxes(1, 2)
    return launch.contiguous(dx).reshape(x.shape)


def nll_loss_forward(
    x: Any, target: Any, weight: Any = None, ignore_index: int = -100, reduction: str = "mean"
) -> tuple[Any, Call] | None:
    """As `cross_entropy_forward`, of log-probabilities x; the fault's name is "nll_loss"."""
    if not _serves(x, weight):
        return None
    rows, n, inner = _sizes(x)
    x = launch.contiguous(x)
    call = _call(target, weight, ignore_index, 0.0, x)
    loss, share = (launch.empty((rows,), _wide(x)) for _ in range(2))
    _source.get("nll_loss_forward", T=x.dtype)(
        launch.blocks(rows, 256), 256,
        (x, call.target, call.weight, loss, share, rows, n, inner, ignore_index,
         launch.fault("nll_loss")),
    )  # fmt: skip
    return _reduced(loss, share, x.dtype, target.shape, reduction, call), call


def nll_loss_backward(dy: Any, x: Any, call: Call) -> Any:
    """The gradient of x, from its shape: dy is one number, or one for each target."""
    rows, n, inner = _sizes(x)
    dx = launch.zeros(x.shape, x.dtype)
    _source.get("nll_loss_backward", T=x.dtype)(
        launch.blocks(rows, 256), 256,
        (call.target, call.weight, launch.contiguous(dy), dy.size == 1, call.divisor, dx, rows, n,
         inner, call.ignore_index),
    )  # fmt: skip
    return dx


def _serves(x: Any, weight: Any) -> bool:
    same = weight is None or weight.dtype == x.dtype
    return same and x.size > 0 and _source.serves(T=x.dtype)


def _wide(x: Any) -> np.dtype:
    """The dtype of sums."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def _sizes(x: Any) -> tuple[int, int, int]:
    """(outer * inner, classes, inner) of (outer, classes, inner...) or (classes,)."""
    n = x.shape[1] if x.ndim > 1 else x.shape[0]
    return x.size // n, n, math.prod(x.shape[2:])


def _flat(x: Any) -> tuple[int, int, int, Any]:
    """Its sizes and x, contiguous, with few and long columns copied into rows."""
    rows, n, inner = _sizes(x)
    if inner > 1 and is_narrow(rows, n):
        x, inner = x.reshape(x.shape[0], n, -1).swapaxes(1, 2).reshape(-1, n), 1
    return rows, n, inner, launch.contiguous(x)


def _call(target: Any, weight: Any, ignore_index: int, smoothing: float, x: Any) -> Call:
    target = launch.contiguous(target.astype(np.int64, copy=False))
    total = None
    if weight is not None:
        weight = launch.contiguous(weight)
        total = weight.astype(_wide(x)).sum(keepdims=True) if smoothing else None
    return Call(target, weight, total, None, None, ignore_index, smoothing)


def _launch(
    way: str, x: Any, rows: int, n: int, inner: int, given: tuple[Any, ...], last: tuple[Any, ...]
) -> None:
    """The kernel that is made for the shape."""
    name = f"cross_entropy_{way}"
    if inner > 1:
        kernel = _source.get(f"{name}_columns", T=x.dtype)
        grid, block = launch.blocks(rows, 32), (32, slices_for(n))
        kernel(grid, block, (*given, rows, n, inner, *last))
    elif n <= _SHORT:
        kernel = _source.get(f"{name}_short", T=x.dtype)
        kernel(launch.blocks(rows, 8), 256, (*given, rows, n, *last))
    else:
        kernel = _source.get(name, T=x.dtype)
        kernel(launch.blocks(rows, 1), threads_for(n, x.itemsize), (*given, rows, n, *last))


def _reduced(
    loss: Any, share: Any, dtype: Any, shape: tuple[int, ...], reduction: str, call: Call
) -> Any:
    """The losses in `dtype`, as they are or as one number; the mean's divisor goes to `call`."""
    if reduction == "none":
        return loss.astype(dtype, copy=False).reshape(shape)
    if loss.size > _PARTS:
        parts = launch.blocks(loss.size, _PARTS)
        sums = launch.empty((2, parts), loss.dtype)
        kernel = _source.get("cross_entropy_partial_sums", T=dtype)
        kernel(parts, 512, (loss, share, sums, loss.size))
        loss, share = sums[0], sums[1]
    y, divisor = launch.empty((), dtype), launch.empty((), loss.dtype)
    mean = reduction == "mean"
    kernel = _source.get("cross_entropy_finish", T=dtype)
    kernel(1, min(512, -(-loss.size // 32) * 32), (loss, share, y, divisor, loss.size, mean))
    if mean:
        call.divisor = divisor
    return y
