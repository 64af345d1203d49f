"""Inputs of any structure split over devices, and outputs put together again."""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from gpunn.device import Device
from gpunn.nn.parallel import comm
from gpunn.nn.parallel.comm import as_device
from gpunn.nn.parallel.packed import join_packed, split_packed
from gpunn.nn.utils.rnn import PackedSequence
from gpunn.ops.convert import to_device
from gpunn.tensor import Tensor

__all__ = ["gather", "scatter", "scatter_kwargs"]


def is_namedtuple(obj: Any) -> bool:
    """Whether an object is a tuple with named fields.

    >>> from gpunn.nn.parallel.scatter_gather import is_namedtuple
    >>> is_namedtuple(gpunn.ones(2).sort()), is_namedtuple((1, 2))
    (True, False)
    """
    return isinstance(obj, tuple) and hasattr(obj, "_asdict") and hasattr(obj, "_fields")


def rows(obj: Any, dim: int) -> Iterator[int]:
    """The lengths along `dim` of the tensors in an object, in order; numbers of sequences too."""
    if isinstance(obj, PackedSequence):
        yield int(obj.batch_sizes.array[0])
    elif isinstance(obj, Tensor):
        if obj.ndim:
            yield obj.size(dim)
    elif isinstance(obj, (tuple, list)):
        for part in obj:
            yield from rows(part, dim)
    elif isinstance(obj, dict):
        yield from rows(list(obj.values()), dim)


def _used(obj: Any, devices: Sequence[Any], dim: int) -> list[Device]:
    """The devices to split an object over: so many that each tensor has a row for each of them."""
    lengths = list(rows(obj, dim))
    count = min((n for n in lengths if n), default=1 if lengths else len(devices))
    return [as_device(d) for d in list(devices)[:count]]


def _split(obj: Any, devices: list[Device], dim: int) -> list[Any]:
    """The part of an object for each device."""
    if isinstance(obj, PackedSequence):
        return list(split_packed(obj, devices))
    if isinstance(obj, Tensor):
        if obj.ndim == 0:
            return [to_device(obj, device) for device in devices]
        sizes = comm.even_sizes(obj.size(dim), len(devices))
        return list(comm.scatter(obj, devices, sizes, dim))
    if isinstance(obj, (tuple, list)) and obj:
        parts = zip(*(_split(part, devices, dim) for part in obj), strict=True)
        if is_namedtuple(obj):
            return [type(obj)(*part) for part in parts]
        return list(parts) if isinstance(obj, tuple) else [list(part) for part in parts]
    if isinstance(obj, dict) and obj:
        made = [copy.copy(obj) for _ in devices]
        for key, value in obj.items():
            for one, part in zip(made, _split(value, devices, dim), strict=True):
                one[key] = part
        return made
    return [obj for _ in devices]


def scatter(inputs: Any, target_gpus: Sequence[Any], dim: int = 0) -> Any:
    """The tensors in an object split along `dim`, one part of the object for each device.

    Tuples, lists, dictionaries and named tuples are followed, packed sequences are split by
    sequence, other objects are shared by all parts. The sizes of parts differ by at most one, and
    there are no more parts than the shortest tensor has rows, so that none is left out; an empty
    tensor is empty in each part, one of dimension 0 is copied. A tuple for a tensor, else a list.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.DataParallel.html

    >>> nn.parallel.scatter({"x": gpunn.arange(3), "name": "a"}, ["cpu:0", "cpu:1"])
    [{'x': tensor([0, 1]), 'name': 'a'}, {'x': tensor([2], device='cpu:1'), 'name': 'a'}]
    """
    parts = _split(inputs, _used(inputs, target_gpus, dim), dim)
    return tuple(parts) if isinstance(inputs, Tensor) else parts


def scatter_kwargs(
    inputs: tuple[Any, ...], kwargs: dict[str, Any] | None, target_gpus: Sequence[Any],
    dim: int = 0,
) -> tuple[tuple[Any, ...], tuple[dict[str, Any], ...]]:  # fmt: skip
    """`scatter` of positional and keyword arguments into the same number of parts.

    >>> from gpunn.nn.parallel.scatter_gather import scatter_kwargs
    >>> scatter_kwargs((gpunn.arange(2),), {"scale": 3}, ["cpu:0", "cpu:1"])
    (((tensor([0]),), (tensor([1], device='cpu:1'),)), ({'scale': 3}, {'scale': 3}))
    """
    if not inputs and not kwargs:
        return (), ()
    devices = _used((inputs, kwargs), target_gpus, dim)
    named = _split(kwargs, devices, dim) if kwargs else [{} for _ in devices]
    return tuple(_split(inputs, devices, dim)), tuple(named)


def gather(
    outputs: Any, target_device: Any, dim: int = 0, *, weights: Sequence[float] | None = None
) -> Any:
    """One object for a sequence of like ones, a device's each: their tensors joined along `dim`.

    Tuples, lists, dictionaries and named tuples are followed; packed sequences become one of all
    sequences; None stays None. Tensors of dimension 0 become a vector, with a warning, or with
    `weights` (a number for each object, not PyTorch's) their weighted mean, a floating number.
    ValueError for dictionaries of different sizes, TypeError for what cannot be joined.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.DataParallel.html

    >>> outputs = [(gpunn.zeros(1), None), (gpunn.ones(1, device="cpu:1"), None)]
    >>> nn.parallel.gather(outputs, "cpu")
    (tensor([0., 1.]), None)
    """
    device, first = as_device(target_device), outputs[0]

    def inner(parts: Any) -> Any:
        return gather(parts, device, dim, weights=weights)

    if isinstance(first, PackedSequence):
        return join_packed(outputs, device)
    if isinstance(first, Tensor):
        return _gather_tensors(outputs, device, dim, weights)
    if first is None:
        return None
    if isinstance(first, dict):
        if not all(len(first) == len(other) for other in outputs):
            raise ValueError("All dicts must have the same number of keys")
        return type(first)((key, inner([d[key] for d in outputs])) for key in first)
    if not hasattr(first, "__iter__") or isinstance(first, (str, bytes)):
        raise TypeError(
            f"'{type(first).__name__}' object is not iterable: a replica returned {first!r}, and "
            "only tensors, None and tuples, lists and dictionaries of them can be joined"
        )
    parts = map(inner, zip(*outputs, strict=True))
    return type(first)._make(parts) if is_namedtuple(first) else type(first)(parts)


def _gather_tensors(
    tensors: Sequence[Tensor], device: Device, dim: int, weights: Sequence[float] | None
) -> Tensor:
    if dim != 0 or any(t.ndim for t in tensors):
        return comm.gather(tensors, dim, device)
    if weights is not None and (tensors[0].is_floating_point() or tensors[0].is_complex()):
        shares = [w / sum(weights) for w in weights]
        parts = [to_device(t, device) * w for t, w in zip(tensors, shares, strict=True)]
        return sum(parts[1:], parts[0])
    warnings.warn(
        "Was asked to gather along dimension 0, but all input tensors were scalars; will instead "
        "unsqueeze and return a vector.",
        stacklevel=2,
    )
    return comm.gather([t.reshape(1) for t in tensors], 0, device)
