"""Optimizers over several processes.

Source: https://docs.pytorch.org/docs/stable/distributed.optim.html
"""

from __future__ import annotations

from typing import Any

from gpunn.distributed.optim.zero_redundancy_optimizer import ZeroRedundancyOptimizer

__all__ = ["DistributedOptimizer", "ZeroRedundancyOptimizer"]


def __getattr__(name: str) -> Any:
    if name == "DistributedOptimizer":  # it brings remote calls along
        from gpunn.distributed.optim.optimizer import DistributedOptimizer

        return DistributedOptimizer
    raise AttributeError(f"module 'gpunn.distributed.optim' has no attribute '{name}'")
