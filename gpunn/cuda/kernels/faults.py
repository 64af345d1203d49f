"""Bad indices met on the device, raised as the error that the CPU raises.

A kernel that meets an index out of range skips it and writes it down in a slot of pinned host
memory, so nothing is corrupted, the device goes on, and looking costs the host one read of its own
memory. It is looked at when a result is next read on the host, at `synchronize()` and at each
optimizer step. `set_sync_debug(True)` waits and looks after every such launch, so that the error is
raised by the line that caused it.
"""

from __future__ import annotations

import os
import threading
from typing import Any

import numpy as np

from gpunn.cuda import detect

_SLOTS = 1024
# `Fault` of common.cuh.
RECORD = np.dtype([("set", "i4"), ("taken", "i4"), ("value", "i8"), ("position", "i8"),
                    ("limit", "i8")])  # fmt: skip
_LATE = (
    " (met on the GPU by an operation before this one; gpunn.cuda.set_sync_debug(True) raises at "
    "the line itself)"
)
_ROW = "index out of range in self: {name} got index {value} at flat position {position}, the " \
    "table has {limit} rows"
_CLASS = "Target {value} is out of bounds: there are {limit} classes, at flat position " \
    "{position} of the target"
_INDEX = "index {value} is out of bounds for dimension with size {limit}: {name}, at flat " \
    "position {position} of the index"
_TARGET = "target out of range: {value}, there are {limit} classes, at flat position {position}"
_PLACE = "Found an invalid max index: {value} (output volumes are of {limit} entries) ({name}), " \
    "at flat position {position} of the indices"
_WORDS: dict[str, tuple[type[Exception], str]] = {
    "embedding": (IndexError, _ROW),
    "embedding_bag": (IndexError, _ROW),
    "cross_entropy": (IndexError, _CLASS),
    "nll_loss": (IndexError, _CLASS),
    "ctc_loss": (IndexError, _CLASS),
    "linear_cross_entropy": (IndexError, _CLASS),
    "gather": (RuntimeError, _INDEX),  # the types that PyTorch's CPU raises
    "scatter": (RuntimeError, _INDEX),
    "index_add_": (RuntimeError, _INDEX),
    "max_unpool1d": (RuntimeError, _PLACE),
    "max_unpool2d": (RuntimeError, _PLACE),
    "max_unpool3d": (RuntimeError, _PLACE),
    "multi_margin_loss": (RuntimeError, _TARGET),
    "multilabel_margin_loss": (RuntimeError, "argument #2 'target' is out of range: " + _TARGET),
}

eager = False  # set_sync_debug
_slots: dict[tuple[str, int], Slot] = {}  # by operation and device
_memory: Any = None  # pinned, in the life of one CuPy
_records: Any = None
_owner: Any = None
_lock = threading.Lock()


class Slot:
    """The place for the first bad index of one operation on one device: atomic operations of two
    devices on one place of host memory would not see each other."""

    __slots__ = ("name", "device", "number")

    def __init__(self, name: str, device: int, number: int):
        self.name, self.device, self.number = name, device, number

    def pointer(self) -> Any:
        """The address that the kernel gets; host and device share it."""
        return np.uint64(_memory.ptr + self.number * RECORD.itemsize)


def slot(name: str) -> Slot:
    """The slot of an operation on the current device, made at its first use."""
    cupy = detect.load()
    if _owner is not cupy:
        with _lock:
            _begin(cupy)
    device = cupy.cuda.runtime.getDevice()
    found = _slots.get((name, device))
    if found is None:
        with _lock:
            found = _slots.setdefault((name, device), Slot(name, device, len(_slots)))
        assert len(_slots) <= _SLOTS
    return found


def _begin(cupy: Any) -> None:
    global _memory, _records, _owner
    if _owner is cupy:  # another thread was here first
        return
    size = _SLOTS * RECORD.itemsize
    _memory = cupy.cuda.alloc_pinned_memory(size)
    _records = np.frombuffer(_memory, np.uint8, size).view(RECORD)
    _records.view(np.uint8)[:] = 0
    _slots.clear()
    _owner = cupy


def _after_fork() -> None:
    """In a forked child: what is pending is the parent's, and its pinned memory may be gone."""
    global _records, _owner
    _records = _owner = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def raise_pending() -> None:
    """Raises the error of a bad index that has been written down, and forgets it."""
    if _records is None or not _records["set"][: len(_slots)].any():
        return
    slots = list(_slots.values())
    hit = [slot for slot in slots if _records[slot.number]["set"]]
    devices = {slot.device for slot in hit}
    for device in devices:
        _finish(device)
    first, record = hit[0], _records[hit[0].number].copy()
    for slot in slots:
        if slot.device in devices:
            _records[slot.number] = 0  # what came later came of the same mistake
    kind, words = _WORDS.get(first.name, (IndexError, _INDEX))
    text = words.format(
        name=first.name, value=int(record["value"]), position=int(record["position"]),
        limit=int(record["limit"]),
    )  # fmt: skip
    raise kind(text + ("" if eager else _LATE))


def _finish(device: int) -> None:
    """Waits for a device: a kernel under way would write its next bad index after the reset."""
    runtime = _owner.cuda.runtime
    before = runtime.getDevice()
    runtime.setDevice(device)
    try:
        runtime.deviceSynchronize()
    finally:
        runtime.setDevice(before)


def set_sync_debug(mode: bool = True) -> None:
    """Whether to wait for the device after each launch that can meet a bad index, and look.

    Without it a bad index is raised when the result is next read on the host, at
    `gpunn.cuda.synchronize()` or at an optimizer step; with it, by the line that has it. Slow:
    for finding a mistake.

    >>> gpunn.cuda.set_sync_debug(False)
    """
    global eager
    if not isinstance(mode, bool):
        raise TypeError(f"set_sync_debug(): mode must be bool, not {type(mode).__name__}")
    eager = mode
