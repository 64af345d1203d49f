"""Adafactor against PyTorch."""

import numpy as np
import pytest

import gpunn

CONFIGS = [
    {},
    {"lr": 0.1, "weight_decay": 0.1},
    {"lr": 0.1, "maximize": True, "d": 2.0},
    {"lr": 0.5, "beta2_decay": -0.5, "eps": (1e-6, 1e-2)},
    {"lr": np.array(0.1)},
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kwargs", CONFIGS, ids=str)
def test_steps_equal_pytorchs(parity, kwargs, dtype):
    parity("Adafactor", kwargs, dtype)


def test_more_than_two_dimensions(twins):
    twins("Adafactor", {"lr": 0.1}, shapes=((2, 3, 4), (2, 2, 3, 1))).step(5).check()


def test_half_precision_is_computed_in_float32_and_rounded_once():
    rng = np.random.default_rng(0)
    for shape in [(3, 4), (5,)]:
        value = gpunn.tensor(rng.standard_normal(shape), dtype=gpunn.bfloat16)
        grad = gpunn.tensor(rng.standard_normal(shape), dtype=gpunn.bfloat16)
        half, full = value.clone().requires_grad_(), value.to(gpunn.float32).requires_grad_()
        half.grad, full.grad = grad, grad.to(gpunn.float32)
        eps = gpunn.finfo(gpunn.bfloat16).eps
        for p in (half, full):
            gpunn.optim.Adafactor([p], lr=0.1, eps=(eps, 1e-3)).step()
        assert half.tolist() == full.detach().to(gpunn.bfloat16).tolist()


def test_a_step_count_of_an_old_checkpoint_is_a_number():
    p = gpunn.ones(2, requires_grad=True)
    p.grad = gpunn.ones(2)
    optimizer = gpunn.optim.Adafactor([p])
    optimizer.step()
    state = optimizer.state_dict()
    state["state"][0]["step"] = 1
    optimizer.load_state_dict(state)
    assert optimizer.state[p]["step"].tolist() == 1.0


def test_errors():
    p = gpunn.ones(2)
    for kwargs, message in [
        ({"lr": -1}, "Learning rate should be >= 0 but is: -1"),
        ({"lr": gpunn.ones(2)}, "Tensor lr must be 1-element"),
        ({"beta2_decay": 1}, "beta2_decay should be <= 0 but is: 1"),
        ({"eps": (-1, 1)}, "epsilon1 should be >= 0 but is: -1"),
        ({"eps": (None, -1)}, "epsilon2 should be >= 0 but is: -1"),
        ({"d": 0.5}, "Clipping threshold d should be >= 1 but is: 0.5"),
        ({"weight_decay": -1}, "weight_decay should be >= 0 but is: -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            gpunn.optim.Adafactor([p], **kwargs)
    z = gpunn.ones(2, dtype=gpunn.complex64)
    z.grad = gpunn.ones(2, dtype=gpunn.complex64)
    with pytest.raises(RuntimeError, match="Adafactor does not support complex parameters"):
        gpunn.optim.Adafactor([z]).step()
    table = gpunn.nn.Embedding(3, 2, sparse=True)
    table(gpunn.tensor([0])).sum().backward()
    with pytest.raises(RuntimeError, match="Adafactor does not support sparse gradients"):
        gpunn.optim.Adafactor(table.parameters()).step()
