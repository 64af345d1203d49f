"""Norms of vectors and matrices, condition and rank."""

import math

import numpy as np
import pytest

import gpunn

INF = math.inf
rng = np.random.default_rng(0)


def leaf(*shape, kind="real"):
    a = rng.normal(size=shape)
    a = a + 1j * rng.normal(size=shape) if kind == "complex" else a
    return gpunn.tensor(a, requires_grad=True)


@pytest.mark.parametrize("ord", [0, 0.5, 1, 1.5, 2, 3, -1, INF, -INF])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_vector_norms(ord, kind):
    x = leaf(3, 4, kind=kind)
    a = x.detach().numpy()
    for dim, keepdim in ((1, False), (0, True)):
        got = gpunn.linalg.vector_norm(x, ord, dim, keepdim)
        np.testing.assert_allclose(
            got.detach().numpy(), np.linalg.norm(a, ord, dim, keepdims=keepdim), rtol=1e-12
        )
    whole = gpunn.linalg.vector_norm(x, ord)
    assert whole.shape == () and not whole.is_complex()
    np.testing.assert_allclose(whole.item(), np.linalg.norm(a.ravel(), ord), rtol=1e-12)


@pytest.mark.parametrize("ord", [0.5, 1, 1.5, 2, 3, -1, INF, -INF])
@pytest.mark.parametrize("kind", ["real", "complex"])
def test_gradients_of_vector_norms(ord, kind):
    x = leaf(3, 4, kind=kind)
    assert gpunn.autograd.gradcheck(lambda x: gpunn.linalg.vector_norm(x, ord, 1), (x,))
    if kind == "real" or ord == 2:
        assert gpunn.autograd.gradgradcheck(lambda x: gpunn.linalg.vector_norm(x, ord), (x,))


@pytest.mark.parametrize("ord", [0, 0.5, 1, 1.5, 2, 3, INF, "fro"])
def test_the_subgradient_at_zero_is_zero(ord):
    x = gpunn.zeros(2, 2, requires_grad=True)
    norm = gpunn.linalg.matrix_norm if ord == "fro" else gpunn.linalg.vector_norm
    norm(x, ord).backward()
    assert x.grad.tolist() == [[0, 0], [0, 0]]


def test_equal_extremes_share_the_gradient():
    x = gpunn.tensor([2.0, -2.0, 1.0], requires_grad=True)
    gpunn.linalg.vector_norm(x, INF).backward()
    assert x.grad.tolist() == [0.5, -0.5, 0]


def test_half_precision_is_summed_in_single():
    x = gpunn.full((4096,), 1.0, dtype=gpunn.float16)
    assert gpunn.linalg.vector_norm(x).item() == 64
    assert gpunn.linalg.vector_norm(x, 1).dtype is gpunn.float16
    assert gpunn.linalg.vector_norm(x, 1, dtype=gpunn.float32).item() == 4096


@pytest.mark.parametrize("ord", ["fro", "nuc", INF, -INF, 1, -1, 2, -2])
def test_matrix_norms(ord):
    x = leaf(2, 3, 4)
    a = x.detach().numpy()
    for dim in ((-2, -1), (0, 2), (2, 0), (1, 0)):
        for keepdim in (False, True):
            got = gpunn.linalg.matrix_norm(x, ord, dim, keepdim)
            wanted = np.linalg.norm(a, ord, dim, keepdim)
            np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-10)
    assert gpunn.autograd.gradcheck(lambda x: gpunn.linalg.matrix_norm(x, ord), (x,))


def test_norm_chooses_by_dimensions():
    x = leaf(3, 3)
    a = x.detach().numpy()
    for args in ((), (2,), ("nuc",), (3, 1), (1, (0, 1)), (None, 0)):
        got = gpunn.linalg.norm(x, *args)
        wanted = np.linalg.norm(a, *args)
        np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=1e-12)
    three = gpunn.ones(2, 2, 2)
    assert gpunn.linalg.norm(three).item() == pytest.approx(math.sqrt(8))
    for args, message in (
        ((three, 2), "the input must be 1D or 2D. Got 3D"),
        ((three, 2, (0, 1, 2)), "must be of length 1 or 2"),
        ((x, 3), "Order 3 not supported"),
        ((x, "x"), "Order x not supported"),
        ((x, 2, (0, 0)), "dims must be different"),
        ((gpunn.ones(2), "fro"), "at least 2 dimensions"),
    ):
        with pytest.raises(RuntimeError, match=message):
            gpunn.linalg.norm(*args)


