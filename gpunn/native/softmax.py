"""Softmax, log-softmax and cross-entropy through kernels/softmax.cpp, over the last dimension.

Each returns None where the C++ library has no answer: NumPy's turn.
"""

from __future__ import annotations

import numpy as np

from gpunn.native.loader import address, alike, contiguous, function


def softmax_forward(x: np.ndarray) -> np.ndarray | None:
    """exp(x) / sum of exp(x) over the last dimension of x (..., n)."""
    return _rows("softmax_forward", x)


def softmax_backward(y: np.ndarray, dy: np.ndarray) -> np.ndarray | None:
    """The gradient of softmax_forward's x, from its result y."""
    return _rows("softmax_backward", y, dy)


def log_softmax_forward(x: np.ndarray) -> np.ndarray | None:
    """x - log(sum of exp(x)) over the last dimension of x (..., n)."""
    return _rows("log_softmax_forward", x)


def log_softmax_backward(y: np.ndarray, dy: np.ndarray) -> np.ndarray | None:
    """The gradient of log_softmax_forward's x, from its result y."""
    return _rows("log_softmax_backward", y, dy)


def cross_entropy_forward(
    x: np.ndarray, target: np.ndarray, ignore_index: int = -100, label_smoothing: float = 0.0
) -> tuple[np.ndarray, np.ndarray] | None:
    """Each row's loss and log(sum of exp) for logits x (rows, n) and int64 target (rows,).

    The loss of a row whose target is ignore_index is 0. IndexError, with the words of PyTorch, for
    any other target outside [0, n).
    """
    call = function("cross_entropy_forward", "iippidpp", x.dtype)
    if call is None or target.dtype != np.int64:
        return None
    rows, n = x.shape
    loss, lse = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    x, target = contiguous(x), contiguous(target)
    bad = call(
        rows, n, address(x), address(target), ignore_index, label_smoothing,
        address(loss), address(lse),
    )  # fmt: skip
    if bad >= 0:
        raise IndexError(f"Target {target[bad]} is out of bounds: {n} classes, row {bad}")
    return loss, lse


def cross_entropy_backward(
    x: np.ndarray, target: np.ndarray, lse: np.ndarray, scale: np.ndarray,
    ignore_index: int = -100, label_smoothing: float = 0.0,
) -> np.ndarray | None:  # fmt: skip
    """The gradient of the sum of scale (rows,) times cross_entropy_forward's losses, in x."""
    call = function("cross_entropy_backward", "iippidppp", x.dtype)
    if call is None or target.dtype != np.int64 or not alike(x, lse, scale):
        return None
    dx = np.empty(x.shape, x.dtype)
    x, target, lse, scale = contiguous(x), contiguous(target), contiguous(lse), contiguous(scale)
    call(
        *x.shape, address(x), address(target), ignore_index, label_smoothing, address(lse),
        address(scale), address(dx),
    )  # fmt: skip
    return dx


def _rows(name: str, *arrays: np.ndarray) -> np.ndarray | None:
    """One of the functions from arrays (..., n) to an array of their shape."""
    first = arrays[0]
    call = function(name, "ii" + "p" * (len(arrays) + 1), first.dtype)
    if call is None or not alike(*arrays) or first.ndim == 0:
        return None
    result = np.empty(first.shape, first.dtype)
    if first.size:
        n = first.shape[-1]
        kept = [contiguous(a) for a in arrays]
        call(first.size // n, n, *(address(a) for a in kept), address(result))
    return result
