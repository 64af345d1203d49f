"""Norms, distances and angles of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, unbroadcast, vjp
from gpunn.linalg.norms import vector_norm
from gpunn.nn.module import Module
from gpunn.nn.reduction import unsupported
from gpunn.ops._rows import half, proper, same_device, write_out
from gpunn.ops.query import result_type
from gpunn.ops.shape import broadcast_tensors
from gpunn.tensor import Tensor, wrap


def normalize(
    input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """x divided by its p-norm along `dim`, or by `eps` where the norm is smaller.

    Shapes: any; the result has the same.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.normalize.html

    >>> F.normalize(gpunn.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    size = input.norm(p, dim, keepdim=True).clamp_min(eps)  # type: ignore[attr-defined]
    made = input / size.expand_as(input)  # type: ignore[operator]
    return made if out is None else write_out(out, made, "normalize")


# --- of pairs -----------------------------------------------------------------------------


@vjp()
def _at_least_vjp(g: Any) -> Any:
    return g


def at_least(x: Tensor, low: float) -> Tensor:
    """x, no less than `low`; the gradient passes as if x had stayed as it is."""
    return result(x.device.xp.maximum(x.array, x.array.dtype.type(low)), x, _at_least_vjp, (x,))


@autocasts("cosine_similarity")
def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `dim`.

    Shapes: any two that broadcast; the common shape without `dim`. dtypes: floating, RuntimeError
    for others.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cosine_similarity.html

    >>> F.cosine_similarity(gpunn.tensor([[3.0, 4.0]]), gpunn.tensor([[4.0, 3.0]]))
    tensor([0.9600])
    """
    if not isinstance(dim, int):
        raise TypeError(
            f"cosine_similarity(): argument 'dim' must be int, not {type(dim).__name__}"
        )
    common = result_type(x1, x2)
    if not common.is_floating_point:
        raise RuntimeError(
            f"expected common dtype to be floating point, yet common dtype is {proper(common)}"
        )
    a, b = broadcast_tensors(x1.to(common), x2.to(common))  # type: ignore[attr-defined]
    sizes = (at_least(vector_norm(x, 2, dim, True), eps) for x in (a, b))
    a, b = (x / size for x, size in zip((a, b), sizes, strict=True))  # type: ignore[operator]
    return (a * b).sum(dim)  # type: ignore[attr-defined, operator]


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The p-norm of x1 - x2 + eps along the last dimension.

    Shapes: any two that broadcast; the common shape without its last dimension (of size 1 with
    `keepdim`). dtypes: numeric; integers give the default float.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pairwise_distance.html

    >>> F.pairwise_distance(gpunn.tensor([[3.0, 0.0]]), gpunn.tensor([[0.0, 4.0]]))
    tensor([5.])
    """
    return vector_norm(x1 - x2 + eps, p, -1, keepdim)  # type: ignore[operator]


class CosineSimilarity(Module):
    """The cosine of the angle along `dim`: see `nn.functional.cosine_similarity`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CosineSimilarity.html

    >>> nn.CosineSimilarity(dim=0)(gpunn.tensor([3.0, 4.0]), gpunn.tensor([4.0, 3.0]))
    tensor(0.9600)
    """

    __constants__ = ["dim", "eps"]

    def __init__(self, dim: int = 1, eps: float = 1e-8):
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """The p-norm of the difference of two vectors: see `nn.functional.pairwise_distance`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PairwiseDistance.html

    >>> nn.PairwiseDistance(p=1)(gpunn.tensor([3.0, 0.0]), gpunn.tensor([0.0, 4.0]))
    tensor(7.)
    """

    __constants__ = ["norm", "eps", "keepdim"]

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False):
        super().__init__()
        self.norm = p
        self.eps = eps
        self.keepdim = keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


# --- of every pair ------------------------------------------------------------------------


@vjp((0, 1, -1))
def _euclid_vjp(g: Any, a: Any, b: Any, y: Any) -> Any:
    """That of |a - b| through products of matrices: the differences are never held."""
    xp = ns(g)
    near = y == 0
    share = xp.where(near, xp.zeros_like(g), g / xp.where(near, xp.ones_like(y), y))
    back = share.swapaxes(-1, -2)
    ga = a * _last(share.sum(axis=-1)) - share @ b
    gb = b * _last(back.sum(axis=-1)) - back @ a
    if isinstance(g, Tensor):
        return ga.sum_to_size(a.shape), gb.sum_to_size(b.shape)  # type: ignore[attr-defined]
    return unbroadcast(ga, a.shape), unbroadcast(gb, b.shape)


def _euclid(a: Any, b: Any) -> Any:
    """sqrt(|a|^2 + |b|^2 - 2 a . b) of every two rows."""
    square = _last((a * a).sum(axis=-1)) + (b * b).sum(axis=-1)[..., None, :]
    square -= 2 * (a @ b.swapaxes(-1, -2))
    return ns(a).sqrt(ns(a).maximum(square, a.dtype.type(0)))


