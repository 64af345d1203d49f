"""How many CPU threads an operation may use: NumPy's BLAS and gpunn's own C++ code."""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable
from typing import Any

_chosen: int | None = None


def set_num_threads(n: int, /) -> None:
    """Makes matrix products and gpunn's C++ code use at most `n` threads.

    RuntimeError for what is no int, or less than 1. Processes started later do not inherit it;
    the environment variable OMP_NUM_THREADS sets it for them.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.set_num_threads.html

    >>> n = gpunn.get_num_threads()
    >>> gpunn.set_num_threads(1)
    >>> gpunn.get_num_threads()
    1
    >>> gpunn.set_num_threads(n)
    """
    global _chosen
    if type(n) is not int:
        raise RuntimeError(f"set_num_threads expects an int, but got {type(n).__name__}")
    if n < 1:
        raise RuntimeError(f"set_num_threads expects a positive integer, got {n}")
    from threadpoolctl import ThreadpoolController

    from gpunn import native

    ThreadpoolController().limit(limits=n, user_api="blas")
    native.set_num_threads(n)
    _chosen = n


def get_num_threads() -> int:
    """The threads that an operation may use: what was set, or else what BLAS uses.

    >>> gpunn.get_num_threads() >= 1
    True
    """
    return _chosen or max((blas["num_threads"] for blas in blas_libraries()), default=cores())


def blas_libraries() -> list[dict]:
    """What threadpoolctl knows of each BLAS that is loaded: name, version, threads, ..."""
    from threadpoolctl import ThreadpoolController

    return [lib for lib in ThreadpoolController().info() if lib["user_api"] == "blas"]


def cores() -> int:
    """The CPU cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def spawn(run: Callable[..., Any], *args: Any, name: str) -> threading.Thread:
    """Starts a daemon thread that NumPy warns as little as the caller: that is not inherited."""
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run, *args), name=name, daemon=True)
    thread.start()
    return thread
