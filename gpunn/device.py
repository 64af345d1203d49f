"""Devices: the one place that decides whether an array is NumPy's or CuPy's.

`Device` objects are interned: there is one object per device, so `is` compares them. Several
CPU devices exist (`cpu`, `cpu:1`, ...), each with its own arrays, so that code for many
devices runs on any machine.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np


class Device:
    """A device: `gpunn.device("cpu")`, `("cpu:1")`, `("cuda")`, `("cuda", 1)`.

    Attributes: `type` ("cpu" or "cuda"), `index` (None for the plain name), `xp` (the array
    module, numpy or cupy), `uses_kernels` (whether operations launch the CUDA kernels).
    Raises RuntimeError for a name that is no device. Asking for a CUDA device never touches
    the driver; the first array on it does.

    >>> gpunn.device("cpu:1")
    device(type='cpu', index=1)
    """

    __slots__ = ("type", "index", "uses_kernels", "_xp")
    type: str
    index: int | None
    uses_kernels: bool
    _xp: Any
    _known: dict[tuple[str, int | None], Device] = {}

    def __new__(cls, type: Any, index: int | None = None) -> Device:
        if isinstance(type, Device):
            return type
        if isinstance(type, int):
            type, index = "cuda", type
        kind, _, number = str(type).partition(":")
        if number and index is not None:
            raise RuntimeError(
                f"type (string) must not include an index because index was passed explicitly: "
                f"{type}"
            )
        if kind not in _ARRAY_MODULE or (":" in str(type) and not number.isdigit()):
            raise RuntimeError(
                f"Invalid device string: '{type}'. Expected one of cpu, cuda device type at start "
                f"of device string, with an index after a colon, such as 'cpu:1' or 'cuda:0'"
            )
        return cls._get(kind, int(number) if number else index)

    @classmethod
    def _get(cls, kind: str, index: int | None) -> Device:
        key = (kind, index)
        found = cls._known.get(key)
        if found is None:
            found = object.__new__(cls)
            found.type, found.index = kind, index
            found.uses_kernels = kind != "cpu"
            found._xp = np if kind != "cuda" else None
            found = cls._known.setdefault(key, found)
        return found

    @property
    def xp(self) -> Any:
        """numpy or cupy. The first use of a CUDA device checks that there is one."""
        if self._xp is None:
            self._xp = _ARRAY_MODULE[self.type](self)
        return self._xp

    def __repr__(self) -> str:
        tail = "" if self.index is None else f", index={self.index}"
        return f"device(type='{self.type}'{tail})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __reduce__(self) -> tuple[Any, ...]:
        return Device, (self.type, self.index)

    def __enter__(self) -> Device:
        _stack().append(self)
        return self

    def __exit__(self, *exc: object) -> None:
        _stack().pop()


def _cupy(device: Device) -> Any:
    from gpunn import cuda

    return cuda.cupy_for(device)


_ARRAY_MODULE = {"cpu": lambda device: np, "cuda": _cupy}
CPU = Device("cpu")
_default = CPU
_local = threading.local()


def _stack() -> list[Device]:
    try:
        return _local.stack
    except AttributeError:
        _local.stack = []
        return _local.stack


def resolve(device: Any = None) -> Device:
    """The device that arrays live on for a `device=` argument: defaults and indices filled in."""
    if device is None:
        stack = getattr(_local, "stack", None)
        device = stack[-1] if stack else _default
    elif type(device) is not Device:
        device = Device(device)
    if device.index is None and device.type == "cuda":
        from gpunn import cuda

        return Device._get("cuda", cuda.current_device())
    if device.index == 0 and device.type == "cpu":
        return CPU
    return device


def get_default_device() -> Device:
    """The device of tensors made without `device=`.

    >>> gpunn.get_default_device()
    device(type='cpu')
    """
    return resolve(None)


def set_default_device(device: Any) -> None:
    """Makes `device` (None for the CPU) the device of tensors made without `device=`.

    >>> gpunn.set_default_device("cpu")
    """
    global _default
    _default = CPU if device is None else resolve(device)


def to_host(array: Any) -> np.ndarray:
    """The array on the host, as a NumPy array: itself where it is one already."""
    if type(array) is np.ndarray:
        return array
    from gpunn.cuda.devices import to_host

    return to_host(array)


def transfer(array: Any, source: Device, target: Device) -> Any:
    """A copy of a raw array of `source` on `target`."""
    if target.xp is source.xp is np:
        return np.array(array, order="K", copy=True)
    from gpunn import cuda

    return cuda.transfer(array, source, target)


def transfer_all(arrays: Sequence[Any], source: Device, target: Device) -> list[Any]:
    """`transfer` of several arrays; two GPUs wait for each other once."""
    if source.type == target.type == "cuda" and source.index != target.index:
        from gpunn.cuda.devices import transfer_all

        return transfer_all(arrays, source, target)
    return [transfer(array, source, target) for array in arrays]
