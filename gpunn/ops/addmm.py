"""Sums with products, beta * input + alpha * product: addmm, addmv, addr, addbmm, baddbmm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.amp.casts import AUTOCAST, casts, uncast
from gpunn.autograd.graph import check_inplace, needs, result, unbroadcast, vjp
from gpunn.device import CPU
from gpunn.dtypes import F32, F64
from gpunn.ops._rows import cast, half, inplace, write
from gpunn.ops.linalg import (
    _c,
    _check_batches,
    _check_vector,
    _out,
    _proper,
    _shape_error,
    matmul,
    outer,
    plain_matmul,
)
from gpunn.tensor import Tensor


def _scaled(x: Tensor, factor: Any, name: str) -> Tensor:
    """factor * x; integers take the whole part of the factor, as PyTorch does."""
    if x.array.dtype.kind in "iu":
        factor = int(factor)
    return x if factor == 1 and not isinstance(factor, Tensor) else x * factor  # type: ignore[operator]


def _affine(
    name: str, f: Callable[..., Tensor], input: Tensor, factors: tuple[Tensor, Tensor],
    shape: tuple[int, ...], beta: Any, alpha: Any,
) -> Tensor:  # fmt: skip
    """beta * input + alpha * f(*factors), input broadcast to `shape`; half precision in float32."""
    d = factors[0].array.dtype
    wide = half(d) and (name == "addr" or type(factors[0].array) is np.ndarray)
    values = [cast(x, F32) if wide else x for x in (input, *factors)]
    if tuple(input.array.shape) != shape:
        values[0] = values[0].expand(shape)  # type: ignore[attr-defined]
    y = _scaled(f(*values[1:]), alpha, name)
    if isinstance(beta, Tensor) or beta != 0:  # with 0, NaN in input does not count
        y = _scaled(values[0], beta, name) + y  # type: ignore[operator]
    return cast(y, d) if wide else y


@vjp((None, 1, 2), name="AddmmBackward0")
def _addmm_vjp(g: Any, shape: tuple[int, ...], a: Any, b: Any) -> Any:
    return unbroadcast(g, shape), None if b is None else g @ b.T, None if a is None else a.T @ g


def _plain_addmm(input: Tensor, mat1: Tensor, mat2: Tensor) -> Tensor | None:
    """input + mat1 @ mat2 in the usual case, float32 or float64 on the CPU; else None."""
    x, a, b = input.array, mat1.array, mat2.array
    d = a.dtype
    if (
        not (d is F32 or d is F64) or d is not b.dtype or d is not x.dtype or a.ndim != 2
        or b.ndim != 2 or x.ndim > 2 or input.device is not CPU or mat1.device is not CPU
        or mat2.device is not CPU
    ):  # fmt: skip
        return None
    try:
        y = a.dot(b)
        y += x
    except ValueError:  # shapes: the general path says which
        return None
    saved = (x.shape, a if needs(mat2) else None, b if needs(mat1) else None)
    return result(y, input, _addmm_vjp, (input, mat1, mat2), saved)


def addmm(
    input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """beta * input + alpha * (mat1 @ mat2).

    Shapes: mat1 (n, k), mat2 (k, m), input broadcasts to (n, m). dtypes: all the same.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.addmm.html

    >>> gpunn.addmm(gpunn.tensor([1., 2.]), gpunn.ones(1, 3), gpunn.ones(3, 2))
    tensor([[4., 5.]])
    """
    if AUTOCAST and out is None:
        input, mat1, mat2 = casts("addmm", input, mat1, mat2)
    if beta == 1 and alpha == 1 and out is None:
        made = _plain_addmm(input, mat1, mat2)
        if made is not None:
            return made
    for name, x in (("mat1", mat1), ("mat2", mat2)):
        if x.array.ndim != 2:
            raise RuntimeError(f"{name} must be a matrix, got {x.array.ndim}-D tensor")
    a, b = mat1.array, mat2.array
    if a.shape[1] != b.shape[0]:
        raise _shape_error(a, b)
    for x, y in ((input, mat2), (mat1, mat2)):
        if x.array.dtype != y.array.dtype:
            raise RuntimeError(
                f"self and mat2 must have the same dtype, but got {_proper(x)} and {_proper(y)}"
            )
    shape = (a.shape[0], b.shape[1])
    return _out(_affine("addmm", matmul, input, (mat1, mat2), shape, beta, alpha), out, "addmm")


def addmv(
    input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """beta * input + alpha * (mat @ vec).

    Shapes: mat (n, m), vec (m,), input broadcasts to (n,). dtypes: all the same.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.addmv.html

    >>> gpunn.addmv(gpunn.tensor([1., 2.]), gpunn.ones(2, 3), gpunn.ones(3))
    tensor([4., 5.])
    """
    if AUTOCAST and out is None:
        input, mat, vec = casts("addmv", input, mat, vec)
    _check_vector(mat, vec, input.array.ndim)
    n, m = mat.array.shape
    if vec.array.shape[0] != m or input.array.size not in (1, n):
        raise RuntimeError(
            f"size mismatch, got input ({input.array.size}), mat ({n}x{m}), vec "
            f"({vec.array.shape[0]})"
        )
    if not input.array.dtype == mat.array.dtype == vec.array.dtype:
        raise RuntimeError(
            "addmv input tensors must have the same dtype, but got "
            f"{_proper(input)}, {_proper(mat)}, and {_proper(vec)}"
        )
    return _out(_affine("addmv", plain_matmul, input, (mat, vec), (n,), beta, alpha), out, "addmv")


def _sum_of_products(a: Tensor, b: Tensor) -> Tensor:
    """The sum over the batch of a @ b, as one product of matrices."""
    n, m, k = a.array.shape[1], b.array.shape[2], a.array.shape[0] * a.array.shape[2]
    left = a.swapaxes(0, 1).reshape((n, k))  # type: ignore[attr-defined]
    return matmul(left, b.reshape((k, m)))  # type: ignore[attr-defined]


def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """beta * input + alpha * (the sum over the batch of batch1[i] @ batch2[i]).

    Shapes: (b, n, k), (b, k, m), input broadcasts to (n, m). dtypes: all the same.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.addbmm.html

    >>> gpunn.addbmm(gpunn.ones(1), gpunn.ones(5, 2, 3), gpunn.ones(5, 3, 1))
    tensor([[16.],
            [16.]])
    """
    if AUTOCAST and out is None:
        input, batch1, batch2 = casts("addbmm", input, batch1, batch2)
    for name, x in (("batch1", batch1), ("batch2", batch2)):
        if x.array.ndim != 3:
            raise RuntimeError(f"{name} must be a 3D tensor")
    a, b = batch1.array.shape, batch2.array.shape
    if a[0] != b[0]:
        raise RuntimeError(
            f"batch1 and batch2 must have same number of batches, got {a[0]} and {b[0]}"
        )
    if a[2] != b[1]:
        raise RuntimeError(
            f"Incompatible matrix sizes for bmm ({a[1]}x{a[2]} and {b[1]}x{b[2]})"
        )
    _check_batch_dtypes(input, batch1, batch2)
    shape = (a[1], b[2])
    made = _affine("addbmm", _sum_of_products, input, (batch1, batch2), shape, beta, alpha)
    return _out(made, out, "addbmm")


def addbmm_(
    self: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """In-place version of `addbmm`. As in PyTorch, a tensor that had to be broadcast grows."""
    check_inplace(self)
    made = uncast(addbmm, self, batch1, batch2, beta=beta, alpha=alpha)
    if self.array.shape != made.array.shape:
        self.array = self.device.xp.empty(made.array.shape, self.array.dtype)
    return write(self, made, "addbmm")


def _check_batch_dtypes(input: Tensor, batch1: Tensor, batch2: Tensor) -> None:
    if not input.array.dtype == batch1.array.dtype == batch2.array.dtype:
        raise RuntimeError(
            f"Input dtypes must be the same, got: input {_c(input)}, batch1: {_c(batch1)}, "
            f"batch2: {_c(batch2)}"
        )


def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1,
    out_dtype: Any = None, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """beta * input + alpha * (batch1 @ batch2), matrix by matrix.

    Shapes: (b, n, k), (b, k, m), input broadcasts to (b, n, m). dtypes: all the same.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.baddbmm.html

    >>> gpunn.baddbmm(gpunn.ones(1), gpunn.ones(5, 2, 3), gpunn.ones(5, 3, 4)).shape
    torch.Size([5, 2, 4])
    """
    if AUTOCAST and out is None:
        input, batch1, batch2 = casts("baddbmm", input, batch1, batch2)
    _check_batches(batch1, batch2)
    _check_batch_dtypes(input, batch1, batch2)
    shape = (*batch1.array.shape[:2], batch2.array.shape[2])
    made = _affine("baddbmm", matmul, input, (batch1, batch2), shape, beta, alpha)
    return _out(made, out, "baddbmm")


def addr(
    input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """beta * input + alpha * outer(vec1, vec2).

    Shapes: (n,), (m,), input broadcasts to (n, m). dtypes: promoted; integers take whole
    factors, bool gives the logical form.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.addr.html

    >>> gpunn.addr(gpunn.ones(1), gpunn.tensor([1., 2.]), gpunn.tensor([3., 4.]))
    tensor([[4., 5.],
            [7., 9.]])
    """
    if AUTOCAST and out is None:
        input, vec1, vec2 = casts("addr", input, vec1, vec2)
    for name, x in (("vec1", vec1), ("vec2", vec2)):
        if x.array.ndim != 1:
            raise RuntimeError(f"addr: Expected 1-D argument {name}, but got {x.array.ndim}-D")
    shape = (vec1.array.shape[0], vec2.array.shape[0])
    whole = all(x.array.dtype.kind in "biu" for x in (input, vec1, vec2))
    for name, factor in (("beta", beta), ("alpha", alpha)):
        if whole and isinstance(factor, float):
            raise RuntimeError(
                f"For integral input tensors, argument {name} must not be a floating point number."
            )
    if all(x.array.dtype.kind == "b" for x in (input, vec1, vec2)):
        made = (vec1.reshape((-1, 1)) & vec2) & bool(alpha)  # type: ignore[attr-defined]
        made = made | input if beta else made.expand(shape)
    else:
        made = _affine("addr", outer, input, (vec1, vec2), shape, beta, alpha)
    return _out(made, out, "addr")


for _name in ("addmm", "addmv", "addr", "baddbmm"):
    setattr(Tensor, _name, globals()[_name])
    setattr(Tensor, _name + "_", inplace(globals()[_name]))
Tensor.addbmm, Tensor.addbmm_ = addbmm, addbmm_  # type: ignore[attr-defined]
__all__ = ["addbmm", "addmm", "addmv", "addr", "baddbmm"]
