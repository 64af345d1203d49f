"""How elements lie in memory: PyTorch's layouts and memory formats, as names and as strides.

Source: https://docs.pytorch.org/docs/stable/tensor_attributes.html
"""

from __future__ import annotations

from typing import Any

from gpunn.autograd.graph import namespace


class _Name:
    """A named constant: compared by identity, printed as PyTorch's, pickled by name."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name, (self.name,)


class layout(_Name):  # noqa: N801 (PyTorch's name)
    """How a tensor is stored: `gpunn.strided`, or one of the sparse ones.

    >>> gpunn.zeros(1).layout
    torch.strided
    """

    __slots__ = ()


class memory_format(_Name):  # noqa: N801
    """The order of dimensions in memory: `gpunn.contiguous_format`, `gpunn.channels_last`, ...

    >>> x = gpunn.zeros(1, 2, 3, 4).contiguous(memory_format=gpunn.channels_last)
    >>> x.shape, x.stride()
    (torch.Size([1, 2, 3, 4]), (24, 1, 8, 2))
    """

    __slots__ = ()


strided, sparse_coo, sparse_csr, sparse_csc, sparse_bsr, sparse_bsc = map(
    layout, ("strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc")
)
contiguous_format, preserve_format, channels_last, channels_last_3d = map(
    memory_format, ("contiguous_format", "preserve_format", "channels_last", "channels_last_3d")
)
_CHANNELS_LAST = {channels_last: (0, 2, 3, 1), channels_last_3d: (0, 2, 3, 4, 1)}
_BACK = {channels_last: (0, 3, 1, 2), channels_last_3d: (0, 4, 1, 2, 3)}
__all__ = [
    "channels_last", "channels_last_3d", "contiguous_format", "layout", "memory_format",
    "preserve_format", "sparse_bsc", "sparse_bsr", "sparse_coo", "sparse_csc", "sparse_csr",
    "strided",
]  # fmt: skip


def _by_name(name: str) -> Any:
    return globals()[name]


def _memory_order(ndim: int, wanted: memory_format) -> tuple[int, ...]:
    order = _CHANNELS_LAST[wanted]
    if ndim != len(order):
        raise RuntimeError(f"required rank {len(order)} tensor to use {wanted.name} format")
    return order


def fits(array: Any, wanted: memory_format | None) -> bool:
    """Whether a raw array's elements lie in this order without gaps."""
    if wanted is None or wanted is contiguous_format:
        return bool(array.flags.c_contiguous)
    if wanted is preserve_format:
        raise RuntimeError("preserve memory format is unsupported by the contiguous operator")
    if array.ndim != len(_CHANNELS_LAST[wanted]):
        return False
    return bool(array.transpose(_CHANNELS_LAST[wanted]).flags.c_contiguous)


def stays(array: Any, wanted: memory_format | None) -> bool:
    """Whether a conversion leaves a raw array as it is: its memory format is the one wanted,
    where whatever is not in channels-last order counts as contiguous."""
    if wanted is None or wanted is preserve_format:
        return True
    found = contiguous_format
    for other, order in _CHANNELS_LAST.items():
        if array.ndim == len(order) and fits(array, other) and not fits(array, None):
            found = other
    return found is wanted


def lay_out(array: Any, wanted: memory_format | None) -> Any:
    """A raw array with its elements in this order: itself where they are."""
    if wanted is preserve_format or fits(array, wanted):
        return array
    xp = namespace(array)
    if wanted is None or wanted is contiguous_format:
        return xp.ascontiguousarray(array)
    moved = array.transpose(_memory_order(array.ndim, wanted))
    return xp.ascontiguousarray(moved).transpose(_BACK[wanted])
