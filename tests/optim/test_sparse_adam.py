"""SparseAdam against PyTorch."""

import pytest

import gpunn
from gpunn import nn


@pytest.mark.parametrize(
    "kwargs", [{}, {"maximize": True}, {"betas": (0.5, 0.75), "eps": 1e-3}], ids=str
)
def test_steps_and_states_equal_pytorchs(sparse_parity, kwargs):
    sparse_parity("SparseAdam", {"lr": 0.1, **kwargs})


def test_half_precision():
    table = nn.Embedding(4, 2, sparse=True, dtype=gpunn.bfloat16)
    before = table.weight.detach().clone()
    table(gpunn.tensor([1, 1])).sum().backward()
    optimizer = gpunn.optim.SparseAdam(table.parameters(), lr=0.5)
    optimizer.step()
    moved = (before.float() - table.weight.detach().float()).tolist()
    assert moved[0] == moved[2] == moved[3] == [0.0, 0.0]
    assert moved[1] == pytest.approx([0.5, 0.5], rel=0.02)
    assert optimizer.state[table.weight]["exp_avg"].dtype is gpunn.bfloat16


def test_the_state_goes_through_a_state_dict():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    reprs, states = [], []
    for library in (gpunn, torch):
        table = library.nn.Embedding(3, 2, sparse=True)
        optimizer = library.optim.SparseAdam(table.parameters())
        table(library.tensor([0])).sum().backward()
        optimizer.step()
        other = library.optim.SparseAdam(table.parameters())
        other.load_state_dict(optimizer.state_dict())
        other.step()
        state = other.state_dict()
        reprs.append(repr(optimizer))
        states.append((list(state["state"][0]), state["state"][0]["step"], state["param_groups"]))
    assert reprs[0] == reprs[1] and states[0] == states[1]
    assert states[0][1] == 2


def test_errors():
    p = gpunn.ones(2)
    for kwargs, message in [
        ({"lr": 0}, "Invalid learning rate: 0"),
        ({"eps": 0}, "Invalid epsilon value: 0"),
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            gpunn.optim.SparseAdam([p], **kwargs)
    z = gpunn.ones(2, dtype=gpunn.complex64)
    with pytest.raises(ValueError, match="Complex params at indices \\[\\[0, 1\\]\\]: SparseAdam"):
        gpunn.optim.SparseAdam([p, z])
    sparse = gpunn.ones(2, 2).to_sparse()
    with pytest.raises(ValueError, match="Sparse params at indices \\[\\[0, 0\\]\\]: SparseAdam"):
        gpunn.optim.SparseAdam([sparse])
    p.grad = gpunn.ones(2)
    with pytest.raises(RuntimeError, match="SparseAdam does not support dense gradients"):
        gpunn.optim.SparseAdam([p]).step()
