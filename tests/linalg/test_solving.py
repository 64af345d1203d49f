"""Inverses, linear equations, triangular matrices."""

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


def close(got, wanted, rtol=1e-9):
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=rtol, atol=1e-12)


def both_orders(f, *inputs):
    assert gpunn.autograd.gradcheck(f, inputs)
    assert gpunn.autograd.gradgradcheck(f, inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_inverse(kind):
    x = leaf(2, 3, 3, kind=kind)
    close(gpunn.linalg.inv(x) @ x, np.broadcast_to(np.eye(3), (2, 3, 3)))
    both_orders(gpunn.linalg.inv, x)
    assert gpunn.inverse is gpunn.linalg.inv
    out = gpunn.empty(2, 3, 3, dtype=x.dtype)
    assert gpunn.linalg.inv(x.detach(), out=out) is out
    close(out, np.linalg.inv(x.detach().numpy()))
    assert gpunn.linalg.inv(gpunn.zeros(2, 0, 0)).shape == (2, 0, 0)


def test_singular_matrices_are_named():
    bad = gpunn.tensor([[1.0, 2.0], [2.0, 4.0]])
    with pytest.raises(LinAlgError, match=r"^linalg.inv: The diagonal element 2 is zero"):
        gpunn.linalg.inv(bad)
    batch = gpunn.stack([gpunn.eye(2), bad])
    with pytest.raises(RuntimeError, match=r"linalg.inv: \(Batch element 1\): The diagonal"):
        gpunn.linalg.inv(batch)
    with pytest.raises(LinAlgError, match=r"linalg.inv_ex: \(Batch element 1\)"):
        gpunn.linalg.inv_ex(batch, check_errors=True)
    made = gpunn.linalg.inv_ex(batch)
    assert made.info.tolist() == [0, 2] and made.info.dtype is gpunn.int32
    assert made.inverse[0].tolist() == [[1, 0], [0, 1]]
    assert not made.inverse[1].isfinite().any()
    with pytest.raises(LinAlgError, match="torch.linalg.solve: The solver failed because the"):
        gpunn.linalg.solve(bad, gpunn.ones(2))
    found = gpunn.linalg.solve_ex(batch, gpunn.ones(2, 2, 1))
    assert found.info.tolist() == [0, 2] and found.result[0].tolist() == [[1], [1]]


@pytest.mark.parametrize("kind", KINDS)
def test_solve(kind):
    a = leaf(2, 3, 3, kind=kind)
    for shape in ((2, 3, 4), (3,), (3, 4), (2, 3), (5, 1, 3, 1)):
        b = leaf(*shape, kind=kind)
        x = gpunn.linalg.solve(a, b)
        vector = shape in ((3,), (2, 3))
        product = (a @ x.unsqueeze(-1)).squeeze(-1) if vector else a @ x
        close(product, np.broadcast_to(b.detach().numpy(), product.shape))
    b = leaf(2, 4, 3, kind=kind)
    close(gpunn.linalg.solve(a, b, left=False) @ a, b.detach().numpy())
    both_orders(gpunn.linalg.solve, a, leaf(3, 2, kind=kind))
    both_orders(lambda a, b: gpunn.linalg.solve(a, b, left=False), a, b)


def test_arguments_that_do_not_fit():
    eye, solve = gpunn.eye(2), gpunn.linalg.solve
    for args, message in (
        ((gpunn.ones(3, 2), gpunn.ones(3)), "square matrices, but they are 3 by 2"),
        ((eye, gpunn.ones(3)), r"equation AX = B \(2x2 and 3x1\)"),
        ((eye, gpunn.ones(2).double()), "type Float and B of type Double"),
        ((eye.long(), gpunn.ones(2).long()), "Got Long"),
        ((eye.half(), gpunn.ones(2).half()), "Low precision dtypes not supported"),
        ((eye, gpunn.tensor(1.0)), "B must have at least 2 dimensions"),
        ((gpunn.ones(2), gpunn.ones(2)), "A must have at least 2 dimensions"),
        ((gpunn.ones(2, 2, 2), gpunn.ones(3, 2, 2)), "must match the size of tensor"),
    ):
        with pytest.raises(RuntimeError, match=message):
            solve(*args)
    with pytest.raises(RuntimeError, match="left=False"):
        solve(eye, gpunn.ones(2), left=False)
    with pytest.raises(TypeError, match="must be Tensor, not list"):
        gpunn.linalg.inv([[1.0]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("upper", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_triangular(kind, upper, unit):
    a, b = leaf(2, 3, 3, kind=kind), leaf(3, 2, kind=kind)
    triangle = (np.triu if upper else np.tril)(a.detach().numpy())
    if unit:
        np.einsum("bii->bi", triangle)[...] = 1
    how = {"upper": upper, "unitriangular": unit}
    close(gpunn.linalg.solve_triangular(a, b, **how), np.linalg.solve(triangle, b.detach().numpy()))
    c = leaf(2, 4, 3, kind=kind)
    left = gpunn.linalg.solve_triangular(a, c, left=False, **how).detach().numpy()
    np.testing.assert_allclose(left @ triangle, c.detach().numpy(), atol=1e-9)
    both_orders(lambda a, b: gpunn.linalg.solve_triangular(a, b, **how), a, b)
    both_orders(lambda a, b: gpunn.linalg.solve_triangular(a, b, left=False, **how), a, c)


@pytest.mark.parametrize("upper", [False, True])
def test_large_triangles_are_solved_by_halves(upper):
    a, b = rng.normal(size=(150, 150)) / 20 + np.eye(150), rng.normal(size=(150, 7))
    x = gpunn.linalg.solve_triangular(gpunn.tensor(a), gpunn.tensor(b), upper=upper)
    np.testing.assert_allclose((np.triu if upper else np.tril)(a) @ x.numpy(), b, atol=1e-9)


def test_a_zero_on_the_diagonal_gives_inf():
    a = gpunn.tensor([[1.0, 2.0], [0.0, 0.0]])
    x = gpunn.linalg.solve_triangular(a, gpunn.ones(2, 1), upper=True)
    assert x.tolist() == [[-np.inf], [np.inf]]
    lower = gpunn.linalg.solve_triangular(a.T, gpunn.ones(2, 1), upper=False)
    assert lower.tolist() == [[1], [-np.inf]]


def test_triangular_solve_of_old():
    a, b = leaf(3, 3), leaf(3, 2)
    for upper in (True, False):
        for transpose in (True, False):
            made = gpunn.triangular_solve(b, a, upper, transpose)
            t = (np.triu if upper else np.tril)(a.detach().numpy())
            close(made.solution, np.linalg.solve(t.T if transpose else t, b.detach().numpy()))
            assert made.cloned_coefficient.tolist() == a.tolist()


def test_tensors_as_matrices():
    a = leaf(2, 3, 6)
    x = gpunn.linalg.tensorinv(a)
    assert x.shape == (6, 2, 3)
    close(gpunn.tensordot(x, a, 2), np.eye(6))
    b = leaf(2, 3)
    close(gpunn.tensordot(a, gpunn.linalg.tensorsolve(a, b), 1), b.detach().numpy())
    moved = a.movedim(2, 0)
    close(gpunn.linalg.tensorsolve(moved, b, dims=(0,)), gpunn.linalg.tensorsolve(a, b).tolist())
    with pytest.raises(RuntimeError, match="strictly positive"):
        gpunn.linalg.tensorinv(a, 0)
    with pytest.raises(RuntimeError, match="requirement"):
        gpunn.linalg.tensorinv(a, 1)
    with pytest.raises(RuntimeError, match="requirement"):
        gpunn.linalg.tensorsolve(gpunn.ones(2, 3), gpunn.ones(2))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("upper", [False, True])
def test_by_a_cholesky_factor(kind, upper):
    root, b = leaf(3, 3, kind=kind), leaf(3, 2, kind=kind)
    a = root.detach() @ root.detach().mH + gpunn.eye(3, dtype=root.dtype)
    factor = gpunn.linalg.cholesky(a, upper=upper).requires_grad_()
    close(a @ gpunn.cholesky_solve(b, factor, upper), b.detach().numpy())
    close(a @ gpunn.cholesky_inverse(factor, upper), np.eye(3))
    both_orders(lambda b, f: gpunn.cholesky_solve(b, f, upper), b, factor)


EVERYTHING = """inv det slogdet cholesky qr svd svdvals eigh eigvalsh eig eigvals pinv matrix_exp lu
    lu_factor cond matrix_rank matrix_norm vector_norm inv_ex"""


@pytest.mark.parametrize("name", EVERYTHING.split())
def test_another_device(name):
    """Results and gradients of both orders stay on the device of the matrix."""
    root = gpunn.tensor(rng.normal(size=(3, 3)), device="cpu:1", requires_grad=True)
    x = root @ root.T + gpunn.eye(3, device="cpu:1")
    made = getattr(gpunn.linalg, name)(x)
    made = made if isinstance(made, tuple) else (made,)
    assert all(t.device is root.device for t in made)
    parts = [t.abs().sum() for t in made if t.requires_grad]
    if parts:
        (g,) = gpunn.autograd.grad(sum(parts), root, create_graph=True)
        (second,) = gpunn.autograd.grad(g.abs().sum(), root)
        assert g.device is second.device is root.device
