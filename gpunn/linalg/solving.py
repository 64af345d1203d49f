"""Inverses and linear equations: exact, triangular, least squares."""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace, result, vjp
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
    constant,
    give,
    identity,
    lapack,
    return_type,
    tensor_vjp,
)
from gpunn.linalg.lu_factors import first_zero, lu_array, lu_solve_array
from gpunn.linalg.norms import tolerance
from gpunn.ops._rows import half, proper
from gpunn.tensor import Tensor, wrap

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
    """RuntimeError where matrices do not fit in AX = B, or XA = B."""
    if a.array.shape[-2 if left else -1] != b.array.shape[-2 if left else -1]:
        (n, m), (k, r) = a.array.shape[-2:], b.array.shape[-2:]
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation "
            f"{'AX = B' if left else 'XA = B'} ({n}x{m} and {k}x{r})"
        )


def _check_solved(info: Any, shape: tuple[int, ...]) -> None:
    bad = np.flatnonzero(info if isinstance(info, np.ndarray) else info.get())
    if bad.size:
        raise LinAlgError(
            f"torch.linalg.solve: {batch_element(bad[0], shape)}The solver failed because the "
            "input matrix is singular."
        )


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


# --- least squares ----------------------------------------------------------------------------


@tensor_vjp((0, -1), name="LinalgPinvBackward0")
def _pinv_vjp(g: Any, a: Any, p: Any) -> Any:
    """Golub and Pereyra, The Differentiation of Pseudo-Inverses (1973), for constant rank."""
    pa, ga = adjoint(p), adjoint(g)
    rows, columns = ga @ (p @ pa), (pa @ p) @ ga
    return rows - a @ (p @ rows) + columns - (columns @ p) @ a - pa @ g @ pa


def _spectrum(a: Tensor, hermitian: bool) -> tuple[Any, Any, Any]:
    """Raw u, s, vh with a = u * s @ vh, s real and not negative."""
    if not hermitian:
        from gpunn.linalg.spectral import svd_arrays

        return svd_arrays(a.array, False)
    values, u = lapack("eigh", a.array)
    xp = a.device.xp
    sign = xp.where(values < 0, -1, 1).astype(values.dtype)
    return u, abs(values), sign[..., None] * u.swapaxes(-1, -2).conj()


def _inverted(a: Tensor, s: Any, atol: Any, rtol: Any) -> tuple[Any, Any]:
    """1 / s, 0 for what counts as 0, and which do not."""
    values = wrap(s, a.device)
    limit = tolerance(a, values, atol, rtol)
    xp = a.device.xp
    keep = s > limit.array[..., None]
    return xp.where(keep, 1 / xp.where(keep, s, 1), 0).astype(s.dtype), keep


