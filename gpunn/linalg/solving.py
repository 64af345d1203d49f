"""Inverses and linear equations, of any matrices and of triangular ones."""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace, result
from gpunn.device import to_host
from gpunn.linalg._common import (
    LinAlgError,
    adjoint,
    batch_element,
    check_floating,
    check_matrix,
    check_same_dtype,
    check_square,
    check_tensor,
    common_batch,
    give,
    identity,
    lapack,
    return_type,
    tensor_vjp,
)
from gpunn.linalg.lu_factors import first_zero, lu_array, lu_solve_array
from gpunn.ops._operands import same_device
from gpunn.tensor import Tensor

# --- exact solutions ------------------------------------------------------------------------


def _solve_arrays(a: Any, b: Any) -> tuple[Any, Any]:
    """(x, info) with a @ x = b; info is 0, or which diagonal element of U is 0.

    The answers for singular matrices are those of the division by zero.
    """
    xp = namespace(a)
    try:
        return lapack("solve", a, b), xp.zeros(a.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        factors, _, order = lu_array(a)
        return lu_solve_array(factors, order, b), first_zero(factors)


@tensor_vjp((0, -1), name="LinalgSolveExBackward0")
def _solve_vjp(g: Any, a: Any, x: Any) -> Any:
    gb = solve_matrices(adjoint(a), g)
    return -gb @ adjoint(x), gb


def solve_matrices(a: Tensor, b: Tensor) -> Tensor:
    """x with a @ x = b, for batches of one shape; without a test for singular matrices."""
    return _solve_with_info(a, b)[0]


def _solve_with_info(a: Tensor, b: Tensor) -> tuple[Tensor, Any]:
    x, info = _solve_arrays(a.array, b.array)
    return result(x, a, _solve_vjp, (a, b), (a.array, x)), info


_SolveEx = return_type("linalg_solve_ex", "result", "info")


def _is_vector(a: Any, b: Any) -> bool:
    """Whether b is a (batch of) vectors: by its dimensions, as PyTorch tells."""
    return b.ndim == 1 or (a.ndim - 1 == b.ndim and a.shape[:-1] == b.shape)


def solve_ex(
    A: Tensor, B: Tensor, *, left: bool = True, check_errors: bool = False, out: Any = None
) -> Any:
    """(result, info): `solve` without an exception for singular matrices, whose info is not 0.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.solve_ex.html

    >>> gpunn.linalg.solve_ex(gpunn.eye(1), gpunn.ones(1)).info
    tensor(0, dtype=torch.int32)
    """
    check_tensor("linalg.solve", "B", B, 2)
    check_square("linalg.solve", A)
    check_floating("linalg.solve", A)
    check_same_dtype("linalg.solve", A, B)
    vector = _is_vector(A.array, B.array)
    if not vector and B.array.ndim < 2:
        raise RuntimeError("linalg.solve: The input tensor B must have at least 2 dimensions.")
    if vector and not left:
        raise RuntimeError(
            "linalg.solve: Vector broadcasting of the left hand side is not supported for "
            "left=False. In this case linalg.solve is equivalent to B / A.squeeze(-1)"
        )
    b = B.unsqueeze(-1) if vector else B
    check_shapes("linalg.solve", A, b, left)
    a, b = common_batch(A, b)
    if left:
        x, info = _solve_with_info(a, b)
    else:
        x, info = _solve_with_info(a.transpose(-2, -1), b.transpose(-2, -1))
        x = x.transpose(-2, -1)
    if check_errors:
        _check_solved(info, a.array.shape)
    made = _SolveEx(x.squeeze(-1) if vector else x, result(info, A))
    return give(made, out, "linalg.solve")


def check_shapes(name: str, a: Tensor, b: Tensor, left: bool = True) -> None:
    """RuntimeError where matrices do not fit in AX = B, or XA = B, or lie on two devices."""
    same_device(name, (a, b))
    if a.array.shape[-2 if left else -1] != b.array.shape[-2 if left else -1]:
        (n, m), (k, r) = a.array.shape[-2:], b.array.shape[-2:]
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation "
            f"{'AX = B' if left else 'XA = B'} ({n}x{m} and {k}x{r})"
        )


