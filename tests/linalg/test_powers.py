"""Powers and products of matrices."""

import numpy as np
import pytest

import gpunn

rng = np.random.default_rng(0)
KINDS = ["real", "complex"]


def leaf(*shape, kind="real", scale=1.0):
    a = rng.normal(size=shape) * scale
    a = a + 1j * rng.normal(size=shape) * scale if kind == "complex" else a
    return gpunn.tensor(a, requires_grad=True)


def close(got, wanted, rtol=1e-9):
    np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=rtol, atol=1e-12)


def both_orders(f, *inputs):
    assert gpunn.autograd.gradcheck(f, inputs)
    assert gpunn.autograd.gradgradcheck(f, inputs)


@pytest.mark.parametrize("n", [-3, -1, 0, 1, 2, 5])
def test_matrix_power(n):
    x = leaf(2, 3, 3)
    close(gpunn.linalg.matrix_power(x, n), np.linalg.matrix_power(x.detach().numpy(), n))
    both_orders(lambda x: gpunn.linalg.matrix_power(x, n), x)


def test_matrix_powers_of_other_kinds():
    x = gpunn.tensor([[1, 1], [0, 1]])
    assert x.matrix_power(3).tolist() == [[1, 3], [0, 1]]
    one = gpunn.matrix_power(x, 1)
    assert one is not x and one.data_ptr() != x.data_ptr()
    with pytest.raises(TypeError, match="must be int, not float"):
        gpunn.linalg.matrix_power(x, 1.5)
    with pytest.raises(RuntimeError, match="they are 2 by 3"):
        gpunn.linalg.matrix_power(gpunn.ones(2, 3), 2)
    with pytest.raises(gpunn.linalg.LinAlgError, match="linalg.inv"):
        gpunn.linalg.matrix_power(gpunn.zeros(2, 2), -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
def test_matrix_exp(kind, scale):
    x = leaf(2, 3, 3, kind=kind, scale=scale)
    values, vectors = np.linalg.eig(x.detach().numpy())
    wanted = (vectors * np.exp(values)[..., None, :]) @ np.linalg.inv(vectors)
    got = gpunn.linalg.matrix_exp(x)
    close(got, wanted if kind == "complex" else wanted.real, rtol=1e-7 if scale > 5 else 1e-9)
    if scale == 1:
        both_orders(gpunn.linalg.matrix_exp, x)


def test_matrix_exp_of_other_kinds():
    half = gpunn.zeros(2, 2, dtype=gpunn.bfloat16)
    assert gpunn.matrix_exp(half).tolist() == [[1, 0], [0, 1]]
    assert gpunn.matrix_exp(gpunn.zeros(0, 0)).shape == (0, 0)
    assert gpunn.matrix_exp(gpunn.full((2, 2), float("nan"))).isnan().all()
    assert gpunn.matrix_exp(gpunn.full((1, 1), 1e6)).item() == float("inf")
    with pytest.raises(RuntimeError, match="Got Long"):
        gpunn.matrix_exp(half.long())


@pytest.mark.parametrize("first", [(), (2,)])
@pytest.mark.parametrize("last", [(), (5,)])
def test_multi_dot(first, last):
    parts = [leaf(*first, 10), leaf(10, 3), leaf(3, 8), leaf(8, *last)]
    close(gpunn.linalg.multi_dot(parts), np.linalg.multi_dot([p.detach().numpy() for p in parts]))
    small = [leaf(*first, 2), leaf(2, 3), leaf(3, *last)]
    both_orders(lambda *p: gpunn.linalg.multi_dot(p), *small)


def test_multi_dot_takes_the_cheap_order():
    from gpunn.linalg.powers import _best_order

    assert _best_order([10, 100, 5, 50])[0][2] == 1  # (AB)C: 7,500 multiplications, not 75,000
    assert _best_order([100, 5, 50, 10])[0][2] == 0
    ones = gpunn.ones(2, 2)
    for tensors, message in (
        ([ones], "expected at least 2 tensors but got 1"),
        ([ones, gpunn.ones(2, 2, 2), ones], "tensor 1 must be 2D but got 3D"),
        ([ones, gpunn.ones(3, 2)], r"shapes \[2, 2\] and \[3, 2\] cannot be multiplied"),
        ([ones, ones.double()], "tensor 0 is float and tensor 1 double"),
        ([gpunn.ones(2, 2, 2), ones], "must be 1D or 2D"),
    ):
        with pytest.raises(RuntimeError, match=message):
            gpunn.linalg.multi_dot(tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_vecdot(kind):
    x, y = leaf(2, 3, kind=kind), leaf(3, kind=kind)
    a, b = x.detach().numpy(), y.detach().numpy()
    close(gpunn.linalg.vecdot(x, y), (a.conj() * b).sum(-1))
    close(gpunn.linalg.vecdot(x, x, dim=0), (abs(a) ** 2).sum(0))
    both_orders(gpunn.linalg.vecdot, x, y)
    half = gpunn.full((3000,), 0.1, dtype=gpunn.float16)
    assert gpunn.linalg.vecdot(half, half).item() == pytest.approx(30, rel=2e-3)
    with pytest.raises(RuntimeError, match="Got Long"):
        gpunn.linalg.vecdot(gpunn.ones(2).long(), gpunn.ones(2).long())


def test_cross_and_diagonal():
    x, y = leaf(2, 3), leaf(1, 3)
    close(gpunn.linalg.cross(x, y), np.cross(x.detach().numpy(), y.detach().numpy()))
    both_orders(gpunn.linalg.cross, x, y)
    for a, b, message in (
        (gpunn.ones(5, 3), gpunn.ones(5, 1), "must have length 3. Got 3 and 1"),
        (gpunn.ones(5, 3), gpunn.ones(3), "same number of dimensions"),
    ):
        with pytest.raises(RuntimeError, match=message):
            gpunn.linalg.cross(a, b)
    a = gpunn.arange(12).reshape(2, 2, 3)
    assert gpunn.linalg.diagonal(a).tolist() == [[0, 4], [6, 10]]
    assert gpunn.linalg.diagonal(a, offset=1, dim1=0, dim2=1).tolist() == [[3], [4], [5]]


def test_vander():
    x = leaf(2, 3)
    close(gpunn.linalg.vander(x), np.stack([np.vander(r, increasing=True) for r in x.tolist()]))
    assert gpunn.linalg.vander(gpunn.tensor([2, 3], dtype=gpunn.uint8)).dtype is gpunn.int64
    both_orders(lambda x: gpunn.linalg.vander(x, 4), x)
    with pytest.raises(RuntimeError, match="N must be greater than 1"):
        gpunn.linalg.vander(x, 1)
