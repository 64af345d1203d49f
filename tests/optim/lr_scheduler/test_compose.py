"""Schedulers one after the other and all at once, against PyTorch."""

import pytest

import gpunn

from .conftest import optimizer_of


def warmup_then(lib, o):
    s = lib.optim.lr_scheduler
    parts = [s.LinearLR(o, 0.1, total_iters=4), s.CosineAnnealingLR(o, 20), s.ConstantLR(o, 0.5)]
    return s.SequentialLR(o, parts, milestones=[4, 24])


def nested(lib, o):
    s = lib.optim.lr_scheduler
    inner = s.SequentialLR(o, [s.ConstantLR(o, 0.5, 2), s.ExponentialLR(o, 0.9)], milestones=[3])
    return s.SequentialLR(o, [inner, s.StepLR(o, 4)], milestones=[12])


def chained(lib, o):
    s = lib.optim.lr_scheduler
    return s.ChainedScheduler([s.ConstantLR(o, 0.5, 4), s.ExponentialLR(o, 0.9)], optimizer=o)


def sequence_in_chain(lib, o):
    s = lib.optim.lr_scheduler
    sequence = s.SequentialLR(o, [s.ConstantLR(o, 0.5, 2), s.StepLR(o, 3)], milestones=[5])
    return s.ChainedScheduler([sequence, s.ExponentialLR(o, 0.95)])


def restarts(lib, o):
    s = lib.optim.lr_scheduler
    parts = [s.LinearLR(o, 0.1, total_iters=5), s.CosineAnnealingWarmRestarts(o, 6)]
    return s.SequentialLR(o, parts, milestones=[5])


def from_the_start(lib, o):
    s = lib.optim.lr_scheduler
    return s.SequentialLR(o, [s.ConstantLR(o, 0.5), s.ExponentialLR(o, 0.9)], milestones=[0])


@pytest.mark.parametrize(
    "make", [warmup_then, nested, chained, sequence_in_chain, restarts, from_the_start]
)
def test_rates_and_states_equal_pytorchs(schedule_parity, make):
    schedule_parity(make)


def test_states_are_not_changed_by_loading():
    optimizer = optimizer_of(gpunn)
    scheduler = warmup_then(gpunn, optimizer)
    state = scheduler.state_dict()
    scheduler.load_state_dict(state)
    assert len(state["_schedulers"]) == 3


def test_errors():
    s = gpunn.optim.lr_scheduler
    o, other = optimizer_of(gpunn), optimizer_of(gpunn)
    step, plateau = s.StepLR(o, 2), s.ReduceLROnPlateau(o)
    foreign = s.StepLR(other, 2)
    for make, error, message in [
        (lambda: s.SequentialLR(o, [], []), ValueError, "expects at least one scheduler"),
        (lambda: s.ChainedScheduler([]), ValueError, "at least one scheduler to be chained"),
        (lambda: s.SequentialLR(o, [step, 3], [1]), TypeError, "index 1 should have `optimizer`"),
        (
            lambda: s.ChainedScheduler([step, plateau]),
            ValueError,
            "does not support `ReduceLROnPlateau` scheduler",
        ),
        (
            lambda: s.SequentialLR(o, [step, foreign], [1]),
            ValueError,
            "expects all schedulers to belong to the same optimizer, but got scheduler StepLR at",
        ),
        (
            lambda: s.SequentialLR(o, [step, step], [1, 2]),
            ValueError,
            "number of schedulers 2 and the number of milestones to be equal to 2",
        ),
    ]:
        with pytest.raises(error, match=message):
            make()
