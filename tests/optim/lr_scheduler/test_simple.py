"""The one-formula schedules against PyTorch, chainable and closed."""

import pytest

import gpunn

from .conftest import close, optimizer_of, rates, step


class Decay:
    """A callable with a state, which schedulers save."""

    def __init__(self, base):
        self.base = base

    def __call__(self, epoch):
        return self.base**epoch


MAKERS = {
    "LambdaLR": lambda lib, o: lib.optim.lr_scheduler.LambdaLR(o, lambda e: 0.95**e),
    "LambdaLR list": lambda lib, o: lib.optim.lr_scheduler.LambdaLR(
        o, [lambda e: 1 / (e + 1), Decay(0.9)]
    ),
    "MultiplicativeLR": lambda lib, o: lib.optim.lr_scheduler.MultiplicativeLR(
        o, lambda e: 1 - 0.01 * e
    ),
    "StepLR": lambda lib, o: lib.optim.lr_scheduler.StepLR(o, 7, gamma=0.5),
    "MultiStepLR": lambda lib, o: lib.optim.lr_scheduler.MultiStepLR(o, [3, 9, 9, 30], gamma=0.5),
    "ConstantLR": lambda lib, o: lib.optim.lr_scheduler.ConstantLR(o),
    "ConstantLR long": lambda lib, o: lib.optim.lr_scheduler.ConstantLR(o, 0.25, 22),
    "LinearLR": lambda lib, o: lib.optim.lr_scheduler.LinearLR(o),
    "LinearLR long": lambda lib, o: lib.optim.lr_scheduler.LinearLR(o, 0.5, 0.1, 25),
    "ExponentialLR": lambda lib, o: lib.optim.lr_scheduler.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda lib, o: lib.optim.lr_scheduler.PolynomialLR(o),
    "PolynomialLR long": lambda lib, o: lib.optim.lr_scheduler.PolynomialLR(o, 45, power=2.0),
    "CosineAnnealingLR": lambda lib, o: lib.optim.lr_scheduler.CosineAnnealingLR(o, 8),
    "CosineAnnealingLR long": lambda lib, o: lib.optim.lr_scheduler.CosineAnnealingLR(
        o, 33, eta_min=0.01
    ),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_rates_and_states_equal_pytorchs(schedule_parity, maker):
    schedule_parity(MAKERS[maker])


@pytest.mark.parametrize("maker", MAKERS)
def test_jumps_equal_pytorchs(maker):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    found = []
    for library in (gpunn, torch):
        optimizer = optimizer_of(library)
        scheduler = MAKERS[maker](library, optimizer)
        history = []
        for epoch in (4, 2, 9, 31):
            step(optimizer, scheduler, epoch)
            history.append(rates(optimizer))
        found.append(history)
    close(*found)


@pytest.mark.parametrize("maker", MAKERS)
def test_resumed_at_an_epoch_equals_pytorchs(maker):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    found = []
    for library in (gpunn, torch):
        optimizer = optimizer_of(library)
        for group in optimizer.param_groups:
            group["initial_lr"] = 2 * group["lr"]
        namespace = MAKERS[maker](library, optimizer)  # the arguments of a fresh one
        kwargs = {
            "LambdaLR": {"lr_lambda": getattr(namespace, "lr_lambdas", None)},
            "MultiplicativeLR": {"lr_lambda": getattr(namespace, "lr_lambdas", None)},
            "StepLR": {"step_size": 7}, "MultiStepLR": {"milestones": [3, 9]},
            "ExponentialLR": {"gamma": 0.9}, "CosineAnnealingLR": {"T_max": 8},
        }.get(maker.split()[0], {})  # fmt: skip
        scheduler = type(namespace)(optimizer, last_epoch=5, **kwargs)
        history = [rates(optimizer)]
        for _ in range(5):
            step(optimizer, scheduler)
            history.append(rates(optimizer))
        found.append(history)
    close(*found)


def test_attributes_of_callable_objects_are_saved():
    decay, other = Decay(0.5), Decay(1.0)
    optimizer = gpunn.optim.SGD([gpunn.ones(1)], lr=1.0)
    state = gpunn.optim.lr_scheduler.LambdaLR(optimizer, decay).state_dict()
    assert state["lr_lambdas"] == [{"base": 0.5}]
    gpunn.optim.lr_scheduler.LambdaLR(optimizer, other).load_state_dict(state)
    assert other.base == 0.5
    assert state["lr_lambdas"] == [{"base": 0.5}]


def test_errors():
    schedulers = gpunn.optim.lr_scheduler
    for make, error, message in [
        (lambda o: schedulers.LambdaLR(o, [len]), ValueError, "Expected 2 lr_lambdas, but got 1"),
        (lambda o: schedulers.MultiplicativeLR(o, 3), TypeError, "lr_lambda should be a function"),
        (lambda o: schedulers.ConstantLR(o, 2), ValueError, "factor expected to be between 0 and"),
        (lambda o: schedulers.LinearLR(o, 0), ValueError, "expected to be greater than 0 and less"),
        (lambda o: schedulers.LinearLR(o, 1, 2), ValueError, "expected to be between 0 and 1"),
    ]:
        with pytest.raises(error, match=message):
            make(optimizer_of(gpunn))
