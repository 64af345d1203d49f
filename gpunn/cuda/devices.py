"""CUDA devices: which there are, which is current, what they can do, copies between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from gpunn.cuda import current
from gpunn.cuda.detect import is_available, load, probe
from gpunn.cuda.kernels.faults import raise_pending
from gpunn.device import Device


class AcceleratorError(RuntimeError):
    """An error of the CUDA runtime, such as a device that does not exist."""


class _CudaDeviceProperties(NamedTuple):
    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    max_threads_per_multi_processor: int
    regs_per_multiprocessor: int
    shared_memory_per_block: int
    shared_memory_per_block_optin: int
    shared_memory_per_multiprocessor: int
    L2_cache_size: int
    is_integrated: int
    is_multi_gpu_board: int


# The names of the CUDA runtime, in the order of the fields above.
_RUNTIME_NAMES = (
    "name", "major", "minor", "totalGlobalMem", "multiProcessorCount", "warpSize",
    "maxThreadsPerMultiProcessor", "regsPerMultiprocessor", "sharedMemPerBlock",
    "sharedMemPerBlockOptin", "sharedMemPerMultiprocessor", "l2CacheSize", "integrated",
    "isMultiGpuBoard",
)  # fmt: skip


def index_of(device: Any = None) -> int:
    """The index of a CUDA device given as int, name, Device or None (the current one).

    ValueError for a device of another type, AcceleratorError for one that does not exist.
    """
    index = _asked_index(device)
    return check_index(current_device() if index is None else index)


def check_index(index: int) -> int:
    """`index` where such a CUDA device exists, else AcceleratorError."""
    load()
    count = device_count()
    if not 0 <= index < count:
        names = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
        raise AcceleratorError(
            f"CUDA error: invalid device ordinal: there is no cuda:{index} here, only {names}"
        )
    return index


def _asked_index(device: Any) -> int | None:
    if device is None or isinstance(device, int):
        return device
    device = Device(device)
    if device.type != "cuda":
        raise ValueError(f"Expected a cuda device, but got: {device}")
    return device.index


def device_count() -> int:
    """The number of CUDA devices; 0 on a CPU machine.

    >>> gpunn.cuda.device_count() > 0 or not gpunn.cuda.is_available()
    True
    """
    return probe().devices


def current_device() -> int:
    """The index of the current CUDA device of this thread; RuntimeError on a CPU machine.

    It is where `device="cuda"` makes tensors. Operations run on the device of their tensors,
    whichever is current.

    >>> if gpunn.cuda.is_available():
    ...     assert gpunn.cuda.current_device() < gpunn.cuda.device_count()
    """
    return current.asked_index()


def set_device(device: Any) -> None:
    """Makes a device (int, name or Device) this thread's current one; a negative int does nothing.

    >>> gpunn.cuda.set_device(-1)
    """
    index = _asked_index(device)
    if index is None or index >= 0:
        current.ask(index_of(device))


class device:  # noqa: N801 (PyTorch's name)
    """A context in which a device is the current one; None and negative ints change nothing.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.device.html

    >>> with gpunn.cuda.device(-1):
    ...     x = gpunn.zeros(2)
    """

    def __init__(self, device: Any):
        index = _asked_index(device)
        if index is None and device is not None:  # plain "cuda"
            index = current_device()
        self.idx = -1 if index is None or index < 0 else check_index(index)
        self.prev_idx = -1

    def __enter__(self) -> device:
        if self.idx >= 0:
            self.prev_idx = current.asked_index()
            self._before = current.ask(self.idx)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.idx >= 0:
            current.go_back(self._before)


class device_of(device):  # noqa: N801
    """A context in which the device of a CUDA tensor is current; a CPU tensor changes nothing.

    >>> with gpunn.cuda.device_of(gpunn.zeros(2)):
    ...     x = gpunn.zeros(2)
    """

    def __init__(self, obj: Any):
        super().__init__(obj.device if obj.device.type == "cuda" else -1)


def synchronize(device: Any = None) -> None:
    """Waits until the device has finished all work given to it; RuntimeError on a CPU machine.

    Raises the IndexError of a bad index that the device met meanwhile: see `set_sync_debug`.

    >>> if gpunn.cuda.is_available():
    ...     gpunn.cuda.synchronize()
    """
    with _entered(device):
        load().cuda.runtime.deviceSynchronize()
    raise_pending()


def _entered(at: Any) -> device:
    return device(index_of(at))


def get_device_properties(device: Any = None) -> _CudaDeviceProperties:
    """Name, compute capability, memory in bytes and other limits of a device.

    AssertionError for a device that does not exist, RuntimeError on a CPU machine.

    >>> if gpunn.cuda.is_available():
    ...     assert gpunn.cuda.get_device_properties().total_memory > 0
    """
    try:
        index = index_of(device)
    except AcceleratorError as error:
        raise AssertionError(f"Invalid device id: {error}") from None
    found = load().cuda.runtime.getDeviceProperties(index)
    values = [found[name] for name in _RUNTIME_NAMES]
    return _CudaDeviceProperties(values[0].decode(), *values[1:])


def get_device_name(device: Any = None) -> str:
    """The name of a device, such as "NVIDIA H100 80GB HBM3".

    >>> if gpunn.cuda.is_available():
    ...     assert gpunn.cuda.get_device_name()
    """
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The compute capability of a device: (9, 0) for an H100.

    >>> if gpunn.cuda.is_available():
    ...     major, minor = gpunn.cuda.get_device_capability()
    """
    found = get_device_properties(device)
    return found.major, found.minor


