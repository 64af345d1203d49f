"""Mixed precision under PyTorch's names: `gpunn.amp.autocast`, `gpunn.amp.GradScaler`.

Source: https://docs.pytorch.org/docs/stable/amp.html
"""

from gpunn.amp.autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from gpunn.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
