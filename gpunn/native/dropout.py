"""Dropout through kernels/dropout.cpp; None where it has no answer."""

from __future__ import annotations

import math

import numpy as np

from gpunn.native.loader import address, contiguous, function


def coins(state: np.ndarray, shape: tuple[int, ...], bound: int) -> np.ndarray | None:
    """Bools of `shape`, each True with the probability bound / 2**53, from MT19937.

    `state`: 625 uint32, the words and the position in them; it moves on, two words a coin.
    """
    call = function("dropout_coins", "piip")
    if call is None:
        return None
    found = np.empty(shape, np.bool_)
    call(address(state), bound, math.prod(shape), address(found))
    return found


def dropout(x: np.ndarray, kept: np.ndarray, factor: float) -> np.ndarray | None:
    """x * factor where `kept`, bools of its shape, x * 0 elsewhere."""
    call = function("dropout_apply", "idppp", x.dtype)
    if call is None:
        return None
    y, x, kept = np.empty(x.shape, x.dtype), contiguous(x), contiguous(kept)
    call(x.size, factor, address(kept), address(x), address(y))
    return y
