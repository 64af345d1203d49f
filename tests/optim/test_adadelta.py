"""Adadelta against PyTorch."""

import numpy as np
import pytest

import gpunn

CONFIGS = [
    {},
    {"lr": 0.5, "weight_decay": 0.1},
    {"rho": 0.5, "eps": 1e-3, "maximize": True},
    {"lr": np.array(0.5)},
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kwargs", CONFIGS, ids=str)
def test_steps_equal_pytorchs(parity, kwargs, dtype):
    parity("Adadelta", kwargs, dtype)


def test_complex_parameters(twins):
    twins("Adadelta", CONFIGS[0], dtype="complex128").step(10).check()


def test_options_out_of_range():
    for kwargs, message in [
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"eps": -1}, "Invalid epsilon value: -1"),
        ({"rho": 1.1}, "Invalid rho value: 1.1"),
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            gpunn.optim.Adadelta([gpunn.ones(1)], **kwargs)


def test_sparse_gradients_are_refused():
    table = gpunn.nn.Embedding(3, 2, sparse=True)
    table(gpunn.tensor([0])).sum().backward()
    with pytest.raises(RuntimeError, match="Adadelta does not support sparse gradients"):
        gpunn.optim.Adadelta(table.parameters()).step()
