"""ReduceLROnPlateau against PyTorch."""

import math

import pytest

import gpunn

from .conftest import optimizer_of

METRICS = [1.0, 0.9, 0.9, 0.9, 0.91, 0.5, 0.5, 0.7, math.nan, 0.5, 0.49, 0.49, 0.49, 0.3]


@pytest.mark.parametrize(
    "kwargs",
    [
        {"patience": 1},
        {"patience": 2, "mode": "max", "factor": 0.5},
        {"patience": 0, "cooldown": 2},
        {"patience": 1, "threshold": 0.05, "threshold_mode": "abs"},
        {"patience": 1, "threshold": 0.05, "threshold_mode": "abs", "mode": "max"},
        {"patience": 0, "min_lr": [0.01, 0.2]},
        {"patience": 0, "min_lr": 0.05, "eps": 0.01},
    ],
    ids=str,
)
def test_rates_and_states_equal_pytorchs(schedule_parity, kwargs):
    schedule_parity(
        lambda lib, o: lib.optim.lr_scheduler.ReduceLROnPlateau(o, **kwargs),
        arguments=lambda epoch: (METRICS[epoch % len(METRICS)] / (1 + epoch // 20),),
    )


def test_metrics_may_be_tensors_and_epochs_warn():
    scheduler = gpunn.optim.lr_scheduler.ReduceLROnPlateau(optimizer_of(gpunn))
    scheduler.step(gpunn.tensor([0.5]))
    assert scheduler.best == 0.5
    with pytest.warns(UserWarning, match="The epoch parameter in"):
        scheduler.step(0.25, epoch=7)
    assert scheduler.last_epoch == 7


def test_groups_added_later():
    for min_lr, error in ((0.0, None), ([0.0, 0.0], RuntimeError)):
        optimizer = optimizer_of(gpunn)
        scheduler = gpunn.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, min_lr=min_lr)
        optimizer.add_param_group({"params": [gpunn.ones(3)], "lr": 1.0})
        scheduler.step(1.0)
        if error is None:
            scheduler.step(1.0)
            assert scheduler.get_last_lr() == pytest.approx([0.01, 0.05, 0.1])
        else:
            with pytest.raises(error, match="number of param groups in the `optimizer` \\(3\\)"):
                scheduler.step(1.0)


def test_errors():
    for args, kwargs, error, message in [
        ((), {"factor": 1.0}, ValueError, "Factor should be < 1.0"),
        ((), {"mode": "x"}, ValueError, "mode x is unknown!"),
        ((), {"threshold_mode": "x"}, ValueError, "threshold mode x is unknown!"),
        ((), {"min_lr": [0.1]}, ValueError, "expected 2 min_lrs, got 1"),
    ]:
        with pytest.raises(error, match=message):
            gpunn.optim.lr_scheduler.ReduceLROnPlateau(optimizer_of(gpunn), *args, **kwargs)
    with pytest.raises(TypeError, match="int is not an Optimizer"):
        gpunn.optim.lr_scheduler.ReduceLROnPlateau(3)