def _check_solved(info: Any, shape: tuple[int, ...]) -> None:
    bad = np.flatnonzero(to_host(info))
    if bad.size:
        raise LinAlgError(
            f"torch.linalg.solve: {batch_element(bad[0], shape)}The solver failed because the "
            "input matrix is singular."
        )


@autocasts("linalg_solve")
def solve(A: Tensor, B: Tensor, *, left: bool = True, out: Tensor | None = None) -> Tensor:
    """X with A @ X = B (X @ A = B for left=False), without forming an inverse.

    Shapes: A (*, n, n); B (*, n, k), (*, n) or (n,); batches broadcast. LinAlgError for a
    singular matrix. dtypes: float32, float64 and complex.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.solve.html

    >>> gpunn.linalg.solve(gpunn.tensor([[2., 0.], [0., 4.]]), gpunn.tensor([2., 2.]))
    tensor([1.0000, 0.5000])
    """
    return give(solve_ex(A, B, left=left, check_errors=True).result, out, "linalg.solve")


@tensor_vjp((-1,), name="LinalgInvExBackward0")
def _inv_vjp(g: Any, inverse: Any) -> Any:
    turned = adjoint(inverse)
    return -turned @ g @ turned


_InvEx = return_type("linalg_inv_ex", "inverse", "info")


@autocasts("linalg_inv_ex")
def inv_ex(A: Tensor, *, check_errors: bool = False, out: Any = None) -> Any:
    """(inverse, info): `inv` without an exception for singular matrices, whose info is not 0.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.inv_ex.html

    >>> gpunn.linalg.inv_ex(gpunn.eye(1)).info
    tensor(0, dtype=torch.int32)
    """
    return give(_inverse("linalg.inv_ex", A, check_errors), out, "linalg.inv")


