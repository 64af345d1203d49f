"""PyTorch's older name of autocast for the CPU: it warns and names the new one.

Source: https://docs.pytorch.org/docs/stable/amp.html
"""

from __future__ import annotations

import warnings
from typing import Any

from gpunn import amp, dtypes

__all__ = ["autocast"]


class autocast(amp.autocast):  # noqa: N801 (PyTorch's name)
    """`gpunn.autocast("cpu", ...)` under its old name; warns.

    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.cpu.amp.autocast
    """

    def __init__(
        self, enabled: bool = True, dtype: Any = dtypes.bfloat16, cache_enabled: bool = True
    ):
        warnings.warn(
            "`gpunn.cpu.amp.autocast(args...)` is deprecated. Please use "
            "`gpunn.amp.autocast('cpu', args...)` instead.", FutureWarning, stacklevel=2,
        )  # fmt: skip
        super().__init__("cpu", enabled=enabled, dtype=dtype, cache_enabled=cache_enabled)
