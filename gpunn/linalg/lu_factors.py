"""LU factors with row exchanges, and what they give: determinants.

NumPy has no LU: `lu_array` is the recursive algorithm of Toledo (1997), whose work lies in
matrix products, for batches.
"""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace, result, results
from gpunn.linalg._common import (
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
    joined,
    lapack,
    return_type,
    tensor_vjp,
)
from gpunn.ops._rows import half, refusal
from gpunn.tensor import Tensor, wrap

# --- raw arrays ---------------------------------------------------------------------------


def lu_array(a: Any, pivot: bool = True) -> tuple[Any, Any, Any]:
    """(factors, pivots, order): L below and U on and above the diagonal, with a[order] = L @ U.

    pivots[i] is the row, from 1, that row i was exchanged with.
    """
    xp = namespace(a)
    m, n = a.shape[-2:]
    k = min(m, n)
    count = math.prod(a.shape[:-2])
    lu = xp.array(a).reshape(count, m, n)
    pivots = xp.broadcast_to(xp.arange(1, k + 1, dtype=np.int32), (count, k)).copy()
    order = xp.broadcast_to(xp.arange(m), (count, m)).copy()
    if lu.size:
        _eliminate(lu, 0, k, pivots, order, pivot)
        if n > k:
            lu[:, :, k:] = _below(lu, 0, k, k, n)
    batch = a.shape[:-2]
    return lu.reshape(a.shape), pivots.reshape(*batch, k), order.reshape(*batch, m)


def _below(lu: Any, lo: int, mid: int, start: int, stop: int) -> Any:
    """Rows of U right of finished columns lo:mid: the inverse of their unit L times lu."""
    xp = namespace(lu)
    lower = xp.tril(lu[:, lo:mid, lo:mid], -1) + xp.eye(mid - lo, dtype=lu.dtype)
    return lapack("solve", lower, lu[:, lo:mid, start:stop])


def _eliminate(lu: Any, lo: int, hi: int, pivots: Any, order: Any, pivot: bool) -> None:
    """Factors the columns lo:hi of the rows from lo on, in place: one half, then the other."""
    if hi - lo <= 8:
        for j in range(lo, hi):
            _column(lu, j, hi, pivots, order, pivot)
        return
    mid = (lo + hi) // 2
    _eliminate(lu, lo, mid, pivots, order, pivot)
    lu[:, lo:mid, mid:hi] = _below(lu, lo, mid, mid, hi)
    lu[:, mid:, mid:hi] -= lu[:, mid:, lo:mid] @ lu[:, lo:mid, mid:hi]
    _eliminate(lu, mid, hi, pivots, order, pivot)


def _column(lu: Any, j: int, hi: int, pivots: Any, order: Any, pivot: bool) -> None:
    """One step of elimination: the largest element to the diagonal, the column below over it."""
    xp = namespace(lu)
    if pivot:
        below = lu[:, j:, j]
        size = abs(below.real) + abs(below.imag) if lu.dtype.kind == "c" else abs(below)
        rows = size.argmax(1) + j
        every = xp.arange(lu.shape[0])
        for x in (lu, order):
            x[every, rows], x[every, j] = x[every, j], x[every, rows]
        pivots[:, j] = rows + 1
    top = lu[:, j, j]
    lu[:, j + 1 :, j] /= xp.where(top == 0, 1, top)[:, None]
    lu[:, j + 1 :, j + 1 : hi] -= lu[:, j + 1 :, j, None] * lu[:, j, None, j + 1 : hi]


def first_zero(lu: Any) -> Any:
    """Which element of U's diagonal is the first zero, from 1; 0 where none is: int32."""
    xp = namespace(lu)
    zero = xp.diagonal(lu, axis1=-2, axis2=-1) == 0
    if not zero.shape[-1]:
        return xp.zeros(lu.shape[:-2], np.int32)
    return xp.where(zero.any(-1), zero.argmax(-1) + 1, 0).astype(np.int32)


def lu_solve_array(lu: Any, order: Any, b: Any) -> Any:
    """x with A @ x = b, where lu and order are A's; zeros in U give inf or nan."""
    from gpunn.linalg.solving import triangular_arrays

    xp = namespace(lu)
    b = xp.take_along_axis(b, order[..., None], -2)
    return triangular_arrays(lu, triangular_arrays(lu, b, False, True), True)


