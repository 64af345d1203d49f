"""The profiler under PyTorch's older path, `torch.autograd.profiler`.

Source: https://docs.pytorch.org/docs/stable/autograd.html#profiler
"""

from gpunn.autograd.profiler_util import (
    DeviceType,
    EventList,
    FunctionEvent,
    FunctionEventAvg,
    Interval,
    Kernel,
)
from gpunn.profiler.base import emit_nvtx, profile, record_function

__all__ = [
    "DeviceType", "EventList", "FunctionEvent", "FunctionEventAvg", "Interval", "Kernel",
    "emit_nvtx", "profile", "record_function",
]  # fmt: skip