@vjp((0, 1, -1, None))
def _cdist_vjp(g: Any, a: Any, b: Any, y: Any, p: float) -> Any:
    """The p-norm's slope along each difference; 0 where two points meet."""
    xp = ns(g)
    tensors = isinstance(g, Tensor)
    d = _differences(a, b)
    far = y == 0
    safe = xp.where(far, xp.ones_like(y), y)
    size = abs(d)
    if p == float("inf"):
        slope = xp.sign(d) * _as(size == _last(y), d)
    elif p == 1:
        slope = xp.sign(d)
    elif p == 0:
        slope = d * 0
    else:
        here = size == 0
        power = xp.where(here, xp.ones_like(size), size) ** (p - 1)
        slope = xp.sign(d) * xp.where(here, xp.zeros_like(size), power) / _last(safe) ** (p - 1)
    spread = slope * _last(xp.where(far, xp.zeros_like(g), g))
    ga, gb = spread.sum(axis=-2), -spread.sum(axis=-3)
    if tensors:
        return ga.sum_to_size(a.shape), gb.sum_to_size(b.shape)
    return unbroadcast(ga, a.shape), unbroadcast(gb, b.shape)


def _as(mask: Any, like: Any) -> Any:
    return mask.to(like.dtype) if isinstance(mask, Tensor) else mask.astype(like.dtype)


def _last(x: Any) -> Any:
    """x with a new last dimension."""
    return x.reshape((*x.shape, 1))


def _differences(a: Any, b: Any) -> Any:
    """Every row of a less every row of b: (..., n, m, d)."""
    return a.reshape((*a.shape[:-1], 1, a.shape[-1])) - b.reshape((*b.shape[:-2], 1, *b.shape[-2:]))


_MODES = [
    "use_mm_for_euclid_dist_if_necessary", "use_mm_for_euclid_dist", "donot_use_mm_for_euclid_dist",
]  # fmt: skip


@autocasts("cdist")
def cdist(
    x1: Tensor, x2: Tensor, p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary",
) -> Tensor:  # fmt: skip
    """The p-norm distance of each row of x1 to each row of x2.

    Shapes: x1 (..., n, d), x2 (..., m, d): (..., n, m). RuntimeError where d differs.
    `compute_mode`: euclidean distances of more than 25 rows come from a product of matrices
    ("use_mm_for_euclid_dist": always, "donot_use_mm_for_euclid_dist": never), which takes less
    time and memory, and rounds more where two rows are close.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cdist.html

    >>> gpunn.cdist(gpunn.tensor([[0.0, 0.0]]), gpunn.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """
    for i, x in ((1, x1), (2, x2)):
        if x.ndim < 2:
            raise RuntimeError(f"cdist only supports at least 2D tensors, X{i} got: {x.ndim}D")
        if not x.is_floating_point():
            raise RuntimeError(f"cdist only supports floating-point dtypes, X{i} got: {x.dtype}")
    same_device("cdist", (x1, x2))
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(
            f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}"
        )
    if p < 0:
        raise RuntimeError(f"cdist only supports non-negative p values, got {p}")
    if compute_mode not in _MODES:
        raise ValueError(f"{compute_mode} is not a valid value for compute_mode")
    a, b = x1.array, x2.array
    many = max(a.shape[-2], b.shape[-2]) > 25
    by_product = (many, True, False)[_MODES.index(compute_mode)] and not half(a.dtype)
    if by_product and p == 2 and a.size and b.size:
        return result(y := _euclid(a, b), x1, _euclid_vjp, (x1, x2), (a, b, y))
    size = abs(_differences(a, b))
    xp = ns(a)
    if size.shape[-1] == 0:
        y = size.sum(axis=-1)
    elif p == float("inf"):
        y = size.max(axis=-1)
    elif p == 0:
        y = (size != 0).sum(axis=-1).astype(a.dtype)
    elif p == 2:
        y = xp.sqrt((size * size).sum(axis=-1))
    else:
        y = (size**p).sum(axis=-1) ** (1 / p)
    y = y.astype(a.dtype, copy=False)
    return result(y, x1, _cdist_vjp, (x1, x2), (a, b, y, p))


@autocasts("pdist")
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distance of every two rows, row 0 to rows 1.. first.

    Shapes: (n, d): (n (n - 1) / 2,). dtypes: float32, float64. RuntimeError for other dimensions
    and for a negative p.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pdist.html

    >>> F.pdist(gpunn.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 4.0]]))
    tensor([5., 4., 3.])
    """
    if input.ndim != 2:
        raise RuntimeError(f"pdist only supports 2D tensors, got: {input.ndim}D")
    if not input.is_floating_point():
        raise RuntimeError("pdist only supports floating-point dtypes")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    if input.array.dtype.itemsize == 2:
        raise unsupported("pdist", input)
    first, second = (
        wrap(input.device.xp.asarray(i), input.device)
        for i in np.triu_indices(input.array.shape[0], 1)
    )
    if input.array.shape[1] == 0:
        return input.new_zeros(first.array.shape)
    rows = input.index_select(0, first) - input.index_select(0, second)  # type: ignore[attr-defined]
    return vector_norm(rows, p, 1)
