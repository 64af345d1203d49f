"""Packed sequences on several devices: split by sequence, and put together again."""

# mypy: disable-error-code="attr-defined"
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.device import CPU, Device
from gpunn.nn.parallel.comm import even_sizes
from gpunn.nn.utils.rnn import PackedSequence
from gpunn.ops.convert import to_device
from gpunn.ops.join import cat
from gpunn.tensor import Tensor, wrap


def _places(sizes: Any) -> tuple[Any, Any]:
    """The step and the sequence (in packed order) of each packed row."""
    steps = np.repeat(np.arange(len(sizes)), sizes)
    return steps, np.arange(len(steps)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _index(values: Any, device: Device) -> Tensor:
    return wrap(device.xp.asarray(values), device)


def split_packed(packed: PackedSequence, devices: Sequence[Device]) -> list[PackedSequence]:
    """The sequences of a packed batch in even parts, one on each device, in their order.

    The `batch_sizes` of each part go on, with zeros, to the length of the longest sequence of all,
    so `pad_packed_sequence` pads every part to that length and the parts can be joined.
    """
    data, batch_sizes, order, back = packed
    sizes = batch_sizes.array
    batch = int(sizes[0])
    place = np.arange(batch) if back is None else back.cpu().array  # sequence -> packed position
    steps, rows = _places(sizes)
    parts, start = [], 0
    for count, device in zip(even_sizes(batch, len(devices)), devices, strict=True):
        mine = place[start : start + count]
        start += count
        kept = np.flatnonzero(np.isin(rows, mine))
        chosen = data.index_select(0, _index(kept, data.device))
        new_sizes = wrap(np.bincount(steps[kept], minlength=len(sizes)), CPU)
        new_order = None if order is None else _index(np.argsort(mine), device)
        parts.append(PackedSequence(to_device(chosen, device), new_sizes, new_order))
    return parts


def join_packed(parts: Sequence[PackedSequence], device: Device) -> PackedSequence:
    """The sequences of several packed batches as one, on a device: undoes `split_packed`."""
    steps, rows, lengths = [], [], []
    batch = 0
    for _, batch_sizes, order, _ in parts:
        sizes = batch_sizes.array
        own = np.arange(sizes[0]) if order is None else order.cpu().array
        step, place = _places(sizes)
        steps.append(step)
        rows.append(batch + own[place])
        length = np.zeros(sizes[0], np.int64)
        length[own] = (sizes[:, None] > np.arange(sizes[0])).sum(0)
        lengths.append(length)
        batch += int(sizes[0])
    step, row, length = (np.concatenate(x) for x in (steps, rows, lengths))
    falling = np.argsort(-length, kind="stable")
    rank = np.argsort(falling)
    where = np.lexsort((rank[row], step))
    in_order = bool((rank == np.arange(batch)).all())
    in_order = in_order and all(part.sorted_indices is None for part in parts)
    data = cat([to_device(part.data, device) for part in parts])
    data = data.index_select(0, _index(where, device))
    new_order = None if in_order else _index(falling, device)
    return PackedSequence(data, wrap(np.bincount(step), CPU), new_order)
