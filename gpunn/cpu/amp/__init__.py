"""Mixed precision on the CPU under PyTorch's older names: see `gpunn.amp`."""

from gpunn.cpu.amp.autocast_mode import autocast
from gpunn.cpu.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast"]
