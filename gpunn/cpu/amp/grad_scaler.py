"""PyTorch's older name of the GradScaler for the CPU: it warns and names the new one.

Source: https://docs.pytorch.org/docs/stable/amp.html
"""

from __future__ import annotations

import warnings

from gpunn import amp

__all__ = ["GradScaler"]


class GradScaler(amp.GradScaler):
    """`gpunn.amp.GradScaler("cpu", ...)` under its old name; warns.

    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.cpu.amp.GradScaler
    """

    def __init__(
        self, init_scale: float = 2.0**16, growth_factor: float = 2.0,
        backoff_factor: float = 0.5, growth_interval: int = 2000, enabled: bool = True,
    ) -> None:  # fmt: skip
        warnings.warn(
            "`gpunn.cpu.amp.GradScaler(args...)` is deprecated. Please use "
            "`gpunn.amp.GradScaler('cpu', args...)` instead.", FutureWarning, stacklevel=2,
        )  # fmt: skip
        super().__init__("cpu", init_scale, growth_factor, backoff_factor, growth_interval, enabled)
