"""Rprop against PyTorch."""

import numpy as np
import pytest

import gpunn

CONFIGS = [
    {},
    {"lr": 0.1, "maximize": True},
    {"etas": (0.3, 1.5), "step_sizes": (1e-3, 0.05)},
    {"lr": np.array(0.1)},
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kwargs", CONFIGS, ids=str)
def test_steps_equal_pytorchs(parity, kwargs, dtype):
    parity("Rprop", kwargs, dtype)


def test_complex_parameters(twins):
    twins("Rprop", CONFIGS[0], dtype="complex128").step(10).check()


def test_options_out_of_range():
    for kwargs, message in [
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"etas": (1.0, 1.2)}, "Invalid eta values: 1.0, 1.2"),
    ]:
        with pytest.raises(ValueError, match=message):
            gpunn.optim.Rprop([gpunn.ones(1)], **kwargs)


def test_sparse_gradients_are_refused():
    table = gpunn.nn.Embedding(3, 2, sparse=True)
    table(gpunn.tensor([0])).sum().backward()
    with pytest.raises(RuntimeError, match="Rprop does not support sparse gradients"):
        gpunn.optim.Rprop(table.parameters()).step()
