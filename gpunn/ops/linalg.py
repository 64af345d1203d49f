"""Matrix products. float16 and bfloat16 are multiplied in float32 and rounded once.

`matmul` and its VJP are the primitives; the other products check their arguments as PyTorch
does and are made of it. Sums with products are in `addmm.py`, contractions by name (einsum) in
`contract.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.amp.casts import AUTOCAST, autocasts, casts
from gpunn.autograd.graph import Node, mode, needs, result, unbroadcast, vjp
from gpunn.device import CPU
from gpunn.dtypes import F32, F64
from gpunn.ops._rows import _PROPER, half, same_device, write_out
from gpunn.tensor import Tensor, wrap

# --- raw arrays ---------------------------------------------------------------------------


def matmul_array(a: Any, b: Any) -> Any:
    """a @ b of raw arrays of one dtype, in that dtype."""
    d = a.dtype
    dot = a.ndim == b.ndim == 1  # CuPy's rounds the products of two vectors before it adds
    if half(d) and (dot or type(a) is np.ndarray):
        return matmul_array(a.astype(F32), b.astype(F32)).astype(d)
    if d.kind == "b":
        raise NotImplementedError("\"addmm_impl_cpu_\" not implemented for 'Bool'")
    if b.ndim == 2 and a.ndim > 2 and a.size > 4096 and (  # one for a batch
        b.shape[1] > 8 or a.flags.c_contiguous
    ):
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
    if AUTOCAST and out is None:
        input, other = casts("matmul", input, other)
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


def plain_matmul(input: Tensor, other: Tensor) -> Tensor:
    """matmul of the operands as they are: autocast does not cast them."""
    return _matmul(input, other, None)


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
    if AUTOCAST and out is None:
        input, vec = casts("mv", input, vec)
    _check_vector(input, vec, 1)
    return _matmul(input, vec, out)


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
    if AUTOCAST and out is None:
        input, tensor = casts("dot", input, tensor)
    if input.array.ndim != 1 or tensor.array.ndim != 1:
        raise RuntimeError(
            f"1D tensors expected, but got {input.array.ndim}D and {tensor.array.ndim}D tensors"
        )
    if input.array.dtype.kind == "b":
        raise NotImplementedError("\"dot\" not implemented for 'Bool'")
    return _matmul(input, tensor, out)


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
    if a.ndim == b.ndim == 1 and a.shape == b.shape and a.dtype == b.dtype:
        return dot(input, other, out=out)
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


@autocasts("chain_matmul")
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


_METHODS = ["bmm", "dot", "ger", "inner", "matmul", "mm", "mv", "outer", "vdot"]
__all__ = [*_METHODS, "chain_matmul"]
for _name in _METHODS:
    setattr(Tensor, _name, globals()[_name])
