"""RAdam against PyTorch."""

import numpy as np
import pytest

import gpunn

CONFIGS = [
    {"lr": 0.1},
    {"lr": 0.1, "weight_decay": 0.1},
    {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True},
    {"lr": 0.1, "maximize": True},
    {"lr": 0.1, "betas": (0.5, 0.7), "eps": 1e-4},
    {"lr": np.array(0.1)},
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kwargs", CONFIGS, ids=str)
def test_steps_equal_pytorchs(parity, kwargs, dtype):
    parity("RAdam", kwargs, dtype)


def test_complex_parameters(twins):
    twins("RAdam", CONFIGS[0], dtype="complex128").step(10).check()


def test_options_out_of_range():
    for kwargs, message in [
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"eps": -1}, "Invalid epsilon value: -1"),
        ({"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
        ({"betas": (0.9, 1.5)}, "Invalid beta parameter at index 1: 1.5"),
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            gpunn.optim.RAdam([gpunn.ones(1)], **kwargs)


def test_sparse_gradients_are_refused():
    table = gpunn.nn.Embedding(3, 2, sparse=True)
    table(gpunn.tensor([0])).sum().backward()
    with pytest.raises(RuntimeError, match="RAdam does not support sparse gradients"):
        gpunn.optim.RAdam(table.parameters()).step()
