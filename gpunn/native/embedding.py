"""Rows by index through kernels/embedding.cpp; None where it has no answer."""

from __future__ import annotations

import numpy as np

from gpunn.native.loader import address, contiguous, function


def embedding_forward(weight: np.ndarray, index: np.ndarray) -> np.ndarray | None:
    """weight[index]: rows of weight (count, ...) of any dtype, for int64 or int32 index (...).

    IndexError, with the words of PyTorch, for an index outside [0, count).
    """
    call = function("embedding_forward", "piipip", index.dtype)
    if call is None:
        return None
    out = np.empty((*index.shape, *weight.shape[1:]), weight.dtype)
    row = weight.itemsize * int(np.prod(weight.shape[1:], dtype=np.int64))
    weight, index = contiguous(weight), contiguous(index)
    bad = call(address(weight), len(weight), row, address(index), index.size, address(out))
    _check(bad, index, len(weight))
    return out


def embedding_backward(
    grad: np.ndarray, index: np.ndarray, count: int, padding_idx: int | None = None
) -> np.ndarray | None:
    """The gradient (count, row) of embedding_forward's weight from grad (*index.shape, row).

    The gradients of one row are added in the order of their positions, so the result is the same
    for any number of threads; those of row padding_idx are left out.
    """
    call = function("embedding_backward", "ppiiipi", index.dtype, grad.dtype)
    if call is None:
        return None
    row = grad.shape[-1]
    dweight = np.zeros((count, row), grad.dtype)
    index, grad = contiguous(index), contiguous(grad)
    padding = -1 if padding_idx is None else padding_idx
    bad = call(address(grad), address(index), index.size, row, padding, address(dweight), count)
    _check(bad, index, count)
    return dweight


def _check(bad: int, index: np.ndarray, count: int) -> None:
    if bad >= 0:
        value = index.reshape(-1)[bad]
        raise IndexError(f"index out of range in self: index {value}, {count} rows")
