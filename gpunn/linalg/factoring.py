"""Cholesky and QR factors, and products of Householder reflectors."""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace, result, results
from gpunn.linalg._common import (
    LinAlgError,
    adjoint,
    batch_element,
    check_floating,
    check_matrix,
    check_square,
    check_tensor,
    constant,
    diagonal_of,
    give,
    identity,
    joined,
    lapack,
    return_type,
    tensor_vjp,
)
from gpunn.linalg.solving import solve_triangle
from gpunn.ops._rows import not_implemented
from gpunn.tensor import Tensor

# --- Cholesky -------------------------------------------------------------------------------


@tensor_vjp((-1,), name="LinalgCholeskyExBackward0")
def _cholesky_vjp(g: Any, factor: Any) -> Any:
    """L^-H sym(tril(L^H g)) L^-1: Murray, Differentiation of the Cholesky decomposition (2016)."""
    turned = adjoint(factor)
    inner = (turned @ g).tril()
    inner = 0.5 * (inner + adjoint(inner.tril(-1)))
    left = solve_triangle(turned, inner, True)
    return adjoint(solve_triangle(turned, adjoint(left), True))


def _order_that_fails(a: np.ndarray) -> int:
    """The order of the first leading minor that is not positive-definite; 0 for none."""
    def fails(k: int) -> bool:
        try:
            return bool(np.isnan(np.linalg.cholesky(a[:k, :k])).any())
        except np.linalg.LinAlgError:
            return True

    n = a.shape[-1]
    if not fails(n):
        return 0
    low, high = 0, n  # orders up to `low` pass, `high` fails
    while high - low > 1:
        mid = (low + high) // 2
        low, high = (low, mid) if fails(mid) else (mid, high)
    return high


def _cholesky_arrays(a: Any) -> tuple[Any, Any]:
    """(L, info); L is nan where a matrix has none."""
    xp = namespace(a)
    try:
        lower = lapack("cholesky", a)
        if not xp.isnan(lower).any():
            return lower, xp.zeros(a.shape[:-2], np.int32)
    except np.linalg.LinAlgError:
        pass
    host = a if xp is np else a.get()
    flat = host.reshape(-1, *a.shape[-2:])
    info = np.array([_order_that_fails(m) for m in flat], np.int32)
    lower = np.full_like(flat, np.nan)
    good = info == 0
    if good.any():
        lower[good] = np.linalg.cholesky(flat[good])
    lower = np.tril(lower)
    return xp.asarray(lower.reshape(a.shape)), xp.asarray(info.reshape(a.shape[:-2]))


_CholeskyEx = return_type("linalg_cholesky_ex", "L", "info")


def _cholesky(name: str, x: Tensor, upper: bool, check_errors: bool) -> Any:
    check_square("linalg.cholesky", x)
    check_floating("linalg.cholesky", x)
    a: Any = adjoint(x) if upper else x
    lower, info = _cholesky_arrays(a.array)
    if check_errors and info.any():
        bad = int((info.reshape(-1) != 0).argmax())
        raise LinAlgError(
            f"{name}: {batch_element(bad, x.array.shape)}The factorization could not be completed "
            "because the input is not positive-definite (the leading minor of order "
            f"{info.reshape(-1)[bad]} is not positive-definite)."
        )
    made = result(lower, a, _cholesky_vjp, (a,), (lower,))
    return _CholeskyEx(adjoint(made) if upper else made, result(info, x))


@autocasts("linalg_cholesky_ex")
def cholesky_ex(
    input: Tensor, *, upper: bool = False, check_errors: bool = False, out: Any = None
) -> Any:
    """(L, info): `cholesky` without an exception; info is the order of the minor that failed.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.cholesky_ex.html

    >>> gpunn.linalg.cholesky_ex(gpunn.tensor([[1., 0.], [0., -1.]])).info
    tensor(2, dtype=torch.int32)
    """
    return give(_cholesky("linalg.cholesky_ex", input, upper, check_errors), out, "cholesky")


@autocasts("linalg_cholesky")
def cholesky(input: Tensor, *, upper: bool = False, out: Tensor | None = None) -> Tensor:
    """The lower triangular L with A = L @ L^H; the upper one, L^H, for `upper`.

    Shapes: (*, n, n). Only that triangle of A is read. LinAlgError for a matrix that is not
    positive-definite.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.cholesky.html

    >>> gpunn.linalg.cholesky(gpunn.tensor([[4., 2.], [2., 5.]]))
    tensor([[2., 0.],
            [1., 2.]])
    """
    return give(_cholesky("linalg.cholesky", input, upper, True).L, out, "linalg.cholesky")


