"""AdamW against PyTorch."""

import numpy as np
import pytest

import gpunn

CONFIGS = [
    {},
    {"lr": 0.1, "weight_decay": 0.1},
    {"lr": 0.1, "weight_decay": 0.0},
    {"lr": 0.1, "amsgrad": True, "weight_decay": 0.1},
    {"lr": 0.1, "maximize": True, "weight_decay": 0.1},
    {"lr": np.array(0.1), "betas": (0.8, 0.88)},
    {"lr": 0.1, "foreach": True},
    {"lr": 0.1, "fused": True},
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kwargs", CONFIGS, ids=str)
def test_steps_equal_pytorchs(parity, kwargs, dtype):
    parity("AdamW", kwargs, dtype)


def test_complex_parameters(twins):
    twins("AdamW", {"lr": 0.1, "weight_decay": 0.1}, dtype="complex128").step(10).check()


def test_the_state_of_an_adam_stays_decoupled():
    p = gpunn.ones(1)
    optimizer = gpunn.optim.AdamW([p])
    optimizer.load_state_dict(gpunn.optim.Adam([p], weight_decay=0.1).state_dict())
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True


def test_options_out_of_range():
    for kwargs, message in [
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            gpunn.optim.AdamW([gpunn.ones(1)], **kwargs)


def test_sparse_gradients_are_refused():
    table = gpunn.nn.Embedding(3, 2, sparse=True)
    table(gpunn.tensor([0])).sum().backward()
    with pytest.raises(RuntimeError, match="AdamW does not support sparse gradients"):
        gpunn.optim.AdamW(table.parameters()).step()
