"""Which weights attention's dropout keeps, without a matrix of them where it would be large.

On the CPU the mask is PyTorch's for the same seed: two words of the stream of MT19937 for each
weight, in order. Where rows are long the state of the stream is kept for every 64 of them, 39 bytes
a row, and a block of the mask is drawn again when it is needed; the mask of short rows is kept. On
a GPU any word of its stream is computed when it is needed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn import native
from gpunn.cuda.kernels.attention import threshold
from gpunn.device import Device
from gpunn.draw_integers import bernoulli
from gpunn.generator import Generator, default_for, philox4x32
from gpunn.native.attention import MARK, STATE

_KEPT = 1 << 14  # up to so many weights of MARK rows are kept: not many times what a state takes


class Redrawn:
    """A mask of `shape` (..., rows, columns) that is drawn block by block.

    `marks`, uint32 (matrices, ceil(rows / MARK), 625), has the state of MT19937 at every MARK of
    its rows: its words and the position in them.
    """

    def __init__(self, shape: tuple[int, ...], keep: float, marks: np.ndarray):
        self.shape, self.keep, self.marks = shape, keep, marks

    def block(self, heads: slice, rows: slice) -> np.ndarray:
        """The mask (heads, rows, columns) of some matrices; rows.start is a multiple of MARK."""
        generator = Generator()
        shape = rows.stop - rows.start, self.shape[-1]
        found = []
        for marks in self.marks[heads]:
            generator.stream.resume(marks[rows.start // MARK])
            found.append(bernoulli(shape, np.dtype(np.bool_), generator, self.keep))
        return np.stack(found)

    def whole(self) -> np.ndarray:
        """All of it, of `shape`."""
        return self.block(slice(None), slice(0, self.shape[-2])).reshape(self.shape)


def draw_kept(shape: tuple[int, ...], keep: float, device: Device) -> Any:
    """Which weights (..., rows, columns) stay, from the default generator of `device`.

    None for all; on the CPU a bool array or a Redrawn, on a GPU the (seed, counter) they come from.
    """
    *batch, rows, columns = shape
    if keep == 1:
        return None
    if device.uses_kernels:
        tiles = math.prod(batch) * -(-rows // 16) * -(-columns // 16)
        seed, offset = default_for(device).reserve(256 * tiles)
        return seed, offset // 4
    if keep == 0:
        return np.broadcast_to(np.False_, shape)  # PyTorch draws nothing
    generator = default_for(device)
    if min(rows, MARK) * columns <= _KEPT:
        return bernoulli(shape, np.dtype(np.bool_), generator, keep)
    with generator.lock:
        return Redrawn(shape, keep, _marks(generator.stream, math.prod(batch), rows, columns))


def _marks(stream: Any, heads: int, rows: int, columns: int) -> np.ndarray:
    """The states at every MARK rows of a mask; the stream goes on by all of it."""
    state = stream.state()
    marks = native.attention_marks(state, heads, rows, columns)
    if marks is not None:
        stream.resume(state)
        return marks
    marks = np.empty((heads, -(-rows // MARK), STATE), np.uint32)
    for of_head in marks:
        for i, place in enumerate(of_head):
            place[:] = stream.state()
            stream.skip(2 * min(MARK, rows - i * MARK) * columns)
    return marks


def philox_keep(
    seed: int, counter: int, shape: tuple[int, ...], keep: float, xp: Any = np
) -> Any:
    """Which weights the GPU keeps: a bool array of `shape` (..., rows, columns).

    Every 16 x 16 tile of a matrix takes 64 counters of the Philox stream, tiles in order. Counter
    8 i + j gives the words of elements (i, j), (i, j + 8), (i + 8, j), (i + 8, j + 8): the four
    that one thread of a tensor-core product holds, of the matrix as of its transpose. A weight
    stays where its word is below keep * 2**32.
    Source: kernels/attention.cuh, which draws the same.

    >>> from gpunn.nn.attention_dropout import philox_keep
    >>> int(philox_keep(0, 0, (100, 100), 0.5).sum())
    4998
    """
    *batch, rows, columns = shape
    high, wide, many = -(-rows // 16), -(-columns // 16), math.prod(batch)
    counters = xp.zeros((many * high * wide * 64, 2), np.uint64)
    counters[:, 0] = xp.arange(counter, counter + len(counters), dtype=np.uint64)
    words = philox4x32(counters, seed, xp).reshape(many, high, wide, 8, 8, 2, 2)
    words = words.transpose(0, 1, 5, 3, 2, 6, 4).reshape(many, 16 * high, 16 * wide)
    kept = words[:, :rows, :columns] < np.uint64(threshold(keep))
    return kept.reshape(shape)
