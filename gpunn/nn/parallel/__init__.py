"""One model on several devices at once.

Source: https://docs.pytorch.org/docs/stable/nn.html#dataparallel-layers-multi-gpu-distributed
"""

import importlib
from typing import Any

from gpunn.nn.parallel import comm as comm
from gpunn.nn.parallel.data_parallel import DataParallel, data_parallel
from gpunn.nn.parallel.parallel_apply import parallel_apply
from gpunn.nn.parallel.replicate import replicate
from gpunn.nn.parallel.scatter_gather import gather, scatter

__all__ = [
    "DataParallel", "DistributedDataParallel", "data_parallel", "gather", "parallel_apply",
    "replicate", "scatter",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """DistributedDataParallel, which brings `gpunn.distributed` along, on first use."""
    if name in ("DistributedDataParallel", "distributed"):
        module = importlib.import_module("gpunn.nn.parallel.distributed")
        return module if name == "distributed" else module.DistributedDataParallel
    raise AttributeError(f"module 'gpunn.nn.parallel' has no attribute '{name}'")
