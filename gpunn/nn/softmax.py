"""Softmax and log-softmax along a dimension.

Both subtract the maximum first, so they overflow nowhere. Sums are in float32 at least; the order
of sums is fixed for a shape.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gpunn import dtypes, native
from gpunn.amp.casts import AUTOCAST, casts_one
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import softmax as kernels
from gpunn.draw import need
from gpunn.dtypes import F32
from gpunn.nn.module import Module
from gpunn.ops._rows import cast, half, write_out
from gpunn.tensor import Tensor, normal_dim

NATIVE_SIZE = 4096  # from this many elements on, the C++ code is quicker than NumPy's passes


def _fused(name: str, axis: int | None, *arrays: Any) -> Any:
    """What C++ code or a CUDA kernel makes of raw arrays in one pass; None where neither does."""
    x = arrays[0]
    if type(x) is np.ndarray:
        if axis == x.ndim - 1 and x.size >= NATIVE_SIZE:
            return getattr(native, name)(*arrays)
    elif axis is not None and not isinstance(x, Tensor):
        return getattr(kernels, name)(*arrays, axis)
    return None


@vjp((-1, None))
def _softmax_vjp(g: Any, y: Any, axis: int) -> Any:
    x = _fused("softmax_backward", axis, y, g)
    if x is not None:
        return x
    gy = g * y
    return gy - y * gy.sum(axis=axis, keepdims=True)


@vjp((-1, None))
def _log_softmax_vjp(g: Any, y: Any, axis: int) -> Any:
    x = _fused("log_softmax_backward", axis, y, g)
    return g - ns(g).exp(y) * g.sum(axis=axis, keepdims=True) if x is None else x


def softmax_array(x: Any, axis: int) -> Any:
    """e**x / sum(e**x) of a raw float array."""
    y = _fused("softmax_forward", axis, x)
    if y is not None:
        return y
    xp = ns(x)
    y = x - x.max(axis=axis, keepdims=True)
    xp.exp(y, out=y)
    y /= y.sum(axis=axis, keepdims=True)
    return y


def log_softmax_array(x: Any, axis: int) -> Any:
    """x - log(sum(e**x)) of a raw float array."""
    y = _fused("log_softmax_forward", axis, x)
    if y is not None:
        return y
    xp = ns(x)
    y = x - x.max(axis=axis, keepdims=True)
    y -= xp.log(xp.exp(y).sum(axis=axis, keepdims=True))
    return y


def implicit_dim(name: str, stacklevel: int) -> None:
    """PyTorch's warning for a call without `dim`."""
    warnings.warn(
        f"Implicit dimension choice for {name} has been deprecated. Change the call to include "
        "dim=X as an argument.",
        stacklevel=stacklevel + 1,
    )


def _along(
    name: str, input: Tensor, dim: int | None, dtype: Any, f: Any, rule: Any, stacklevel: int
) -> Tensor:
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype).numpy)
    elif AUTOCAST:
        input = casts_one(name, input)
    x = input.array
    if dim is None:
        implicit_dim(name, stacklevel)
        dim = 0 if x.ndim in (0, 1, 3) else 1
    axis = normal_dim(dim, x.ndim)
    need(x.dtype.kind in "fV", f"{name}_lastdim_kernel_impl", x.dtype)
    if x.size == 0:
        y = x.copy()
    elif x.ndim == 0:
        y = f(x.reshape(1), 0).reshape(())
    elif half(x.dtype) and type(x) is np.ndarray:
        y = f(x.astype(F32), axis).astype(x.dtype)
    else:
        y = f(x, axis)
    return result(y, input, rule, (input,), (np.asarray(y) if y.ndim == 0 else y, axis) if (
        x.ndim) else (y.reshape(()), None))  # fmt: skip


def softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None, *,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """e ** x / sum(e ** x) along `dim`.

    Shapes: any; the result has the same. dtypes: floating, NotImplementedError for others;
    `dtype` casts first. A UserWarning without `dim`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softmax.html

    >>> F.softmax(gpunn.tensor([0., 0.]), dim=0)
    tensor([0.5000, 0.5000])
    """
    made = _along("softmax", input, dim, dtype, softmax_array, _softmax_vjp, _stacklevel)
    return made if out is None else write_out(out, made, "softmax")


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None, *,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """log(softmax(x)) along `dim`, computed stably.

    Shapes: any; the result has the same. dtypes: floating, NotImplementedError for others;
    `dtype` casts first. A UserWarning without `dim`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.log_softmax.html

    >>> F.log_softmax(gpunn.tensor([0., 0.]), dim=0)
    tensor([-0.6931, -0.6931])
    """
    made = _along(
        "log_softmax", input, dim, dtype, log_softmax_array, _log_softmax_vjp, _stacklevel
    )
    return made if out is None else write_out(out, made, "log_softmax")


def _softmax_method(self: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """`gpunn.softmax` of this tensor."""
    return softmax(self, dim, dtype=dtype)


def _log_softmax_method(self: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """`gpunn.log_softmax` of this tensor."""
    return log_softmax(self, dim, dtype=dtype)


Tensor.softmax = _softmax_method  # type: ignore[attr-defined]
Tensor.log_softmax = _log_softmax_method  # type: ignore[attr-defined]


class _AlongDim(Module):
    """What the modules have in common: the dimension that they work along."""

    __constants__ = ["dim"]
    dim: int | None

    def __init__(self, dim: int | None = None):
        super().__init__()
        self.dim = dim

    def extra_repr(self) -> str:
        return f"dim={self.dim}"


class Softmax(_AlongDim):
    """`softmax` along `dim`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html

    >>> nn.Softmax(dim=0)(gpunn.zeros(2))
    tensor([0.5000, 0.5000])
    """

    def forward(self, input: Tensor) -> Tensor:
        return softmax(input, self.dim, _stacklevel=5)


class LogSoftmax(_AlongDim):
    """`log_softmax` along `dim`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSoftmax.html

    >>> nn.LogSoftmax(dim=0)(gpunn.zeros(2))
    tensor([-0.6931, -0.6931])
    """

    def forward(self, input: Tensor) -> Tensor:
        return log_softmax(input, self.dim, _stacklevel=5)
