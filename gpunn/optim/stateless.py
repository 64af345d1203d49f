"""An optimizer's step on other parameters and another state than its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gpunn.optim.optimizer import Optimizer
from gpunn.tensor import Tensor

__all__ = ["swap_in_optimizer_params_and_state"]


@contextmanager
def swap_in_optimizer_params_and_state(
    optimizer: Optimizer, swapin_parameters: Sequence[Tensor], swapin_optim_state: dict[str, Any]
) -> Iterator[None]:
    """In the `with` block, `optimizer` works on these parameters, state and options.

    The parameters come in the order of the optimizer's own; the state has the layout of
    `state_dict()`. Its tensors are changed in place by steps; the optimizer is as before
    afterwards. Raises RuntimeError where the numbers of groups or parameters differ.
    Source: https://docs.pytorch.org/docs/stable/optim.html

    >>> p, q = gpunn.zeros(1), gpunn.zeros(1)
    >>> optimizer = gpunn.optim.SGD([p], lr=0.5)
    >>> q.grad = gpunn.ones(1)
    >>> optim_state = optimizer.state_dict()
    >>> with gpunn.optim.swap_in_optimizer_params_and_state(optimizer, [q], optim_state):
    ...     optimizer.step()
    >>> p, q
    (tensor([0.]), tensor([-0.5000]))
    """
    saved, state = swapin_optim_state["param_groups"], swapin_optim_state["state"]
    _check(optimizer, list(swapin_parameters), saved, state)
    own_state, own_groups = optimizer.state, [dict(group) for group in optimizer.param_groups]
    params = iter(swapin_parameters)
    optimizer.state = defaultdict(dict)
    try:
        for group, new in zip(optimizer.param_groups, saved, strict=True):
            numbers = new["params"]
            group.update(new)
            group["params"] = [next(params) for _ in numbers]
            for p, number in zip(group["params"], numbers, strict=True):
                if number in state:
                    optimizer.state[p] = dict(state[number])
        yield
    finally:
        for group, before in zip(optimizer.param_groups, own_groups, strict=True):
            group.clear()
            group.update(before)
        optimizer.state = own_state


def _check(optimizer: Optimizer, params: list[Tensor], saved: Any, state: Any) -> None:
    name = "swap_in_optimizer_params_and_state"
    if not isinstance(state, dict) or any(isinstance(key, Tensor) for key in state):
        raise RuntimeError(
            f"{name} requires optimizer.state_dict()-style state keyed by packed parameter ids."
        )
    if not isinstance(saved, list) or len(saved) != len(optimizer.param_groups):
        raise RuntimeError(
            f"{name}: swapin_optim_state has a different number of parameter groups than the live "
            "optimizer."
        )
    for group, new in zip(optimizer.param_groups, saved, strict=True):
        if len(group["params"]) != len(new["params"]):
            raise RuntimeError(
                f"{name}: a parameter group has {len(new['params'])} parameters, the live "
                f"optimizer's has {len(group['params'])}."
            )
    count = sum(len(new["params"]) for new in saved)
    if len(params) != count:
        raise RuntimeError(f"{name}: got {len(params)} parameters, expected {count}.")
