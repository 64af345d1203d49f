"""The base of the learning-rate schedulers."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

from gpunn.autograd import touch
from gpunn.optim.optimizer import Optimizer
from gpunn.tensor import Tensor

__all__ = ["LRScheduler"]

_EPOCH_WARNING = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where "
    "possible. Please use `scheduler.step()` to step the scheduler. With an epoch, the closed form "
    "of the schedule is used instead of the chainable one, where there is one."
)
_ORDER_WARNING = (
    "Detected call of `lr_scheduler.step()` before `optimizer.step()`. Call them in the opposite "
    "order: `optimizer.step()` before `lr_scheduler.step()`. As it is, the first value of the "
    "learning rate schedule is skipped."
)
_OVERRIDDEN_WARNING = (
    "Seems like `optimizer.step()` has been overridden after learning rate scheduler "
    "initialization. Please, make sure to call `optimizer.step()` before `lr_scheduler.step()`."
)


class LRScheduler:
    """Base of the schedulers: each `step()` sets the learning rates of the optimizer's groups.

    A subclass writes `get_lr`, which returns the rates of epoch `self.last_epoch`, one for each
    group, from `group["lr"]` (chainable: other schedulers and the user may change them too) or
    from `self.base_lrs`, the rates at the start. The first step, epoch 0, is made on
    construction. `last_epoch` other than -1 resumes: the groups then need "initial_lr".
    Raises TypeError for what is no optimizer, KeyError for a missing "initial_lr".
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.lr_scheduler.LRScheduler.html

    >>> class Halving(gpunn.optim.lr_scheduler.LRScheduler):
    ...     def get_lr(self):
    ...         return [lr * 0.5**self.last_epoch for lr in self.base_lrs]
    >>> optimizer = gpunn.optim.SGD([gpunn.ones(1)], lr=0.8)
    >>> scheduler = Halving(optimizer)
    >>> optimizer.step()
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.4]
    """

    _get_lr_called_within_step = False
    _is_initial = False
    _not_saved: tuple[str, ...] = ("optimizer",)
    optimizer: Optimizer
    last_epoch: int
    base_lrs: list[Any]
    _last_lr: list[Any]

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", copied(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming "
                    "scheduler with last_epoch >= 0. Load the state of the optimizer before "
                    "making the scheduler, or leave out last_epoch in a fresh run."
                )
        self.base_lrs = [copied(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        if not getattr(optimizer, "_has_scheduler", False):
            optimizer._has_scheduler, optimizer._opt_called = True, False  # type: ignore[attr-defined]
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """All attributes but the optimizer."""
        return {k: v for k, v in self.__dict__.items() if k not in self._not_saved}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` returned."""
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list[Any]:
        """The learning rates that the last step set, one for each group."""
        return self._last_lr

    def get_lr(self) -> list[Any]:
        """The learning rates of epoch `self.last_epoch`; called by `step`."""
        raise NotImplementedError(f"{type(self).__name__} has no get_lr(): write one")

    def step(self, epoch: int | None = None) -> None:
        """Goes to the next epoch. `epoch` goes there directly; deprecated."""
        if self._step_count == 1 and not self.optimizer._opt_called:
            overridden = "step" in vars(self.optimizer)
            warnings.warn(_OVERRIDDEN_WARNING if overridden else _ORDER_WARNING, stacklevel=2)
        self._step_count += 1
        if epoch is not None:
            warnings.warn(_EPOCH_WARNING, stacklevel=2)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        self.last_epoch = self.last_epoch + 1 if epoch is None else epoch
        closed = None if epoch is None else getattr(self, "_get_closed_form_lr", None)
        self._set_lrs(closed or self.get_lr)

    def _set_lrs(self, compute: Callable[[], list[Any]]) -> None:
        self._get_lr_called_within_step = True
        try:
            values = compute()
        finally:
            self._get_lr_called_within_step = False
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            set_value(group, "lr", lr)
        self._last_lr = current(self.optimizer, "lr")

    def _scaled(self, factor: float) -> list[Any]:
        """The learning rates times a factor; as they are for the factor 1."""
        lrs = current(self.optimizer, "lr")
        return lrs if factor == 1 else [lr * factor for lr in lrs]

    def _check_within_step(self) -> None:
        if not self._get_lr_called_within_step:
            warnings.warn(
                "To get the last learning rate computed by the scheduler, please use "
                "`get_last_lr()`.",
                stacklevel=3,
            )


_LRScheduler = LRScheduler  # the name before PyTorch 2.0


def check_optimizer(optimizer: Any) -> None:
    """Raises TypeError for what is no optimizer."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


def copied(value: Any) -> Any:
    """The value; of a tensor a copy, which does not follow its changes."""
    return value.detach().clone() if isinstance(value, Tensor) else value  # type: ignore[attr-defined]


def current(optimizer: Optimizer, key: str) -> list[Any]:
    """An option of each group."""
    return [copied(group[key]) for group in optimizer.param_groups]


def set_value(group: dict[str, Any], key: str, value: Any) -> None:
    """Sets an option; a tensor is filled, so that who holds it sees the change."""
    if isinstance(group[key], Tensor):
        group[key].array.fill(float(value))
        touch(group[key])
    else:
        group[key] = value


def per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """A list with one value for each group, from such a list or from one value for all."""
    groups = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [copied(value) for _ in range(groups)]
    if len(value) != groups:
        raise ValueError(
            f"{name} must have the same length as optimizer.param_groups. {name} has "
            f"{len(value)} values, param_groups has {groups}."
        )
    return [copied(v) for v in value]


def function_state(function: Callable[..., Any] | None) -> dict[str, Any] | None:
    """What can be saved of a callable: the attributes of an object, nothing of a function."""
    if function is None or isinstance(function, types.FunctionType):
        return None
    return function.__dict__.copy()
