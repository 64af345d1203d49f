"""Matrix products. float16 and bfloat16 are multiplied in float32 and rounded once.

`matmul` and its VJP are the primitives; the other products check their arguments as PyTorch
does and are made of it. Contractions by name (einsum) are in `contract.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.autograd.graph import Node, check_inplace, mode, needs, result, unbroadcast, vjp
from gpunn.device import CPU
from gpunn.dtypes import F32, F64
from gpunn.ops._rows import _PROPER, cast, half, inplace, same_device, write, write_out
from gpunn.tensor import Tensor, wrap

# --- raw arrays ---------------------------------------------------------------------------


def matmul_array(a: Any, b: Any) -> Any:
    """a @ b of raw arrays of one dtype, in that dtype."""
    d = a.dtype
    if half(d) and type(a) is np.ndarray:
        return matmul_array(a.astype(F32), b.astype(F32)).astype(d)
    if d.kind == "b":
        raise NotImplementedError("\"addmm_impl_cpu_\" not implemented for 'Bool'")
    if b.ndim == 2 and a.ndim > 2 and a.size > 4096 and a.flags.c_contiguous:  # one for a batch
        rows = math.prod(a.shape[:-1])
        return (a.reshape(rows, a.shape[-1]) @ b).reshape((*a.shape[:-1], b.shape[-1]))
    return a @ b


def product(a: Any, b: Any) -> Any:
    """a @ b of arrays or Tensors."""
    return matmul(a, b) if isinstance(a, Tensor) else matmul_array(a, b)


def _turned(x: Any) -> Any:
    """The conjugate transpose of the last two dimensions."""
    return x.swapaxes(-1, -2).conj() if _complex(x) else x.swapaxes(-1, -2)


def _complex(x: Any) -> bool:
    return x.is_complex() if isinstance(x, Tensor) else x.dtype.kind == "c"


# --- matmul -------------------------------------------------------------------------------


@vjp((0, 1), name="MmBackward0")
def _mm_vjp(g: Any, a: Any, b: Any) -> Any:
    """Real matrices, the usual case."""
    return None if b is None else g @ b.T, None if a is None else a.T @ g


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
        rows = math.prod(a.shape[:-1])
        a, g = a.reshape((rows, a.shape[-1])), g.reshape((rows, g.shape[-1]))
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
        raise _not_tensors(input, other) from None
    d = a.dtype
    if (
        not (d is F32 or d is F64) or d is not b.dtype or a.ndim != 2 or b.ndim != 2
        or input.device is not CPU or other.device is not CPU or out is not None
    ):  # fmt: skip
        return _matmul(input, other, out)
    try:
        y = a.dot(b)  # as a @ b, with half the overhead
    except ValueError:
        raise _shape_error(a, b) from None
    t = wrap(y)
    left, right = input._requires_grad, other._requires_grad
    if (left or right) and mode.grad:
        t._requires_grad = True
        places = (input.node or input) if left else None, (other.node or other) if right else None
        t.node = Node(_mm_vjp, places, (a if right else None, b if left else None), CPU)
    return t


def _matmul(input: Tensor, other: Tensor, out: Tensor | None) -> Tensor:
    """matmul where something is unusual: batches, vectors, other dtypes and devices."""
    a, b = input.array, other.array
    if a.dtype is not b.dtype and a.dtype != b.dtype:
        raise _dtype_error(input, other)
    if input.device is not other.device:
        same_device("matmul", (input, other))
    try:
        y = matmul_array(a, b)
    except ValueError:
        raise _shape_error(a, b) from None
    saved = (a if needs(other) else None, b if needs(input) else None, a.shape, b.shape)
    return _out(result(y, input, _matmul_vjp, (input, other), saved), out, "matmul")


def _out(made: Tensor, out: Tensor | None, name: str) -> Tensor:
    return made if out is None else write_out(out, made, name)


# --- errors -------------------------------------------------------------------------------


def _not_tensors(input: Any, other: Any) -> TypeError:
    bad, place = (other, "'other' (position 2)") if isinstance(input, Tensor) else (
        input, "'input' (position 1)",
    )  # fmt: skip
    return TypeError(f"matmul(): argument {place} must be Tensor, not {type(bad).__name__}")


def _c(t: Tensor) -> str:
    """The dtype as C++ spells it, which PyTorch's messages show."""
    names = {"float32": "float", "float64": "double", "float16": "c10::Half", "int64": "long",
             "bfloat16": "c10::BFloat16", "int32": "int", "complex64": "c10::complex<float>",
             "complex128": "c10::complex<double>"}  # fmt: skip
    return names.get(t.dtype.name, t.dtype.name)


