"""Singular values and eigenvalues."""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace, result, results
from gpunn.linalg._common import (
    LinAlgError,
    adjoint,
    check_floating,
    check_matrix,
    check_square,
    diagonal_of,
    give,
    identity,
    lapack,
    real_part,
    return_type,
    tensor_vjp,
)
from gpunn.ops._rows import cast, refusal
from gpunn.tensor import Tensor

# --- singular values --------------------------------------------------------------------------


def svd_arrays(a: Any, full: bool, vectors: bool = True) -> Any:
    """u, s, vh of raw matrices, or s alone; LinAlgError where a value is not finite."""
    xp = namespace(a)
    try:
        if vectors:
            return tuple(lapack("svd", a, full_matrices=full))
        if xp is np and a.size == 0:
            return np.zeros((*a.shape[:-2], min(a.shape[-2:])), np.empty(0, a.dtype).real.dtype)
        made = lapack("svd", a, compute_uv=False)
        if xp.isnan(made).any():
            raise np.linalg.LinAlgError
        return made
    except np.linalg.LinAlgError:
        raise LinAlgError(
            "linalg.svd: The algorithm failed to converge because the input matrix contained "
            "non-finite values."
        ) from None


def _check_phase(name: str, x: Any) -> None:
    """RuntimeError where a loss depends on the phase, which vectors do not have."""
    if x.is_complex() and (abs(diagonal_of(x).array.imag) > 1e-2).any():
        raise RuntimeError(
            f"{name}: The singular vectors or eigenvectors in the complex case are specified up "
            "to multiplication by e^{i phi}. The specified loss function depends on this phase "
            "term, making it ill-defined."
        )


@tensor_vjp((-1, -2, -3), name="LinalgSvdBackward0")
def _svd_vjp(gs: Any, u: Any, s: Any, vh: Any) -> Any:
    """Townsend, Differentiating the Singular Value Decomposition (2016); complex: Wan and Zhang
    (2019). Of full matrices only the first min(m, n) vectors count."""
    gu, g, gvh = gs
    k = s.array.shape[-1]
    u, vh = u[..., :k], vh[..., :k, :]
    if gu is None and gvh is None:
        return (u * g.unsqueeze(-2)) @ vh
    gu, gvh = None if gu is None else gu[..., :k], None if gvh is None else gvh[..., :k, :]
    square = s * s
    gaps = square.unsqueeze(-2) - square.unsqueeze(-1) + identity(k, s)
    inner: Any = 0
    phase: Any = 0
    if gu is not None:
        left = adjoint(u) @ gu
        left = left - adjoint(left)
        inner, phase = left / gaps * s.unsqueeze(-2), left
    if gvh is not None:
        right = vh @ adjoint(gvh)
        right = right - adjoint(right)
        inner, phase = inner + s.unsqueeze(-1) * (right / gaps), phase + right
    _check_phase("svd_backward", phase)
    if u.is_complex():
        diagonal = diagonal_of(inner)
        inner = inner - diagonal.diag_embed()
        if gu is not None and gvh is not None:
            inner = inner + (diagonal_of(left) / (2 * s)).diag_embed()
    if g is not None:
        inner = inner + g.diag_embed()
    made = u @ inner @ vh
    if gu is not None and u.array.shape[-2] > k:
        scaled = gu / s.unsqueeze(-2)
        made = made + (scaled - u @ (adjoint(u) @ scaled)) @ vh
    if gvh is not None and vh.array.shape[-1] > k:
        scaled = gvh / s.unsqueeze(-1)
        made = made + u @ (scaled - (scaled @ adjoint(vh)) @ vh)
    return made


_SVD = return_type("linalg_svd", "U", "S", "Vh")
_LegacySVD = return_type("svd", "U", "S", "V")


@autocasts("linalg_svd")
def svd(
    A: Tensor, full_matrices: bool = True, *, driver: str | None = None, out: Any = None
) -> Any:
    """(U, S, Vh) with A = U @ diag(S) @ Vh, singular values in descending order.

    Shapes: (*, m, n) gives (*, m, k), (*, k), (*, k, n) with k = min(m, n); square U and Vh for
    full_matrices. Vectors are determined up to a sign (a phase), gradients through them are
    finite where the singular values are distinct. LinAlgError for values that are not finite.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.svd.html

    >>> gpunn.linalg.svd(gpunn.tensor([[0., 3.], [2., 0.]])).S.round()
    tensor([3., 2.])
    """
    check_matrix("linalg.svd", A)
    check_floating("linalg.svd", A)
    _check_driver(A, driver)
    u, s, vh = svd_arrays(A.array, full_matrices)
    return give(_SVD(*results((u, s, vh), A, _svd_vjp, (A,), (u, s, vh))), out, "linalg.svd")


def _check_driver(A: Tensor, driver: str | None) -> None:
    if driver is not None and A.device.type == "cpu":
        raise RuntimeError(
            "torch.linalg.svd: keyword argument `driver=` is only supported on CUDA inputs with "
            "cuSOLVER backend."
        )


