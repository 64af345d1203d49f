"""GPU memory: CuPy's pool, what is in it, its peaks, and what happens when it runs out.

Every CuPy array takes its memory through `_allocate`, so that running out is handled in one
place: what can be freed is freed, the allocation is tried once more, and then
`OutOfMemoryError` says what fills the device.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from typing import Any

from gpunn.cuda.detect import is_initialized, load
from gpunn.cuda.devices import device as enter
from gpunn.cuda.devices import index_of

_MEMORY_ALLOCATION = 2  # cudaError_t
_BLOCK = 512  # the pool rounds sizes up to multiples of this many bytes


class OutOfMemoryError(RuntimeError):
    """A GPU's memory is full. Attributes in bytes: `requested`, `used` (by tensors), `total`."""

    def __init__(self, message: str, requested: int = 0, used: int = 0, total: int = 0):
        super().__init__(message)
        self.requested, self.used, self.total = requested, used, total


_pool: Any = None
_peaks: dict[int, int] = {}  # device index -> most bytes ever in use at once
_bounds: dict[int, int] = {}  # device index -> no fewer bytes than are in use now
_reserved_peaks: dict[int, int] = {}


def install(cupy: Any) -> None:
    """Puts `_allocate` in front of CuPy's default pool, unless the user chose an allocator."""
    global _pool
    _pool = cupy.get_default_memory_pool()
    if cupy.cuda.get_allocator() == _pool.malloc:
        cupy.cuda.set_allocator(_allocate)


def _allocate(size: int) -> Any:
    """CuPy's allocator: called for every array, so it does little where all is well."""
    try:
        block = _pool.malloc(size)
    except MemoryError:
        block = None
    if block is None:
        block = _once_more(_pool.malloc, size)
    index = block.device_id
    _bounds[index] = bound = _bounds.get(index, 0) + size + _BLOCK
    if bound > _peaks.get(index, 0):
        _look_at_peak(index)
    return block


def _look_at_peak(index: int) -> None:
    """Asks the pool, which is slow. Frees are not seen, but what was allocated since the last
    look bounds what is in use, so only where that passes the peak can the peak be higher."""
    _bounds[index] = used = _pool.used_bytes()
    _peaks[index] = max(used, _peaks.get(index, 0))


# --- out of memory ------------------------------------------------------------------------


def retry_on_oom(allocate: Callable[[int], Any], size: int) -> Any:
    """`allocate(size)`; where memory runs out, frees what it can and tries once more.

    Raises OutOfMemoryError where that fails, too. Other errors pass.
    """
    try:
        return allocate(size)
    except Exception as error:
        if not _is_oom(error):
            raise
    return _once_more(allocate, size)


def _once_more(allocate: Callable[[int], Any], size: int) -> Any:
    _free_what_can_be()
    try:
        return allocate(size)
    except Exception as error:
        if not _is_oom(error):
            raise
    # Outside of the handlers: a __context__ would keep their frames, and so their arrays.
    raise _out_of_memory(size)


def _is_oom(error: Exception) -> bool:
    return isinstance(error, MemoryError) or getattr(error, "status", 0) == _MEMORY_ALLOCATION


def _free_what_can_be() -> None:
    _forget_last_failure()
    gc.collect()
    _pool.free_all_blocks()


def _forget_last_failure() -> None:
    """A notebook keeps the traceback of a failed cell, and its frames keep their tensors."""
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if isinstance(error, OutOfMemoryError):
        from gpunn.notebook import clear_frames

        clear_frames(error)


def _out_of_memory(size: int) -> OutOfMemoryError:
    runtime = load().cuda.runtime
    index, (free, total) = runtime.getDevice(), runtime.memGetInfo()
    used, kept = _pool.used_bytes(), _pool.total_bytes()
    tensors = "".join(f"\n  {line}" for line in _largest_tensors(index))
    return OutOfMemoryError(
        f"CUDA out of memory. Tried to allocate {human(size)}. GPU {index} has a total capacity "
        f"of {human(total)} of which {human(free)} is free. {human(used)} is in use by "
        f"arrays of this process and {human(kept - used)} is reserved but unused. "
        f"Largest live tensors:{tensors or ' none'}\n"
        f"A smaller batch, gpunn.no_grad() for evaluation and gpunn.utils.checkpoint need less. "
        f"To go on in a notebook: delete tensors, then gpunn.cuda.empty_cache().",
        requested=size,
        used=used,
        total=total,
    )


def _largest_tensors(index: int, count: int = 5) -> list[str]:
    """Lines on the live tensors of a device, of one shape and dtype together, largest first."""
    from gpunn.tensor import Tensor

    memories: dict[int, Tensor] = {}  # views share memory: the largest one stands for all
    for t in gc.get_objects():
        if not issubclass(type(t), Tensor):  # isinstance would wake lazy objects of others
            continue
        if t.device.type != "cuda" or t.device.index != index:
            continue
        key = id(t.array.data.mem)
        if key not in memories or memories[key].nbytes < t.nbytes:
            memories[key] = t
    groups: dict[tuple[Any, ...], int] = {}
    for t in memories.values():
        kind = (t.nbytes, tuple(t.shape), str(t.dtype))
        groups[kind] = groups.get(kind, 0) + 1
    largest = sorted(groups.items(), key=lambda item: item[0][0] * item[1], reverse=True)
    return [
        f"{number} x {shape} {dtype}: {human(number * nbytes)}"
        for (nbytes, shape, dtype), number in largest[:count]
    ]


