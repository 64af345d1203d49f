"""Decorators for functions that are called remotely.

Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.functions.async_execution
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["async_execution"]


def async_execution(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a function that returns a Future: the caller gets the future's result.

    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.functions.async_execution

    >>> @gpunn.distributed.rpc.functions.async_execution
    ... def later(x):
    ...     return gpunn.distributed.rpc.rpc_async("worker1", gpunn.add, args=(x, 1))
    """

    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    wrapper._wraps_future = "always"  # type: ignore[attr-defined]
    return wrapper