@autocasts("cholesky")
def legacy_cholesky(input: Tensor, upper: bool = False, *, out: Tensor | None = None) -> Tensor:
    """The Cholesky factor: the older form of `linalg.cholesky`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cholesky.html

    >>> gpunn.cholesky(gpunn.full((1, 1), 4.))
    tensor([[2.]])
    """
    return give(_cholesky("cholesky", input, upper, True).L, out, "cholesky")


# --- QR -------------------------------------------------------------------------------------


@tensor_vjp((-1, -2), name="LinalgQrBackward0")
def _qr_vjp(gs: Any, q: Any, r: Any) -> Any:
    """For at least as many rows as columns: Walter and Lehmann (2018)."""
    gq, gr = gs
    turned = adjoint(r)
    inner = 0
    if gr is not None:
        inner = gr @ turned
    if gq is not None:
        inner = inner - adjoint(q) @ gq
    inner = inner.triu()
    made = q @ (inner + adjoint(inner.triu(1)) - _imaginary_diagonal(inner))
    if gq is not None:
        made = made + gq
    return adjoint(solve_triangle(r, adjoint(made), True))


def _imaginary_diagonal(x: Any) -> Any:
    """The imaginary part of the main diagonal, as a matrix; 0 for real ones."""
    return (diagonal_of(x).imag * 1j).diag_embed() if x.is_complex() else 0


def _not_differentiable(text: str) -> Any:
    def vjp(gs: Any, *saved: Any) -> Any:
        raise RuntimeError(text)

    vjp.node_name = "LinalgQrBackward0"  # type: ignore[attr-defined]
    return vjp


_NO_Q = _not_differentiable(
    "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Please use "
    "linalg.qr(A, mode='reduced') if you are going to require gradients."
)
_COMPLETE = _not_differentiable(
    "The QR decomposition is not differentiable when mode='complete' and nrows > ncols."
)


def _factors(A: Tensor, mode: str) -> tuple[Any, Any]:
    m, n = A.array.shape[-2:]
    if mode == "r":
        empty = A.device.xp.zeros(0, A.array.dtype)
        return tuple(results((empty, lapack("qr", A.array, mode="r")), A, _NO_Q, (A,)))  # type: ignore[return-value]
    if m < n and A._requires_grad:  # the first columns make Q, and Q^H takes the others along
        first, rest = A[..., :m], A[..., m:]
        q, r = _factors(first, "reduced")
        return q, joined([r, adjoint(q) @ rest], -1)
    q, r = lapack("qr", A.array, mode=mode)
    rule: Any = _COMPLETE if mode == "complete" and m > n else _qr_vjp
    return tuple(results((q, r), A, rule, (A,), (q, r) if rule is _qr_vjp else ()))  # type: ignore[return-value]


_QR = return_type("linalg_qr", "Q", "R")
_LegacyQR = return_type("qr", "Q", "R")


@autocasts("linalg_qr")
def qr(A: Tensor, mode: str = "reduced", *, out: Any = None) -> Any:
    """(Q, R) with A = Q @ R: orthonormal columns and an upper triangle, by reflectors.

    mode: "reduced", "complete" (Q square) or "r" (Q empty). Shapes: (*, m, n) gives (*, m, k)
    and (*, k, n) with k = min(m, n). The diagonal of R may be negative, as LAPACK's.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.qr.html

    >>> gpunn.linalg.qr(gpunn.tensor([[3.], [4.]])).R.abs()
    tensor([[5.]])
    """
    check_matrix("linalg.qr", A)
    check_floating("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), "
            "'r', or 'complete'"
        )
    return give(_QR(*_factors(A, mode)), out, "linalg.qr")


@autocasts("qr")
def legacy_qr(input: Tensor, some: bool = True, *, out: Any = None) -> Any:
    """(Q, R): the older form of `linalg.qr`; some=False is its "complete".

    Source: https://docs.pytorch.org/docs/stable/generated/torch.qr.html

    >>> gpunn.qr(gpunn.eye(1)).R.abs()
    tensor([[1.]])
    """
    return give(_LegacyQR(*qr(input, "reduced" if some else "complete")), out, "qr")


# --- reflectors -----------------------------------------------------------------------------

_Geqrf = return_type("geqrf", "a", "tau")


