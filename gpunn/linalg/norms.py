"""Norms of vectors and matrices, and what is told by them: condition and rank."""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace, result
from gpunn.dtypes import F32
from gpunn.linalg._common import (
    check_floating,
    check_matrix,
    check_square,
    check_tensor,
    give,
    tensor_vjp,
)
from gpunn.ops._rows import cast, half, proper
from gpunn.ops.reduce import axes_of, restore
from gpunn.tensor import Tensor, normal_dim, wrap

INF = math.inf

# --- vectors ------------------------------------------------------------------------------


@autocasts("linalg_vector_norm")
def vector_norm(
    input: Tensor, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(sum |x|^ord)^(1/ord) over all elements or over `dim`; also for inf, -inf, 0 and below.

    dtypes: floating and complex; the result is real. RuntimeError for integers, and where an
    empty dimension has no norm. The subgradient at 0 is 0.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.vector_norm.html

    >>> gpunn.linalg.vector_norm(gpunn.tensor([3., -4.]))
    tensor(5.)
    """
    check_tensor("linalg.vector_norm", "input", input)
    if isinstance(ord, (str, bytes)) or not isinstance(ord, (int, float, np.generic)):
        raise TypeError(
            "linalg_vector_norm(): argument 'ord' (position 2) must be Number, not "
            f"{type(ord).__name__}"
        )
    x = _in_dtype("linalg.vector_norm", input, dtype)
    a = x.array
    axes = axes_of(dim, a.ndim)
    if axes is not None:
        axes = tuple(normal_dim(i, a.ndim) for i in axes)
    if a.size == 0 and (ord < 0 or ord == INF):
        _check_identity(a.shape, ord, axes)
    y = x.device.xp.asarray(_norm_array(a, ord, axes, keepdim))
    return give(result(y, x, _vector_norm_vjp, (x,), (a, y, ord, axes, keepdim)), out, "norm")


def _in_dtype(name: str, x: Tensor, dtype: Any) -> Tensor:
    """x in the dtype to compute in."""
    check_floating(name, x, low=True)
    if dtype is None:
        return x
    d = dtypes.as_dtype(dtype)
    if d.category < dtypes.FLOATING:
        raise RuntimeError(
            f"{name}: dtype should be floating point or complex, but got {proper(d)}"
        )
    if d.is_complex != x.is_complex():
        kinds = [("complex" if c else "real") for c in (x.is_complex(), d.is_complex)]
        raise RuntimeError(
            f"{name}: dtype should be {kinds[0]} for {kinds[0]} inputs, but got {proper(d)}"
        )
    if dtypes.promote_types(d, x.dtype) is not d:
        raise RuntimeError(
            f"{name}: the dtype of the input ({proper(x.dtype)}) should be convertible without "
            f"narrowing to the specified dtype ({proper(d)})"
        )
    return cast(x, d.numpy)


def _check_identity(shape: tuple[int, ...], ord: Any, axes: Any) -> None:
    if axes is None or not axes:
        raise RuntimeError(
            f"linalg.vector_norm cannot compute the {ord} norm on an empty tensor because the "
            "operation does not have an identity"
        )
    for axis in axes:
        if shape[axis] == 0:
            raise RuntimeError(
                f"linalg.vector_norm cannot compute the {ord} norm on the dimension {axis} "
                "because this dimension is empty and the operation does not have an identity"
            )


def _norm_array(x: Any, ord: Any, axes: Any, keepdim: bool) -> Any:
    """The norm of a raw array; half precision in float32."""
    xp = namespace(x)
    if half(x.dtype):
        return xp.asarray(_norm_array(x.astype(F32), ord, axes, keepdim)).astype(x.dtype)
    how = {"axis": axes, "keepdims": keepdim}
    if ord == 2:
        if axes is None and not keepdim and x.flags.c_contiguous and x.dtype.kind == "f":
            flat = x.reshape(-1)
            return xp.sqrt(xp.asarray(flat.dot(flat)))
        square = x * x if x.dtype.kind == "f" else x.real * x.real + x.imag * x.imag
        return xp.sqrt(square.sum(**how))
    size = abs(x)
    if ord == INF:
        return size.max(**how)
    if ord == -INF:
        return size.min(**how)
    if ord == 1:
        return size.sum(**how)
    if ord == 0:
        return (size != 0).sum(**how).astype(size.dtype)
    return ((size**ord).sum(**how) ** (1 / ord)).astype(size.dtype)


@tensor_vjp((0, -1, None, None, None), name="LinalgVectorNormBackward0")
def _vector_norm_vjp(g: Any, x: Any, y: Any, ord: Any, axes: Any, keepdim: bool) -> Any:
    shape = tuple(x.shape)
    g, y = (restore(v, shape, axes, keepdim) for v in (g, y))
    if ord == 0:
        return x * 0 * g
    if ord == 1:
        return x.sgn() * g
    if ord == 2:
        return g * (x / y).masked_fill(y == 0, 0)
    size = x.abs()
    if abs(ord) == INF:
        most = ((size == y) | size.isnan()).to(g.dtype)
        return x.sgn() * most * (g / most.sum(axes, True))
    if ord < 1:  # |x|^(ord - 1) has no value at 0
        zero = x == 0
        scaled = x.sgn() * (size + zero) ** (ord - 1) * ~zero
        return scaled * (g * (y + (y == 0)) ** (1 - ord) * (y != 0))
    scale = (g / y ** (ord - 1)).masked_fill(y == 0, 0)
    if ord < 2:
        return x.sgn() * (size + (size == 0)) ** (ord - 1) * (size != 0) * scale
    return x * size ** (ord - 2) * scale


# --- matrices -----------------------------------------------------------------------------


@autocasts("linalg_matrix_norm")
def matrix_norm(
    input: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *,
    dtype: Any = None, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """A norm of matrices: "fro", "nuc", inf, -inf, 1, -1, 2, -2.

    Shapes: the matrices lie in the two dimensions `dim`. RuntimeError for other orders and
    fewer than two dimensions.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.matrix_norm.html

    >>> gpunn.linalg.matrix_norm(gpunn.tensor([[3., 0.], [0., 4.]]), 1)
    tensor(4.)
    """
    check_matrix("linalg.matrix_norm", input)
    if isinstance(dim, int):
        raise TypeError(f"linalg_matrix_norm(): argument 'dim' must be two ints, not {dim}")
    if len(dim) != 2:
        raise RuntimeError(
            f"linalg.matrix_norm: dim must be a 2-tuple. Got {' '.join(map(str, dim))}"
        )
    x = _in_dtype("linalg.matrix_norm", input, dtype)
    rows, columns = (normal_dim(d, x.array.ndim) for d in dim)
    if rows == columns:
        raise RuntimeError(f"linalg.matrix_norm: dims must be different. Got {tuple(dim)}")
    return give(_matrix_norm(x, ord, rows, columns, keepdim), out, "norm")


def _matrix_norm(x: Tensor, ord: Any, rows: int, columns: int, keepdim: bool) -> Any:
    if ord == "fro":
        return vector_norm(x, 2, (rows, columns), keepdim)
    if isinstance(ord, str) and ord != "nuc" or not isinstance(ord, str) and abs(ord) not in (
        1, 2, INF,
    ):  # fmt: skip
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    if ord == "nuc" or abs(ord) == 2:
        check_floating("linalg.matrix_norm", x)
        values = _svdvals(x.movedim((rows, columns), (-2, -1)))
        made = values.sum(-1) if ord == "nuc" else _end(values, ord, -1)
        if keepdim:
            for d in sorted((rows, columns)):
                made = made.unsqueeze(d)
        return made
    if abs(ord) == INF:
        rows, columns = columns, rows
    sums = vector_norm(x, 1, rows, keepdim)
    return _end(sums, ord, columns - (not keepdim and columns > rows), keepdim)


def _end(x: Any, ord: float, dim: int, keepdim: bool = False) -> Any:
    """The largest along `dim`, the smallest for a negative order."""
    if x.array.shape[dim] == 0 and ord > 0:
        return x.sum(dim, keepdim)
    return x.amax(dim, keepdim) if ord > 0 else x.amin(dim, keepdim)


def _svdvals(x: Tensor) -> Any:
    from gpunn.linalg.spectral import svdvals

    return svdvals(x)


def norm(
    input: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *,
    out: Tensor | None = None, dtype: Any = None,
) -> Tensor:  # fmt: skip
    """A norm of vectors (one `dim`, or all of a 1-D tensor) or matrices (two).

    Without `ord` it is the 2-norm of everything in `dim`; otherwise `vector_norm` or
    `matrix_norm` by the number of dimensions. RuntimeError where neither fits.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.norm.html

    >>> gpunn.linalg.norm(gpunn.tensor([[3., 4.], [0., 0.]]))
    tensor(5.)
    """
    check_tensor("linalg.norm", "input", input)
    dims = [dim] if isinstance(dim, int) else None if dim is None else list(dim)
    if ord is None:
        return vector_norm(input, 2, dims, keepdim, dtype=dtype, out=out)
    if dims is not None and len(dims) not in (1, 2):
        raise RuntimeError(
            f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {dims}"
        )
    if dims is None and input.array.ndim not in (1, 2):
        raise RuntimeError(
            "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got "
            f"{input.array.ndim}D."
        )
    count = input.array.ndim if dims is None else len(dims)
    if count == 1 and not isinstance(ord, str):
        return vector_norm(input, ord, dims, keepdim, dtype=dtype, out=out)
    return matrix_norm(input, ord, dims or (-2, -1), keepdim, dtype=dtype, out=out)


# --- condition and rank ---------------------------------------------------------------------


@autocasts("linalg_cond")
def cond(input: Tensor, p: Any = None, *, out: Tensor | None = None) -> Tensor:
    """The condition number: the norm of a matrix times the norm of its inverse.

    p: None or 2 (largest by smallest singular value), -2, "fro", "nuc", 1, -1, inf, -inf; the
    latter need square matrices. Singular matrices give inf.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.cond.html

    >>> gpunn.linalg.cond(gpunn.tensor([[1., 0.], [0., 4.]])).round()
    tensor(4.)
    """
    check_tensor("linalg.cond", "input", input)
    if input.array.ndim < 2:
        raise RuntimeError("linalg.cond: The input tensor must have at least 2 dimensions.")
    if isinstance(p, str) and p not in ("fro", "nuc"):
        raise RuntimeError(f"linalg.cond got an invalid norm type: {p}")
    if p is None or p in (2, -2):
        values = _svdvals(input)
        if 0 in input.array.shape[-2:]:
            made = values.sum(-1)
        elif p == -2:
            made = values[..., -1] / values[..., 0]
        else:
            made = values[..., 0] / values[..., -1]
        return give(made, out, "cond")
    check_square(f"linalg.cond(ord={p})", input)
    check_floating("linalg.cond", input)
    from gpunn.linalg.solving import inv_ex

    inverse, info = inv_ex(input)
    made = matrix_norm(input, p) * matrix_norm(inverse, p)
    if info.array.any():
        made = made.masked_fill(info != 0, INF)
    return give(made, out, "cond")


@autocasts("linalg_matrix_rank")
def matrix_rank(
    input: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None,
    rtol: Any = None, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """How many singular values are larger than max(atol, rtol * the largest); int64.

    `tol` is the older name of atol. rtol is the larger side times the dtype's epsilon unless
    atol is given. `hermitian` takes the absolute eigenvalues.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.matrix_rank.html

    >>> gpunn.linalg.matrix_rank(gpunn.ones(3, 3))
    tensor(1)
    """
    check_matrix("torch.linalg.matrix_rank", input, "input")
    if input.array.dtype.kind not in "fc" or half(input.array.dtype):
        raise RuntimeError("This function doesn't handle types other than float and double")
    x = input.detach()
    if hermitian:
        check_square("linalg.matrix_rank", x)
        from gpunn.linalg.spectral import eigvalsh

        values = eigvalsh(x).abs()
    else:
        values = _svdvals(x)
    limit = tolerance(x, values, tol if atol is None else atol, rtol)
    made = (values > limit.unsqueeze(-1)).sum(-1)
    return give(made, out, "matrix_rank")


def tolerance(x: Tensor, values: Any, atol: Any, rtol: Any) -> Any:
    """Below what a singular value counts as 0: max(atol, rtol * the largest)."""
    rows, columns = x.array.shape[-2:]
    if rtol is None:
        eps = float(np.finfo(x.array.dtype).eps) * max(rows, columns)
        rtol = eps if atol is None else lift_number(atol, eps)
    batch = x.array.shape[:-2]
    top = values.amax(-1) if min(rows, columns) else wrap(
        x.device.xp.zeros(batch, values.array.dtype), x.device
    )  # fmt: skip
    return (top * rtol).maximum(top * 0 + (0 if atol is None else atol))


def lift_number(atol: Any, eps: float) -> Any:
    """The default rtol where atol is given: 0 where atol is positive."""
    if isinstance(atol, Tensor):
        return (atol <= 0).to(dtypes.float64) * eps
    return 0.0 if atol > 0 else eps
