"""A scheduler in both libraries, stepped side by side."""

import copy
import warnings

import pytest

import gpunn


def rates(optimizer):
    """What schedulers change in each group."""
    keys = ("lr", "initial_lr", "momentum", "betas", "max_lr", "min_lr", "swa_lr")
    return [{k: float_of(g[k]) for k in keys if k in g} for g in optimizer.param_groups]


def float_of(value):
    if isinstance(value, (list, tuple)):
        return [float_of(v) for v in value]
    return float(value)


def close(mine, theirs):
    """Equal nested containers of numbers, to rounding."""
    if isinstance(theirs, dict):
        assert list(mine) == list(theirs)
        for key in theirs:
            close(mine[key], theirs[key])
    elif isinstance(theirs, (list, tuple)):
        assert len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            close(a, b)
    elif isinstance(theirs, float):
        assert float(mine) == pytest.approx(theirs, rel=1e-9, abs=1e-12)
    else:
        assert mine == theirs


def optimizer_of(library, name="SGD", lr=0.1, **kwargs):
    if name == "SGD":
        kwargs.setdefault("momentum", 0.9)
    groups = [{"params": [library.ones(1)]}, {"params": [library.ones(2)], "lr": 0.5}]
    return getattr(library.optim, name)(groups, lr=lr, **kwargs)


def step(optimizer, scheduler, *args):
    """One step of each, without the warnings of deprecated arguments."""
    optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler.step(*args)


@pytest.fixture
def schedule_parity():
    """40 epochs in both libraries: rates, state dictionaries, resumed from each other's state."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def compare(make, optimizer="SGD", epochs=40, arguments=lambda epoch: ()):
        pairs = []
        for library in (gpunn, torch):
            o = optimizer_of(library, optimizer)
            with warnings.catch_warnings():
                if library is torch:  # whose nested schedulers warn of an order when made
                    warnings.simplefilter("ignore")
                pairs.append([o, make(library, o)])
        for epoch in range(epochs):
            if epoch == epochs // 2:
                resume(pairs, (gpunn, torch), make)
            close(rates(pairs[0][0]), rates(pairs[1][0]))
            close(pairs[0][1].state_dict(), pairs[1][1].state_dict())
            close(pairs[0][1].get_last_lr(), pairs[1][1].get_last_lr())
            for o, scheduler in pairs:
                step(o, scheduler, *arguments(epoch))

    return compare


def resume(pairs, libraries, make):
    """New optimizers and schedulers with the other library's scheduler state."""
    states = [copy.deepcopy(scheduler.state_dict()) for _, scheduler in pairs]
    for pair, library, state in zip(pairs, libraries, reversed(states), strict=True):
        old = pair[0]
        new = optimizer_of(library, type(old).__name__)
        with warnings.catch_warnings():
            if library is not gpunn:
                warnings.simplefilter("ignore")
            scheduler = make(library, new)
        new.load_state_dict(old.state_dict())
        new.step()
        scheduler.load_state_dict(state)
        pair[:] = new, scheduler
