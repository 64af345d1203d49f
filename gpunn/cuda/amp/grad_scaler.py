"""PyTorch's older name of the GradScaler for CUDA: it warns and names the new one.

Source: https://docs.pytorch.org/docs/stable/amp.html
"""

from __future__ import annotations

import warnings

from gpunn import amp
from gpunn.amp.grad_scaler import OptState as OptState  # PyTorch has it in this file

__all__ = ["GradScaler"]


class GradScaler(amp.GradScaler):
    """`gpunn.amp.GradScaler("cuda", ...)` under its old name; warns.

    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.cuda.amp.GradScaler
    """

    def __init__(
        self, init_scale: float = 2.0**16, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        warnings.warn(
            "`gpunn.cuda.amp.GradScaler(args...)` is deprecated. Please use "
            "`gpunn.amp.GradScaler('cuda', args...)` instead.", FutureWarning, stacklevel=2,
        )  # fmt: skip
        super().__init__(
            "cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled
        )
