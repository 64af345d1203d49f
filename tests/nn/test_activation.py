"""Activations against NumPy."""

import math

import numpy as np
import pytest
from both import refused, same
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

x = np.random.default_rng(0).normal(size=(4, 5))


def test_values_and_gradients():
    check(F.relu, [x], lambda x: np.maximum(x, 0))
    check(nn.ReLU(), [x], lambda x: np.maximum(x, 0))
    check(nn.Tanh(), [x], np.tanh, rtol=1e-2)
    check(nn.Sigmoid(), [x], lambda x: 1 / (1 + np.exp(-x)), rtol=1e-2)


def phi(x):
    """The normal distribution function, right where it is small."""
    return np.vectorize(lambda v: 0.5 * math.erfc(-v / math.sqrt(2)))(x)


@pytest.mark.parametrize("size", [20, 3000], ids=["numpy", "native"])
def test_gelu_and_silu(size):
    x = 3 * np.random.default_rng(0).normal(size=(2, size // 2))
    check(F.gelu, [x], lambda x: x * phi(x), rtol=1e-2)
    check(nn.GELU("tanh"), [x],
          lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
          rtol=1e-2)  # fmt: skip
    check(nn.SiLU(), [x], lambda x: x / (1 + np.exp(-x)), rtol=1e-2)


def test_gelu_and_silu_of_large_numbers():
    x = gpunn.tensor([-1e20, -1000.0, 1000.0, float("inf")])
    for f in (F.gelu, nn.GELU("tanh"), F.silu):
        assert f(x).tolist() == [0.0, 0.0, 1000.0, float("inf")]


def test_the_modules_say_what_they_are():
    same(lambda T: [repr(m) for m in (
        T.nn.GELU(), T.nn.GELU("tanh"), T.nn.SiLU(), T.nn.SiLU(inplace=True)
    )])  # fmt: skip
    same(lambda T: T.nn.functional.gelu(T.tensor([[-1.5, 0.5]]), approximate="tanh"))
    same(lambda T: T.nn.functional.silu(T.tensor([1 + 1j, -2j], dtype=T.complex64)).real)


def test_what_gelu_and_silu_refuse():
    refused(lambda T: T.nn.functional.gelu(T.ones(2), approximate="no"), "either none or tanh")
    refused(lambda T: T.nn.functional.gelu(T.arange(3)), "GeluKernelImpl.*'Long'")
    refused(lambda T: T.nn.functional.silu(T.ones(2).bool()), "silu_cpu.*'Bool'")
    refused(lambda T: T.nn.functional.gelu(1.0), "must be Tensor, not float")
    refused(lambda T: T.nn.functional.silu(1.0), "must be Tensor, not float")


def test_silu_in_place_keeps_the_gradient():
    leaf = gpunn.tensor([-1.0, 2.0], requires_grad=True)
    y = leaf * 3
    assert F.silu(y, inplace=True) is y
    y.sum().backward()
    other = leaf.detach().requires_grad_()
    F.silu(other * 3).sum().backward()
    assert gpunn.equal(leaf.grad, other.grad)


def test_in_place_changes_the_input_and_keeps_the_gradient():
    leaf = gpunn.tensor([-1.0, 2.0], requires_grad=True)
    y = leaf * 3
    assert nn.ReLU(inplace=True)(y) is y and y.tolist() == [0.0, 6.0]
    y.sum().backward()
    assert leaf.grad.tolist() == [0.0, 3.0]


def test_nan_stays():
    assert F.relu(gpunn.tensor([float("nan")])).isnan().item()


def test_sigmoid_of_large_numbers():
    assert F.sigmoid(gpunn.tensor([-1000.0, 1000.0])).tolist() == [0.0, 1.0]
