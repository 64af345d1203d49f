"""Sampling an image or a volume at any places, and the affine maps that say where.

Along each dimension a place reads 1, 2 or 4 neighbours, its taps. A tap has an index, whether it
lies inside, and a weight that is a polynomial of `part`, how far the place lies behind its left
neighbour; the product of the weights of all dimensions is that of an element.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from gpunn.amp.casts import AUTOCAST, casts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.ops._rows import half, not_a_tensor, proper
from gpunn.ops.accumulate import add_at
from gpunn.tensor import Tensor, wrap

_MODES = ("bilinear", "nearest", "bicubic")
_PADDINGS = ("zeros", "border", "reflection")
_A = -0.75  # of the cubic convolution kernel
_DEFAULT = (
    "Default grid_sample and affine_grid behavior has changed to align_corners=False since 1.3.0. "
    "Please specify align_corners=True if the old behavior is desired. See the documentation of "
    "grid_sample for details."
)


class How(NamedTuple):
    """The options of a call."""

    mode: str
    padding: str
    align: bool


# --- weights of the taps, of arrays or Tensors, and their slopes ---------------------------


def _near(d: Any) -> Any:
    return ((_A + 2) * d - (_A + 3)) * d * d + 1


def _far(d: Any) -> Any:
    return ((_A * d - 5 * _A) * d + 8 * _A) * d - 4 * _A


def _near_slope(d: Any) -> Any:
    return (3 * (_A + 2) * d - 2 * (_A + 3)) * d


def _far_slope(d: Any) -> Any:
    return (3 * _A * d - 10 * _A) * d + 8 * _A


_WEIGHTS = {
    "nearest": lambda t: [0 * t + 1],
    "bilinear": lambda t: [1 - t, t],
    "bicubic": lambda t: [_far(1 + t), _near(t), _near(1 - t), _far(2 - t)],
}
_SLOPES = {
    "nearest": lambda t: [0 * t],
    "bilinear": lambda t: [0 * t - 1, 0 * t + 1],
    "bicubic": lambda t: [_far_slope(1 + t), _near_slope(t), -_near_slope(1 - t),
                          -_far_slope(2 - t)],
}  # fmt: skip


# --- where the taps lie -------------------------------------------------------------------


def _clipped(x: Any, n: int) -> Any:
    """x from 0 to n - 1; NaN becomes 0."""
    xp = ns(x)
    return xp.minimum(xp.where(x > 0, x, 0), n - 1).astype(x.dtype, copy=False)


def _reflected(x: Any, n: int, align: bool) -> tuple[Any, Any]:
    """(x thrown back at the edges as often as needed, the slope of that)."""
    xp, low, span = ns(x), 0.0 if align else -0.5, n - 1 if align else n
    if span == 0:
        return xp.zeros_like(x), xp.zeros_like(x)
    away = abs(x - low)
    rest, turned = xp.fmod(away, span), xp.floor(away / span) % 2 != 0
    slope = xp.where((x < low) ^ turned, -1, 1).astype(x.dtype)
    return xp.where(turned, span - rest, rest) + x.dtype.type(low), slope


def _padded(x: Any, n: int, how: How) -> tuple[Any, Any]:
    """(the place inside that stands for x, the slope of that)."""
    if how.padding == "zeros":
        return x, 1
    slope: Any = 1
    if how.padding == "reflection":
        x, slope = _reflected(x, n, how.align)
    return _clipped(x, n), slope * ((x > 0) & (x < n - 1))


def _taps(c: Any, n: int, how: How) -> tuple[list[Any], list[Any], Any, Any]:
    """(indices, whether each lies inside, part, its slope) for coordinates c from -1 to 1."""
    xp, scale = ns(c), (n - 1 if how.align else n) / 2
    with np.errstate(invalid="ignore", over="ignore"):  # NaN and infinities are places outside
        x = (c + 1).astype(np.float64) * scale - (0 if how.align else 0.5)
        x = x.astype(c.dtype)  # rounded once, as PyTorch's fused multiply-add does
        slope: Any = 1
        if how.mode != "bicubic":
            x, slope = _padded(x, n, how)
        left = xp.rint(x) if how.mode == "nearest" else xp.floor(x)
        part = xp.zeros_like(x) if how.mode == "nearest" else x - left
        places = [left + t for t in {"nearest": (0,), "bilinear": (0, 1)}.get(
            how.mode, (-1, 0, 1, 2))]  # fmt: skip
        if how.mode == "bicubic":
            places = [_padded(p, n, how)[0] for p in places]
        inside = [((p >= 0) & (p < n)).astype(c.dtype) for p in places]
        slope = (slope * scale + xp.zeros_like(part)).astype(c.dtype, copy=False)
        return [_clipped(p, n).astype(np.int64) for p in places], inside, part, slope


class _Sampling:
    """All taps of a grid: `elements` yields rows of the flattened input and tap numbers."""

    def __init__(self, shape: Any, grid: Any, how: How):
        self.size, self.batch, self.out = shape[2:], shape[0], grid.shape[1:-1]
        dims, self.how = len(self.size), how
        grid = grid.astype(F32) if half(grid.dtype) else grid
        flat = grid.reshape(-1, dims)
        self.axes = [_taps(flat[:, dims - 1 - d], n, how) for d, n in enumerate(self.size)]
        rows = ns(grid).arange(self.batch, dtype=np.int64) * math.prod(self.size)
        self.first = rows.repeat(math.prod(self.out))

    def elements(self) -> Any:
        for taps in product(*(range(len(axis[0])) for axis in self.axes)):
            row: Any = 0
            for n, axis, t in zip(self.size, self.axes, taps, strict=True):
                row = row * n + axis[0][t]
            yield row + self.first, taps

    def weights(self) -> list[list[Any]]:
        with np.errstate(invalid="ignore"):
            return [
                [w * i for w, i in zip(_WEIGHTS[self.how.mode](part), inside, strict=True)]
                for _, inside, part, _ in self.axes
            ]

    def slopes(self) -> list[list[Any]]:
        with np.errstate(invalid="ignore"):
            return [
                [w * i * s for w, i in zip(_SLOPES[self.how.mode](part), inside, strict=True)]
                for _, inside, part, s in self.axes
            ]


def _rows(x: Any) -> Any:
    """(N, C, *size) as (N * size, C), in float32 at least."""
    x = x.astype(F32) if half(x.dtype) else x
    n, c, p = x.shape[0], x.shape[1], math.prod(x.shape[2:])
    return ns(x).ascontiguousarray(x.reshape(n, c, p).swapaxes(1, 2)).reshape(n * p, c)


def _planes(rows: Any, n: int, size: Any, dtype: Any) -> Any:
    """(N * size, C) as (N, C, *size)."""
    c, p = rows.shape[1], math.prod(size)
    planes = ns(rows).ascontiguousarray(rows.reshape(n, p, c).swapaxes(1, 2))
    return planes.reshape((n, c, *size)).astype(dtype, copy=False)


def _times(factors: Sequence[Any]) -> Any:
    total = factors[0]
    for f in factors[1:]:
        total = total * f
    return total


def _pick(weights: list[list[Any]], taps: Any) -> list[Any]:
    return [w[t] for w, t in zip(weights, taps, strict=True)]


def _sample(x: Any, grid: Any, how: How) -> Any:
    """The samples; raw arrays."""
    rows, sampling, total = _rows(x), _Sampling(x.shape, grid, how), None
    weights = sampling.weights()
    for row, taps in sampling.elements():
        part = rows.take(row, 0)
        part *= _times(_pick(weights, taps))[:, None]
        total = part if total is None else total + part
    return _planes(total, len(x), sampling.out, x.dtype)


def _composed(x: Tensor, grid: Tensor, how: How) -> Tensor:
    """The same in plain operations on Tensors: weights as polynomials of the grid."""
    sampling, dims = _Sampling(x.array.shape, grid.array, how), x.ndim - 2
    moved: Any = (grid - grid.detach()).reshape(-1, dims)  # type: ignore[attr-defined]
    n, c = x.shape[:2]
    rows = x.reshape(n, c, -1).permute(0, 2, 1).reshape(-1, c)  # type: ignore[attr-defined]
    weights = []
    for d, (_, inside, part, slope) in enumerate(sampling.axes):
        t = wrap(part, x.device) + moved[:, dims - 1 - d] * wrap(slope, x.device)
        made = _WEIGHTS[how.mode](t)
        weights.append([w * wrap(i, x.device) for w, i in zip(made, inside, strict=True)])
    total: Any = 0
    for row, taps in sampling.elements():
        part = rows.index_select(0, wrap(row, x.device))
        total = total + part * _times(_pick(weights, taps)).unsqueeze(1)
    planes = total.reshape(n, math.prod(sampling.out), c).permute(0, 2, 1)
    return planes.reshape(n, c, *sampling.out).to(x.dtype)  # type: ignore[no-any-return]


def _backward(g: Any, x: Any, grid: Any, how: How, needs: tuple[bool, bool]) -> Any:
    sampling, g_rows = _Sampling(x.shape, grid, how), _rows(g)
    xp, weights, dims = ns(x), sampling.weights(), x.ndim - 2
    whole = xp.zeros((len(x) * math.prod(sampling.size), x.shape[1]), g_rows.dtype)
    slopes: Any = sampling.slopes() if needs[1] else None
    rows: Any = _rows(x) if needs[1] else None
    g_grid = xp.zeros((len(g_rows), dims), g_rows.dtype)
    for row, taps in sampling.elements():
        if needs[0]:
            add_at(whole, row, g_rows * _times(_pick(weights, taps))[:, None])
        if slopes is not None:
            share = (rows.take(row, 0) * g_rows).sum(1)
            for d in range(dims):
                factors = _pick(weights, taps)
                factors[d] = slopes[d][taps[d]]
                g_grid[:, dims - 1 - d] += share * _times(factors)
    return (
        _planes(whole, len(x), sampling.size, x.dtype) if needs[0] else None,
        g_grid.reshape(grid.shape).astype(grid.dtype, copy=False) if needs[1] else None,
    )


@vjp((0, 1, None), composed=_composed, masked=True, name="GridSampler2DBackward0")
def _sample_2d_vjp(g: Any, x: Any, grid: Any, how: How, needs: tuple[bool, bool]) -> Any:
    return _backward(g, x, grid, how, needs)


@vjp((0, 1, None), composed=_composed, masked=True, name="GridSampler3DBackward0")
def _sample_3d_vjp(g: Any, x: Any, grid: Any, how: How, needs: tuple[bool, bool]) -> Any:
    return _backward(g, x, grid, how, needs)


# --- the functions ------------------------------------------------------------------------


def _check(x: Tensor, grid: Tensor, how: How, ndim: int | None) -> None:
    shape, places = list(x.array.shape), list(grid.array.shape)
    if x.device is not grid.device:
        raise RuntimeError(
            "grid_sampler(): expected input and grid to be on same device, but input is on "
            f"{x.device} and grid is on {grid.device}"
        )
    if not shape or not places or shape[0] != places[0]:
        raise RuntimeError(
            "grid_sampler(): expected grid and input to have same batch size, but got input with "
            f"sizes {shape} and grid with sizes {places}"
        )
    if places[-1] != len(shape) - 2:
        raise RuntimeError(
            f"grid_sampler(): expected grid to have size {len(shape) - 2} in last dimension, but "
            f"got grid with sizes {places}"
        )
    for i in range(2, len(shape)):
        if shape[i] == 0:
            raise RuntimeError(
                "grid_sampler(): expected input to have non-empty spatial dimensions, but input "
                f"has sizes {shape} with dimension {i} being empty"
            )
    wanted = (4, 5) if ndim is None else (ndim,)
    if len(shape) not in wanted or len(places) != len(shape):
        raise RuntimeError(
            f"grid_sampler(): expected {'D or '.join(map(str, wanted))}D input and grid with same "
            f"number of dimensions, but got input with sizes {shape} and grid with sizes {places}"
        )
    if how.mode == "bicubic" and len(shape) == 5:
        raise RuntimeError("grid_sampler(): bicubic interpolation only supports 4D input")
    if not x.is_floating_point():  # type: ignore[attr-defined]
        told = f"grid_sampler_{len(shape) - 2}d_cpu" + "_kernel_impl" * (len(shape) == 4)
        raise NotImplementedError(f"\"{told}\" not implemented for '{proper(x.dtype)}'")
    if x.array.dtype != grid.array.dtype:
        raise RuntimeError(
            f"expected scalar type {proper(x.dtype)} but found {proper(grid.dtype)}: grid_sample "
            "needs input and grid of one dtype"
        )


def _grid_sample(x: Tensor, grid: Tensor, how: How, ndim: int | None = None) -> Tensor:
    for t in (x, grid):
        if not isinstance(t, Tensor):
            raise not_a_tensor("grid_sampler", t)
    if AUTOCAST:
        x, grid = casts("grid_sampler", x, grid)
    _check(x, grid, how, ndim)
    made = _sample(x.array, grid.array, how)
    found = _sample_2d_vjp if x.ndim == 4 else _sample_3d_vjp
    return result(made, x, found, (x, grid), (x.array, grid.array, how))


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Tensor:  # fmt: skip
    """The input's values at the places of `grid`, between its entries.

    A place is (x, y) or (x, y, z), x along the last dimension, from -1 to 1: those are the outer
    edges of the first and last entry, or their centres with `align_corners`. mode: bilinear,
    nearest, or bicubic (4-D only). padding_mode, for places outside: zeros, border (the nearest
    entry) or reflection.
    Shapes: input (N, C, H, W), grid (N, H', W', 2), result (N, C, H', W'); in 5-D with depths
    and 3. dtypes: floating, the same in both. RuntimeError for shapes that do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.grid_sample.html

    >>> x = gpunn.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> F.grid_sample(x, gpunn.zeros(1, 1, 1, 2), align_corners=False)
    tensor([[[[2.5000]]]])
    """
    if mode not in _MODES:
        raise ValueError(
            "nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or 'bicubic', "
            f"but got: '{mode}'"
        )
    if padding_mode not in _PADDINGS:
        raise ValueError(
            "nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or "
            f"'reflection', but got: '{padding_mode}'"
        )
    if align_corners is None:
        warnings.warn(_DEFAULT, stacklevel=2)
    return _grid_sample(input, grid, How(mode, padding_mode, bool(align_corners)))


def grid_sampler(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`F.grid_sample` under its name in `torch`, with numbers for the modes.

    interpolation_mode: 0 bilinear, 1 nearest, 2 bicubic; padding_mode: 0 zeros, 1 border,
    2 reflection.

    >>> gpunn.grid_sampler(gpunn.ones(1, 1, 2, 2), gpunn.zeros(1, 1, 1, 2), 0, 0, False)
    tensor([[[[1.]]]])
    """
    how = How(_MODES[interpolation_mode], _PADDINGS[padding_mode], bool(align_corners))
    return _grid_sample(input, grid, how)