@autocasts("linalg_svdvals")
def svdvals(A: Tensor, *, driver: str | None = None, out: Tensor | None = None) -> Tensor:
    """The singular values, in descending order.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.svdvals.html

    >>> gpunn.linalg.svdvals(gpunn.tensor([[0., 3.], [2., 0.]])).round()
    tensor([3., 2.])
    """
    if isinstance(A, Tensor) and A._requires_grad:
        return give(svd(A, False, driver=driver).S, out, "linalg.svdvals")
    check_matrix("linalg.svd", A)
    check_floating("linalg.svd", A)
    _check_driver(A, driver)
    return give(result(svd_arrays(A.array, False, False), A), out, "linalg.svdvals")


@autocasts("svd")
def legacy_svd(
    input: Tensor, some: bool = True, compute_uv: bool = True, *, out: Any = None
) -> Any:
    """(U, S, V), V not transposed: the older form of `linalg.svd`.

    some=False gives square U and V; compute_uv=False zeros in their place.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.svd.html

    >>> gpunn.svd(gpunn.tensor([[0., 3.], [2., 0.]])).S.round()
    tensor([3., 2.])
    """
    check_matrix("linalg.svd", input)
    if compute_uv:
        u, s, vh = svd(input, not some)
        return give(_LegacySVD(u, s, adjoint(vh)), out, "svd")
    m, n = input.array.shape[-2:]
    batch = input.array.shape[:-2]
    made = _LegacySVD(input.new_zeros(*batch, m, m), svdvals(input), input.new_zeros(*batch, n, n))
    return give(made, out, "svd")


# --- eigenvalues of symmetric matrices ----------------------------------------------------------


@tensor_vjp((-1, -2), name="LinalgEighBackward0")
def _eigh_vjp(gs: Any, values: Any, vectors: Any) -> Any:
    """V (diag(g) + (V^H gV) / gaps) V^H."""
    g, gv = gs
    if gv is None:
        return (vectors * g.unsqueeze(-2)) @ adjoint(vectors)
    n = values.array.shape[-1]
    inner = adjoint(vectors) @ gv
    _check_phase("linalg_eigh_backward", inner)
    one = identity(n, values)
    inner = inner * (1 - one) / (values.unsqueeze(-2) - values.unsqueeze(-1) + one)
    if g is not None:
        inner = inner + g.diag_embed()
    return vectors @ inner @ adjoint(vectors)


def _check_uplo(UPLO: str) -> str:
    if not isinstance(UPLO, str) or UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    return UPLO.upper()


def _check_eigh(x: Any) -> None:
    check_square("linalg.eigh", x)
    if x.array.dtype.kind not in "fc":
        raise refusal("linalg_eigh", x.array.dtype)
    check_floating("linalg.eigh", x)


