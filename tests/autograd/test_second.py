"""Gradients of gradients: create_graph."""

import numpy as np

import gpunn
from gpunn.autograd import grad, gradgradcheck
from gpunn.nn import functional as F


def _leaf(*values):
    return gpunn.tensor(list(values), dtype=gpunn.float64, requires_grad=True)


def test_third_derivative_of_a_power():
    x = _leaf(2.0)
    y = x**5
    for want in (5 * 2.0**4, 20 * 2.0**3, 60 * 2.0**2):
        (y,) = grad(y, x, create_graph=True)
        np.testing.assert_allclose(y.detach(), [want])


def test_backward_with_create_graph_makes_gradients_with_history():
    x = _leaf(1.0, 2.0)
    (x**3).sum().backward(create_graph=True)
    first = x.grad
    assert first.requires_grad
    x.grad = None
    first.sum().backward()
    np.testing.assert_allclose(x.grad.detach(), 6 * np.array([1.0, 2.0]))


def test_gradient_penalty_through_a_network():
    gpunn.manual_seed(0)
    w = gpunn.randn(3, 2, dtype=gpunn.float64, requires_grad=True)
    x = gpunn.randn(4, 2, dtype=gpunn.float64, requires_grad=True)

    def penalty(w, x):
        (g,) = grad(F.linear(x, w).tanh().sum(), x, create_graph=True)
        return ((g**2).sum(1).sqrt() - 1).pow(2).mean()

    assert gpunn.autograd.gradcheck(penalty, (w, x))


def test_broadcast_operands_that_were_saved():
    a, b = _leaf(1.0, 2.0), _leaf(3.0)
    assert gradgradcheck(lambda a, b: a * b / (b + a), (a, b))


def test_fused_operations_go_through_their_plain_form():
    x = gpunn.randn(2, 5, dtype=gpunn.float64, requires_grad=True)
    target = gpunn.tensor([1, 4])
    assert gradgradcheck(lambda x: F.cross_entropy(x, target), (x,))
