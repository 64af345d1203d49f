"""SGD against PyTorch, and with sparse gradients."""

import numpy as np
import pytest

import gpunn
from gpunn import nn

CONFIGS = [
    {},
    {"lr": 0.1, "weight_decay": 0.1},
    {"lr": 0.1, "maximize": True, "weight_decay": 0.1},
    {"lr": 0.1, "momentum": 0.9},
    {"lr": 0.1, "momentum": 0.9, "dampening": 0.5, "weight_decay": 0.01},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True, "weight_decay": 0.1},
    {"lr": np.array(0.1), "momentum": 0.5},
    {"lr": 0.1, "foreach": True},
    {"lr": 0.1, "momentum": 0.9, "fused": True},
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kwargs", CONFIGS, ids=str)
def test_steps_equal_pytorchs(parity, kwargs, dtype):
    parity("SGD", kwargs, dtype)


def test_complex_parameters(twins):
    twins("SGD", {"lr": 0.1, "momentum": 0.9}, dtype="complex128").step(10).check()


def test_momentum_buffer_of_old_checkpoints_may_be_none():
    p = gpunn.ones(2, requires_grad=True)
    optimizer = gpunn.optim.SGD([p], lr=0.5, momentum=0.9)
    state = optimizer.state_dict()
    state["state"] = {0: {"momentum_buffer": None}}
    optimizer.load_state_dict(state)
    p.grad = gpunn.ones(2)
    optimizer.step()
    assert p.tolist() == [0.5, 0.5]
    assert optimizer.state[p]["momentum_buffer"].tolist() == [1.0, 1.0]


def test_without_momentum_there_is_no_state():
    p = gpunn.ones(2, requires_grad=True)
    p.grad = gpunn.ones(2)
    optimizer = gpunn.optim.SGD([p])
    optimizer.step()
    assert optimizer.state_dict()["state"] == {}


def test_negative_options_and_nesterov_without_momentum():
    p = gpunn.ones(1)
    for kwargs, message in [
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"momentum": -0.5}, "Invalid momentum value: -0.5"),
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
        ({"lr": gpunn.ones(2)}, "Tensor lr must be 1-element"),
        ({"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
        (
            {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
            "Nesterov momentum requires a momentum and zero dampening",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            gpunn.optim.SGD([p], **kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [{"maximize": True}, {}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}],
    ids=str,
)
def test_sparse_gradients(sparse_parity, kwargs):
    sparse_parity("SGD", {"lr": 0.05, **kwargs})


def test_sparse_gradients_refuse_weight_decay():
    table = nn.Embedding(4, 2, sparse=True)
    table(gpunn.tensor([1])).sum().backward()
    optimizer = gpunn.optim.SGD(table.parameters(), weight_decay=0.1)
    with pytest.raises(RuntimeError, match="add\\(sparse, dense\\) is not supported"):
        optimizer.step()