def human(size: float) -> str:
    """A number of bytes for people: "30.00 MiB"."""
    for unit in ("bytes", "KiB", "MiB"):
        if abs(size) < 1024:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.2f} {unit}"
        size /= 1024
    return f"{size:.2f} GiB"


# --- what is in use -----------------------------------------------------------------------


def memory_stats(device: Any = None) -> dict[str, int]:
    """Bytes in use by arrays ("allocated_bytes") and held by the pool ("reserved_bytes").

    Each has a ".all.current" and a ".all.peak" value, as in PyTorch. {} before CUDA is used.

    >>> gpunn.cuda.memory_stats().get("allocated_bytes.all.current", 0) >= 0
    True
    """
    if not is_initialized():
        return {}
    index = index_of(device)
    with enter(index):
        used, reserved = _pool.used_bytes(), _pool.total_bytes()
    _peaks[index] = max(used, _peaks.get(index, 0))
    _reserved_peaks[index] = max(reserved, _peaks[index], _reserved_peaks.get(index, 0))
    return {
        "allocated_bytes.all.current": used,
        "allocated_bytes.all.peak": _peaks[index],
        "reserved_bytes.all.current": reserved,
        "reserved_bytes.all.peak": _reserved_peaks[index],
    }


def memory_allocated(device: Any = None) -> int:
    """Bytes of a device in use by arrays; 0 before CUDA is used.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory_allocated.html

    >>> gpunn.cuda.memory_allocated() <= gpunn.cuda.max_memory_allocated()
    True
    """
    return memory_stats(device).get("allocated_bytes.all.current", 0)


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes of a device that arrays used at once, since `reset_peak_memory_stats`.

    >>> gpunn.cuda.max_memory_allocated() <= gpunn.cuda.max_memory_reserved()
    True
    """
    return memory_stats(device).get("allocated_bytes.all.peak", 0)


def memory_reserved(device: Any = None) -> int:
    """Bytes of a device held by the pool, in use or ready for new arrays.

    >>> gpunn.cuda.memory_reserved() >= gpunn.cuda.memory_allocated()
    True
    """
    return memory_stats(device).get("reserved_bytes.all.current", 0)


def max_memory_reserved(device: Any = None) -> int:
    """The most bytes of a device that the pool held, as far as it was looked at.

    >>> gpunn.cuda.max_memory_reserved() >= gpunn.cuda.memory_reserved()
    True
    """
    return memory_stats(device).get("reserved_bytes.all.peak", 0)


def reset_peak_memory_stats(device: Any = None) -> None:
    """Makes the peaks start again from what is in use now.

    >>> gpunn.cuda.reset_peak_memory_stats()
    """
    if not is_initialized():
        return
    index = index_of(device)
    _peaks.pop(index, None)
    _reserved_peaks.pop(index, None)
    _bounds[index] = memory_stats(index)["allocated_bytes.all.current"]


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Free and total bytes of a device, all processes counted; RuntimeError on a CPU machine.

    >>> if gpunn.cuda.is_available():
    ...     free, total = gpunn.cuda.mem_get_info()
    """
    with enter(index_of(device)):
        return load().cuda.runtime.memGetInfo()


def empty_cache() -> None:
    """Gives the memory that the pool holds ready back to the device, for other programs.

    It frees no tensor. After an OutOfMemoryError in a notebook it also drops what the failed
    cell's traceback keeps.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.empty_cache.html

    >>> gpunn.cuda.empty_cache()
    """
    if not is_initialized():
        return
    _forget_last_failure()
    for index in list(_bounds):  # devices in use: entering another would make a context there
        memory_stats(index)
        with enter(index):
            _pool.free_all_blocks()
    load().get_default_pinned_memory_pool().free_all_blocks()


def ipc_collect() -> None:
    """Does nothing: gpunn shares no GPU memory between processes. Here for PyTorch's scripts.

    >>> gpunn.cuda.ipc_collect()
    """


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Limits the pool to a fraction of a device's memory, 0 to 1; ValueError beyond.

    >>> if gpunn.cuda.is_available():
    ...     gpunn.cuda.set_per_process_memory_fraction(1.0)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
    with enter(index_of(device)):
        _pool.set_limit(fraction=fraction)


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """A table of a device's memory and, unless `abbreviated`, of its largest tensors.

    >>> "memory" in gpunn.cuda.memory_summary()
    True
    """
    stats = memory_stats(device)
    if not stats:
        return "CUDA memory: CUDA has not been used in this process"
    index = index_of(device)
    free, total = mem_get_info(index)
    rows = [("in use by arrays", "allocated"), ("held by the pool", "reserved")]
    lines = [f"CUDA memory of cuda:{index}", f"{'':24}{'now':>14}{'peak':>14}"]
    for title, name in rows:
        now, peak = (human(stats[f"{name}_bytes.all.{when}"]) for when in ("current", "peak"))
        lines.append(f"{title:24}{now:>14}{peak:>14}")
    lines.append(f"{'free on the device':24}{human(free):>14}{'of ' + human(total):>14}")
    if not abbreviated:
        lines += ["largest live tensors", *(f"  {line}" for line in _largest_tensors(index))]
    return "\n".join(lines)
