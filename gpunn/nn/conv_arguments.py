"""What the convolutions ask of their arguments, in PyTorch's order and words."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np

from gpunn.nn.columns import Ints
from gpunn.ops._rows import proper, same_device
from gpunn.tensor import Tensor


def spread(value: Any, dims: int, name: str) -> Ints:
    """An int, or a sequence of ints, as one int for each spatial dimension."""
    if isinstance(value, (int, np.integer)):
        return (int(value),) * dims
    if isinstance(value, (str, float)):
        raise TypeError(f"argument '{name}' must be tuple of ints, not {type(value).__name__}")
    values = tuple(map(index, value))
    if len(values) == 1:
        return values * dims
    if len(values) != dims:
        raise RuntimeError(
            f"expected {name} to be a single integer value or a list of {dims} values to match the "
            f"convolution dimensions, but got {name}={list(values)}"
        )
    return values


def pads(padding: Any, kernel: Ints, stride: Ints, dilation: Ints) -> tuple[Ints, Ints]:
    """(before, after) for a padding argument: numbers, "valid" or "same"."""
    if not isinstance(padding, str):
        both = spread(padding, len(kernel), "padding")
        return both, both
    if padding == "valid":
        return (0,) * len(kernel), (0,) * len(kernel)
    if padding != "same":
        raise RuntimeError(f"Invalid padding string: '{padding}', should be one of 'valid', 'same'")
    if any(s != 1 for s in stride):
        raise RuntimeError("padding='same' is not supported for strided convolutions")
    total = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
    return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)


def check_dims(name: str, x: Tensor, w: Tensor, dims: int, groups: int) -> None:
    """How many dimensions the input and the weight have."""
    xs, ws = x.array.shape, w.array.shape
    if len(xs) not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {name}, but got "
            f"input of size: {list(xs)}"
        )
    if groups <= 0:
        raise RuntimeError(f"non-positive groups is not supported, got {groups} ({name})")
    if len(ws) < 3:
        raise RuntimeError(f"weight should have at least three dimensions, got {list(ws)} ({name})")
    if len(ws) != dims + 2:
        raise RuntimeError(
            f"Expected {len(ws)}-dimensional input for {len(ws)}-dimensional weight {list(ws)}, "
            f"but got {len(xs)}-dimensional input of size {list(xs)} instead ({name})"
        )


def check_steps(name: str, stride: Ints, before: Ints, dilation: Ints) -> None:
    """The signs of stride, padding and dilation."""
    if min(before) < 0:
        raise RuntimeError(f"negative padding is not supported, got {before} ({name})")
    if min(stride) <= 0:
        raise RuntimeError(f"non-positive stride is not supported, got {stride} ({name})")
    if min(dilation) <= 0:
        raise RuntimeError(f"dilation should be greater than zero, but got {dilation} ({name})")


def check_channels(
    name: str, x: Tensor, w: Tensor, b: Tensor | None, dims: int, groups: int, transposed: bool
) -> None:
    """Whether input, weight and bias go together."""
    xs, ws = x.array.shape, w.array.shape
    given = f"Given transposed=1, weight of size {list(ws)}" if transposed else None
    if ws[0] < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but "
            f"got weight of size {list(ws)} instead"
        )
    if ws[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size [{list(ws)}] instead"
        )
    channels, wanted = xs[-dims - 1], ws[0] if transposed else ws[1] * groups
    if channels != wanted:
        raise RuntimeError(
            f"{given or f'Given groups={groups}, weight of size {list(ws)}'}, expected "
            f"input{list(xs)} to have {wanted} channels, but got {channels} channels instead"
        )
    out = ws[1] * groups if transposed else ws[0]
    if b is not None and b.array.shape != (out,):
        raise RuntimeError(
            f"{given or f'Given weight of size {list(ws)}'}, expected bias to be 1-dimensional "
            f"with {out} elements, but got bias of size {list(b.array.shape)} instead"
        )
    if 0 in ws[2:]:
        raise RuntimeError(f"kernel size should be greater than zero, but got {ws[2:]} ({name})")
    if 0 in xs[-dims:]:
        raise RuntimeError(
            "Only zero batch or zero channel inputs are supported, but got input shape: "
            f"{list(xs)} ({name})"
        )


def check_types(name: str, x: Tensor, w: Tensor, b: Tensor | None) -> None:
    """One dtype and one device for all; not bool."""
    for t, what in ((w, "weight"), (b, "bias")):
        if t is not None and t.array.dtype != x.array.dtype:
            raise RuntimeError(
                f"Input type ({x.dtype.name}) and {what} type ({t.dtype.name}) should be the same; "
                f"expected scalar type {proper(x.dtype)} but found {proper(t.dtype)}"
            )
    if x.array.dtype.kind == "b":
        raise NotImplementedError(f"\"{name}\" not implemented for 'Bool'")
    same_device(name, (x, w, b))
