"""PyTorch's place for what `gpunn.distributed` offers: scripts import from here too.

Source: https://docs.pytorch.org/docs/stable/distributed.html
"""

from gpunn.distributed import *  # noqa: F403
from gpunn.distributed import __all__ as __all__