@autocasts("geqrf")
def geqrf(input: Tensor, *, out: Any = None) -> Any:
    """(a, tau): the QR factors as LAPACK packs them, R above the reflectors. No gradient.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.geqrf.html

    >>> gpunn.geqrf(gpunn.ones(3, 2)).tau.shape
    torch.Size([2])
    """
    check_matrix("torch.geqrf", input, "input")
    check_floating("torch.geqrf", input)
    h, tau = lapack("qr", input.array, mode="raw")
    made = results((h.swapaxes(-1, -2), tau), input, not_implemented("geqrf"), (input,))
    return give(_Geqrf(*made), out, "geqrf")


def _check_reflectors(name: str, x: Any, tau: Any) -> None:
    check_tensor(name, "input", x)
    if x.array.ndim < 2:
        raise RuntimeError(f"torch.{name}: input must have at least 2 dimensions.")
    check_tensor(name, "tau", tau, 2)
    if x.array.dtype != tau.array.dtype:
        raise RuntimeError(
            f"torch.{name}: tau dtype {tau.dtype} does not match input dtype {x.dtype}"
        )


def _reflectors(x: Any, count: int) -> Any:
    """The reflectors' vectors as columns: what is below the diagonal, and ones on it."""
    return x[..., :count].tril(-1) + identity(x.array.shape[-2], x, count)


def _reflect(v: Any, tau: Any, i: int, c: Any) -> Any:
    """c - tau_i v_i v_i^H c."""
    column = v[..., i : i + 1]
    return c - tau[..., i, None, None] * (column @ (adjoint(column) @ c))


@autocasts("linalg_householder_product")
def householder_product(input: Tensor, tau: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The first columns of a product of reflectors, as `geqrf` returns them: Q.

    Shapes: (*, m, n) with m >= n and (*, k) with k <= n give (*, m, n).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.householder_product.html

    >>> gpunn.linalg.householder_product(gpunn.zeros(2, 1), gpunn.zeros(1))
    tensor([[1.],
            [0.]])
    """
    name = "linalg.householder_product"
    _check_reflectors(name, input, tau)
    m, n = input.array.shape[-2:]
    k = tau.array.shape[-1] if tau.array.ndim else 0
    if m < n:
        raise RuntimeError(
            f"torch.{name}: input.shape[-2] must be greater than or equal to input.shape[-1]"
        )
    if n < k:
        raise RuntimeError(
            f"torch.{name}: input.shape[-1] must be greater than or equal to tau.shape[-1]"
        )
    check_floating(name, input)
    v = _reflectors(input, k)
    made: Any = identity(m, input, n).expand(input.array.shape)
    for i in reversed(range(k)):
        made = _reflect(v, tau, i, made)
    return give(made if k else constant(made.array.copy(), input), out, name)


@autocasts("ormqr")
def ormqr(
    input: Tensor, tau: Tensor, other: Tensor, left: bool = True, transpose: bool = False, *,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The product of Q, given by reflectors as `geqrf` returns them, and another matrix.

    Q @ other, Q^H @ other for `transpose`, other @ Q for left=False.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.ormqr.html

    >>> gpunn.ormqr(gpunn.zeros(2, 1), gpunn.zeros(1), gpunn.eye(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    _check_reflectors("ormqr", input, tau)
    if other.array.ndim < 2:
        raise RuntimeError("torch.ormqr: other must have at least 2 dimensions.")
    side = "-2" if left else "-1"
    m, k = other.array.shape[int(side)], tau.array.shape[-1]
    if m < k:
        raise RuntimeError(
            f"torch.ormqr: other.shape[{side}] must be greater than or equal to tau.shape[-1]"
        )
    if k != min(m, input.array.shape[-1]):
        raise RuntimeError(
            f"torch.ormqr: tau.shape[-1] must be equal to min(other.shape[{side}], "
            "input.shape[-1])"
        )
    if m != input.array.shape[-2]:
        raise RuntimeError(f"torch.ormqr: other.shape[{side}] must be equal to input.shape[-2]")
    check_floating("torch.ormqr", input)
    v = _reflectors(input, k)
    made: Any = other if left else adjoint(other)  # other @ Q is the adjoint of Q^H @ other^H
    turned = transpose if left else not transpose
    factors = tau.conj() if turned and tau.is_complex() else tau
    for i in range(k) if turned else reversed(range(k)):
        made = _reflect(v, factors, i, made)
    made = made if left else adjoint(made)
    return give(made.clone() if k == 0 else made, out, "ormqr")