def _proper(t: Tensor) -> str:
    return _PROPER.get(t.dtype.name, t.dtype.name)


def _dtype_error(a: Tensor, b: Tensor) -> RuntimeError:
    if a.ndim == b.ndim == 1:
        return RuntimeError(
            f"dot : expected both vectors to have same dtype, but found {_proper(a)} and "
            f"{_proper(b)}"
        )
    if a.ndim > 2 and b.ndim > 2:
        return RuntimeError(f"expected scalar type {_proper(a)} but found {_proper(b)}")
    return RuntimeError(
        f"expected m1 and m2 to have the same dtype, but got: {_c(a)} != {_c(b)}"
    )


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
    rows = math.prod(x[:-1])
    if len(y) == 1:
        return RuntimeError(
            f"size mismatch, got input ({rows}), mat ({rows}x{x[-1]}), vec ({y[0]})"
        )
    if len(x) > 2 and len(y) > 2 and x[-1] == y[-2]:
        from gpunn.ops._rows import size_error

        return size_error(x[:-2], y[:-2])
    if len(y) > 2:
        batch = y[0] if len(x) < 3 else x[0]
        return RuntimeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{batch}, {x[-1]}] "
            f"but got: [{y[0]}, {y[-2]}]. (matmul of {list(x)} and {list(y)})"
        )
    return RuntimeError(
        f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x[-1]} and {y[-2]}x{y[-1]})"
    )


# --- products of fixed dimensions -----------------------------------------------------------


def mm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The product of two matrices, (n, k) by (k, m), without broadcasting.

    RuntimeError for other shapes, and where the dtypes differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.mm.html

    >>> gpunn.mm(gpunn.tensor([[1, 2]]), gpunn.tensor([[3], [4]]))
    tensor([[11]])
    """
    for name, x in (("self", input), ("mat2", mat2)):
        if x.array.ndim != 2:
            raise RuntimeError(f"{name} must be a matrix")
    return matmul(input, mat2, out=out)


def _check_batches(a: Tensor, b: Tensor) -> None:
    for name, x in (("batch1", a), ("batch2", b)):
        if x.array.ndim != 3:
            raise RuntimeError(f"{name} must be a 3D tensor")
    x, y = a.array.shape, b.array.shape
    if (x[0], x[2]) != y[:2]:
        raise RuntimeError(
            f"Expected size for first two dimensions of batch2 tensor to be: [{x[0]}, {x[2]}] but "
            f"got: [{y[0]}, {y[1]}]."
        )


def bmm(input: Tensor, mat2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The products of two batches of matrices, (b, n, k) by (b, k, m), without broadcasting.

    RuntimeError for other shapes, and where the dtypes differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.bmm.html

    >>> gpunn.bmm(gpunn.ones(5, 2, 3), gpunn.ones(5, 3, 4)).shape
    torch.Size([5, 2, 4])
    """
    _check_batches(input, mat2)
    return matmul(input, mat2, out=out)


def mv(input: Tensor, vec: Tensor, *, out: Tensor | None = None) -> Tensor:
    """A matrix by a vector: (n, m) by (m,) gives (n,).

    RuntimeError for other shapes, and where the dtypes differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.mv.html

    >>> gpunn.mv(gpunn.tensor([[1, 2], [3, 4]]), gpunn.tensor([1, 1]))
    tensor([3, 7])
    """
    _check_vector(input, vec, 1)
    return matmul(input, vec, out=out)


def _check_vector(mat: Tensor, vec: Tensor, ndim: int) -> None:
    if mat.array.ndim != 2 or vec.array.ndim != 1:
        raise RuntimeError(
            f"vector + matrix @ vector expected, got {ndim}, {mat.array.ndim}, {vec.array.ndim}"
        )