def can_device_access_peer(device: Any, peer_device: Any) -> bool:
    """Whether the first device can read the second one's memory directly.

    >>> if gpunn.cuda.is_available():
    ...     assert not gpunn.cuda.can_device_access_peer(0, 0)
    """
    one, other = index_of(device), index_of(peer_device)
    return bool(load().cuda.runtime.deviceCanAccessPeer(one, other))


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether bfloat16 runs on the current device; in its hardware, without `including_emulation`.

    >>> gpunn.cuda.is_bf16_supported() == gpunn.cuda.is_available()
    True
    """
    return is_available() and (including_emulation or get_device_capability() >= (8, 0))


# --- for device.py ------------------------------------------------------------------------


def cupy_for(device: Device) -> Any:
    """The cupy module for a CUDA device that exists; RuntimeError, with the reason, if not.

    Once several are in use, its functions make theirs the current one.
    """
    cupy = load()
    if device.index is None:
        return cupy
    if check_index(device.index):
        current.follow()
    return current.CupyOn(cupy, device) if current.SEVERAL else cupy


def to_host(array: Any) -> Any:
    """A copy of a CuPy array in host memory; the error of a bad index that it waited for."""
    made = array.get()
    raise_pending()
    return made


def transfer(array: Any, source: Device, target: Device) -> Any:
    """A copy of a raw array of `source` on `target`, at least one of which is a CUDA device."""
    if target.type != "cuda":
        return to_host(array)
    with device(target):
        if source.type != "cuda":
            return load().array(array)
        if source.index == target.index:
            return array.copy(order="K")
    return transfer_all([array], source, target)[0]


def transfer_all(arrays: Sequence[Any], source: Device, target: Device) -> list[Any]:
    """Copies of raw arrays of a CUDA device on another one.

    The target waits for the source's work, and the source for the copies.
    """
    cuda = load().cuda
    with device(source):
        whole = [a if a.flags.c_contiguous or a.flags.f_contiguous else a.copy() for a in arrays]
        there = cuda.get_current_stream()
        ready = there.record()
    with device(target):
        here = cuda.get_current_stream()
        here.wait_event(ready)
        made = [array.copy(order="K") for array in whole]
        done = here.record()
    with device(source):
        there.wait_event(done)  # the pool may hand out the memory of `whole` again after this
    return made
