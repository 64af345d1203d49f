"""Cycles, one cycle and restarts against PyTorch."""

import pytest

import gpunn

from .conftest import close, optimizer_of, rates, step

CYCLIC = {
    "triangular": {"step_size_up": 4},
    "uneven": {"step_size_up": 3, "step_size_down": 8},
    "triangular2": {"step_size_up": 4, "mode": "triangular2"},
    "exp_range": {"step_size_up": 4, "mode": "exp_range", "gamma": 0.95},
    "custom by cycle": {"step_size_up": 4, "scale_fn": lambda x: 1 / x},
    "custom by step": {
        "step_size_up": 4, "scale_fn": lambda x: 0.9**x, "scale_mode": "iterations",
    },
    "groups": {"step_size_up": 4, "max_momentum": [0.9, 0.8], "base_momentum": [0.5, 0.6]},
    "without momentum": {"step_size_up": 4, "cycle_momentum": False},
}  # fmt: skip


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("case", CYCLIC)
def test_cyclic_equals_pytorchs(schedule_parity, case, optimizer):
    schedule_parity(
        lambda lib, o: lib.optim.lr_scheduler.CyclicLR(o, [0.01, 0.02], [0.1, 0.5], **CYCLIC[case]),
        optimizer,
    )


ONE_CYCLE = {
    "total": {"total_steps": 45},
    "epochs": {"epochs": 5, "steps_per_epoch": 9, "pct_start": 0.4},
    "linear": {"total_steps": 45, "anneal_strategy": "linear"},
    "three phases": {"total_steps": 45, "three_phase": True},
    "factors": {"total_steps": 45, "div_factor": 10, "final_div_factor": 100},
    "without momentum": {"total_steps": 45, "cycle_momentum": False},
}


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("case", ONE_CYCLE)
def test_one_cycle_equals_pytorchs(schedule_parity, case, optimizer):
    schedule_parity(
        lambda lib, o: lib.optim.lr_scheduler.OneCycleLR(o, [0.5, 1.0], **ONE_CYCLE[case]),
        optimizer,
    )


@pytest.mark.parametrize("kwargs", [{"T_0": 7}, {"T_0": 5, "T_mult": 2, "eta_min": 0.01}], ids=str)
def test_warm_restarts_equal_pytorchs(schedule_parity, kwargs):
    def make(lib, o):
        return lib.optim.lr_scheduler.CosineAnnealingWarmRestarts(o, **kwargs)

    schedule_parity(make)
    schedule_parity(make, arguments=lambda epoch: (epoch * 0.37,))


def test_a_resumed_cycle_keeps_its_rates():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    found = []
    for library in (gpunn, torch):
        optimizer = optimizer_of(library)
        for group in optimizer.param_groups:
            group.update(
                initial_lr=0.1, max_lr=0.4, min_lr=0.01, max_momentum=0.9, base_momentum=0.5
            )
        schedulers = library.optim.lr_scheduler
        history = []
        for scheduler in (
            schedulers.CyclicLR(optimizer, 0.1, 0.4, step_size_up=3, last_epoch=4),
            schedulers.OneCycleLR(optimizer, 0.4, total_steps=20, last_epoch=4),
            schedulers.CosineAnnealingWarmRestarts(optimizer, 3, last_epoch=4),
        ):
            for _ in range(4):
                step(optimizer, scheduler)
                history.append(rates(optimizer))
        found.append(history)
    close(*found)


def test_a_scale_function_that_is_an_object_is_saved():
    class Scale:
        def __init__(self, base):
            self.base = base

        def __call__(self, x):
            return self.base**x

    optimizer = optimizer_of(gpunn)
    scale = Scale(0.5)
    state = gpunn.optim.lr_scheduler.CyclicLR(optimizer, 0.1, 1.0, scale_fn=scale).state_dict()
    assert state["_scale_fn_custom"] == {"base": 0.5}
    other = Scale(1.0)
    gpunn.optim.lr_scheduler.CyclicLR(optimizer, 0.1, 1.0, scale_fn=other).load_state_dict(state)
    assert other.base == 0.5


def test_errors():
    s = gpunn.optim.lr_scheduler
    for make, error, message in [
        (lambda o: s.CyclicLR(3, 0, 1), TypeError, "int is not an Optimizer"),
        (lambda o: s.CyclicLR(o, 0, 1, mode="x"), ValueError, "mode is invalid and scale_fn is N"),
        (lambda o: s.CyclicLR(o, [0], 1), ValueError, "base_lr must have the same length as"),
        (lambda o: s.CosineAnnealingWarmRestarts(o, 0), ValueError, "positive integer T_0"),
        (
            lambda o: s.CosineAnnealingWarmRestarts(o, 1, 0),
            ValueError,
            "Expected integer T_mult >= 1, but got 0",
        ),
        (
            lambda o: s.CosineAnnealingWarmRestarts(o, 1, 1, "x"),
            ValueError,
            "Expected float or int eta_min, but got x",
        ),
        (lambda o: s.OneCycleLR(o, 1), ValueError, "You must define either total_steps OR"),
        (lambda o: s.OneCycleLR(o, 1, 0), ValueError, "Expected positive integer total_steps"),
        (
            lambda o: s.OneCycleLR(o, 1, epochs=1.5, steps_per_epoch=2),
            ValueError,
            "Expected positive integer epochs, but got 1.5",
        ),
        (
            lambda o: s.OneCycleLR(o, 1, epochs=1, steps_per_epoch=-2),
            ValueError,
            "Expected positive integer steps_per_epoch, but got -2",
        ),
        (lambda o: s.OneCycleLR(o, 1, 9, pct_start=2.0), ValueError, "between 0 and 1 pct_start"),
        (
            lambda o: s.OneCycleLR(o, 1, 9, anneal_strategy="x"),
            ValueError,
            "anneal_strategy must be one of 'cos' or 'linear', instead got x",
        ),
    ]:
        with pytest.raises(error, match=message):
            make(optimizer_of(gpunn))
    with pytest.raises(ValueError, match="must support momentum or beta1 with `cycle_momentum`"):
        s.OneCycleLR(gpunn.optim.Adagrad([gpunn.ones(1)]), 1, 9)
    with pytest.raises(ValueError, match="Expected non-negative epoch, but got -1"):
        s.CosineAnnealingWarmRestarts(optimizer_of(gpunn), 3).step(-1)


def test_more_steps_than_announced_are_an_error():
    optimizer = optimizer_of(gpunn)
    scheduler = gpunn.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, 3)
    for _ in range(3):
        step(optimizer, scheduler)
    with pytest.raises(ValueError, match="Tried to step 4 times. The specified number of total s"):
        scheduler.step()