def test_what_has_no_norm():
    for args, error, message in (
        ((gpunn.ones(2).long(),), RuntimeError, "Expected a floating point or complex"),
        ((gpunn.ones(0), INF), RuntimeError, "cannot compute the inf norm on an empty tensor"),
        ((gpunn.ones(0, 2), -1, 0), RuntimeError, "on the dimension 0"),
        ((gpunn.ones(2), "fro"), TypeError, "must be Number, not str"),
        (([1.0],), TypeError, "must be Tensor, not list"),
    ):
        with pytest.raises(error, match=message):
            gpunn.linalg.vector_norm(*args)
    with pytest.raises(RuntimeError, match="without narrowing"):
        gpunn.linalg.vector_norm(gpunn.ones(2).double(), dtype=gpunn.float32)
    with pytest.raises(RuntimeError, match="should be floating point or complex"):
        gpunn.linalg.vector_norm(gpunn.ones(2), dtype=gpunn.int64)
    with pytest.raises(RuntimeError, match="should be real for real inputs"):
        gpunn.linalg.vector_norm(gpunn.ones(2), dtype=gpunn.complex64)
    with pytest.raises(RuntimeError, match="must be a 2-tuple"):
        gpunn.linalg.matrix_norm(gpunn.ones(2, 2), dim=(0, 1, 1))
    with pytest.raises(TypeError, match="two ints"):
        gpunn.linalg.matrix_norm(gpunn.ones(2, 2), dim=0)
    assert gpunn.linalg.vector_norm(gpunn.ones(0)).item() == 0
    assert gpunn.linalg.matrix_norm(gpunn.ones(2, 0), 2).item() == 0


@pytest.mark.parametrize("p", [None, 2, -2, "fro", "nuc", 1, -1, INF, -INF])
def test_condition(p):
    x = leaf(2, 3, 3)
    np.testing.assert_allclose(
        gpunn.linalg.cond(x, p).detach().numpy(), np.linalg.cond(x.detach().numpy(), p), rtol=1e-9
    )
    assert gpunn.autograd.gradcheck(lambda x: gpunn.linalg.cond(x, p), (x,))


def test_condition_of_singular_matrices():
    singular = gpunn.stack([gpunn.zeros(2, 2), gpunn.eye(2)])
    assert gpunn.linalg.cond(singular, 1).tolist() == [INF, 1]
    assert gpunn.linalg.cond(gpunn.zeros(0, 0)).item() == 0
    with pytest.raises(RuntimeError, match="invalid norm type: x"):
        gpunn.linalg.cond(gpunn.eye(2), "x")
    with pytest.raises(RuntimeError, match=r"ord=1\): A must be batches of square matrices"):
        gpunn.linalg.cond(gpunn.ones(2, 3), 1)
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        gpunn.linalg.cond(gpunn.ones(3))


def test_rank():
    low = gpunn.tensor(rng.normal(size=(2, 5, 2)) @ rng.normal(size=(2, 2, 4)))
    assert gpunn.linalg.matrix_rank(low).tolist() == [2, 2]
    d = gpunn.diag(gpunn.tensor([4.0, -2.0, 0.5]))
    assert gpunn.linalg.matrix_rank(d, hermitian=True).item() == 3
    assert gpunn.linalg.matrix_rank(d, 1.0).item() == 2
    assert gpunn.linalg.matrix_rank(d, atol=1.0).item() == 2
    assert gpunn.linalg.matrix_rank(d, rtol=0.5).item() == 1
    assert gpunn.linalg.matrix_rank(d, atol=gpunn.tensor(3.0), rtol=0.2).item() == 1
    assert gpunn.linalg.matrix_rank(gpunn.zeros(2, 0)).item() == 0
    with pytest.raises(RuntimeError, match="float and double"):
        gpunn.linalg.matrix_rank(gpunn.ones(2, 2).long())
