"""Which GPU is current: the one that a thread asked for, and the one that its work is on.

CuPy computes and allocates on the device that is current in the CUDA runtime, wherever its arrays
lie. While a process uses cuda:0 alone that is always the right one, and nothing here runs. From
the first use of another GPU on, reading `Tensor.array`, with which every operation begins, makes
the tensor's GPU current in the runtime, and so do CuPy's functions of `device.xp`: work goes where
its tensors are, on that GPU's current stream. `gpunn.cuda.current_device()` goes on to answer what
the thread asked for.
"""

from __future__ import annotations

import os
import threading
from types import ModuleType
from typing import Any

from gpunn.cuda.detect import load
from gpunn.device import Device
from gpunn.tensor import Tensor

#: Empty while a process uses cuda:0 alone: a look at it is all that other GPUs cost then.
SEVERAL: list[bool] = []
_slot: Any = Tensor.__dict__["array"]
_lock = threading.Lock()
_follows = False


class _Asked(threading.local):
    index: int | None = None  # None: what is current in the runtime


_asked = _Asked()


def asked_index() -> int:
    """The index of the device that this thread asked for, cuda:0 at first."""
    index = _asked.index
    return load().cuda.runtime.getDevice() if index is None else index


def enter(device: Device) -> None:
    """Makes a tensor's device current in the runtime; a CPU device changes nothing.

    To be called where SEVERAL is true, before work on arrays that no tensor was just asked for.
    """
    if device.type == "cuda":
        runtime = load().cuda.runtime
        now = runtime.getDevice()
        if now != device.index:
            if _asked.index is None:
                _asked.index = now
            runtime.setDevice(device.index)


def ask(index: int) -> tuple[int | None, int]:
    """Makes a device this thread's current one; returns what `go_back` wants."""
    runtime = load().cuda.runtime
    before = _asked.index, runtime.getDevice()
    if index:
        follow()
    if SEVERAL:
        _asked.index = index
    if before[1] != index:
        runtime.setDevice(index)
    return before


def go_back(before: tuple[int | None, int]) -> None:
    """Undoes `ask`."""
    _asked.index = before[0]
    load().cuda.runtime.setDevice(before[1])


def _array(tensor: Tensor) -> Any:
    if tensor.device.type == "cuda":
        enter(tensor.device)
    return _slot.__get__(tensor)


def follow() -> None:
    """From now on the runtime's current device follows the tensors that are worked on: called
    where a GPU beside cuda:0 becomes the current one, or has its first array."""
    global _follows
    if _follows:
        return
    with _lock:
        Tensor.array = property(_array, _slot.__set__, _slot.__delete__)  # type: ignore[assignment]
        SEVERAL[:] = [True]
        _renew_modules()
        _follows = True


def unfollow() -> None:
    """Undoes `follow`: in tests, and in a forked child, which cannot use CUDA."""
    global _follows
    if _follows:
        Tensor.array = _slot
        SEVERAL.clear()
        _asked.index = None
        _renew_modules()
        _follows = False


def _renew_modules() -> None:
    for device in Device._known.values():
        if device.type == "cuda":
            device._xp = None  # `cupy_for` is asked again


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=unfollow)


class CupyOn:
    """cupy, or a module of it, whose functions work on one of several devices."""

    def __init__(self, cupy: Any, device: Device):
        self._cupy, self._device = cupy, device

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._cupy, name)
        if callable(found) and not isinstance(found, type):
            found = _FunctionOn(found, self._device)
        elif isinstance(found, ModuleType):
            found = CupyOn(found, self._device)
        self.__dict__[name] = found
        return found


class _FunctionOn:
    """A function of cupy, or a ufunc, that makes its device the current one."""

    def __init__(self, function: Any, device: Device):
        self._function, self._device = function, device

    def __call__(self, *args: Any, **options: Any) -> Any:
        enter(self._device)
        return self._function(*args, **options)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._function, name)
        return _FunctionOn(found, self._device) if callable(found) else found
