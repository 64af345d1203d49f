"""Complex tensors: parts, conjugates, angles, pairs, and their gradients."""

import math

import numpy as np
import pytest

import gpunn

Z = np.array([[1 + 2j, -3 + 0.5j], [-1j, 2.0]])


def leaf(array=Z):
    return gpunn.from_numpy(array.copy()).requires_grad_()


def gradient(function, array=Z, eps=1e-6):
    """d loss / d real + i d loss / d imag by finite differences."""
    g = np.zeros_like(array)
    for i in np.ndindex(array.shape):
        for unit in (1, 1j):
            step = np.zeros_like(array)
            step[i] = eps * unit
            up, down = (function(gpunn.from_numpy(array + s)).item() for s in (step, -step))
            g[i] += unit * (up - down) / (2 * eps)
    return g


@pytest.mark.parametrize(
    "function",
    [
        lambda z: (z.real * 3 + z.imag * z.imag).sum(),
        lambda z: (z.conj() * z * (1 + 2j)).real.sum(),
        lambda z: gpunn.angle(z * (1 + 1j)).sum(),
        lambda z: (gpunn.view_as_real(z) * gpunn.tensor([1.0, -2.0], dtype=gpunn.float64)).sum(),
        lambda z: gpunn.polar(z.abs(), z.angle() * 2).imag.sum(),
        lambda z: gpunn.view_as_complex(gpunn.view_as_real(z) * 2).abs().sum(),
        lambda z: gpunn.sgn(z + 0.1).imag.sum(),
        lambda z: (z.conj_physical() ** 2).real.sum(),
    ],
)
def test_gradients(function):
    z = leaf()
    function(z).backward()
    np.testing.assert_allclose(z.grad.numpy(), gradient(function), rtol=1e-5, atol=1e-7)


def test_second_gradients():
    z = leaf()
    g = gpunn.autograd.grad((z.abs() ** 2).sum(), z, create_graph=True)[0]
    np.testing.assert_allclose(g.detach().numpy(), 2 * Z)
    g.real.pow(2).sum().backward()
    np.testing.assert_allclose(z.grad.numpy(), 8 * Z.real)


def test_parts_are_views():
    z = gpunn.from_numpy(Z.copy())
    z.real.mul_(10)
    z.imag = gpunn.zeros(2, 2)
    assert z.tolist() == [[10, -30], [0, 20]]
    assert gpunn.real(z)._base is z and gpunn.real(x := gpunn.ones(1)) is x
    gpunn.view_as_real(z)[..., 1] = 7
    assert z.imag.unique().tolist() == [7]
    with pytest.raises(RuntimeError, match="imag is not implemented for tensors with non-complex"):
        gpunn.imag(gpunn.ones(1))


def test_complex_from_parts():
    a = gpunn.tensor([[1.0], [2.0]], requires_grad=True)
    b = gpunn.tensor([3.0, 4.0], requires_grad=True)
    z = gpunn.complex(a, b)
    assert z.dtype is gpunn.complex64 and z.tolist() == [[1 + 3j, 1 + 4j], [2 + 3j, 2 + 4j]]
    (z * (2 - 1j)).real.sum().backward()
    assert a.grad.tolist() == [[4], [4]] and b.grad.tolist() == [2, 2]
    assert gpunn.polar(gpunn.ones(1).double(), gpunn.zeros(1).double()).dtype is gpunn.complex128
    with pytest.raises(RuntimeError, match="Expected both inputs to be Half, Float or Double"):
        gpunn.complex(gpunn.tensor([1]), gpunn.tensor([1]))
    with pytest.raises(RuntimeError, match="Expected object of scalar type Float but got scalar"):
        gpunn.complex(gpunn.ones(1), gpunn.ones(1).double())
    with pytest.raises(RuntimeError, match="for argument 'out'"):
        gpunn.complex(gpunn.ones(1), gpunn.ones(1), out=gpunn.ones(1))
    with pytest.raises(RuntimeError, match="must match the size"):
        gpunn.complex(gpunn.ones(2), gpunn.ones(3))


def test_conjugates_are_computed_at_once():
    z = gpunn.from_numpy(Z)
    assert z.conj().tolist() == np.conj(Z).tolist() and not z.conj().is_conj() and not z.is_neg()
    assert z.resolve_conj() is z and z.resolve_neg() is z
    x = gpunn.ones(1)
    assert x.conj() is x and gpunn.conj_physical(x) is x and x.conj_physical_() is x
    y = z.clone()
    assert y.conj_physical_() is y and y.tolist() == np.conj(Z).tolist()
    assert gpunn.conj_physical(z, out=gpunn.empty_like(z)).tolist() == np.conj(Z).tolist()


def test_angles_of_real_numbers():
    x = gpunn.tensor([-1.0, 0.0, 2.0, math.nan], requires_grad=True)
    y = gpunn.angle(x)
    np.testing.assert_allclose(y.tolist(), [math.pi, 0, 0, math.nan], rtol=1e-6)
    y[:3].sum().backward()
    assert x.grad.tolist() == [0, 0, 0, 0]
    assert gpunn.tensor([-2]).angle().dtype is gpunn.float32


@pytest.mark.parametrize(
    "array, words",
    [
        (np.zeros(()), "one or more dimensions"),
        (np.zeros(3), "last dimension of size 2"),
        (np.zeros((2, 2)).T[::1], "stride 1"),
        (np.zeros((2, 3))[:, :2], "divisible by 2"),
        (np.zeros(2, np.int64), "only supported for half, float and double"),
    ],
)
def test_pairs_that_are_no_complex_numbers(array, words):
    with pytest.raises(RuntimeError, match=words):
        gpunn.view_as_complex(gpunn.from_numpy(array))
    with pytest.raises(RuntimeError, match="only supported for complex"):
        gpunn.view_as_real(gpunn.ones(2))


def test_pairs_of_strided_tensors():
    z = gpunn.from_numpy(Z).t()
    assert gpunn.view_as_real(z)[0, 1].tolist() == [0, -1]
    assert gpunn.view_as_complex(gpunn.view_as_real(z)).tolist() == Z.T.tolist()
