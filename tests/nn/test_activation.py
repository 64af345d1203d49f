"""Activations against NumPy."""

import numpy as np
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