def dot(input: Tensor, tensor: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The sum of the products of two vectors.

    RuntimeError for other dimensions, lengths or dtypes that differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.dot.html

    >>> gpunn.dot(gpunn.tensor([2, 3]), gpunn.tensor([2, 1]))
    tensor(7)
    """
    if input.array.ndim != 1 or tensor.array.ndim != 1:
        raise RuntimeError(
            f"1D tensors expected, but got {input.array.ndim}D and {tensor.array.ndim}D tensors"
        )
    if input.array.dtype.kind == "b":
        raise NotImplementedError("\"dot\" not implemented for 'Bool'")
    return matmul(input, tensor, out=out)


def vdot(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """`dot` with the first vector conjugated.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.vdot.html

    >>> gpunn.vdot(gpunn.tensor([1 + 2j]), gpunn.tensor([1 + 2j]))
    tensor(5.+0.j)
    """
    return dot(input.conj() if input.is_complex() else input, other, out=out)  # type: ignore[attr-defined]


def inner(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The dot products of all vectors along the last dimensions; scalars are multiplied.

    Shapes: (*a, n) and (*b, n) give (*a, *b). RuntimeError where the last lengths differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.inner.html

    >>> gpunn.inner(gpunn.tensor([[1, 2], [3, 4]]), gpunn.tensor([1, 1]))
    tensor([3, 7])
    """
    a, b = input.array, other.array
    if not a.ndim or not b.ndim:
        return _out(input * other, out, "inner")  # type: ignore[operator]
    if a.shape[-1] != b.shape[-1]:
        raise RuntimeError(
            "inner() the last dimension must match on both input tensors but got shapes "
            f"{list(a.shape)} and {list(b.shape)}"
        )
    if a.dtype != b.dtype:
        raise RuntimeError(f"inner() both inputs should have same dtype: {_c(input)}, {_c(other)}")
    rows = other.reshape((math.prod(b.shape[:-1]), b.shape[-1]))  # type: ignore[attr-defined]
    made = matmul(input, rows.swapaxes(0, 1)).reshape((*a.shape[:-1], *b.shape[:-1]))
    return _out(made, out, "inner")


def outer(input: Tensor, vec2: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The products of every element of one vector with every one of another: (n,), (m,): (n, m).

    RuntimeError for other dimensions. dtypes: any two, promoted.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.outer.html

    >>> gpunn.outer(gpunn.tensor([1, 2]), gpunn.tensor([3, 4]))
    tensor([[3, 4],
            [6, 8]])
    """
    for name, x in (("self", input), ("vec2", vec2)):
        if x.array.ndim != 1:
            raise RuntimeError(f"outer: Expected 1-D argument {name}, but got {x.array.ndim}-D")
    return _out(input.reshape((-1, 1)) * vec2, out, "outer")  # type: ignore[attr-defined]


ger = outer


def chain_matmul(*matrices: Tensor, out: Tensor | None = None) -> Tensor:
    """The product of several matrices, in the order of fewest multiplications.

    The newer name is `gpunn.linalg.multi_dot`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.chain_matmul.html

    >>> gpunn.chain_matmul(gpunn.ones(2, 3), gpunn.ones(3, 4), gpunn.ones(4, 5)).shape
    torch.Size([2, 5])
    """
    from gpunn.linalg import multi_dot

    if len(matrices) == 1:
        return matrices[0] if out is None else write_out(out, matrices[0], "chain_matmul")
    return multi_dot(matrices, out=out)


# --- beta * input + alpha * product ---------------------------------------------------------


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
    wide = half(d) and type(factors[0].array) is np.ndarray
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
    return _out(_affine("addmv", matmul, input, (mat, vec), (n,), beta, alpha), out, "addmv")


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
    made = addbmm(self, batch1, batch2, beta=beta, alpha=alpha)
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


_METHODS = [
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "dot", "ger", "inner", "matmul", "mm",
    "mv", "outer", "vdot",
]  # fmt: skip
__all__ = [*_METHODS, "chain_matmul"]
for _name in _METHODS:
    setattr(Tensor, _name, globals()[_name])
for _name in ("addmm", "addmv", "addr", "baddbmm"):
    setattr(Tensor, _name + "_", inplace(globals()[_name]))
Tensor.addbmm_ = addbmm_  # type: ignore[attr-defined]
