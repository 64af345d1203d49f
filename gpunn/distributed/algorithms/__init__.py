"""Algorithms over process groups: uneven inputs (join), hooks that compress gradients.

Source: https://docs.pytorch.org/docs/stable/distributed.algorithms.join.html
"""

from __future__ import annotations

import importlib
from typing import Any

from gpunn.distributed.algorithms.join import Join, Joinable, JoinHook

__all__ = ["Join", "JoinHook", "Joinable"]


def __getattr__(name: str) -> Any:
    if name == "ddp_comm_hooks":
        return importlib.import_module("gpunn.distributed.algorithms.ddp_comm_hooks")
    raise AttributeError(f"module 'gpunn.distributed.algorithms' has no attribute '{name}'")