def grid_sampler_2d(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`grid_sampler` of 4-D inputs.

    >>> gpunn.grid_sampler_2d(gpunn.ones(1, 1, 2, 2), gpunn.zeros(1, 1, 1, 2), 0, 0, False)
    tensor([[[[1.]]]])
    """
    how = How(_MODES[interpolation_mode], _PADDINGS[padding_mode], bool(align_corners))
    return _grid_sample(input, grid, how, 4)


def grid_sampler_3d(
    input: Tensor, grid: Tensor, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Tensor:
    """`grid_sampler` of 5-D inputs.

    >>> gpunn.grid_sampler_3d(gpunn.ones(1, 1, 2, 2, 2), gpunn.zeros(1, 1, 1, 1, 3), 0, 0, False)
    tensor([[[[[1.]]]]])
    """
    how = How(_MODES[interpolation_mode], _PADDINGS[padding_mode], bool(align_corners))
    return _grid_sample(input, grid, how, 5)


# --- affine maps --------------------------------------------------------------------------


@vjp((None,), name="AffineGridGeneratorBackward0")
def _affine_vjp(g: Any, base: Any) -> Any:
    tensors = isinstance(g, Tensor)
    n, dims = g.shape[0], g.shape[-1]
    flat = g.reshape(n, -1, dims)
    if tensors:
        return flat.mT @ wrap(base, g.device).to(g.dtype)  # type: ignore[attr-defined]
    return (flat.swapaxes(1, 2).astype(base.dtype, copy=False) @ base).astype(g.dtype, copy=False)


def _base(size: Sequence[int], align: bool, dtype: Any, xp: Any) -> Any:
    """The places of all entries and a 1, (entries, dimensions + 1), x first."""
    axes = []
    for n in size:
        axis = xp.linspace(-1, 1, n, dtype=dtype) if n > 1 else xp.zeros(n, dtype)
        axes.append(axis if align else axis * ((n - 1) / n))
    places = xp.meshgrid(*axes, indexing="ij")[::-1]
    return xp.stack([*(p.reshape(-1) for p in places), xp.ones(math.prod(size), dtype)], -1)


def affine_grid_generator(theta: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    """`F.affine_grid` under its name in `torch`.

    >>> gpunn.affine_grid_generator(gpunn.eye(2, 3)[None], (1, 1, 1, 2), False)
    tensor([[[[-0.5000,  0.0000],
              [ 0.5000,  0.0000]]]])
    """
    if len(size) not in (4, 5):
        raise RuntimeError("AffineGridGenerator needs 4d (spatial) or 5d (volumetric) inputs.")
    x, spatial = theta.array, [int(n) for n in size[2:]]
    dims = len(spatial)
    if x.ndim != 3 or x.shape != (size[0], dims, dims + 1):
        raise RuntimeError(
            "Expected size for first two dimensions of batch2 tensor to be: "
            f"[{size[0]}, {dims + 1}] but got: {[x.shape[0], x.shape[-1]]}: theta {list(x.shape)} "
            f"does not fit size {list(size)}"
        )
    wide = x.astype(F32) if half(x.dtype) else x
    base = _base(spatial, align_corners, wide.dtype, ns(x))
    grid = (base @ wide.swapaxes(1, 2)).reshape((size[0], *spatial, dims))
    return result(grid.astype(x.dtype, copy=False), theta, _affine_vjp, (theta,), (base,))


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """The grid for `grid_sample` that maps each place of the result by a matrix.

    grid[n, h, w] = theta[n] @ (x, y, 1) for the place (x, y) of entry (h, w), from -1 to 1.
    Shapes: theta (N, 2, 3) and size (N, C, H, W) give (N, H, W, 2); theta (N, 3, 4) and size
    (N, C, D, H, W) give (N, D, H, W, 3). dtypes: floating. ValueError for other shapes.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.affine_grid.html

    >>> F.affine_grid(gpunn.eye(2, 3)[None], (1, 1, 2, 2), align_corners=True)
    tensor([[[[-1., -1.],
              [ 1., -1.]],
             [[-1.,  1.],
              [ 1.,  1.]]]])
    """
    if align_corners is None:
        warnings.warn(_DEFAULT, stacklevel=2)
    if not theta.is_floating_point():  # type: ignore[attr-defined]
        raise ValueError(f"Expected theta to have floating point type, but got {theta.dtype}")
    if len(size) not in (4, 5):
        raise NotImplementedError(
            "affine_grid only supports 4D and 5D sizes, for 2D and 3D affine transforms, "
            f"respectively. Got size {size}."
        )
    dims = len(size) - 2
    if theta.ndim != 3 or tuple(theta.shape[1:]) != (dims, dims + 1):
        raise ValueError(
            f"Expected a batch of {dims}D affine matrices of shape Nx{dims}x{dims + 1} for size "
            f"{size}. Got {theta.shape}."
        )
    if align_corners and min(size[2:]) == 1:
        warnings.warn(
            "Since version 1.3.0, affine_grid behavior has changed for unit-size grids when "
            "align_corners=True. This is not an intended use case of affine_grid. See the "
            "documentation of affine_grid for details.",
            stacklevel=2,
        )
    elif min(size) <= 0:
        raise ValueError(f"Expected non-zero, positive output size. Got {size}")
    return affine_grid_generator(theta, size, bool(align_corners))
