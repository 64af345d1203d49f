"""What a program spends its time and memory on.

Source: https://docs.pytorch.org/docs/stable/profiler.html
"""

from gpunn.autograd.profiler_util import DeviceType
from gpunn.profiler.base import record_function
from gpunn.profiler.profiler import (
    ProfilerAction,
    ProfilerActivity,
    kineto_available,
    profile,
    schedule,
    supported_activities,
    tensorboard_trace_handler,
)

__all__ = [
    "DeviceType", "ProfilerAction", "ProfilerActivity", "kineto_available", "profile",
    "record_function", "schedule", "supported_activities", "tensorboard_trace_handler",
]  # fmt: skip