def _inverse(name: str, A: Tensor, check_errors: bool) -> Any:
    check_square("linalg.inv", A)
    check_floating("linalg.inv", A)
    a = A.array
    xp = A.device.xp
    try:
        inverse, info = lapack("inv", a), xp.zeros(a.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        one = xp.broadcast_to(xp.eye(a.shape[-1], dtype=a.dtype), a.shape)
        inverse, info = _solve_arrays(a, one)
        bad = np.flatnonzero(info if xp is np else info.get())
        if check_errors and bad.size:
            raise LinAlgError(
                f"{name}: {batch_element(bad[0], a.shape)}The diagonal element "
                f"{info.reshape(-1)[bad[0]]} is zero, the inversion could not be completed because "
                "the input matrix is singular."
            ) from None
    return _InvEx(result(inverse, A, _inv_vjp, (A,), (inverse,)), result(info, A))


@autocasts("linalg_inv")
def inv(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The inverse of square matrices.

    Shapes: (*, n, n). LinAlgError for a singular matrix, naming it. `solve` is quicker and more
    exact than a product with the inverse.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.inv.html

    >>> gpunn.linalg.inv(gpunn.tensor([[2., 0.], [0., 4.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])
    """
    return give(_inverse("linalg.inv", A, True).inverse, out, "linalg.inv")


# --- triangular matrices ----------------------------------------------------------------------


def _triangle(a: Any, upper: bool, unit: bool) -> Any:
    """One triangle of raw matrices, with ones on the diagonal where it is `unit`."""
    xp = namespace(a)
    if not unit:
        return xp.triu(a) if upper else xp.tril(a)
    one = xp.eye(a.shape[-1], dtype=a.dtype)
    return (xp.triu(a, 1) if upper else xp.tril(a, -1)) + one


def triangular_arrays(a: Any, b: Any, upper: bool, unit: bool = False) -> Any:
    """x with a @ x = b for one triangle of a."""
    a = _triangle(a, upper, unit)
    if upper:
        return _upper_solve(a, b)
    turned = _upper_solve(a[..., ::-1, ::-1], b[..., ::-1, :])  # from the end, it is an upper one
    return turned[..., ::-1, :]


def _upper_solve(a: Any, b: Any) -> Any:
    """The lower half of the rows first, then the upper; small ones by LAPACK, which exchanges no
    rows of an upper triangle."""
    n = a.shape[-1]
    if n > 64:
        k = n // 2
        low = _upper_solve(a[..., k:, k:], b[..., k:, :])
        top = _upper_solve(a[..., :k, :k], b[..., :k, :] - a[..., :k, k:] @ low)
        return namespace(a).concatenate([top, low], -2)
    try:
        return lapack("solve", a, b)
    except np.linalg.LinAlgError:
        return _back_substitution(a, b)


def _back_substitution(a: Any, b: Any) -> Any:
    """Row by row from the last: zeros on the diagonal give inf or nan."""
    x = b.copy()
    for i in reversed(range(a.shape[-1])):
        rest = a[..., i : i + 1, i + 1 :] @ x[..., i + 1 :, :]
        x[..., i, :] = (x[..., i, :] - rest[..., 0, :]) / a[..., i, i, None]
    return x


@tensor_vjp((0, -1, None, None), name="LinalgSolveTriangularBackward0")
def _triangular_vjp(g: Any, a: Any, x: Any, upper: bool, unit: bool) -> Any:
    gb = solve_triangle(adjoint(a), g, not upper, unit)
    ga = -gb @ adjoint(x)
    return (ga.triu(int(unit)) if upper else ga.tril(-int(unit))), gb


def solve_triangle(a: Tensor, b: Tensor, upper: bool, unit: bool = False) -> Any:
    """x with a @ x = b for one triangle of a; batches of one shape."""
    x = triangular_arrays(a.array, b.array, upper, unit)
    return result(x, a, _triangular_vjp, (a, b), (a.array, x, upper, unit))


def solve_triangular(
    input: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """X with A @ X = B (X @ A = B for left=False), where only one triangle of A is read.

    Shapes: A (*, n, n), B (*, n, k); batches broadcast. `unitriangular` takes the diagonal for
    ones. A zero on the diagonal gives inf or nan, no error.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.solve_triangular.html

    >>> A = gpunn.tensor([[1., 2.], [0., 1.]])
    >>> gpunn.linalg.solve_triangular(A, gpunn.ones(2, 1), upper=True)
    tensor([[-1.],
            [ 1.]])
    """
    name = "linalg.solve_triangular"
    check_square(name, input)
    check_matrix(name, B, "B")
    check_floating(name, input)
    check_same_dtype(name, input, B)
    check_shapes(name, input, B, left)
    a, b = common_batch(input, B)
    if left:
        made = solve_triangle(a, b, upper, unitriangular)
    else:
        turned = solve_triangle(a.transpose(-2, -1), b.transpose(-2, -1), not upper, unitriangular)
        made = turned.transpose(-2, -1)
    return give(made, out, name)


_Triangular = return_type("triangular_solve", "solution", "cloned_coefficient")


@autocasts("triangular_solve")
def triangular_solve(
    input: Tensor, A: Tensor, upper: bool = True, transpose: bool = False,
    unitriangular: bool = False, *, out: Any = None,
) -> Any:  # fmt: skip
    """(solution, a copy of A): the older form of `linalg.solve_triangular`, B first.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.triangular_solve.html

    >>> gpunn.triangular_solve(gpunn.ones(1, 1), gpunn.ones(1, 1)).solution
    tensor([[1.]])
    """
    check_matrix("torch.triangular_solve", input, "b")
    check_square("triangular_solve", A)
    a, b = common_batch(A, input)
    check_shapes("triangular_solve", a, b)
    turned = adjoint(a) if transpose else a
    x = solve_triangle(turned, b, upper != transpose, unitriangular)
    return give(_Triangular(x, a.clone()), out, "triangular_solve")


# --- tensors as matrices ------------------------------------------------------------------------


@autocasts("linalg_tensorinv")
def tensorinv(input: Tensor, ind: int = 2, *, out: Tensor | None = None) -> Tensor:
    """The inverse of tensordot: its first `ind` dimensions are the rows of a square matrix.

    RuntimeError where the two groups of dimensions differ in size, and for ind < 1.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.tensorinv.html

    >>> gpunn.linalg.tensorinv(gpunn.eye(4).reshape(2, 2, 4), ind=2).shape
    torch.Size([4, 2, 2])
    """
    check_tensor("linalg.tensorinv", "input", input)
    if ind <= 0:
        raise RuntimeError(f"Expected a strictly positive integer for 'ind', but got {ind}")
    rows, columns = input.array.shape[:ind], input.array.shape[ind:]
    n, m = math.prod(rows), math.prod(columns)
    if n != m:
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[ind:]) == "
            f"prod(self.shape[:ind]), but got {m} != {n}"
        )
    made = inv(input.reshape((n, n))).reshape((*columns, *rows))
    return give(made, out, "linalg.tensorinv")


@autocasts("linalg_tensorsolve")
def tensorsolve(
    input: Tensor, other: Tensor, dims: Any = None, *, out: Tensor | None = None
) -> Tensor:
    """X with tensordot(A, X, X.ndim) = B.

    Shapes: the dimensions of A behind those of B, after `dims` were moved to the end, are X's.
    RuntimeError where A is not square in this sense.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.tensorsolve.html

    >>> gpunn.linalg.tensorsolve(gpunn.eye(4).reshape(2, 2, 4), gpunn.ones(2, 2)).shape
    torch.Size([4])
    """
    check_tensor("linalg.tensorsolve", "input", input)
    check_tensor("linalg.tensorsolve", "other", other, 2)
    a = input
    if dims is not None:
        last = range(input.array.ndim - len(dims), input.array.ndim)
        a = input.movedim(tuple(dims), tuple(last))
    shape = a.array.shape[other.array.ndim :]
    n, m = math.prod(a.array.shape[: other.array.ndim]), math.prod(shape)
    if n != m:
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == "
            f"prod(self.shape[:other.ndim]), but got {m} != {n}"
        )
    made = solve(a.reshape((n, n)), other.reshape((-1,))).reshape(shape)
    return give(made, out, "linalg.tensorsolve")


# --- by a Cholesky factor -------------------------------------------------------------------------


@autocasts("cholesky_solve")
def cholesky_solve(
    input: Tensor, input2: Tensor, upper: bool = False, *, out: Tensor | None = None
) -> Tensor:
    """X with A @ X = B, for A given by its Cholesky factor `input2`; `input` is B.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cholesky_solve.html

    >>> gpunn.cholesky_solve(gpunn.ones(1, 1), gpunn.full((1, 1), 2.))
    tensor([[0.2500]])
    """
    check_matrix("cholesky_solve", input, "b")
    check_square("cholesky_solve", input2)
    check_shapes("cholesky_solve", input2, input)
    factor, b = common_batch(input2, input)
    lower = adjoint(factor) if upper else factor
    made = solve_triangle(adjoint(lower), solve_triangle(lower, b, False), True)
    return give(made, out, "cholesky_solve")


@autocasts("cholesky_inverse")
def cholesky_inverse(L: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """The inverse of A, given by its Cholesky factor.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cholesky_inverse.html

    >>> gpunn.cholesky_inverse(gpunn.full((1, 1), 2.))
    tensor([[0.2500]])
    """
    check_square("cholesky_inverse", L)
    check_floating("cholesky_inverse", L)
    one = identity(L.array.shape[-1], L).expand(L.array.shape)
    return give(cholesky_solve(one, L, upper), out, "cholesky_inverse")