def pinv(
    input: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None,
    rtol: Any = None, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The pseudo-inverse (Moore-Penrose), by singular values.

    Shapes: (*, m, n) gives (*, n, m). Singular values of at most max(atol, rtol * the largest)
    count as 0; `rcond` is the older name of rtol. The gradient is that at constant rank.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.pinv.html

    >>> gpunn.linalg.pinv(gpunn.tensor([[2., 0.], [0., 0.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.0000]])
    """
    check_tensor("linalg.pinv", "input", input)
    a = input.array
    if a.ndim < 2 or a.dtype.kind in "biu" or half(a.dtype):
        raise RuntimeError(
            f"linalg.pinv({proper(input.dtype)}{{{list(a.shape)}}}): expected a tensor with 2 or "
            "more dimensions of float, double, cfloat or cdouble types"
        )
    if hermitian:
        check_square("linalg.pinv", input)
    if a.size == 0:
        xp = input.device.xp
        p = xp.zeros((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype)
    else:
        u, s, vh = _spectrum(input, hermitian)
        inverted, _ = _inverted(input, s, atol, rcond if rtol is None else rtol)
        p = (vh.swapaxes(-1, -2).conj() * inverted[..., None, :]) @ u.swapaxes(-1, -2).conj()
    return give(result(p, input, _pinv_vjp, (input,), (a, p)), out, "linalg.pinv")


def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The pseudo-inverse: `linalg.pinv` with the older default of rcond.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.pinverse.html

    >>> gpunn.pinverse(gpunn.tensor([[2.]]))
    tensor([[0.5000]])
    """
    return pinv(input, rcond)


_Lstsq = return_type("linalg_lstsq", "solution", "residuals", "rank", "singular_values")
DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


def _lstsq_composed(a: Tensor, b: Tensor, *_: Any) -> Tensor:
    return pinv(a, 0.0) @ b


@vjp((0, 1, None), composed=_lstsq_composed, name="LinalgLstsqBackward0")
def _lstsq_vjp(g: Any, a: Any, b: Any, p: Any) -> Any:
    """Through the pseudo-inverse: x = pinv(a) @ b."""
    turned = b.swapaxes(-1, -2).conj()
    return _pinv_vjp(g @ turned, a, p), p.swapaxes(-1, -2).conj() @ g


def lstsq(
    input: Tensor, b: Tensor, rcond: float | None = None, *, driver: str | None = None,
    out: Any = None,
) -> Any:  # fmt: skip
    """(solution, residuals, rank, singular_values) of min ||A X - B||, by singular values.

    Shapes: A (*, m, n), B (*, m, k) or (*, m). As PyTorch's drivers do: residuals for m > n and
    full rank with gels, gelsd, gelss; rank with all but gels; singular values with gelsd, gelss.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.lstsq.html

    >>> A = gpunn.tensor([[1.], [1.]])
    >>> gpunn.linalg.lstsq(A, gpunn.tensor([[1.], [3.]])).solution.round()
    tensor([[2.]])
    """
    name = "torch.linalg.lstsq"
    driver = _check_lstsq(name, input, b, driver)
    vector = _is_lstsq_vector(input, b)
    a, rhs = common_batch(input, b.unsqueeze(-1) if vector else b)
    m, n = a.array.shape[-2:]
    rcond = float(np.finfo(a.array.dtype).eps) * max(m, n) if rcond is None else rcond
    u, s, vh = _spectrum(a.detach(), False)
    inverted, keep = _inverted(a.detach(), s, None, rcond if driver != "gels" else 0.0)
    right = vh.swapaxes(-1, -2).conj() * inverted[..., None, :]
    left = u.swapaxes(-1, -2).conj()
    x = right @ (left @ rhs.array)
    solution = result(x, a, _lstsq_vjp, (a, rhs), (a.array, rhs.array, right @ left))
    rank = keep.sum(-1)
    empty = a.device.xp.zeros(0, s.dtype)
    full = m > n and driver != "gelsy" and bool((rank == n).all())
    residuals = ((rhs - a @ solution).abs() ** 2).sum(-2) if full else constant(empty, solution)
    made = _Lstsq(
        solution.squeeze(-1) if vector else solution,
        residuals,
        result(rank if driver != "gels" else empty.astype(np.int64), a),
        result(s if driver in ("gelsd", "gelss") else empty, a),
    )
    return give(made, out, name)


def _is_lstsq_vector(a: Tensor, b: Tensor) -> bool:
    return b.array.ndim == 1 or (
        a.array.ndim - 1 == b.array.ndim and a.array.shape[:-1] == b.array.shape
    )


def _check_lstsq(name: str, a: Tensor, b: Tensor, driver: str | None) -> str:
    """The driver; raises for arguments that do not fit."""
    check_tensor("linalg.lstsq", "b", b, 2)
    check_tensor("linalg.lstsq", "input", a)
    if a.array.ndim < 2:
        raise RuntimeError(f"{name}: input must have at least 2 dimensions.")
    if b.array.ndim < 1:
        raise RuntimeError(f"{name}: other must have at least 1 dimension.")
    check_floating(name, a)
    if a.array.dtype != b.array.dtype:
        raise RuntimeError(
            f"{name}: Expected input and other to have the same dtype, but got input's dtype "
            f"{proper(a.dtype)} and other's dtype {proper(b.dtype)}"
        )
    rows = -1 if _is_lstsq_vector(a, b) else -2
    if a.array.shape[-2] != b.array.shape[rows]:
        raise RuntimeError(
            f"{name}: input.size(-2) should match other.size({rows}), got "
            f"{a.array.shape[-2]} and {b.array.shape[rows]}"
        )
    if driver is not None and driver not in DRIVERS:
        raise RuntimeError(
            f"{name}: parameter `driver` should be one of ({', '.join(DRIVERS)}), got {driver!r}"
        )
    return driver or "gelsy"


# --- tensors as matrices ------------------------------------------------------------------------


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
