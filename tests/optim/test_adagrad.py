"""Adagrad against PyTorch."""

import numpy as np
import pytest

import gpunn

CONFIGS = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.1},
    {"lr": 0.1, "lr_decay": 0.1, "maximize": True},
    {"lr": 0.1, "initial_accumulator_value": 0.1, "eps": 1e-4},
    {"lr": np.array(0.1)},
    {"lr": 0.1, "fused": True},
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kwargs", CONFIGS, ids=str)
def test_steps_equal_pytorchs(parity, kwargs, dtype):
    parity("Adagrad", kwargs, dtype)


def test_complex_parameters(twins):
    twins("Adagrad", CONFIGS[0], dtype="complex128").step(10).check()


def test_options_out_of_range():
    for kwargs, message in [
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"eps": -1}, "Invalid epsilon value: -1"),
        ({"lr_decay": -1}, "Invalid lr_decay value: -1"),
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
        ({"initial_accumulator_value": -1}, "Invalid initial_accumulator_value value: -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            gpunn.optim.Adagrad([gpunn.ones(1)], **kwargs)


@pytest.mark.parametrize("kwargs", [{}, {"maximize": True, "lr_decay": 0.1}], ids=str)
def test_sparse_gradients(sparse_parity, kwargs):
    sparse_parity("Adagrad", {"lr": 0.1, **kwargs})


def test_sparse_gradients_refuse_weight_decay():
    table = gpunn.nn.Embedding(3, 2, sparse=True)
    table(gpunn.tensor([0])).sum().backward()
    with pytest.raises(RuntimeError, match="weight_decay option is not compatible with sparse"):
        gpunn.optim.Adagrad(table.parameters(), weight_decay=0.1).step()
