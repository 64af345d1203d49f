"""Parameters as one vector, and back."""

import pytest

import gpunn
from gpunn import nn
from gpunn.nn.utils import parameters_to_vector, vector_to_parameters


def test_there_and_back():
    layers = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2, bias=False))
    vector = parameters_to_vector(layers.parameters())
    assert vector.shape == (12,)
    assert vector.tolist() == [x for p in layers.parameters() for x in p.reshape(-1).tolist()]
    vector_to_parameters(gpunn.arange(12.0), layers.parameters())
    assert layers[0].weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert layers[1].weight.tolist() == [[8.0, 9.0], [10.0, 11.0]]


def test_gradients_flow_back():
    layer = nn.Linear(2, 1)
    (parameters_to_vector(layer.parameters()) * gpunn.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert layer.weight.grad.tolist() == [[1.0, 2.0]] and layer.bias.grad.tolist() == [3.0]


def test_the_parameters_share_the_vectors_memory():
    layer = nn.Linear(1, 1)
    vector = gpunn.zeros(2)
    vector_to_parameters(vector, layer.parameters())
    vector[1] = 5.0
    assert layer.bias.item() == 5.0 and layer.bias.requires_grad


def test_errors():
    layer = nn.Linear(1, 1)
    with pytest.raises(TypeError, match="expected .*Tensor, but got: list"):
        vector_to_parameters([1.0, 2.0], layer.parameters())
    mixed = [gpunn.ones(1), gpunn.ones(1, device="cpu:1")]
    with pytest.raises(TypeError, match="Found two parameters on different devices"):
        parameters_to_vector(mixed)
    with pytest.raises(TypeError, match="Found two parameters on different devices"):
        vector_to_parameters(gpunn.ones(2), mixed)
