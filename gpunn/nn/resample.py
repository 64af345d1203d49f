"""Resampling along one axis at a time: which entries each entry of the result reads, and how much.

A table holds `indices` and `weights`, (taps, length of the result) each: entry i of the result is
the sum over t of weights[t, i] * x[indices[t, i]]. The gradient of a table is another table, the
transposed one, so both ways add up in a fixed order.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.ops._rows import half
from gpunn.tensor import Tensor


class Axis(NamedTuple):
    """One axis from n entries to m: all that its table is made of."""

    kind: str  # nearest, nearest-exact, linear, cubic or lanczos
    n: int
    m: int
    factor: float | None  # m / n as the caller gave it; None leaves it to n and m
    align_corners: bool = False
    antialias: bool = False


# --- tables -------------------------------------------------------------------------------


def _step(axis: Axis, dtype: Any) -> Any:
    """Entries of the input from one entry of the result to the next, rounded as PyTorch does."""
    if axis.align_corners:
        return dtype(axis.n - 1) / dtype(axis.m - 1) if axis.m > 1 else dtype(0)
    if axis.factor is not None and axis.factor > 0:
        return dtype(1.0 / axis.factor)
    return dtype(axis.n) / dtype(axis.m)


def _cubic(x: Any, a: float) -> Any:
    """The cubic convolution kernel: 1 at 0, 0 at every other integer and from 2 on."""
    x = abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0)).astype(x.dtype)


def _lanczos(x: Any) -> Any:
    return np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0).astype(x.dtype)


_FILTERS = {  # name -> (width, the filter on an input at its own resolution)
    "linear": (2, lambda x: np.maximum(1 - abs(x), 0)),
    "cubic": (4, lambda x: _cubic(x, -0.5)),
    "lanczos": (6, _lanczos),
}


def _antialiased(axis: Axis, dtype: Any) -> tuple[Any, Any]:
    """The filter stretched over all that an entry of the result stands for."""
    width, weigh = _FILTERS[axis.kind]
    step = _step(axis, dtype)
    stretch = max(step, dtype(1))
    center = step * (np.arange(axis.m, dtype=dtype) + dtype(0.5))
    reach = dtype(width * 0.5) * stretch
    first = np.maximum((center - reach + dtype(0.5)).astype(np.int64), 0)
    end = np.minimum((center + reach + dtype(0.5)).astype(np.int64), axis.n)
    taps = np.arange(max(int((end - first).max()), 1))[:, None]
    weights = weigh(((taps + first) - center + dtype(0.5)).astype(dtype) / stretch)
    weights = np.where(taps < end - first, weights, dtype(0))
    return np.minimum(first + taps, end - 1), weights / weights.sum(0)


def _interpolated(axis: Axis, dtype: Any) -> tuple[Any, Any]:
    """2 or 4 neighbours of each place, those outside moved to the edge."""
    places, step = np.arange(axis.m, dtype=dtype), _step(axis, dtype)
    if axis.align_corners:
        places = places * step
    else:
        places = step * (places + dtype(0.5)) - dtype(0.5)
        if axis.kind == "linear":
            places = np.maximum(places, 0)
    left = np.minimum(np.floor(places), axis.n - 1)
    part = np.clip(places - left, 0, 1)
    left = left.astype(np.int64)
    if axis.kind == "linear":
        return np.stack([left, np.minimum(left + 1, axis.n - 1)]), np.stack([1 - part, part])
    weights = _cubic(np.stack([1 + part, part, 1 - part, 2 - part]), -0.75)
    return np.clip(left + np.arange(-1, 3)[:, None], 0, axis.n - 1), weights


def _nearest(axis: Axis) -> Any:
    half_way = np.float32(0.5 if axis.kind == "nearest-exact" else 0)
    places = (np.arange(axis.m, dtype=F32) + half_way) * _step(axis, np.float32)
    return np.minimum(np.floor(places).astype(np.int64), axis.n - 1)[None]


def table(axis: Axis, dtype: Any) -> tuple[Any, Any]:
    """(indices, weights) of an axis, NumPy arrays; weights None where all are 1."""
    if axis.kind.startswith("nearest"):
        return _nearest(axis), None
    if axis.m == axis.n and (axis.kind == "linear" or axis.antialias):
        return np.arange(axis.n)[None], None
    return (_antialiased if axis.antialias else _interpolated)(axis, dtype)


def transposed(indices: Any, weights: Any, n: int) -> tuple[Any, Any]:
    """The table of the gradient: which entries of the result read each of n entries.

    Short rows repeat an entry they have with a weight of 0.
    """
    order = np.argsort(indices.T.reshape(-1), kind="stable")
    read = indices.T.reshape(-1)[order]
    counts = np.bincount(read, minlength=n)
    taps = max(int(counts.max()), 1)
    rank = np.arange(len(read)) - (np.cumsum(counts) - counts)[read]
    back = np.zeros((taps, n), np.int64)
    places = order // len(indices)
    back[:, read] = places  # any entry that reads it, for the short rows
    back[rank, read] = places
    if weights is None and (counts == taps).all():
        return back, None
    shares = np.zeros((taps, n), F32 if weights is None else weights.dtype)
    shares[rank, read] = 1 if weights is None else weights.T.reshape(-1)[order]
    return back, shares


@functools.lru_cache(64)
def _whole(axis: Axis) -> tuple[Any, Any, int]:
    """(indices, integer weights, bits behind the point) for bytes."""
    indices, weights = table(axis, np.float64)
    if weights is None:
        return indices, np.ones(indices.shape, np.int32), 0
    taps, first = len(indices), indices.min(0)
    merged = np.zeros(indices.shape)  # taps moved to the edge are one tap
    np.add.at(merged, (indices - first, np.arange(axis.m)), weights)
    bits = 0
    while bits < 22 and int(0.5 + merged.max() * (1 << (bits + 1))) < 1 << 15:
        bits += 1
    scaled = merged * (1 << bits)
    rounded = np.trunc(scaled + np.where(scaled < 0, -0.5, 0.5)).astype(np.int32)
    return np.minimum(first + np.arange(taps)[:, None], axis.n - 1), rounded, bits


@functools.lru_cache(256)
def _floating(axis: Axis, dtype: Any, back: bool) -> tuple[Any, Any]:
    found = table(axis, dtype)
    return transposed(*found, axis.n) if back else found


# --- using them ---------------------------------------------------------------------------


def _along(x: Any, indices: Any, weights: Any, dim: int) -> Any:
    """x resampled along one dimension by a table."""
    shape = (-1,) + (1,) * (x.ndim - 1 - dim)
    total = None
    for t in range(len(indices)):
        part = x.take(indices[t], dim)
        if weights is not None:
            part *= weights[t].astype(x.dtype, copy=False).reshape(shape)
        if total is None:
            total = part
        else:
            total += part
    return total


def _floats(x: Any, axes: Sequence[Axis], back: bool) -> Any:
    """x with its last dimensions resampled, the last one first; 16-bit floats by way of float32."""
    y, xp = x.astype(F32) if half(x.dtype) else x, ns(x)
    dtype = np.float64 if y.dtype == np.float64 else np.float32
    for i, axis in enumerate(reversed(axes)):
        indices, weights = _floating(axis, dtype, back)
        weights = None if weights is None else xp.asarray(weights)
        y = _along(y, xp.asarray(indices), weights, x.ndim - 1 - i)
    return y.astype(x.dtype, copy=False)


def _bytes(x: Any, axes: Sequence[Axis]) -> Any:
    """The same for uint8, in whole numbers, rounded after each dimension."""
    xp = ns(x)
    for i, axis in enumerate(reversed(axes)):
        if axis.n == axis.m and not axis.kind.startswith("nearest"):
            continue
        indices, weights, bits = _whole(axis)
        y = _along(x.astype(np.int32), xp.asarray(indices), xp.asarray(weights), x.ndim - 1 - i)
        x = ((y + (1 << bits >> 1)) >> bits).clip(0, 255).astype(np.uint8)
    return x


@functools.lru_cache(64)
def _vjp_named(name: str) -> Any:
    @vjp((None, None), name=name)
    def resample_vjp(g: Any, axes: Any, back: bool) -> Any:
        if not isinstance(g, Tensor):
            return _floats(g, axes, back)
        made = _floats(g.array, axes, back)
        return result(made, g, resample_vjp, (g,), (axes, not back))

    return resample_vjp


def resample(x: Tensor, axes: Sequence[Axis], name: str) -> Tensor:
    """x with its last dimensions resampled, one `Axis` for each. uint8 stays uint8.

    `name` is that of the node. dtypes: floating, uint8.

    >>> from gpunn.nn.resample import Axis, resample
    >>> resample(gpunn.tensor([1.0, 3.0]), [Axis("linear", 2, 3, None, True)], "Resample")
    tensor([1., 2., 3.])
    """
    if x.array.dtype == np.uint8:
        return result(_bytes(x.array, axes), x)
    return result(_floats(x.array, axes, False), x, _vjp_named(name), (x,), (tuple(axes), True))
