"""Adam against PyTorch."""

import numpy as np
import pytest

import gpunn

CONFIGS = [
    {},
    {"lr": 0.1, "weight_decay": 0.1},
    {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1},
    {"lr": 0.1, "maximize": True, "amsgrad": True},
    {"lr": 0.05, "betas": (0.5, 0.9), "eps": 1e-3},
    {"lr": 0.1, "betas": (0.0, 0.0)},
    {"lr": np.array([0.1])},
    {"lr": np.array(0.1), "betas": (0.8, 0.88)},
    {"lr": 0.1, "foreach": True},
    {"lr": 0.1, "fused": True},
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kwargs", CONFIGS, ids=str)
def test_steps_equal_pytorchs(parity, kwargs, dtype):
    parity("Adam", kwargs, dtype)


def test_decoupled_weight_decay_of_adam_is_adamw(parity):
    parity("Adam", {"lr": 0.1, "weight_decay": 0.1, "decoupled_weight_decay": True})


@pytest.mark.parametrize("kwargs", [{}, {"amsgrad": True, "weight_decay": 0.1}], ids=str)
def test_complex_parameters(twins, kwargs):
    twins("Adam", {"lr": 0.1, **kwargs}, dtype="complex128").step(10).check()


def test_betas_as_tensors_are_their_values():
    results = []
    for make in (float, lambda b: gpunn.tensor(b, dtype=gpunn.float64)):
        p = gpunn.ones(3, dtype=gpunn.float64, requires_grad=True)
        optimizer = gpunn.optim.Adam([p], lr=0.1, betas=(make(0.5), make(0.75)))
        for g in (1.0, -2.0, 0.5):
            p.grad = gpunn.full((3,), g, dtype=gpunn.float64)
            optimizer.step()
        results.append(p.tolist())
    assert results[0] == results[1]


def test_each_parameter_counts_its_own_steps(twins):
    pair = twins("Adam", {"lr": 0.1})
    pair.step(3)
    for params in pair.params:
        params[1].grad = None
    for optimizer in pair.optimizers:
        optimizer.step()
    pair.check()
    steps = [state["step"].item() for state in pair.mine.state_dict()["state"].values()]
    assert steps == [4.0, 3.0, 4.0]
    pair.step(2).check()


def test_options_out_of_range():
    p = gpunn.ones(1)
    one = gpunn.tensor(0.9)
    for kwargs, message in [
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"eps": -1}, "Invalid epsilon value: -1"),
        ({"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
        ({"betas": (0.9, -0.1)}, "Invalid beta parameter at index 1: -0.1"),
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
        ({"betas": (one, 0.9)}, "betas must be either both floats or both Tensors"),
        ({"betas": (one, gpunn.zeros(2))}, "Tensor betas\\[1\\] must be 1-element"),
        ({"lr": one, "foreach": True}, "lr as a Tensor is not supported"),
    ]:
        with pytest.raises((ValueError, RuntimeError), match=message):
            gpunn.optim.Adam([p], **kwargs)


def test_sparse_gradients_are_refused_before_anything_changes():
    table = gpunn.nn.Embedding(3, 2, sparse=True)
    table(gpunn.tensor([0])).sum().backward()
    optimizer = gpunn.optim.Adam(table.parameters())
    with pytest.raises(RuntimeError, match="does not support sparse gradients, please consider"):
        optimizer.step()
    assert not optimizer.state
