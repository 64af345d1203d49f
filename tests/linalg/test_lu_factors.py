"""LU factors and determinants."""

import math

import numpy as np
import pytest

import gpunn

rng = np.random.default_rng(0)
KINDS = ["real", "complex"]
SHAPES = [(3, 3), (2, 5, 3), (3, 5), (1, 1), (2, 0, 3)]


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
@pytest.mark.parametrize("shape", SHAPES)
def test_lu(kind, shape):
    x = leaf(*shape, kind=kind)
    p, lower, upper = gpunn.linalg.lu(x)
    close(p @ lower @ upper, x.detach().numpy())
    assert (lower.abs() <= math.sqrt(2) + 1e-12).all() and lower.triu(1).abs().sum() == 0
    packed = gpunn.linalg.lu_factor_ex(x)
    unpacked = gpunn.lu_unpack(packed.LU, packed.pivots)
    for a, b in zip((p, lower, upper), unpacked, strict=True):
        close(b, a.detach().numpy())
    if 0 not in shape:
        both_orders(lambda x: tuple(gpunn.linalg.lu(x)[1:]), x)
        both_orders(lambda x: gpunn.linalg.lu_factor(x).LU, x)


def test_large_matrices_are_factored_by_halves():
    a = rng.normal(size=(2, 70, 90))
    p, lower, upper = gpunn.linalg.lu(gpunn.tensor(a))
    np.testing.assert_allclose((p @ lower @ upper).numpy(), a, atol=1e-12)
    assert lower.abs().max() <= 1
    p, lower, upper = gpunn.linalg.lu(gpunn.tensor(a.transpose(0, 2, 1)))
    np.testing.assert_allclose((p @ lower @ upper).mT.numpy(), a, atol=1e-12)


def test_zeros_in_u():
    made = gpunn.linalg.lu_factor_ex(gpunn.stack([gpunn.eye(2), gpunn.zeros(2, 2)]))
    assert made.info.tolist() == [0, 1] and made.pivots.tolist() == [[1, 2], [1, 2]]
    assert made.pivots.dtype is gpunn.int32
    with pytest.raises(RuntimeError, match=r"lu_factor: U\[1,1\] is zero and using it on lu_solve"):
        gpunn.linalg.lu_factor(gpunn.zeros(2, 2))
    with pytest.raises(RuntimeError, match="Got size"):
        gpunn.linalg.lu(gpunn.zeros(2))
    with pytest.raises(RuntimeError, match="\"lu_cpu\" not implemented for 'Long'"):
        gpunn.linalg.lu(gpunn.zeros(2, 2).long())
    with pytest.raises(RuntimeError, match="without pivoting is not implemented on the CPU"):
        gpunn.linalg.lu(gpunn.eye(2), pivot=False)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("adjoint", [True, False])
def test_lu_solve(kind, left, adjoint):
    a = leaf(2, 3, 3, kind=kind)
    b = leaf(3, 4, kind=kind) if left else leaf(4, 3, kind=kind)
    factors, pivots = gpunn.linalg.lu_factor(a.detach())

    def solve(factors, b):
        return gpunn.linalg.lu_solve(factors, pivots, b, left=left, adjoint=adjoint)

    x, matrix = solve(factors, b), a.mH if adjoint else a
    close(matrix @ x if left else x @ matrix, np.broadcast_to(b.detach().numpy(), x.shape))
    both_orders(solve, factors.requires_grad_(), b)


def test_the_older_forms():
    a, b = leaf(3, 3), leaf(3, 2)
    factors, pivots = gpunn.lu(a)
    close(a @ gpunn.lu_solve(b, factors, pivots), b.detach().numpy())
    assert gpunn.lu(gpunn.zeros(1, 1), get_infos=True)[2].item() == 1
    with pytest.raises(RuntimeError, match="is zero"):
        gpunn.lu(gpunn.zeros(1, 1))
    only = gpunn.lu_unpack(factors, pivots, unpack_data=False)
    assert only.L.numel() == 0 and only.P.shape == (3, 3)
    assert gpunn.lu_unpack(factors, pivots, unpack_pivots=False).P.numel() == 0
    with pytest.raises(RuntimeError, match="torch.int32"):
        gpunn.lu_unpack(factors, pivots.long())


@pytest.mark.parametrize("kind", KINDS)
def test_determinants(kind):
    x = leaf(2, 3, 3, kind=kind)
    close(gpunn.linalg.det(x), np.linalg.det(x.detach().numpy()))
    both_orders(gpunn.linalg.det, x)
    sign, log = gpunn.linalg.slogdet(x)
    close(sign * log.exp(), np.linalg.det(x.detach().numpy()))
    both_orders(lambda x: tuple(gpunn.linalg.slogdet(x)), x)
    definite = leaf(3, 3, kind=kind)
    both_orders(lambda x: gpunn.logdet(x @ x.mH), definite)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_singular_determinant(rank, kind):
    a = leaf(3, rank, kind=kind).detach() @ leaf(rank, 3, kind=kind).detach()
    a.requires_grad_()
    gpunn.linalg.det(a).real.backward()
    matrix = a.detach().numpy()

    def cofactor(i, j):
        return np.linalg.det(np.delete(np.delete(matrix, i, 0), j, 1)) * (-1) ** (i + j)

    close(a.grad, np.conj([[cofactor(i, j) for j in range(3)] for i in range(3)]))


def test_what_has_no_determinant():
    assert gpunn.linalg.slogdet(gpunn.zeros(2, 2)).logabsdet.item() == -math.inf
    assert math.isnan(gpunn.logdet(-gpunn.eye(3)).item())
    assert gpunn.linalg.det(gpunn.zeros(0, 0)).item() == 1
    for f in (gpunn.linalg.det, gpunn.linalg.slogdet):
        with pytest.raises(RuntimeError, match="they are 3 by 2 matrices"):
            f(gpunn.ones(3, 2))
        with pytest.raises(RuntimeError, match="Got Long"):
            f(gpunn.ones(2, 2).long())
