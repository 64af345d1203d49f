"""Python's `multiprocessing`, with `spawn`: starts a function in N processes.

Everything that `multiprocessing` offers is here under its own name. Tensors that are sent to
other processes are copied, those after `share_memory_()` are shared.
Source: https://docs.pytorch.org/docs/stable/multiprocessing.html
"""

from __future__ import annotations

import multiprocessing as _standard
from multiprocessing import *  # noqa: F403

from gpunn.multiprocessing.spawn import (
    ProcessContext,
    ProcessException,
    ProcessExitedException,
    ProcessRaisedException,
    spawn,
    start_processes,
)

__all__ = [
    *_standard.__all__, "ProcessContext", "ProcessException", "ProcessExitedException",
    "ProcessRaisedException", "get_all_sharing_strategies", "get_sharing_strategy",
    "set_sharing_strategy", "spawn", "start_processes",
]  # fmt: skip

_strategy = "file_descriptor"


def get_all_sharing_strategies() -> set[str]:
    """The names that `set_sharing_strategy` takes.

    Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#sharing-strategies

    >>> sorted(gpunn.multiprocessing.get_all_sharing_strategies())
    ['file_descriptor', 'file_system']
    """
    return {"file_descriptor", "file_system"}


def get_sharing_strategy() -> str:
    """The name that was set last.

    Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#sharing-strategies

    >>> gpunn.multiprocessing.get_sharing_strategy()
    'file_descriptor'
    """
    return _strategy


def set_sharing_strategy(new_strategy: str) -> None:
    """Changes nothing but `get_sharing_strategy`: no file is kept for a tensor.

    AssertionError for a name that there is not.
    Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#sharing-strategies

    >>> gpunn.multiprocessing.set_sharing_strategy("file_descriptor")
    """
    global _strategy
    if new_strategy not in get_all_sharing_strategies():
        names = sorted(get_all_sharing_strategies())
        raise AssertionError(f"set_sharing_strategy: there is no {new_strategy!r}, only {names}")
    _strategy = new_strategy
