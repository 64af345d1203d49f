"""The switches that scripts set on cuDNN, which is not used here: kernels/conv*.cu are.

`benchmark` and `allow_tf32` are those of `backends.cuda`; `allow_tf32` is False by default, other
than in PyTorch. `enabled`, `deterministic` and `benchmark_limit` are kept and change nothing:
convolutions are deterministic.
Source: https://docs.pytorch.org/docs/stable/backends.html#torch-backends-cudnn
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

from gpunn.backends import switches
from gpunn.backends.switches import Switchboard, shared

_NAMES = {
    "enabled": "cudnn_enabled", "benchmark": "benchmark", "benchmark_limit": "benchmark_limit",
    "deterministic": "deterministic", "allow_tf32": "allow_tf32",
}  # fmt: skip


class _Module(Switchboard):
    enabled = shared("cudnn_enabled")
    benchmark = shared("benchmark")
    benchmark_limit = shared("benchmark_limit", None)
    deterministic = shared("deterministic")
    allow_tf32 = shared("allow_tf32")


def is_available() -> bool:
    """Whether what these switches are about, convolution on a GPU, is there.

    Source: https://docs.pytorch.org/docs/stable/backends.html#torch.backends.cudnn.is_available

    >>> gpunn.backends.cudnn.is_available() == gpunn.cuda.is_available()
    True
    """
    from gpunn import cuda

    return cuda.is_available()


def version() -> int | None:
    """cuDNN's version: None, as PyTorch says where there is no cuDNN.

    >>> gpunn.backends.cudnn.version()
    """
    return None


def set_flags(
    _enabled: bool | None = None, _benchmark: bool | None = None,
    _benchmark_limit: int | None = None, _deterministic: bool | None = None,
    _allow_tf32: bool | None = None,
) -> tuple[Any, ...]:  # fmt: skip
    """Sets what is not None and returns what was before."""
    given = (_enabled, _benchmark, _benchmark_limit, _deterministic, _allow_tf32)
    before = tuple(getattr(switches, name) for name in _NAMES.values())
    for name, value in zip(_NAMES, given, strict=True):
        if value is not None:
            setattr(sys.modules[__name__], name, value)
    return before


@contextlib.contextmanager
def flags(
    enabled: bool = False, benchmark: bool = False, benchmark_limit: int = 10,
    deterministic: bool = False, allow_tf32: bool = False,
) -> Iterator[None]:  # fmt: skip
    """A context with these switches. What is not named is off, as in PyTorch.

    Source: https://docs.pytorch.org/docs/stable/backends.html#torch-backends-cudnn

    >>> with gpunn.backends.cudnn.flags(enabled=True, benchmark=True):
    ...     gpunn.backends.cudnn.benchmark
    True
    """
    before = set_flags(enabled, benchmark, benchmark_limit, deterministic, allow_tf32)
    try:
        yield
    finally:
        for name, value in zip(_NAMES.values(), before, strict=True):
            setattr(switches, name, value)


sys.modules[__name__].__class__ = _Module
