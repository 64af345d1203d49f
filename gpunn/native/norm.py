"""Normalisation through kernels/norm.cpp; None where it has no answer.

Row norms serve layer norm (groups = run = 1), RMS norm (rms) and group and instance norm: a row is
then one group of one image, `groups` of them follow each other, and `run` is the spatial size.
"""

from __future__ import annotations

import numpy as np

from gpunn.native.loader import address, alike, contiguous, function, optional

Array = np.ndarray


def row_norm_forward(
    x: Array, weight: Array | None, bias: Array | None, eps: float, groups: int = 1, run: int = 1,
    rms: bool = False,
) -> tuple[Array, Array | None, Array] | None:  # fmt: skip
    """(y, mean, rstd) of the rows of x (rows, n): y = (x - mean) * rstd * weight + bias.

    weight and bias have groups * n / run elements. With rms the mean is None, and taken as 0.
    """
    call = function("row_norm_forward", "iiiiidpppppp", x.dtype)
    if call is None or not alike(x, weight, bias):
        return None
    rows, n = x.shape
    y, rstd = np.empty(x.shape, x.dtype), np.empty(rows, x.dtype)
    mean = None if rms else np.empty(rows, x.dtype)
    x, weight, bias = contiguous(x), _tight(weight), _tight(bias)
    call(
        rows, n, groups, run, rms, eps, address(x), optional(weight), optional(bias), address(y),
        optional(mean), address(rstd),
    )  # fmt: skip
    return y, mean, rstd


def row_norm_backward(
    x: Array, dy: Array, weight: Array | None, mean: Array | None, rstd: Array, groups: int = 1,
    run: int = 1, rms: bool = False, needs: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None] | None:  # fmt: skip
    """The gradients of row_norm_forward's x, weight and bias, those that are needed."""
    call = function("row_norm_backward", "iiiiipppppppp", x.dtype)
    if call is None or not alike(x, dy, weight, mean, rstd):
        return None
    rows, n = x.shape
    dx = np.empty(x.shape, x.dtype) if needs[0] else None
    dweight, dbias = (np.zeros(groups * n // run, x.dtype) if need else None for need in needs[1:])
    x, dy, weight = contiguous(x), contiguous(dy), _tight(weight)
    mean, rstd = _tight(mean), contiguous(rstd)
    call(
        rows, n, groups, run, rms, address(x), address(dy), optional(weight), optional(mean),
        address(rstd), optional(dx), optional(dweight), optional(dbias),
    )  # fmt: skip
    return dx, dweight, dbias


def batch_norm_stats(x: Array) -> tuple[Array, Array] | None:
    """The mean and the biased variance of each channel of x (N, C, *)."""
    call = function("batch_norm_stats", "iiippp", x.dtype)
    if call is None:
        return None
    mean, variance = np.empty(x.shape[1], x.dtype), np.empty(x.shape[1], x.dtype)
    x = contiguous(x)
    call(*_planes(x), address(x), address(mean), address(variance))
    return mean, variance


def batch_norm_apply(x: Array, scale: Array, shift: Array) -> Array | None:
    """x * scale[c] + shift[c] for each channel c of x (N, C, *)."""
    call = function("batch_norm_apply", "iiipppp", x.dtype)
    if call is None or not alike(x, scale, shift):
        return None
    y = np.empty(x.shape, x.dtype)
    x, scale, shift = contiguous(x), contiguous(scale), contiguous(shift)
    call(*_planes(x), address(x), address(scale), address(shift), address(y))
    return y


def batch_norm_backward(
    x: Array, dy: Array, weight: Array | None, mean: Array, rstd: Array, training: bool = True,
    needs: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Array | None, Array | None, Array | None] | None:  # fmt: skip
    """The gradients of x (N, C, *), weight and bias of y = (x - mean) rstd weight + bias.

    In training mean and rstd come from x, and x's gradient goes through them.
    """
    call = function("batch_norm_backward", "iiiipppppppp", x.dtype)
    if call is None or not alike(x, dy, weight, mean, rstd):
        return None
    dx = np.empty(x.shape, x.dtype) if needs[0] else None
    dweight, dbias = (np.zeros(x.shape[1], x.dtype) if need else None for need in needs[1:])
    x, dy, weight = contiguous(x), contiguous(dy), _tight(weight)
    mean, rstd = contiguous(mean), contiguous(rstd)
    call(
        *_planes(x), training, address(x), address(dy), optional(weight), address(mean),
        address(rstd), optional(dx), optional(dweight), optional(dbias),
    )  # fmt: skip
    return dx, dweight, dbias


def _planes(x: Array) -> tuple[int, int, int]:
    """Images, channels, and the size of a plane."""
    return x.shape[0], x.shape[1], int(np.prod(x.shape[2:], dtype=np.int64))


def _tight(a: Array | None) -> Array | None:
    return None if a is None else contiguous(a)
