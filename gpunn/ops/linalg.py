"""Matrix products. float16 and bfloat16 are multiplied in float32 and rounded once."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd.graph import needs, result, unbroadcast, vjp
from gpunn.dtypes import F32
from gpunn.ops._rows import half, same_device, write_out
from gpunn.tensor import Tensor


def matmul_array(a: Any, b: Any) -> Any:
    """a @ b of raw arrays of one dtype, in that dtype."""
    d = a.dtype
    if half(d) and type(a) is np.ndarray:
        return np.matmul(a.astype(F32), b.astype(F32)).astype(d)
    if d.kind == "b":
        raise RuntimeError("\"addmm_impl_cpu_\" not implemented for 'Bool'")
    return a @ b


def product(a: Any, b: Any) -> Any:
    """a @ b of arrays or Tensors."""
    return matmul(a, b) if isinstance(a, Tensor) else matmul_array(a, b)


def _turned(x: Any) -> Any:
    """The conjugate transpose of the last two dimensions."""
    return x.swapaxes(-1, -2).conj() if _complex(x) else x.swapaxes(-1, -2)


def _complex(x: Any) -> bool:
    return x.is_complex() if isinstance(x, Tensor) else x.dtype.kind == "c"


@vjp((0, 1, None, None))
def _matmul_vjp(g: Any, a: Any, b: Any, a_shape: Any, b_shape: Any) -> Any:
    """Vectors count as matrices of one row or column; broadcast batches are summed."""
    if len(a_shape) == 1:
        g = g.reshape((*g.shape[:-1], 1, g.shape[-1]) if len(b_shape) > 1 else (1, 1))
    elif len(b_shape) == 1:
        g = g.reshape((*g.shape, 1))
    if a is not None and len(a_shape) == 1:
        a = a.reshape((1, -1))
    if b is not None and len(b_shape) == 1:
        b = b.reshape((-1, 1))
    ga = gb = None
    if b is not None:
        full = (1, *a_shape) if len(a_shape) == 1 else a_shape
        ga = unbroadcast(product(g, _turned(b)), full).reshape(a_shape)
    if a is not None:
        full = (*b_shape, 1) if len(b_shape) == 1 else b_shape
        gb = _weight_grad(a, g, full).reshape(b_shape)
    return ga, gb


def _weight_grad(a: Any, g: Any, shape: tuple[int, ...]) -> Any:
    """The gradient of b in a @ b; one product where a batch of a meets a single matrix b."""
    if len(shape) == 2 and a.ndim > 2 and a.ndim == g.ndim and a.shape[:-2] == g.shape[:-2]:
        a, g = a.reshape((-1, a.shape[-1])), g.reshape((-1, g.shape[-1]))
    return unbroadcast(product(_turned(a), g), shape)


def matmul(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The matrix product: dot product of vectors, matrix by vector, batches that broadcast.

    Shapes: (..., n, k) and (..., k, m) give (..., n, m). dtypes: both the same.
    RuntimeError where the inner lengths or the dtypes differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.matmul.html

    >>> gpunn.matmul(gpunn.tensor([[1., 2.]]), gpunn.tensor([[3.], [4.]]))
    tensor([[11.]])
    """
    try:
        a, b = input.array, other.array
    except AttributeError:
        bad = other if isinstance(input, Tensor) else input
        raise TypeError(
            f"matmul(): argument 'other' (position 2) must be Tensor, not {type(bad).__name__}"
        ) from None
    if a.dtype is not b.dtype and a.dtype != b.dtype:
        raise RuntimeError(
            f"expected m1 and m2 to have the same dtype, but got: {_c(input)} != {_c(other)}"
        )
    if input.device is not other.device:
        same_device("matmul", (input, other))
    try:
        y = matmul_array(a, b)
    except ValueError:
        raise _shape_error(a, b) from None
    saved = (a if needs(other) else None, b if needs(input) else None, a.shape, b.shape)
    made = result(y, input, _matmul_vjp, (input, other), saved)
    return made if out is None else write_out(out, made, "matmul")


Tensor.matmul = matmul  # type: ignore[attr-defined]


def _c(t: Tensor) -> str:
    names = {"float32": "float", "float64": "double", "float16": "c10::Half", "int64": "long",
             "bfloat16": "c10::BFloat16", "int32": "int"}  # fmt: skip
    return names.get(t.dtype.name, t.dtype.name)


def _shape_error(a: Any, b: Any) -> RuntimeError:
    x, y = a.shape, b.shape
    if not x or not y:
        return RuntimeError(
            "both arguments to matmul need to be at least 1D, but they are "
            f"{len(x)}D and {len(y)}D"
        )
    if len(x) == len(y) == 1:
        return RuntimeError(
            "inconsistent tensor size, expected tensor "
            f"{list(x)} and src {list(y)} to have the same number of elements, but got {x[0]} and "
            f"{y[0]} elements respectively"
        )
    if len(y) == 1:
        return RuntimeError(f"size mismatch, got input ({x[-2]}), mat ({x[-2]}x{x[-1]}), vec "
                            f"({y[0]})")  # fmt: skip
    if len(x) > 2 and len(y) > 2 and x[-1] == y[-2]:
        from gpunn.ops._rows import size_error

        return size_error(x[:-2], y[:-2])
    if len(x) > 2 and len(y) > 2:
        return RuntimeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{x[0]}, {x[-1]}] but "
            f"got: [{y[0]}, {y[-2]}]. (matmul of {list(x)} and {list(y)})"
        )
    rows = int(np.prod(x[:-1]))
    return RuntimeError(
        f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x[-1]} and {y[-2]}x{y[-1]})"
    )


__all__ = ["matmul"]