def _order_of(pivots: Any, rows: int) -> Any:
    """The order of rows that exchanges give."""
    xp = namespace(pivots)
    count = math.prod(pivots.shape[:-1])
    flat = pivots.reshape(count, pivots.shape[-1])
    order = xp.broadcast_to(xp.arange(rows), (count, rows)).copy()
    every = xp.arange(count)
    for j in range(flat.shape[-1]):
        at = flat[:, j] - 1
        order[every, at], order[every, j] = order[every, j], order[every, at]
    return order.reshape(*pivots.shape[:-1], rows)


def _permutation(order: Any, like: Tensor) -> Tensor:
    """P with P @ A[order] = A, in the dtype and on the device of `like`."""
    xp = namespace(order)
    n = order.shape[-1]
    made = (order[..., None, :] == xp.arange(n)[:, None]).astype(like.array.dtype)
    return wrap(made, like.device)


# --- the factors, recorded --------------------------------------------------------------------


@tensor_vjp((-1, None), name="LinalgLuFactorExBackward0")
def _lu_vjp(gs: Any, lu: Any, order: Any) -> Any:
    """Bogacki and others; the parts beside the square one solve with its factors."""
    from gpunn.linalg.solving import solve_triangle

    g = gs[0] if isinstance(gs, (list, tuple)) else gs
    m, n = lu.array.shape[-2:]
    k = min(m, n)
    square, g1 = lu[..., :k, :k], g[..., :k, :k]
    lower = square.tril(-1) + identity(k, lu)
    upper = square.triu()
    left, right = adjoint(lower) @ g1.tril(-1), g1.triu() @ adjoint(upper)
    if n > k:
        left = left - g[..., :k, k:] @ adjoint(lu[..., :k, k:])
    if m > k:
        right = right - adjoint(lu[..., k:, :k]) @ g[..., k:, :k]
    made = left.tril(-1) + right.triu()

    def by_upper(x: Any) -> Any:  # x @ U^-H
        return adjoint(solve_triangle(upper, adjoint(x), True))

    rest: list[Any] = []
    if m > k:
        rest = [by_upper(made), by_upper(g[..., k:, :k])]
        made = solve_triangle(adjoint(lower), rest[0], True, True)
        made = joined([made, rest[1]], -2)
    else:
        made = solve_triangle(adjoint(lower), by_upper(made), True, True)
        if n > k:
            made = joined([made, solve_triangle(adjoint(lower), g[..., :k, k:], True, True)], -1)
    return _permutation(order.array, lu) @ made


def _factor(A: Tensor, pivot: bool) -> tuple[Tensor, Any, Any]:
    """(factors, raw pivots, raw order)."""
    lu, pivots, order = lu_array(A.array, pivot)
    return result(lu, A, _lu_vjp, (A,), (lu, order)), pivots, order


def _check(name: str, A: Any, pivot: bool) -> None:
    check_tensor(name.removeprefix("torch.").replace("lu_", "linalg_lu_"), "A", A)
    if A.array.ndim < 2:
        raise RuntimeError(
            f"{name}: Expected tensor with 2 or more dimensions. Got size: "
            f"{list(A.array.shape)} instead"
        )
    if A.array.dtype.kind in "biu" or half(A.array.dtype):
        raise refusal("lu", A.array.dtype)
    if not pivot and A.device.type == "cpu":
        raise RuntimeError(f"{name}: LU without pivoting is not implemented on the CPU")


_FactorEx = return_type("linalg_lu_factor_ex", "LU", "pivots", "info")
_Factor = return_type("linalg_lu_factor", "LU", "pivots")
_LU = return_type("linalg_lu", "P", "L", "U")
_WithInfo = return_type("_lu_with_info", "LU", "pivots", "info")
_Unpacked = return_type("lu_unpack", "P", "L", "U")


def lu_factor_ex(
    A: Tensor, *, pivot: bool = True, check_errors: bool = False, out: Any = None
) -> Any:
    """(LU, pivots, info): `lu_factor` without an exception for zeros in U.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.lu_factor_ex.html

    >>> gpunn.linalg.lu_factor_ex(gpunn.eye(1)).info
    tensor(0, dtype=torch.int32)
    """
    _check("torch.lu_factor", A, pivot)
    lu, pivots, _ = _factor(A, pivot)
    info = first_zero(lu.array)
    if check_errors and info.any():
        bad = int((info.reshape(-1) != 0).argmax())
        raise RuntimeError(
            f"torch.linalg.lu_factor: {batch_element(bad, A.array.shape)}"
            f"U[{info.reshape(-1)[bad]},{info.reshape(-1)[bad]}] is zero and using it on lu_solve "
            "would result in a division by zero. If you still want to perform the factorization, "
            "consider calling linalg.lu(A, pivot) or linalg.lu_factor_ex(A, pivot)"
        )
    return give(_FactorEx(lu, result(pivots, A), result(info, A)), out, "linalg.lu_factor")


