"""Norms and distances of vectors."""

from __future__ import annotations

from typing import Any

from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, unbroadcast, vjp
from gpunn.ops._rows import write_out
from gpunn.tensor import Tensor


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


def cdist(
    x1: Tensor, x2: Tensor, p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary",
) -> Tensor:  # fmt: skip
    """The p-norm distance of each row of x1 to each row of x2.

    Shapes: x1 (..., n, d), x2 (..., m, d): (..., n, m). RuntimeError where d differs. Distances
    are always those of the differences themselves: `compute_mode` is accepted.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cdist.html

    >>> gpunn.cdist(gpunn.tensor([[0.0, 0.0]]), gpunn.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """
    for i, x in ((1, x1), (2, x2)):
        if x.ndim < 2:
            raise RuntimeError(f"cdist only supports at least 2D tensors, X{i} got: {x.ndim}D")
        if not x.is_floating_point():
            raise RuntimeError(f"cdist only supports floating-point dtypes, X{i} got: {x.dtype}")
    if x1.shape[-1] != x2.shape[-1]:
        raise RuntimeError(
            f"X1 and X2 must have the same number of columns. X1: {x1.shape[-1]} X2: {x2.shape[-1]}"
        )
    if p < 0:
        raise RuntimeError(f"cdist only supports non-negative p values, got {p}")
    a, b = x1.array, x2.array
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
