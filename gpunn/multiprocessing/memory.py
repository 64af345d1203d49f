"""Tensors whose values several processes see: what `share_memory_` makes.

The memory is a file without a name, which processes that are started with the tensor, or get it
through a queue, map as well; it goes with the last of them. Who puts a tensor into a queue must
live until it has been taken out.
Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#hogwild
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from multiprocessing import reduction
from typing import Any

import numpy as np

from gpunn.tensor import Tensor, root


class _Memory(mmap.mmap):
    """Bytes that others can map, and the descriptor of their file."""

    descriptor: int


def _mapped(descriptor: int, size: int) -> np.ndarray:
    """The bytes of a file, whose descriptor is closed when no array needs them any more."""
    memory = _Memory(descriptor, size)
    memory.descriptor = descriptor
    weakref.finalize(memory, os.close, descriptor).atexit = False
    reduction.register(np.ndarray, _reduce)  # from now on
    return np.frombuffer(memory, np.uint8)


def _new(size: int) -> np.ndarray:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("gpunn-shared")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, size)
    return _mapped(descriptor, size)


def memory_of(array: Any) -> Any:
    """The shared memory that a NumPy array lies in; None where it lies elsewhere."""
    base = root(array).base
    found = base.obj if isinstance(base, memoryview) else None
    return found if isinstance(found, _Memory) else None


def share(tensor: Tensor) -> None:
    """Moves a CPU tensor's values to shared memory; RuntimeError for a view, or on Windows."""
    array = tensor.array
    if memory_of(array) is not None or array.nbytes == 0:
        return
    if tensor._base is not None:
        raise RuntimeError(
            "share_memory_: this tensor is a view of another one, which would keep the old "
            "memory: share that one, or a clone()"
        )
    if not hasattr(reduction, "DupFd"):
        raise RuntimeError("share_memory_: processes cannot pass memory on to others on Windows")
    steps = np.empty_like(array).strides  # of the same order, without gaps
    made: np.ndarray = np.ndarray(array.shape, array.dtype, _new(array.nbytes), 0, steps)
    made[...] = array
    tensor.array = made


def _reduce(array: np.ndarray) -> Any:
    """How an array goes to another process: with its memory where that is shared."""
    memory = memory_of(array)
    if memory is None or array.nbytes != len(memory):
        return array.__reduce_ex__(4)
    return _attach, (reduction.DupFd(memory.descriptor), len(memory))  # type: ignore[attr-defined]


def _attach(handle: Any, size: int) -> np.ndarray:
    return _mapped(handle.detach(), size)
