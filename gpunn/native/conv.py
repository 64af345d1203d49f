"""Convolution through kernels/conv.cpp: forward, input gradient, weight gradient, in 1 to 3 D.

Each returns None where the C++ library has no answer (no library, another dtype): NumPy's turn.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import numpy as np

from gpunn.native.loader import address, alike, contiguous, function, optional

Ints = tuple[int, ...]


def conv_forward(
    x: np.ndarray, w: np.ndarray, b: np.ndarray | None, stride: Ints, padding: Ints,
    dilation: Ints, groups: int, out: Ints | None = None,
) -> np.ndarray | None:  # fmt: skip
    """The convolution of x (N, Cin, *in) with w (Cout, Cin/groups, *kernel), plus b (Cout) or None.

    Arrays are of one dtype, float32 or float64; padding is that on the left, and `out` the spatial
    size of the result where it is not the one that equal padding on the right gives.
    """
    call = function("conv_forward", "ppppp", x.dtype)
    if call is None or not alike(x, w, b):
        return None
    if out is None:
        out = conv_size(x.shape[2:], w.shape[2:], stride, padding, dilation)
    y = np.empty((x.shape[0], w.shape[0], *out), x.dtype)
    if y.size:
        shape = _shape(x.shape, w.shape, out, stride, padding, dilation, groups)
        x, w = contiguous(x), contiguous(w)
        b = None if b is None else contiguous(b)
        call(shape, address(x), address(w), optional(b), address(y))
    return y


def conv_input_grad(
    dy: np.ndarray, w: np.ndarray, size: Ints, stride: Ints, padding: Ints, dilation: Ints,
    groups: int, b: np.ndarray | None = None,
) -> np.ndarray | None:  # fmt: skip
    """The gradient of conv_forward's x, of spatial size `size`; with b (Cin): conv_transpose.

    dy is (N, Cout, *out), w (Cout, Cin/groups, *kernel); the result (N, Cin, *size).
    """
    call = function("conv_input_grad", "ppppp", dy.dtype)
    if call is None or not alike(dy, w, b):
        return None
    dx = np.empty((dy.shape[0], w.shape[1] * groups, *size), dy.dtype)
    if dx.size:
        shape = _shape(dx.shape, w.shape, dy.shape[2:], stride, padding, dilation, groups)
        dy, w = contiguous(dy), contiguous(w)
        b = None if b is None else contiguous(b)
        call(shape, address(dy), address(w), optional(b), address(dx))
    return dx


def conv_weight_grad(
    x: np.ndarray, dy: np.ndarray, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints,
    groups: int, weight: bool = True, bias: bool = False,
) -> tuple[np.ndarray | None, np.ndarray | None] | None:  # fmt: skip
    """The gradients of conv_forward's w, with spatial size `kernel`, and of its b, as wanted.

    x is (N, Cin, *in), dy (N, Cout, *out); the results (Cout, Cin/groups, *kernel) and (Cout,).
    """
    call = function("conv_weight_grad", "ppppp", x.dtype)
    if call is None or not alike(x, dy):
        return None
    dw = np.zeros((dy.shape[1], x.shape[1] // groups, *kernel), x.dtype) if weight else None
    db = np.zeros(dy.shape[1], x.dtype) if bias else None
    if dy.size and (dw is None or dw.size):
        shape = _shape(
            x.shape, (dy.shape[1], x.shape[1] // groups, *kernel), dy.shape[2:], stride, padding,
            dilation, groups,
        )  # fmt: skip
        x, dy = contiguous(x), contiguous(dy)
        call(shape, address(x), address(dy), optional(dw), optional(db))
    return dw, db


def conv_size(size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Ints:
    """The spatial size of a convolution's result, with `padding` on both sides.

    >>> gpunn.native.conv_size((28, 28), (3, 3), (2, 2), (1, 1), (1, 1))
    (14, 14)
    """
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )


@lru_cache(maxsize=4096)
def _shape(
    x: Ints, w: Ints, out: Ints, stride: Ints, padding: Ints, dilation: Ints, groups: int
) -> ctypes.Array:
    """The 22 numbers that kernels/conv.cpp reads; kept, since a model asks for the same again."""
    missing = 3 - len(out)
    if missing < 0 or len(x) != len(w) or len(x) != len(out) + 2:
        raise ValueError(f"conv: x {x}, w {w} and out {out} do not go together")
    if w[0] % groups or x[1] != w[1] * groups:  # the C++ code would leave channels out
        raise ValueError(f"conv: x {x} and w {w} do not go together in {groups} groups")
    rows = [(x[2:], 1), (out, 1), (w[2:], 1), (stride, 1), (padding, 0), (dilation, 1)]
    numbers = [x[0], groups, x[1], w[0]]
    for values, fill in rows:
        numbers += [fill] * missing + [int(v) for v in values]
    return (ctypes.c_int64 * 22)(*numbers)
