"""Communication hooks of DistributedDataParallel: how the gradients of a bucket are averaged.

Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html
"""

from gpunn.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook

__all__ = ["default_hooks", "powerSGD_hook"]