def lu_factor(A: Tensor, *, pivot: bool = True, out: Any = None) -> Any:
    """(LU, pivots): both triangular factors in one matrix, and the exchanges of rows, from 1.

    Shapes: (*, m, n) gives (*, m, n) and (*, min(m, n)). RuntimeError for a zero in U.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.lu_factor.html

    >>> gpunn.linalg.lu_factor(gpunn.tensor([[1., 2.], [4., 4.]])).pivots
    tensor([2, 2], dtype=torch.int32)
    """
    made = lu_factor_ex(A, pivot=pivot, check_errors=True)
    return give(_Factor(made.LU, made.pivots), out, "linalg.lu_factor")


def _triangles(lu: Any) -> tuple[Any, Any]:
    m, n = lu.array.shape[-2:]
    k = min(m, n)
    return lu[..., :, :k].tril(-1) + identity(m, lu, k), lu[..., :k, :].triu()


def lu(A: Tensor, *, pivot: bool = True, out: Any = None) -> Any:
    """(P, L, U) with A = P @ L @ U: a permutation, unit lower and upper triangular factors.

    Shapes: (*, m, n) gives (*, m, m), (*, m, k), (*, k, n) with k = min(m, n).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.lu.html

    >>> gpunn.linalg.lu(gpunn.tensor([[1., 2.], [4., 4.]])).L
    tensor([[1.0000, 0.0000],
            [0.2500, 1.0000]])
    """
    _check("linalg.lu", A, pivot)
    factors, _, order = _factor(A, pivot)
    p = _permutation(order, A)
    return give(_LU(p, *_triangles(factors)), out, "linalg.lu")


@autocasts("lu")
def legacy_lu(A: Tensor, pivot: bool = True, get_infos: bool = False, out: Any = None) -> Any:
    """(LU, pivots), with get_infos also the infos: the older form of `linalg.lu_factor`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.lu.html

    >>> gpunn.lu(gpunn.eye(1))[0]
    tensor([[1.]])
    """
    made = lu_factor_ex(A, pivot=pivot, check_errors=not get_infos)
    if get_infos:
        return give(_WithInfo(*made), out, "lu")
    return tuple(made[:2]) if out is None else tuple(map(give, made[:2], out, ("lu", "lu")))


def lu_unpack(
    LU_data: Tensor, LU_pivots: Tensor, unpack_data: bool = True, unpack_pivots: bool = True, *,
    out: Any = None,
) -> Any:  # fmt: skip
    """(P, L, U) of what `linalg.lu_factor` returned; empty tensors for what is not asked for.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.lu_unpack.html

    >>> gpunn.lu_unpack(*gpunn.linalg.lu_factor(gpunn.eye(1))).P
    tensor([[1.]])
    """
    if LU_pivots.array.dtype != np.int32:
        raise RuntimeError(
            "torch.lu_unpack: LU_pivots is expected to be a contiguous tensor of torch.int32 "
            "dtype. Note: this function is intended to be used with the output produced by "
            "torch.linalg.lu_factor"
        )
    empty = wrap(LU_data.device.xp.zeros(0, LU_data.array.dtype), LU_data.device)
    p: Any = empty
    if unpack_pivots:
        order = _order_of(LU_pivots.array, LU_data.array.shape[-2])
        p = _permutation(order, LU_data)
    lower, upper = _triangles(LU_data) if unpack_data else (empty, empty)
    return give(_Unpacked(p, lower, upper), out, "lu_unpack")


