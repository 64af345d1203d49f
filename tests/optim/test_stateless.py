"""Steps on other parameters and another state than the optimizer's own."""

import pytest

import gpunn
from gpunn.optim import SGD, Adam, swap_in_optimizer_params_and_state


def ready(optimizer_class, **kwargs):
    p = gpunn.ones(2, requires_grad=True)
    optimizer = optimizer_class([p], **kwargs)
    p.grad = gpunn.ones(2)
    optimizer.step()
    return p, optimizer


def test_the_step_changes_what_was_swapped_in():
    p, optimizer = ready(Adam, lr=0.5)
    state = {
        "state": {0: {k: v.clone() for k, v in optimizer.state[p].items()}},
        "param_groups": [{**optimizer.state_dict()["param_groups"][0], "lr": 0.25}],
    }
    q = gpunn.zeros(2)
    q.grad = gpunn.ones(2)
    before, groups = p.tolist(), dict(optimizer.param_groups[0])
    with swap_in_optimizer_params_and_state(optimizer, [q], state):
        assert optimizer.param_groups[0]["lr"] == 0.25
        optimizer.step()
    assert q.tolist() == pytest.approx([-0.25, -0.25])
    assert state["state"][0]["step"].item() == 2.0 and optimizer.state[p]["step"].item() == 1.0
    assert p.tolist() == before and optimizer.param_groups[0] == groups
    assert list(optimizer.state) == [p]


def test_everything_is_restored_after_an_error():
    p, optimizer = ready(SGD, lr=0.5, momentum=0.9)
    with (
        pytest.raises(KeyError),
        swap_in_optimizer_params_and_state(optimizer, [gpunn.zeros(2)], optimizer.state_dict()),
    ):
        raise KeyError
    assert optimizer.param_groups[0]["params"] == [p] and list(optimizer.state) == [p]


def test_errors():
    p, optimizer = ready(SGD)
    state = optimizer.state_dict()
    group = state["param_groups"][0]
    for params, swapped, message in [
        ([p], {**state, "state": {p: {}}}, "state keyed by packed parameter ids"),
        ([p], {**state, "state": []}, "state keyed by packed parameter ids"),
        ([p], {**state, "param_groups": [group, group]}, "a different number of parameter groups"),
        ([p], {**state, "param_groups": [{**group, "params": [0, 1]}]}, "has 2 parameters, the"),
        ([], state, "got 0 parameters, expected 1"),
    ]:
        with (
            pytest.raises(RuntimeError, match=message),
            swap_in_optimizer_params_and_state(optimizer, params, swapped),
        ):
            pass
