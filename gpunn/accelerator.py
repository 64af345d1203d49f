"""`torch.accelerator`: the GPU where there is one, under names that do not say CUDA.

Everything is `gpunn.cuda`'s; where CUDA is not available `is_available`, `device_count` and
`current_accelerator` say so, and the rest raises RuntimeError.
Source: https://docs.pytorch.org/docs/stable/accelerator.html
"""

from __future__ import annotations

from typing import Any

from gpunn import cuda
from gpunn.device import Device

__all__ = [
    "current_accelerator",
    "current_device_idx",
    "current_device_index",
    "current_stream",
    "device_count",
    "device_index",
    "empty_cache",
    "get_memory_info",
    "is_available",
    "max_memory_allocated",
    "max_memory_reserved",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "reset_peak_memory_stats",
    "set_device_idx",
    "set_device_index",
    "set_stream",
    "synchronize",
]


def is_available() -> bool:
    """Whether there is a GPU that can be used.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.accelerator.is_available.html

    >>> type(gpunn.accelerator.is_available())
    <class 'bool'>
    """
    return cuda.is_available()


def device_count() -> int:
    """How many GPUs there are: 0 where CUDA is not available.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.accelerator.device_count.html

    >>> gpunn.accelerator.device_count() == gpunn.cuda.device_count()
    True
    """
    return cuda.device_count()


def current_accelerator(check_available: bool = False) -> Device | None:
    """The device "cuda", or None where CUDA is not available.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.accelerator.current_accelerator.html

    >>> accelerator = gpunn.accelerator.current_accelerator() or gpunn.device("cpu")
    >>> accelerator.type in ("cpu", "cuda")
    True
    """
    return Device("cuda") if cuda.is_available() else None


class device_index:  # noqa: N801 (PyTorch's name)
    """Within it the GPU of this index is the current one; None changes nothing.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.accelerator.device_index.html

    >>> with gpunn.accelerator.device_index(None):
    ...     gpunn.ones(1)
    tensor([1.])
    """

    def __init__(self, device: int | None, /) -> None:
        if device is not None:
            _needs_one()
        self._context = None if device is None else cuda.device(device)

    def __enter__(self) -> None:
        if self._context is not None:
            self._context.__enter__()

    def __exit__(self, *error: Any) -> None:
        if self._context is not None:
            self._context.__exit__(*error)


def _needs_one() -> None:
    if not cuda.is_available():
        raise RuntimeError(
            "Cannot access accelerator device when none is available. `gpunn.doctor()` says why."
        )


_EXAMPLE = '''

    Source: https://docs.pytorch.org/docs/stable/generated/torch.accelerator.{name}.html

    >>> if gpunn.accelerator.is_available():
    ...     print(gpunn.accelerator.{call})
    '''


def _same_as(function: Any, name: str, what: str, example: str = "") -> Any:
    """`function` of gpunn.cuda, with the error of a machine that has no accelerator."""

    def of_the_accelerator(*args: Any) -> Any:
        _needs_one()
        return function(*args)

    of_the_accelerator.__name__ = of_the_accelerator.__qualname__ = name
    call = example or f"{name}()"
    of_the_accelerator.__doc__ = what + _EXAMPLE.format(name=name, call=call)
    return of_the_accelerator



_set = "(gpunn.accelerator.current_device_index())"
current_device_index = _same_as(
    cuda.current_device, "current_device_index", "The index of the current GPU."
)
set_device_index = _same_as(
    cuda.set_device, "set_device_index", "Makes a GPU the current one.", f"set_device_index{_set}"
)
current_device_idx, set_device_idx = current_device_index, set_device_index
current_stream = _same_as(
    cuda.current_stream, "current_stream", "The stream that work goes to, of the current GPU."
)
set_stream = _same_as(
    cuda.set_stream, "set_stream", "Makes a stream the one that work goes to.", "set_stream(None)"
)
synchronize = _same_as(cuda.synchronize, "synchronize", "Waits for all work of the GPU.")
empty_cache = _same_as(cuda.empty_cache, "empty_cache", "Gives unused memory back to the driver.")
memory_stats = _same_as(cuda.memory_stats, "memory_stats", "Counts of memory, by name.")
memory_allocated = _same_as(
    cuda.memory_allocated, "memory_allocated", "Bytes of the GPU that tensors fill."
)
max_memory_allocated = _same_as(
    cuda.max_memory_allocated, "max_memory_allocated", "The most bytes that tensors filled."
)
memory_reserved = _same_as(
    cuda.memory_reserved, "memory_reserved", "Bytes of the GPU that the memory pool holds."
)
max_memory_reserved = _same_as(
    cuda.max_memory_reserved, "max_memory_reserved", "The most bytes that the memory pool held."
)
reset_peak_memory_stats = _same_as(
    cuda.reset_peak_memory_stats, "reset_peak_memory_stats", "The peaks start from now."
)
get_memory_info = _same_as(
    cuda.mem_get_info, "get_memory_info", "(free, total) bytes of the GPU."
)
