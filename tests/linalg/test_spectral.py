"""Singular values and eigenvalues."""

import numpy as np
import pytest

import gpunn
from gpunn.linalg import LinAlgError

rng = np.random.default_rng(0)
KINDS = ["real", "complex"]


def leaf(*shape, kind="real"):
    a = rng.normal(size=shape)
    a = a + 1j * rng.normal(size=shape) if kind == "complex" else a
    return gpunn.tensor(a, requires_grad=True)


def close(got, wanted):
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-9, atol=1e-12)


def both_orders(f, *inputs):
    assert gpunn.autograd.gradcheck(f, inputs)
    assert gpunn.autograd.gradgradcheck(f, inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 3), (2, 4, 2), (2, 4)])
def test_svd(kind, shape):
    x = leaf(*shape, kind=kind)
    u, s, vh = gpunn.linalg.svd(x, full_matrices=False)
    close((u * s.unsqueeze(-2)) @ vh, x.detach().numpy())
    assert not s.is_complex() and (s.diff() <= 0).all()

    def without_phase(x, full=False):
        u, s, vh = gpunn.linalg.svd(x, full_matrices=full)
        u, vh = u[..., : s.shape[-1]], vh[..., : s.shape[-1], :]
        return u.abs(), s, vh.abs(), (u * s.unsqueeze(-2)) @ vh

    both_orders(lambda x: without_phase(x), x)
    both_orders(lambda x: without_phase(x, True)[:2], x)
    both_orders(lambda x: gpunn.linalg.svd(x, False).Vh.abs(), x)
    both_orders(gpunn.linalg.svdvals, x)
    close(gpunn.linalg.svdvals(x.detach()), s.detach().numpy())
    full = gpunn.linalg.svd(x.detach())
    m, n = shape[-2:]
    assert full.U.shape[-2:] == (m, m) and full.Vh.shape[-2:] == (n, n)


def test_the_older_svd():
    x = leaf(4, 3)
    u, s, v = gpunn.svd(x)
    close((u * s) @ v.T, x.detach().numpy())
    assert [t.shape for t in gpunn.svd(x, some=False)] == [(4, 4), (3,), (3, 3)]
    values = gpunn.svd(x, compute_uv=False)
    close(values.S, s.detach().numpy())
    assert values.U.shape == (4, 4) and values.V.abs().sum() == 0


def test_values_that_are_not_finite():
    bad = gpunn.full((2, 2), float("nan"))
    for f in (gpunn.linalg.svd, gpunn.linalg.svdvals):
        with pytest.raises(LinAlgError, match="^linalg.svd: The algorithm failed to converge bec"):
            f(bad)
    with pytest.raises(RuntimeError, match="should not contain infs or NaNs"):
        gpunn.linalg.eig(bad)
    with pytest.raises(RuntimeError, match="only supported on CUDA"):
        gpunn.linalg.svd(gpunn.eye(2), driver="gesvd")
    assert gpunn.linalg.svdvals(gpunn.zeros(2, 3, 0)).shape == (2, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("uplo", ["L", "U"])
def test_eigh(kind, uplo):
    x = leaf(2, 3, 3, kind=kind)
    values, vectors = gpunn.linalg.eigh(x, uplo)
    close(values, np.linalg.eigvalsh(x.detach().numpy(), uplo))
    a = (x.triu(1) if uplo == "U" else x.tril(-1)).detach()
    a = a + a.mH + gpunn.diag_embed(x.detach().diagonal(0, -2, -1).real).to(a.dtype)
    close(a @ vectors, (vectors * values.unsqueeze(-2)).detach().numpy())
    close(gpunn.linalg.eigvalsh(x.detach(), uplo), values.detach().numpy())

    def symmetric(x):
        values, vectors = gpunn.linalg.eigh(x + x.mH)
        return values, vectors.abs(), (vectors * values.unsqueeze(-2).sin()) @ vectors.mH

    both_orders(symmetric, x)
    both_orders(lambda x: gpunn.linalg.eigvalsh(x + x.mH), x)


@pytest.mark.parametrize("kind", KINDS)
def test_eig(kind):
    x = leaf(2, 3, 3, kind=kind)
    values, vectors = gpunn.linalg.eig(x)
    assert values.dtype is gpunn.complex128
    close(x.to(vectors.dtype) @ vectors, (vectors * values.unsqueeze(-2)).detach().numpy())
    close((vectors.abs() ** 2).sum(-2), np.ones((2, 3)))
    close(gpunn.linalg.eigvals(x.detach()), values.detach().numpy())
    both_orders(gpunn.linalg.eigvals, x)

    def without_phase(x):
        values, vectors = gpunn.linalg.eig(x)
        return vectors.abs(), (vectors * values.unsqueeze(-2).exp()) @ gpunn.linalg.inv(vectors)

    both_orders(without_phase, x)
    assert gpunn.linalg.eigvals(gpunn.eye(2)).dtype is gpunn.complex64


def test_a_loss_that_depends_on_the_phase():
    x = leaf(3, 3, kind="complex")
    for f in (
        lambda x: gpunn.linalg.svd(x).U, lambda x: gpunn.linalg.eigh(x).eigenvectors,
        lambda x: gpunn.linalg.eig(x).eigenvectors,
    ):  # fmt: skip
        with pytest.raises(RuntimeError, match="depends on this phase"):
            f(x).imag.sum().backward()


def test_arguments():
    for f in (gpunn.linalg.eigh, gpunn.linalg.eig):
        with pytest.raises(RuntimeError, match="they are 2 by 3 matrices"):
            f(gpunn.ones(2, 3))
        with pytest.raises(RuntimeError, match="not implemented for 'Long'"):
            f(gpunn.ones(2, 2).long())
    with pytest.raises(RuntimeError, match="'L' or 'U', but got x"):
        gpunn.linalg.eigh(gpunn.eye(2), "x")
    with pytest.raises(RuntimeError, match="\"not implemented for 'Half'\""):
        gpunn.linalg.svd(gpunn.ones(2, 2).half())
    shown = repr(gpunn.linalg.eigh(gpunn.eye(1)))
    assert shown.startswith("torch.return_types.linalg_eigh(\neigenvalues=tensor([1.]),\neigenvec")


def test_low_rank():
    gpunn.manual_seed(0)
    a = leaf(20, 3) @ leaf(3, 12)
    for x in (a, a.T, gpunn.stack([a, 2 * a])):
        u, s, v = gpunn.svd_lowrank(x, q=3)
        close((u * s.unsqueeze(-2)) @ v.mT, x.detach().numpy())
        close(s, np.linalg.svd(x.detach().numpy(), compute_uv=False)[..., :3])
    mean = a.mean(0, True).expand(20, 12)
    u, s, v = gpunn.pca_lowrank(a, q=3)
    close((u * s) @ v.T, (a - mean).detach().numpy())
    close(gpunn.svd_lowrank(a, q=3, M=mean)[1], s.detach().numpy())
    with pytest.raises(ValueError, match="not greater than min"):
        gpunn.pca_lowrank(a, q=13)
    with pytest.raises(ValueError, match="niter"):
        gpunn.pca_lowrank(a, niter=-1)
