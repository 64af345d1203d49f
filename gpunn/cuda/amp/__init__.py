"""Mixed precision on CUDA under PyTorch's older names: see `gpunn.amp`."""

from gpunn.cuda.amp.autocast_mode import autocast, custom_bwd, custom_fwd
from gpunn.cuda.amp.common import amp_definitely_not_available
from gpunn.cuda.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "amp_definitely_not_available", "autocast", "custom_bwd", "custom_fwd"]
