"""PyTorch's older names of autocast for CUDA: each warns and names the new one.

Source: https://docs.pytorch.org/docs/stable/amp.html
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from gpunn import dtypes
from gpunn.amp import autocast_mode

__all__ = ["autocast", "custom_bwd", "custom_fwd"]


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"`gpunn.cuda.amp.{old}` is deprecated. Please use `gpunn.amp.{new}` instead.",
        FutureWarning, stacklevel=3,
    )  # fmt: skip


class autocast(autocast_mode.autocast):  # noqa: N801 (PyTorch's name)
    """`gpunn.autocast("cuda", ...)` under its old name; warns.

    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.cuda.amp.autocast
    """

    def __init__(
        self, enabled: bool = True, dtype: Any = dtypes.float16, cache_enabled: bool = True
    ):
        _warn("autocast(args...)", "autocast('cuda', args...)")
        super().__init__("cuda", enabled=enabled, dtype=dtype, cache_enabled=cache_enabled)


def custom_fwd(fwd: Callable[..., Any] | None = None, *, cast_inputs: Any = None) -> Any:
    """`gpunn.amp.custom_fwd(..., device_type="cuda")` under its old name; warns.

    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.cuda.amp.custom_fwd
    """
    _warn("custom_fwd(args...)", "custom_fwd(args..., device_type='cuda')")
    return autocast_mode.custom_fwd(fwd, device_type="cuda", cast_inputs=cast_inputs)


def custom_bwd(bwd: Callable[..., Any]) -> Any:
    """`gpunn.amp.custom_bwd(..., device_type="cuda")` under its old name; warns.

    Source: https://docs.pytorch.org/docs/stable/amp.html#torch.cuda.amp.custom_bwd
    """
    _warn("custom_bwd(args...)", "custom_bwd(args..., device_type='cuda')")
    return autocast_mode.custom_bwd(bwd, device_type="cuda")
