"""Counting: distinct elements, how often each occurs, and histograms."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import half, refusal, same_device, write_out
from gpunn.ops.accumulate import add_at
from gpunn.ops.extreme import pair_type, write_pair
from gpunn.tensor import Tensor, method, normal_dim, wrap

# --- distinct elements --------------------------------------------------------------------


@method
def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """The distinct elements (or slices of dim), sorted, with the inverse map and counts if asked.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unique.html

    >>> gpunn.unique(gpunn.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    x = input.array
    if x.dtype.kind == "c":
        raise refusal("unique", x.dtype)
    axis = None if dim is None else _slices(x, dim)
    source = x.astype(np.float32) if half(x.dtype) else x
    if axis is not None and x.shape[axis] == 0:
        empty = np.zeros(0, np.int64)
        return _answers(input, x, empty, empty, return_inverse, return_counts)
    if axis is None and not (return_inverse or return_counts):
        values = np.unique(_host(source), equal_nan=False)
        return wrap(_back(values.astype(x.dtype, copy=False), input), input.device)
    values, inverse, counts = np.unique(
        _host(source), return_inverse=True, return_counts=True, axis=axis, equal_nan=False
    )
    inverse = inverse.reshape(x.shape if axis is None else -1)
    values = values.astype(x.dtype, copy=False)
    return _answers(input, values, inverse, counts, return_inverse, return_counts)


def _host(a: Any) -> np.ndarray:
    return a if type(a) is np.ndarray else a.get()


def _back(a: Any, like: Tensor) -> Any:
    return like.device.xp.asarray(a)


def _slices(x: Any, dim: int) -> int:
    """The dimension whose slices are compared, checked."""
    axis = normal_dim(dim, x.ndim)
    if x.shape[axis] and x.size == 0:
        raise RuntimeError(
            "There are 0 sized dimensions, and they aren't selected, so unique cannot be applied"
        )
    return axis


def _answers(
    like: Tensor, values: Any, inverse: Any, counts: Any, want_inverse: bool, want_counts: bool
) -> Any:
    made = [values]
    if want_inverse:
        made.append(inverse.astype(np.int64, copy=False))
    if want_counts:
        made.append(counts.astype(np.int64, copy=False))
    tensors = tuple(wrap(_back(m, like), like.device) for m in made)
    return tensors if len(tensors) > 1 else tensors[0]


@method
def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False, dim: int | None = None
) -> Any:
    """Runs of equal elements (or slices of dim) reduced to one each.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unique_consecutive.html

    >>> gpunn.unique_consecutive(gpunn.tensor([1, 1, 2, 1]))
    tensor([1, 2, 1])
    """
    x = _host(input.array)
    rows = x.reshape(-1) if dim is None else np.moveaxis(x, _slices(x, dim), 0)
    n = len(rows)
    new = np.ones(n, bool)
    if n > 1:
        new[1:] = (rows[1:] != rows[:-1]).reshape(n - 1, -1).any(axis=1)
    owner = np.cumsum(new) - 1
    values = rows[new] if dim is None else np.moveaxis(rows[new], 0, normal_dim(dim, x.ndim))
    inverse = owner.reshape(x.shape) if dim is None else owner
    return _answers(input, values, inverse, np.bincount(owner), return_inverse, return_counts)


# --- bincount and histograms --------------------------------------------------------------


