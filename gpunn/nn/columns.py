"""Convolution in NumPy: windows as columns of a matrix (im2col), for a bounded number of samples.

It serves where the C++ library does not: other dtypes, complex numbers, CuPy, no compiler.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

from gpunn.autograd.graph import namespace as ns

Ints = tuple[int, ...]
COLUMN_BYTES = 1 << 24  # how much memory the columns of a chunk of samples may take


class Geometry:
    """The sizes of one convolution: stride, padding (before, after), dilation, groups."""

    __slots__ = ("stride", "before", "after", "dilation", "groups", "size", "out", "kernel")

    def __init__(
        self, size: Ints, kernel: Ints, stride: Ints, before: Ints, after: Ints, dilation: Ints,
        groups: int, out: Ints | None = None,
    ):  # fmt: skip
        self.size, self.kernel, self.stride, self.dilation = size, kernel, stride, dilation
        self.before, self.after, self.groups = before, after, groups
        # A transposed convolution may leave out windows that would fit: it gives their number.
        self.out = out or tuple(
            (n + a + b - d * (k - 1) - 1) // s + 1
            for n, a, b, k, d, s in zip(size, before, after, kernel, dilation, stride, strict=True)
        )


def windows(x: Any, geo: Geometry) -> Any:
    """A view of every window of x: (N, C, *kernel, *out)."""
    xp = ns(x)
    padded = _pad_array(x, geo)
    steps = padded.strides
    d = len(geo.size)
    return xp.lib.stride_tricks.as_strided(
        padded,
        (*x.shape[:2], *geo.kernel, *geo.out),
        (*steps[:2], *(steps[2 + i] * geo.dilation[i] for i in range(d)),
         *(steps[2 + i] * geo.stride[i] for i in range(d))),
    )  # fmt: skip


def columns(x: Any, geo: Geometry) -> Any:
    """Every window of x as a column: (N, groups, C / groups * taps, places)."""
    n, c = x.shape[:2]
    return windows(x, geo).reshape(
        n, geo.groups, c // geo.groups * math.prod(geo.kernel), math.prod(geo.out)
    )


def uncolumns(cols: Any, channels: int, geo: Geometry) -> Any:
    """The transpose of `columns`: each entry added back to where it was read."""
    xp = ns(cols)
    n, d = cols.shape[0], len(geo.size)
    padded = (s + a + b for s, a, b in zip(geo.size, geo.before, geo.after, strict=True))
    whole = xp.zeros((n, channels, *padded), cols.dtype)
    cols = cols.reshape((n, channels, *geo.kernel, *geo.out))
    for tap in product(*map(range, geo.kernel)):
        place = tuple(
            slice(t * geo.dilation[i], t * geo.dilation[i] + geo.stride[i] * geo.out[i],
                  geo.stride[i])
            for i, t in enumerate(tap)
        )  # fmt: skip
        whole[(slice(None), slice(None), *place)] += cols[(slice(None), slice(None), *tap)]
    inner = tuple(slice(geo.before[i], geo.before[i] + geo.size[i]) for i in range(d))
    return whole[(slice(None), slice(None), *inner)]


def _pad_array(x: Any, geo: Geometry) -> Any:
    if not any(geo.before) and not any(geo.after):
        return x
    return ns(x).pad(x, [(0, 0), (0, 0), *zip(geo.before, geo.after, strict=True)])


def _chunks(n: int, geo: Geometry, x_channels: int, itemsize: int) -> Any:
    """Slices of samples whose columns fit the memory allowed."""
    each = max(x_channels * math.prod(geo.kernel) * math.prod(geo.out) * itemsize, 1)
    step = max(COLUMN_BYTES // each, 1)
    return (slice(i, min(i + step, n)) for i in range(0, n, step))


def _by_group(w: Any, groups: int) -> Any:
    return w.reshape(groups, w.shape[0] // groups, -1)


def conv_columns(x: Any, w: Any, geo: Geometry) -> Any:
    n = x.shape[0]
    y = ns(x).empty((n, w.shape[0], *geo.out), x.dtype)
    matrix = _by_group(w, geo.groups)
    for part in _chunks(n, geo, x.shape[1], x.dtype.itemsize):
        y[part] = (matrix @ columns(x[part], geo)).reshape(y[part].shape)
    return y


def input_grad_columns(g: Any, w: Any, geo: Geometry) -> Any:
    n, channels = g.shape[0], w.shape[1] * geo.groups
    x = ns(g).empty((n, channels, *geo.size), g.dtype)
    matrix = _by_group(w, geo.groups).swapaxes(1, 2)
    for part in _chunks(n, geo, channels, g.dtype.itemsize):
        rows = g[part].reshape(g[part].shape[0], geo.groups, -1, math.prod(geo.out))
        x[part] = uncolumns(matrix @ rows, channels, geo)
    return x


def weight_grad_columns(x: Any, g: Any, geo: Geometry) -> Any:
    groups, out_channels = geo.groups, g.shape[1]
    taps = x.shape[1] // groups * math.prod(geo.kernel)
    total = ns(x).zeros((groups, out_channels // groups, taps), x.dtype)
    for part in _chunks(x.shape[0], geo, x.shape[1], x.dtype.itemsize):
        rows = g[part].reshape(g[part].shape[0], groups, -1, math.prod(geo.out))
        total += (rows @ columns(x[part], geo).swapaxes(2, 3)).sum(axis=0)
    return total.reshape((out_channels, x.shape[1] // groups, *geo.kernel))
