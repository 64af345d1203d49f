"""The base class of the schedulers: warnings, resuming, tensors as rates, subclasses."""

import warnings

import pytest

import gpunn
from gpunn.optim.lr_scheduler import ExponentialLR, LRScheduler, StepLR, _LRScheduler

from .conftest import optimizer_of, rates

ORDER = "Detected call of `lr_scheduler.step\\(\\)` before `optimizer.step\\(\\)`"


def test_steps_in_the_wrong_order_warn_once():
    optimizer = optimizer_of(gpunn)
    scheduler = ExponentialLR(optimizer, 0.9)
    with pytest.warns(UserWarning, match=ORDER) as found:
        scheduler.step()
    assert found[0].filename == __file__
    scheduler.step()


def test_steps_before_the_scheduler_do_not_count():
    optimizer = optimizer_of(gpunn)
    optimizer.step()
    scheduler = ExponentialLR(optimizer, 0.9)
    with pytest.warns(UserWarning, match=ORDER):
        scheduler.step()


def test_the_right_order_is_quiet_however_the_step_is_reached():
    class Wrapped:
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def step(self):
            self.optimizer.step()

    optimizer = optimizer_of(gpunn)
    first, second = ExponentialLR(optimizer, 0.9), StepLR(optimizer, 2)
    inner = optimizer.step
    optimizer.step = lambda: inner()
    Wrapped(optimizer).step()
    first.step()
    second.step()


def test_an_overridden_step_that_never_steps_is_named():
    optimizer = optimizer_of(gpunn)
    scheduler = ExponentialLR(optimizer, 0.9)
    optimizer.step = lambda: None
    optimizer.step()
    with pytest.warns(UserWarning, match="`optimizer.step\\(\\)` has been overridden after"):
        scheduler.step()


def test_get_lr_outside_of_step_warns():
    scheduler = ExponentialLR(optimizer_of(gpunn), 0.9)
    with pytest.warns(UserWarning, match="please use `get_last_lr\\(\\)`") as found:
        assert scheduler.get_lr() == [0.1 * 0.9, 0.5 * 0.9]
    assert found[0].filename == __file__


def test_an_epoch_warns_and_takes_the_closed_form():
    optimizer = optimizer_of(gpunn)
    scheduler = ExponentialLR(optimizer, 0.5)
    optimizer.step()
    with pytest.warns(UserWarning, match="The epoch parameter in `scheduler.step\\(\\)` was not"):
        scheduler.step(3)
    assert scheduler.get_last_lr() == [0.0125, 0.0625]
    assert scheduler.last_epoch == 3


def test_resuming_needs_the_initial_rates():
    optimizer = optimizer_of(gpunn)
    with pytest.raises(KeyError, match="'initial_lr' is not specified in param_groups\\[0\\] when"):
        ExponentialLR(optimizer, 0.5, last_epoch=3)
    for group in optimizer.param_groups:
        group["initial_lr"] = 2.0
    assert ExponentialLR(optimizer, 0.5, last_epoch=3).last_epoch == 4


def test_rates_that_are_tensors_are_filled():
    lr = gpunn.tensor(0.5)
    optimizer = gpunn.optim.SGD([gpunn.ones(1)], lr=lr)
    scheduler = ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    assert lr.item() == 0.25 and optimizer.param_groups[0]["lr"] is lr
    last = scheduler.get_last_lr()
    optimizer.step()
    scheduler.step()
    assert last[0].item() == 0.25 and scheduler.base_lrs[0].item() == 0.5


def test_rates_set_by_hand_are_the_base_of_the_next():
    optimizer = optimizer_of(gpunn)
    scheduler = ExponentialLR(optimizer, 0.5)
    optimizer.step()
    scheduler.step()
    optimizer.param_groups[0]["lr"] = 8.0
    scheduler.step()
    assert scheduler.get_last_lr() == [4.0, 0.125]


def test_subclasses_write_get_lr():
    assert _LRScheduler is LRScheduler

    class Inverse(LRScheduler):
        def __init__(self, optimizer, power):
            self.power = power
            super().__init__(optimizer)

        def get_lr(self):
            return [lr / (1 + self.last_epoch) ** self.power for lr in self.base_lrs]

    optimizer = optimizer_of(gpunn)
    scheduler = Inverse(optimizer, 2)
    optimizer.step()
    scheduler.step()
    assert scheduler.get_last_lr() == [0.025, 0.125]
    assert [r["lr"] for r in rates(optimizer)] == [0.025, 0.125]
    state = scheduler.state_dict()
    assert "optimizer" not in state and state["power"] == 2
    with pytest.raises(NotImplementedError):
        LRScheduler(optimizer)


def test_only_optimizers_are_scheduled():
    with pytest.raises(TypeError, match="int is not an Optimizer"):
        ExponentialLR(3, 0.9)


def test_a_scheduler_can_be_loaded_before_and_after_steps():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer = optimizer_of(gpunn)
        scheduler = StepLR(optimizer, 2, gamma=0.5)
        for _ in range(3):
            optimizer.step()
            scheduler.step()
        fresh = optimizer_of(gpunn)
        other = StepLR(fresh, 5)
        fresh.load_state_dict(optimizer.state_dict())
        other.load_state_dict(scheduler.state_dict())
        for o, s in ((optimizer, scheduler), (fresh, other)):
            o.step()
            s.step()
    assert rates(optimizer) == rates(fresh)
    assert other.get_last_lr() == [0.025, 0.125]
