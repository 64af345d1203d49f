"""The functions of `nn.parallel.comm` under their other path.

Source: https://docs.pytorch.org/docs/stable/cuda.html#communication-collectives
"""

from gpunn.nn.parallel.comm import (
    broadcast,
    broadcast_coalesced,
    gather,
    reduce_add,
    reduce_add_coalesced,
    scatter,
)

__all__ = [
    "broadcast", "broadcast_coalesced", "gather", "reduce_add", "reduce_add_coalesced", "scatter",
]  # fmt: skip