@method
def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each non-negative integer occurs, or the sum of its weights.

    Shapes: a vector; dtypes: int64 counts, float32 sums for float32 weights, else float64.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.bincount.html

    >>> gpunn.bincount(gpunn.tensor([0, 2, 2]))
    tensor([1, 0, 2])
    """
    x = input.array
    if x.dtype.kind not in "iu":
        raise refusal("bincount", x.dtype)
    if minlength < 0:
        raise RuntimeError("minlength should be >= 0")
    if x.ndim != 1 or (x.size and int(x.min()) < 0):
        raise RuntimeError("bincount only supports 1-d non-negative integral inputs.")
    same_device("bincount", (input, weights))
    w = None if weights is None else weights.array
    if w is not None and w.shape != x.shape:
        raise RuntimeError("weights should be 1-d and have the same length as input")
    if not x.size:
        return wrap(input.device.xp.zeros(minlength, np.int64), input.device)
    xp, x = input.device.xp, x.astype(np.int64, copy=False)
    if w is None or xp is np:
        found = xp.bincount(x, w, minlength)
    else:  # CuPy's adds in any order
        found = xp.zeros(max(minlength, int(x.max()) + 1), np.float64)
        add_at(found, (x,), w.astype(np.float64))
    if w is not None:
        found = found.astype(np.float32 if w.dtype == np.float32 else np.float64)
    return wrap(found, input.device)


def _ends(name: str, x: Any, low: float, high: float, d: int = 0) -> tuple[float, float]:
    """The range of a histogram: as given, or that of the data where both ends are equal."""
    if low == high and x.size:
        low, high = float(x.min()), float(x.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        which = "" if name == "histc" else f"dimension {d}'s "
        raise RuntimeError(f"torch.{name}: {which}range of [{low}, {high}] is not finite")
    if low == high:
        return (low - 1, high + 1) if name == "histc" else (low - 0.5, high + 0.5)
    return low, high


def histc(
    input: Tensor, bins: int = 100, min: Any = 0, max: Any = 0, *, out: Tensor | None = None  # noqa: A002
) -> Tensor:
    """Counts of elements in equal bins between min and max (of the data, where both are 0).

    Elements outside are left out. dtypes: floating, the counts too.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.histc.html

    >>> gpunn.histc(gpunn.tensor([1., 2., 1.]), bins=4, min=0, max=3)
    tensor([0., 2., 1., 0.])
    """
    x = input.array
    if x.dtype.kind in "biuc":
        raise refusal("histogram", x.dtype)
    if bins <= 0:
        raise RuntimeError(f"torch.histogram(): bins must be > 0, but got {bins} for dimension 0")
    low, high = (float(v.item() if isinstance(v, Tensor) else v) for v in (min, max))
    if low > high:
        raise RuntimeError("torch.histc: max must be larger than min")
    wide = x.astype(np.float32) if half(x.dtype) else x
    low, high = _ends("histc", wide, low, high)
    inside = wide[(wide >= low) & (wide <= high)]
    at = ((inside - low) * bins / (high - low)).astype(np.int64)
    xp = input.device.xp
    counts = xp.bincount(xp.minimum(at, bins - 1), minlength=bins).astype(x.dtype)
    made = wrap(counts, input.device)
    return made if out is None else write_out(out, made, "histc")


_Histogram = pair_type("histogram", ("hist", "bin_edges"))
_HistogramDD = pair_type("histogramdd", ("hist", "bin_edges"))


def histogram(
    input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None,  # noqa: A002
    density: bool = False, out: Any = None,
) -> Any:  # fmt: skip
    """(hist, bin_edges): the sums of weights (counts, without) in bins given by their number or
    by their edges, divided by the total and the bins' widths with `density`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.histogram.html

    >>> gpunn.histogram(gpunn.tensor([1., 2., 1.]), bins=2, range=(0., 2.)).hist
    tensor([0., 3.])
    """
    flat = wrap(input.array.reshape(-1, 1), input.device)
    w = None if weight is None else wrap(weight.array.reshape(-1), weight.device)
    hist, edges = histogramdd(flat, [bins], range=range, weight=w, density=density)
    edge = edges[0].clone() if isinstance(bins, Tensor) else edges[0]
    return write_pair(out, _Histogram(hist, edge), "histogram")


def histogramdd(
    input: Tensor, bins: Any, *, range: Any = None, weight: Tensor | None = None,  # noqa: A002
    density: bool = False, out: Any = None,
) -> Any:  # fmt: skip
    """`histogram` of points: input (..., d), with bins for each of the d coordinates.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.histogramdd.html

    >>> gpunn.histogramdd(gpunn.tensor([[0., 1.], [1., 0.]]), bins=2).hist
    tensor([[0., 1.],
            [1., 0.]])
    """
    x = input.array
    if x.ndim < 2:
        raise RuntimeError("torch.histogramdd: input tensor should have at least 2 dimensions, but "
                           f"got {x.ndim}")  # fmt: skip
    if x.dtype.kind in "biuc":
        raise refusal("histogramdd", x.dtype)
    count = x.shape[-1]
    bins = [bins] * count if isinstance(bins, int) else list(bins)
    if len(bins) != count:
        raise RuntimeError("histogramdd: The size of bins must be equal to the innermost dimension "
                           "of the input.")  # fmt: skip
    points = x.reshape(-1, count)
    w = _weights(input, weight)
    ranges = [None] * count if range is None else [range[2 * d : 2 * d + 2] for d in _up_to(count)]
    edges = [_edges(input, points[:, d], bins[d], ranges[d], d) for d in _up_to(count)]
    xp = input.device.xp
    inside = xp.ones(len(points), np.bool_)
    at: Any = 0
    for d, e in enumerate(edges):
        column, n = points[:, d], e.size - 1
        inside &= (column >= e[0]) & (column <= e[-1])
        at = at * n + xp.clip(xp.searchsorted(e, column, "right") - 1, 0, n - 1)
    shape = tuple(e.size - 1 for e in edges)
    sums = xp.bincount(at[inside], None if w is None else w[inside], int(np.prod(shape)))
    hist = sums.astype(x.dtype).reshape(shape)
    if density:
        hist = _density(hist, edges, xp)
    device = input.device
    return _HistogramDD(wrap(hist, device), tuple(wrap(e, device) for e in edges))


_up_to = range


def _weights(input: Tensor, weight: Tensor | None) -> Any:
    if weight is None:
        return None
    if weight.array.shape != input.array.shape[:-1]:
        raise RuntimeError(
            "torch.histogramdd: if weight tensor is provided it should have the same shape as the "
            "input tensor excluding its innermost dimension, but got input with shape "
            f"{list(input.array.shape)} and weight with shape {list(weight.array.shape)}"
        )
    if weight.dtype is not input.dtype:
        raise RuntimeError(
            "torch.histogramdd: if weight tensor is provided, input tensor and weight tensor "
            f"should have the same dtype, but got input({input.dtype}), and weight({weight.dtype})"
        )
    return weight.array.reshape(-1)


def _edges(input: Tensor, column: Any, bins: Any, ends: Any, d: int) -> Any:
    """The edges of one coordinate's bins."""
    if isinstance(bins, Tensor):
        if bins.array.ndim != 1:
            raise RuntimeError(
                "torch.histogramdd: bins tensor should have one dimension, but got "
                f"{bins.array.ndim} dimensions in the bins tensor for dimension {d}"
            )
        if bins.dtype is not input.dtype:
            raise RuntimeError(
                "torch.histogramdd: input tensor and bins tensors should have the same dtype, but "
                f"got input with dtype {input.dtype} and bins for dimension {d} with dtype "
                f"{bins.dtype}"
            )
        return bins.array
    if bins <= 0:
        raise RuntimeError(
            f"torch.histogram(): bins must be > 0, but got {bins} for dimension {d}"
        )
    low, high = (0.0, 0.0) if ends is None else map(float, ends)
    if ends is None and not column.size:
        high = 1.0
    if low > high:
        raise RuntimeError(
            f"torch.histogramdd: min should not exceed max, but got min {low:g} max {high:g} for "
            f"dimension {d}"
        )
    if ends is None and column.size:
        low, high = float(column.min()), float(column.max())
    low, high = _ends("histogramdd", column[:0], low, high, d)
    return _equal_edges(low, high, bins, column)


def _equal_edges(low: float, high: float, bins: int, like: Any) -> Any:
    """Equal bins' edges, rounded as PyTorch does: values that lie on one must fall on its side."""
    xp, real = ns(like), like.dtype.type
    first, last = real(low), real(high)
    step, i = (last - first) / real(bins), xp.arange(bins + 1).astype(like.dtype)
    return xp.where(i < (bins + 1) // 2, first + step * i, last - step * (real(bins) - i))


def _density(hist: Any, edges: list[Any], xp: Any) -> Any:
    hist = hist / hist.sum()
    for d, e in enumerate(edges):
        hist = hist / xp.diff(e).reshape((-1,) + (1,) * (len(edges) - 1 - d))
    return hist


__all__ = ["bincount", "histc", "histogram", "histogramdd", "unique", "unique_consecutive"]
for _f in (histc, histogram):
    method(_f)
