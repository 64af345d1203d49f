"""One model on several devices at once.

Source: https://docs.pytorch.org/docs/stable/nn.html#dataparallel-layers-multi-gpu-distributed
"""

from gpunn.nn.parallel import comm as comm
from gpunn.nn.parallel.data_parallel import DataParallel, data_parallel
from gpunn.nn.parallel.parallel_apply import parallel_apply
from gpunn.nn.parallel.replicate import replicate
from gpunn.nn.parallel.scatter_gather import gather, scatter

__all__ = ["DataParallel", "data_parallel", "gather", "parallel_apply", "replicate", "scatter"]
