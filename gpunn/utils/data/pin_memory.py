"""Batches in page-locked memory, or already on the GPU when the training step asks for them."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

import gpunn
from gpunn.cuda.detect import load
from gpunn.cuda.devices import index_of
from gpunn.device import Device
from gpunn.tensor import Tensor, wrap
from gpunn.utils.data.collate import rebuild
from gpunn.utils.data.transport import Failure
from gpunn.utils.data.worker import End

__all__ = ["pin_memory"]


def pin_memory(data: Any, device: Any = None) -> Any:
    """`data` with its tensors in page-locked memory, and what has a `pin_memory` method by it.

    RuntimeError, with the reason, on a machine without a GPU. `device` has no effect.

    >>> if gpunn.cuda.is_available():
    ...     batch = gpunn.utils.data.pin_memory.pin_memory([gpunn.zeros(2)])
    """
    if isinstance(data, Tensor):
        return pinned(data) if data.device.type == "cpu" else data
    if hasattr(data, "pin_memory"):
        return data.pin_memory()
    return rebuild(data, pin_memory)


def pinned(tensor: Tensor) -> Tensor:
    array = tensor.array
    memory = load().cuda.alloc_pinned_memory(max(array.nbytes, 1))
    pinned = np.frombuffer(memory, array.dtype, math.prod(array.shape)).reshape(array.shape)
    pinned[...] = array
    return wrap(pinned, tensor.device)


class Stager:
    """Takes a batch on its way to the training loop in two steps: when it arrives, `stage`
    starts its copies; when it is asked for, `deliver` makes the loop's work wait for them."""

    def __init__(self, pin: bool, device: str) -> None:
        self.pin = pin and gpunn.cuda.is_available()
        self.device: Device | None = None
        if pin and not self.pin:
            warnings.warn(
                "'pin_memory' argument is set as true but no accelerator is found, then device "
                "pinned memory won't be used.",
                stacklevel=5,
            )
        if self.pin and device:
            self.device = Device("cuda", index_of(device))
            self.stream = gpunn.cuda.Stream(self.device)

    def stage(self, batch: Any) -> Any:
        """The batch in page-locked memory, or on its way to the device and the event of its end."""
        if not self.pin or isinstance(batch, (Failure, End)):
            return batch
        if self.device is None:
            return pin_memory(batch)
        # The pool may give these copies memory that the loop's last steps still read.
        self.stream.wait_stream(gpunn.cuda.current_stream(self.device))
        with gpunn.cuda.stream(self.stream):
            return _to(batch, self.device), self.stream.record_event()

    def deliver(self, staged: Any) -> Any:
        """The batch of `stage`, for the current stream."""
        if self.device is None:
            return staged
        batch, event = staged
        gpunn.cuda.current_stream(self.device).wait_event(event)
        return batch


def _to(data: Any, device: Device) -> Any:
    """`data` with each tensor in it on the device; CuPy copies by way of page-locked memory."""
    if isinstance(data, Tensor):
        return data.to(device, non_blocking=True)  # type: ignore[attr-defined]
    return rebuild(data, lambda value: _to(value, device))
