"""CUDA devices under PyTorch's names: what there is, memory, streams, seeds.

Importing this touches neither CuPy nor the driver.
Source: https://docs.pytorch.org/docs/stable/cuda.html
"""

from gpunn.cuda import memory, random, streams
from gpunn.cuda.detect import Probe, init, is_available, is_initialized, probe
from gpunn.cuda.devices import (
    AcceleratorError,
    can_device_access_peer,
    cupy_for,
    current_device,
    device,
    device_count,
    device_of,
    get_device_capability,
    get_device_name,
    get_device_properties,
    is_bf16_supported,
    set_device,
    synchronize,
    transfer,
)
from gpunn.cuda.kernels.faults import set_sync_debug
from gpunn.cuda.kernels.launch import kernel
from gpunn.cuda.kernels.loader import reload_kernels
from gpunn.cuda.memory import (
    OutOfMemoryError,
    empty_cache,
    ipc_collect,
    max_memory_allocated,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_reserved,
    memory_stats,
    memory_summary,
    reset_peak_memory_stats,
    retry_on_oom,
    set_per_process_memory_fraction,
)
from gpunn.cuda.random import (
    get_rng_state,
    get_rng_state_all,
    initial_seed,
    manual_seed,
    manual_seed_all,
    seed,
    seed_all,
    set_rng_state,
    set_rng_state_all,
)
from gpunn.cuda.streams import (
    Event,
    Stream,
    StreamContext,
    current_stream,
    default_stream,
    is_current_stream_capturing,
    set_stream,
    stream,
)

__all__ = [
    "AcceleratorError",
    "Event",
    "OutOfMemoryError",
    "Probe",
    "Stream",
    "StreamContext",
    "can_device_access_peer",
    "cupy_for",
    "current_device",
    "current_stream",
    "default_stream",
    "device",
    "device_count",
    "device_of",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "init",
    "initial_seed",
    "ipc_collect",
    "is_available",
    "is_bf16_supported",
    "is_current_stream_capturing",
    "is_initialized",
    "kernel",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "probe",
    "random",
    "reload_kernels",
    "reset_peak_memory_stats",
    "retry_on_oom",
    "seed",
    "seed_all",
    "set_device",
    "set_per_process_memory_fraction",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "set_sync_debug",
    "stream",
    "streams",
    "synchronize",
    "transfer",
]


def __getattr__(name: str) -> object:
    """`cuda.amp`, `cuda.comm`, imported on first use; PyTorch's older types, `cuda.FloatTensor`."""
    if name in ("amp", "comm"):
        import importlib

        return importlib.import_module(f"gpunn.cuda.{name}")
    from gpunn.ops.legacy import cuda_type

    found = cuda_type(name)
    if found is None:
        raise AttributeError(f"module 'gpunn.cuda' has no attribute '{name}'")
    return found
