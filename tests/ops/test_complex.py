"""Complex numbers: parts, conjugates, views, and PyTorch's convention for gradients."""

import numpy as np
import pytest

import gpunn

z = np.array([1 + 2j, -3 - 0.5j])


def test_parts():
    t = gpunn.tensor(z)
    assert t.real.tolist() == [1, -3] and t.imag.tolist() == [2, -0.5]
    np.testing.assert_allclose(t.angle().numpy(), np.angle(z))
    np.testing.assert_array_equal(t.conj().resolve_conj().numpy(), z.conj())
    assert gpunn.equal(gpunn.complex(t.real, t.imag), t)
    np.testing.assert_allclose(gpunn.polar(t.abs(), t.angle()).numpy(), z)


def test_real_tensors_are_their_own_conjugates():
    x = gpunn.ones(2)
    assert x.conj() is x and x.real is x
    with pytest.raises(RuntimeError):
        x.imag  # noqa: B018


def test_views_share_memory():
    t = gpunn.tensor(z)
    pairs = gpunn.view_as_real(t)
    pairs[0, 0] = 9
    assert t[0].item() == 9 + 2j and gpunn.equal(gpunn.view_as_complex(pairs), t)
    t.imag[1] = 5
    assert t[1].item() == -3 + 5j


def test_gradients_are_conjugate():
    t = gpunn.tensor(z, requires_grad=True)
    (t * t.conj()).real.sum().backward()
    np.testing.assert_allclose(t.grad.numpy(), 2 * z)
    t.grad = None
    t.abs().sum().backward()
    np.testing.assert_allclose(t.grad.numpy(), z / abs(z))
