"""Cholesky and QR factors, reflectors."""

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
@pytest.mark.parametrize("upper", [False, True])
def test_cholesky(kind, upper):
    x = leaf(2, 3, 3, kind=kind)

    def factor(x):
        return gpunn.linalg.cholesky(x @ x.mH + gpunn.eye(3), upper=upper)

    a = (x @ x.mH + gpunn.eye(3)).detach()
    f = factor(x)
    close(f.mH @ f if upper else f @ f.mH, a.numpy())
    assert (f.tril(-1) if upper else f.triu(1)).abs().max() == 0
    both_orders(factor, x)
    close(gpunn.cholesky(a, upper), f.tolist())


def test_only_one_triangle_is_read():
    a = gpunn.tensor([[4.0, 100.0], [2.0, 5.0]])
    assert gpunn.linalg.cholesky(a).tolist() == [[2, 0], [1, 2]]
    assert gpunn.linalg.cholesky(a.T, upper=True).tolist() == [[2, 1], [0, 2]]


def test_not_positive_definite():
    bad = gpunn.tensor([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    batch = gpunn.stack([gpunn.eye(3), bad, gpunn.full((3, 3), float("nan"))])
    with pytest.raises(LinAlgError, match="^linalg.cholesky: .*leading minor of order 2 is not"):
        gpunn.linalg.cholesky(bad)
    with pytest.raises(LinAlgError, match=r"\(Batch element 1\): The factorization could not"):
        gpunn.linalg.cholesky(batch)
    with pytest.raises(LinAlgError, match="^cholesky: "):
        gpunn.cholesky(bad)
    made = gpunn.linalg.cholesky_ex(batch)
    assert made.info.tolist() == [0, 2, 1]
    assert made.L[0].tolist() == gpunn.eye(3).tolist() and made.L[1].isnan().any()
    with pytest.raises(LinAlgError, match="linalg.cholesky_ex"):
        gpunn.linalg.cholesky_ex(batch, check_errors=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 3), (2, 5, 3), (3, 5)])
def test_qr(kind, shape):
    x = leaf(*shape, kind=kind)
    q, r = gpunn.linalg.qr(x)
    close(q @ r, x.detach().numpy())
    close(q.mH @ q, np.broadcast_to(np.eye(min(shape[-2:])), (*shape[:-2], *[min(shape[-2:])] * 2)))
    assert r.tril(-1).abs().max() == 0
    both_orders(lambda x: tuple(gpunn.linalg.qr(x)), x)
    both_orders(lambda x: gpunn.linalg.qr(x).R, x)
    plain = gpunn.linalg.qr(x.detach())
    close(q, plain.Q.tolist())
    assert gpunn.linalg.qr(x.detach(), mode="r").Q.numel() == 0
    close(gpunn.linalg.qr(x.detach(), mode="r").R, plain.R.tolist())


def test_complete_qr():
    x = leaf(5, 3)
    q, r = gpunn.linalg.qr(x, mode="complete")
    assert q.shape == (5, 5) and r.shape == (5, 3)
    close(q @ r, x.detach().numpy())
    with pytest.raises(RuntimeError, match="not differentiable when mode='complete'"):
        q.sum().backward()
    with pytest.raises(RuntimeError, match="depends on Q, which is not computed"):
        gpunn.linalg.qr(x, mode="r").R.sum().backward()
    both_orders(lambda x: tuple(gpunn.linalg.qr(x, mode="complete")), leaf(3, 4))
    with pytest.raises(RuntimeError, match="unrecognized mode 'x'"):
        gpunn.linalg.qr(x, mode="x")
    old = gpunn.qr(x.detach(), some=False)
    assert old.Q.shape == (5, 5) and repr(old).startswith("torch.return_types.qr(\nQ=tensor(")


@pytest.mark.parametrize("kind", KINDS)
def test_reflectors(kind):
    x = leaf(2, 4, 3, kind=kind)
    h, tau = gpunn.geqrf(x.detach())
    q = gpunn.linalg.qr(x.detach()).Q
    close(gpunn.linalg.householder_product(h, tau), q.tolist())
    assert gpunn.orgqr is gpunn.linalg.householder_product
    c = leaf(2, 4, 2, kind=kind)
    whole = gpunn.linalg.qr(x.detach(), mode="complete").Q
    close(gpunn.ormqr(h, tau, c), (whole @ c).tolist())
    close(gpunn.ormqr(h, tau, c, transpose=True), (whole.mH @ c).tolist())
    row = c.mT
    close(gpunn.ormqr(h, tau, row, left=False), (row @ whole).tolist())
    close(gpunn.ormqr(h, tau, row, left=False, transpose=True), (row @ whole.mH).tolist())
    inputs = h[0].detach().requires_grad_(), tau[0].detach().requires_grad_()
    both_orders(gpunn.linalg.householder_product, *inputs)
    both_orders(lambda h, tau, c: gpunn.ormqr(h, tau, c), *inputs, leaf(4, 2, kind=kind))
    with pytest.raises(RuntimeError, match="derivative for aten::geqrf is not implemented"):
        gpunn.geqrf(x).a.abs().sum().backward()


def test_no_reflectors():
    h = gpunn.zeros(3, 2, requires_grad=True)
    q = gpunn.linalg.householder_product(h, gpunn.zeros(0))
    assert q.tolist() == [[1, 0], [0, 1], [0, 0]]
    q.sum().backward()
    assert h.grad.abs().max() == 0
    for args, message in (
        ((gpunn.ones(3), gpunn.ones(1)), "input must have at least 2 dimensions"),
        ((gpunn.ones(2, 3), gpunn.ones(1)), "greater than or equal to input.shape"),
        ((gpunn.ones(3, 2), gpunn.ones(3)), "greater than or equal to tau.shape"),
        ((gpunn.ones(3, 2), gpunn.ones(2).double()), "does not match input dtype"),
    ):
        with pytest.raises(RuntimeError, match=message):
            gpunn.linalg.householder_product(*args)
    with pytest.raises(RuntimeError, match="tau.shape"):
        gpunn.ormqr(gpunn.ones(5, 0), gpunn.ones(5), gpunn.ones(5, 5))
