"""Optimizer steps in one pass over many arrays through kernels/optim.cpp.

Each works in place and says whether it did: False where the C++ library has no answer (no library,
another dtype, an array that is not contiguous), with nothing changed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from gpunn.native.loader import address, function

Arrays = Sequence[np.ndarray]


def sgd_step(
    params: Arrays, grads: Arrays, buffers: Arrays | None, lr: float, momentum: float = 0.0,
    dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False,
    maximize: bool = False, first: bool = False,
) -> bool:  # fmt: skip
    """A step of torch.optim.SGD on all params; buffers (None without momentum) are set if first."""
    if momentum == 0:
        buffers = None
    sign = -1.0 if maximize else 1.0
    numbers = (sign, lr, momentum, dampening, weight_decay, nesterov, first)
    return _step("sgd_step", numbers, params, grads, buffers)


def adam_step(
    params: Arrays, grads: Arrays, exp_avgs: Arrays, exp_avg_sqs: Arrays, step: float, lr: float,
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
    decoupled: bool = False, maximize: bool = False, max_exp_avg_sqs: Arrays | None = None,
) -> bool:  # fmt: skip
    """Step number `step` (from 1) of torch.optim.Adam on all params; AdamW if decoupled."""
    numbers = (
        -1.0 if maximize else 1.0, lr, beta1, beta2, eps, weight_decay, decoupled,
        lr / (1 - beta1**step), (1 - beta2**step) ** 0.5,
    )  # fmt: skip
    return _step("adam_step", numbers, params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs)


def square_sum(arrays: Arrays) -> float | None:
    """The sum of the squares of all elements, summed in double; None instead of False."""
    call, sizes = _call("square_sum", "ippp", arrays)
    if call is None:
        return None
    total = ctypes.c_double(0.0)
    call(len(arrays), sizes, _addresses(arrays), ctypes.addressof(total))
    return total.value


def _step(name: str, numbers: tuple[float, ...], *lists: Arrays | None) -> bool:
    call, sizes = _call(name, "ip" + "p" * (len(lists) + 1), *lists)
    if call is None:
        return False
    pointers = [None if arrays is None else _addresses(arrays) for arrays in lists]
    call(len(lists[0] or ()), sizes, *pointers, (ctypes.c_double * len(numbers))(*numbers))
    return True


def _call(name: str, types: str, *lists: Arrays | None):
    """The function for lists of arrays of one dtype, and their sizes; None if they do not fit."""
    first = lists[0]
    if not first:
        return None, None
    dtype = first[0].dtype
    for arrays in lists:
        if arrays is None:
            continue
        for like, array in zip(first, arrays, strict=True):
            if array.dtype != dtype or array.size != like.size or not array.flags.c_contiguous:
                return None, None
    sizes = (ctypes.c_int64 * len(first))(*(array.size for array in first))
    return function(name, types, dtype), sizes


def _addresses(arrays: Arrays) -> ctypes.Array:
    return (ctypes.c_void_p * len(arrays))(*map(address, arrays))
