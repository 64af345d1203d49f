"""The CPU as a device, under PyTorch's names: what scripts for any device ask of it.

Source: https://docs.pytorch.org/docs/stable/cpu.html
"""

from __future__ import annotations

from typing import Any

from gpunn.cpu import amp

__all__ = [
    "amp", "current_device", "device_count", "is_available", "is_initialized", "set_device",
    "synchronize",
]  # fmt: skip


def is_available() -> bool:
    """True.

    >>> gpunn.cpu.is_available()
    True
    """
    return True


def is_initialized() -> bool:
    """True."""
    return True


def synchronize(device: Any = None) -> None:
    """Nothing: what the CPU was asked to compute is done.

    >>> gpunn.cpu.synchronize()
    """


def device_count() -> int:
    """The number of CPU devices, 1: further ones, "cpu:1" and so on, exist when they are named.

    >>> gpunn.cpu.device_count()
    1
    """
    return 1


def current_device() -> str:
    """The CPU device's name, "cpu".

    >>> gpunn.cpu.current_device()
    'cpu'
    """
    return "cpu"


def set_device(device: Any) -> None:
    """Nothing, as in PyTorch: there is one current CPU.

    >>> gpunn.cpu.set_device("cpu")
    """