def _converged(name: str, f: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return f(*args, **kwargs)
    except np.linalg.LinAlgError as error:
        raise LinAlgError(f"{name}: The algorithm failed to converge: {error}") from None


_Eigh = return_type("linalg_eigh", "eigenvalues", "eigenvectors")


@autocasts("linalg_eigh")
def eigh(input: Tensor, UPLO: str = "L", *, out: Any = None) -> Any:
    """(eigenvalues, eigenvectors) of symmetric (Hermitian) matrices, in ascending order.

    Only the lower triangle is read, or the upper one for UPLO "U". Vectors are determined up to
    a sign (a phase), gradients through them are finite where the eigenvalues are distinct.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.eigh.html

    >>> gpunn.linalg.eigh(gpunn.tensor([[2., 0.], [0., 1.]])).eigenvalues
    tensor([1., 2.])
    """
    _check_eigh(input)
    values, vectors = _converged("linalg.eigh", lapack, "eigh", input.array, UPLO=_check_uplo(UPLO))
    made = results((values, vectors), input, _eigh_vjp, (input,), (values, vectors))
    return give(_Eigh(*made), out, "linalg.eigh")


@autocasts("linalg_eigvalsh")
def eigvalsh(input: Tensor, UPLO: str = "L", *, out: Tensor | None = None) -> Tensor:
    """The eigenvalues of symmetric (Hermitian) matrices, in ascending order.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.eigvalsh.html

    >>> gpunn.linalg.eigvalsh(gpunn.tensor([[2., 0.], [0., 1.]]))
    tensor([1., 2.])
    """
    _check_eigh(input)
    uplo = _check_uplo(UPLO)
    if input._requires_grad:
        return give(eigh(input, uplo).eigenvalues, out, "linalg.eigvalsh")
    values = _converged("linalg.eigh", lapack, "eigvalsh", input.array, UPLO=uplo)
    return give(result(values, input), out, "linalg.eigvalsh")


# --- eigenvalues of any matrices ------------------------------------------------------------------


@tensor_vjp((0, -1, -2), name="LinalgEigBackward0")
def _eig_vjp(gs: Any, a: Any, values: Any, vectors: Any) -> Any:
    """Boeddeker and others, On the Computation of Complex-valued Gradients (2017), for vectors
    of length 1."""
    from gpunn.linalg.solving import solve_matrices

    g, gv = gs
    turned = adjoint(vectors)
    if gv is None:
        inner = g.diag_embed()
    else:
        n = values.array.shape[-1]
        inner = turned @ gv
        _check_phase("linalg_eig_backward", inner)
        along = real_part(diagonal_of(inner)).to(inner.dtype).unsqueeze(-2)
        inner = inner - (turned @ vectors) * along
        one = identity(n, inner)
        gaps = (values.unsqueeze(-2) - values.unsqueeze(-1)).conj() + one
        inner = inner * (1 - one) / gaps
        if g is not None:
            inner = inner + g.diag_embed()
    made = solve_matrices(turned, inner @ turned)
    return made if a.is_complex() else made.real


def _check_eig(name: str, x: Any) -> Any:
    check_square(name, x)
    if x.array.dtype.kind not in "fc":
        raise refusal("linalg_eig_out", x.array.dtype)
    check_floating(name, x)
    if not namespace(x.array).isfinite(x.array).all():
        raise RuntimeError("torch.linalg.eig: input tensor should not contain infs or NaNs.")
    return np.result_type(x.array.dtype, np.complex64)


_Eig = return_type("linalg_eig", "eigenvalues", "eigenvectors")


@autocasts("linalg_eig")
def eig(input: Tensor, *, out: Any = None) -> Any:
    """(eigenvalues, eigenvectors) of square matrices, complex, in LAPACK's order.

    Vectors have length 1 and are determined up to a phase. RuntimeError for values that are not
    finite. Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.eig.html

    >>> gpunn.linalg.eig(gpunn.tensor([[2., 0.], [0., 3.]])).eigenvalues
    tensor([2.+0.j, 3.+0.j])
    """
    d = _check_eig("linalg.eig", input)
    values, vectors = _converged("linalg.eig", lapack, "eig", input.array)
    values, vectors = values.astype(d, copy=False), vectors.astype(d, copy=False)
    saved = (input.array, values, vectors)
    return give(_Eig(*results((values, vectors), input, _eig_vjp, (input,), saved)), out, "eig")


@autocasts("linalg_eigvals")
def eigvals(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The eigenvalues of square matrices, complex, in LAPACK's order.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.eigvals.html

    >>> gpunn.linalg.eigvals(gpunn.tensor([[2., 0.], [0., 3.]]))
    tensor([2.+0.j, 3.+0.j])
    """
    d = _check_eig("linalg.eigvals", input)
    if input._requires_grad:
        return give(eig(input).eigenvalues, out, "linalg.eigvals")
    values = _converged("linalg.eig", lapack, "eigvals", input.array)
    return give(result(values.astype(d, copy=False), input), out, "linalg.eigvals")


# --- a few singular values --------------------------------------------------------------------


def svd_lowrank(A: Tensor, q: int | None = 6, niter: int | None = 2, M: Any = None) -> Any:
    """(U, S, V) of the q largest singular values, by a random subspace; A - M with `M`.

    Halko, Martinsson and Tropp, Finding structure with randomness (2009), algorithms 4.4, 5.1.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.svd_lowrank.html

    >>> gpunn.svd_lowrank(gpunn.eye(3), q=1)[1].round()
    tensor([1.])
    """
    from gpunn.linalg.factoring import qr

    a: Any = A if M is None else A - M
    q = 6 if q is None else q
    m, n = a.array.shape[-2:]
    if m < n:
        u, s, v = svd_lowrank(adjoint(a), q, niter)
        return v, s, u
    basis = qr(a @ _random_start(a, n, q)).Q
    for _ in range(niter or 0):
        basis = qr(adjoint(a) @ basis).Q
        basis = qr(a @ basis).Q
    u, s, vh = svd(adjoint(basis) @ a, False)
    return basis @ u, s, adjoint(vh)


def _random_start(a: Any, n: int, q: int) -> Any:
    from gpunn.random import randn

    return cast(randn(n, q, device=a.device), a.array.dtype)


def pca_lowrank(A: Tensor, q: int | None = None, center: bool = True, niter: int = 2) -> Any:
    """(U, S, V) of the q (at most 6) principal components of A's columns: `svd_lowrank`, centred.

    ValueError for a q below 0 or above the smaller side.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.pca_lowrank.html

    >>> gpunn.pca_lowrank(gpunn.eye(3), q=1)[1].round()
    tensor([1.])
    """
    a: Any = A
    m, n = A.array.shape[-2:]
    q = min(6, m, n) if q is None else q
    if not 0 <= q <= min(m, n):
        raise ValueError(
            f"q(={q}) must be non-negative integer and not greater than min(m, n)={min(m, n)}"
        )
    if niter < 0:
        raise ValueError(f"niter(={niter}) must be non-negative integer")
    return svd_lowrank(a - a.mean(-2, True) if center else a, q, niter)
