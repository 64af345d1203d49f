"""Elementwise functions through kernels/elementwise.cpp; None where it has no answer."""

from __future__ import annotations

import numpy as np

from gpunn.native.loader import address, alike, contiguous, function

FUNCTIONS = (
    "exp", "log", "tanh", "sigmoid", "silu", "erf", "gelu", "gelu_tanh", "softplus",
)  # fmt: skip
_NUMBER = {name: number for number, name in enumerate(FUNCTIONS)}


def unary(name: str, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray | None:
    """f(x) for the f of this name in FUNCTIONS, into `out` (contiguous, like x) where given.

    >>> y = gpunn.native.unary("erf", np.zeros(3, np.float32))
    """
    call = function("unary", "iipp", x.dtype)
    if call is None:
        return None
    y = np.empty(x.shape, x.dtype) if out is None else out
    x = contiguous(x)
    call(_NUMBER[name], x.size, address(x), address(y))
    return y


def unary_grad(name: str, x: np.ndarray, dy: np.ndarray) -> np.ndarray | None:
    """dy * f'(x) for the f of this name in FUNCTIONS; x and dy of one shape."""
    call = function("unary_grad", "iippp", x.dtype)
    if call is None or not alike(x, dy):
        return None
    dx = np.empty(x.shape, x.dtype)
    x, dy = contiguous(x), contiguous(dy)
    call(_NUMBER[name], x.size, address(x), address(dy), address(dx))
    return dx


def add(a: np.ndarray, b: np.ndarray, out: np.ndarray | None = None) -> np.ndarray | None:
    """a + b of two contiguous arrays of one shape and dtype, into `out`, such a third, if given.

    >>> ones = np.ones(3, np.float32)
    >>> y = gpunn.native.add(ones, ones)
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return None
    call = function("add", "ippp", a.dtype)
    if call is None or not (a.flags.c_contiguous and b.flags.c_contiguous):
        return None
    y = np.empty(a.shape, a.dtype) if out is None else out
    call(a.size, address(a), address(b), address(y))
    return y


def column_sums(x: np.ndarray) -> np.ndarray | None:
    """The sum over the rows of a contiguous x (rows, n)."""
    call = function("column_sums", "iipp", x.dtype)
    if call is None or not x.flags.c_contiguous:
        return None
    y = np.empty(x.shape[1], x.dtype)
    call(*x.shape, address(x), address(y))
    return y


def add_to_rows(y: np.ndarray, b: np.ndarray) -> bool:
    """y += b, in place, for y (..., n) and b (n,); whether it was done: both must be contiguous."""
    call = function("add_to_rows", "iipp", y.dtype) if type(y) is np.ndarray else None
    if call is None or y.dtype != b.dtype or b.shape != y.shape[-1:]:
        return False
    if not (y.flags.c_contiguous and b.flags.c_contiguous):
        return False
    call(y.size // max(b.size, 1), b.size, address(y), address(b))
    return True
