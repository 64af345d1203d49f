"""Reductions: sums, means, extremes and norms over dimensions.

float16 and bfloat16 are summed in float32 and rounded once; integers and bools sum to int64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.ops._rows import cast, half, write_out
from gpunn.tensor import Tensor, dim_error, normal_dim

# --- dimensions ---------------------------------------------------------------------------


def axes_of(dim: Any, ndim: int) -> tuple[int, ...] | None:
    """The axes of a `dim` argument: None (or an empty list) for all of them."""
    if dim is None:
        return None
    if isinstance(dim, (int, np.integer)):
        n = int(dim)
        if -ndim <= n < ndim:
            return (n,)
        if ndim == 0 and n in (0, -1):
            return ()
        raise dim_error(n, ndim)
    axes = tuple(normal_dim(int(d), ndim) for d in dim)
    if len(set(axes)) != len(axes):
        repeated = next(a for a in axes if axes.count(a) > 1)
        raise RuntimeError(f"dim {repeated} appears multiple times in the list of dims")
    if not axes or ndim == 0:
        return None
    return axes


def restore(g: Any, shape: tuple[int, ...], axes: tuple[int, ...] | None, keepdim: bool) -> Any:
    """A reduced gradient with its dimensions of length 1 back in place."""
    if keepdim or not shape:
        return g.reshape((1,) * len(shape)) if axes is None and not keepdim else g
    if axes is None:
        return g.reshape((1,) * len(shape))
    gone = {a % len(shape) for a in axes}
    return g.reshape(tuple(1 if i in gone else n for i, n in enumerate(shape)))


def broadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """g repeated to a shape."""
    return g.expand(shape) if isinstance(g, Tensor) else ns(g).broadcast_to(g, shape)


# --- sum and mean -------------------------------------------------------------------------


@vjp((None,) * 3)
def _sum_vjp(g: Any, shape: Any, axes: Any, keepdim: bool) -> Any:
    return broadcast(restore(g, shape, axes, keepdim), shape)


def sum(  # noqa: A001
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
    out: Tensor | None = None, axis: Any = None, keepdims: bool = False,
) -> Tensor:  # fmt: skip
    """The sum over all elements, or over `dim` (an int or several).

    dtypes: integers and bool sum to int64 unless `dtype` is given.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.sum.html

    >>> gpunn.sum(gpunn.tensor([[1, 2], [3, 4]]), dim=0)
    tensor([4, 6])
    """
    if dim is None:
        dim = axis
    keepdim = keepdim or keepdims
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype).numpy)
    x = input.array
    axes = axes_of(dim, x.ndim)
    y = sum_array(x, axes, keepdim)
    if dtype is not None and y.dtype != dtypes.as_dtype(dtype).numpy:
        y = y.astype(dtypes.as_dtype(dtype).numpy)
    made = result(y, input, _sum_vjp, (input,), (x.shape, axes, keepdim))
    return made if out is None else write_out(out, made, "sum")


Tensor.sum = sum  # type: ignore[attr-defined]


def sum_array(x: Any, axes: Any = None, keepdim: bool = False) -> Any:
    """The sum of a raw array, in PyTorch's dtypes."""
    kind = x.dtype.kind
    if kind in "biu":
        return x.sum(axis=axes, dtype=np.int64, keepdims=keepdim)
    if half(x.dtype):
        return np.asarray(x.sum(axis=axes, dtype=F32, keepdims=keepdim)).astype(x.dtype)
    if type(x) is np.ndarray:
        return np.add.reduce(x, axis=axes, keepdims=keepdim)  # x.sum without its Python wrapper
    return x.sum(axis=axes, keepdims=keepdim)


@vjp((None, None, None, None))
def _mean_vjp(g: Any, shape: Any, axes: Any, keepdim: bool, count: int) -> Any:
    return broadcast(restore(g / count, shape, axes, keepdim), shape)


def mean(
    input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
    out: Tensor | None = None, axis: Any = None, keepdims: bool = False,
) -> Tensor:  # fmt: skip
    """The mean over all elements, or over `dim`; RuntimeError for integers without `dtype`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.mean.html

    >>> gpunn.mean(gpunn.tensor([1.0, 2.0, 6.0]))
    tensor(3.)
    """
    if dim is None:
        dim = axis
    keepdim = keepdim or keepdims
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype).numpy)
    x = input.array
    if x.dtype.kind in "biu":
        raise RuntimeError(
            "mean(): could not infer output dtype. Input dtype must be either a floating point or "
            f"complex dtype. Got: {_PROPER_NAME.get(input.dtype.name, input.dtype.name)}"
        )
    axes = axes_of(dim, x.ndim)
    count = x.size if axes is None else int(np.prod([x.shape[a] for a in axes]))
    if half(x.dtype):
        y = np.asarray(x.sum(axis=axes, dtype=F32, keepdims=keepdim) / count).astype(x.dtype)
    else:
        y = sum_array(x, axes, keepdim) / x.dtype.type(count)
    made = result(y, input, _mean_vjp, (input,), (x.shape, axes, keepdim, count))
    return made if out is None else write_out(out, made, "mean")


Tensor.mean = mean  # type: ignore[attr-defined]
_PROPER_NAME = {"int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char",
                "uint8": "Byte", "bool": "Bool"}  # fmt: skip
__all__ = ["mean", "sum"]