@autocasts("linalg_lu_solve")
def lu_solve(
    LU: Tensor, pivots: Tensor, B: Tensor, *, left: bool = True, adjoint: bool = False,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """X with A @ X = B, for A given by `lu_factor`; X @ A = B for left=False, A^H for adjoint.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.lu_solve.html

    >>> factors = gpunn.linalg.lu_factor(gpunn.full((1, 1), 2.))
    >>> gpunn.linalg.lu_solve(*factors, gpunn.ones(1, 1))
    tensor([[0.5000]])
    """
    from gpunn.linalg.solving import check_shapes

    check_square("torch.linalg.lu_solve", LU)
    check_matrix("linalg.lu_solve", B, "B")
    check_floating("linalg.lu_solve", LU)
    check_same_dtype("linalg.lu_solve", LU, B, ("LU", "B"))
    check_shapes("linalg.lu_solve", LU, B, left)
    order = _order_of(pivots.array, LU.array.shape[-2])
    p = _permutation(order, LU)
    factors, b = common_batch(LU, B)
    return give(_by_factors(factors, p, b, left, adjoint), out, "linalg.lu_solve")


def _by_factors(lu: Any, p: Any, b: Any, left: bool, turned: bool) -> Any:
    """One of the four equations; those from the right are the others' adjoints."""
    from gpunn.linalg.solving import solve_triangle

    if not left:
        return adjoint(_by_factors(lu, p, adjoint(b), True, not turned))
    if turned:
        y = solve_triangle(adjoint(lu), b, False)
        return p @ solve_triangle(adjoint(lu), y, True, True)
    return solve_triangle(lu, solve_triangle(lu, adjoint(p) @ b, False, True), True)


@autocasts("lu_solve")
def legacy_lu_solve(
    input: Tensor, LU_data: Tensor, LU_pivots: Tensor, *, out: Tensor | None = None
) -> Tensor:
    """X with A @ X = input: the older form of `linalg.lu_solve`, B first.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.lu_solve.html

    >>> gpunn.lu_solve(gpunn.ones(1, 1), *gpunn.linalg.lu_factor(gpunn.eye(1)))
    tensor([[1.]])
    """
    return lu_solve(LU_data, LU_pivots, input, out=out)


# --- determinants -----------------------------------------------------------------------------


def _cofactors(a: Any) -> Any:
    """The cofactors of matrices, also of singular ones, by singular values."""
    from gpunn.linalg.spectral import svd

    u, s, vh = svd(a, full_matrices=False)
    n = s.array.shape[-1]
    others = s.unsqueeze(-2).expand(*s.array.shape, n) * (1 - identity(n, s)) + identity(n, s)
    turn = det(u) * det(vh)
    turn = turn.conj() if turn.is_complex() else turn
    return turn[..., None, None] * ((u * others.prod(-1).unsqueeze(-2)) @ vh)


@tensor_vjp((0, -1), name="LinalgDetBackward0")
def _det_vjp(g: Any, a: Any, y: Any) -> Any:
    """g * conj(det) * A^-H, by cofactors where a matrix is singular."""
    from gpunn.linalg.solving import inv_ex

    inverse, info = inv_ex(a)
    if not info.array.any():
        scale = g * (y.conj() if y.is_complex() else y)
        return scale[..., None, None] * adjoint(inverse)
    return g[..., None, None] * _cofactors(a)


def det(A: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The determinant of square matrices.

    Shapes: (*, n, n) gives (*). Source:
    https://docs.pytorch.org/docs/stable/generated/torch.linalg.det.html

    >>> gpunn.linalg.det(gpunn.tensor([[0., 2.], [3., 0.]]))
    tensor(-6.)
    """
    check_square("linalg.det", A)
    check_floating("linalg.det", A)
    a = A.array
    y = namespace(a).asarray(lapack("det", a))
    return give(result(y, A, _det_vjp, (A,), (a, y)), out, "linalg.det")


_SlogDet = return_type("linalg_slogdet", "sign", "logabsdet")


@tensor_vjp((0, -1), name="LinalgSlogdetBackward0")
def _slogdet_vjp(gs: Any, a: Any, sign: Any) -> Any:
    """A^-H times the gradient of the logarithm; a complex sign turns with its imaginary part."""
    from gpunn.linalg.solving import inv_ex

    g_sign, g_log = gs
    scale = g_log
    if g_sign is not None and sign.is_complex():
        turn = (g_sign.conj() * sign).imag * -1j
        scale = turn if scale is None else scale + turn
    if scale is None:
        return a * 0
    inverse = inv_ex(a).inverse
    return scale[..., None, None] * adjoint(inverse)


def slogdet(A: Tensor, *, out: Any = None) -> Any:
    """(sign, logabsdet): the sign and the logarithm of the absolute value of determinants.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.slogdet.html

    >>> gpunn.linalg.slogdet(gpunn.tensor([[0., 1.], [1., 0.]])).sign
    tensor(-1.)
    """
    check_square("linalg.slogdet", A)
    check_floating("linalg.slogdet", A)
    xp = namespace(A.array)
    sign, log = map(xp.asarray, lapack("slogdet", A.array))
    made = results((sign, log), A, _slogdet_vjp, (A,), (A.array, sign))
    return give(_SlogDet(*made), out, "linalg.slogdet")


def logdet(input: Tensor) -> Tensor:
    """The logarithm of determinants: -inf for 0, nan for negative ones.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.logdet.html

    >>> gpunn.logdet(gpunn.eye(2))
    tensor(0.)
    """
    check_square("logdet", input)
    check_floating("logdet", input)
    sign, log = slogdet(input)
    return log + sign.log()

