"""Averages of a model's parameters over training: stochastic weight averaging, moving averages."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

from gpunn import autograd, dtypes
from gpunn.autograd import touch
from gpunn.nn.module import Module
from gpunn.ops.create import tensor
from gpunn.optim.elementwise import constants, run
from gpunn.optim.lr_scheduler.base import LRScheduler, per_group
from gpunn.optim.optimizer import Optimizer
from gpunn.tensor import Tensor

__all__ = [
    "AveragedModel", "SWALR", "get_ema_avg_fn", "get_ema_multi_avg_fn", "get_swa_avg_fn",
    "get_swa_multi_avg_fn", "update_bn",
]  # fmt: skip

AvgFn = Callable[[Tensor, Tensor, Any], Tensor]
MultiAvgFn = Callable[[list[Tensor], list[Tensor], Any], None]


def _towards(xp: Any, average: Any, current: Any, weight: Any) -> None:
    average += (current - average) * weight


def _move(averages: Iterable[Tensor], currents: Iterable[Tensor], weight: float) -> None:
    """Moves each average by `weight` of the way to the current value, in place."""
    for average, current in zip(averages, currents, strict=True):
        a, b, xp = average.array, current.array, average.device.xp
        if average.dtype.category < dtypes.FLOATING:
            a[...] = a + (b - a) * weight
        else:
            run(_towards, xp, [a, b], constants(xp, a.dtype, (weight,)))
        touch(average)


def _check_decay(decay: float) -> None:
    if decay < 0.0 or decay > 1.0:
        raise ValueError(
            f"Invalid decay value {decay} provided. Please provide a value in [0,1] range."
        )


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAvgFn:
    """The exponential moving average, average ← decay · average + (1 - decay) · current, on lists.

    Source: https://docs.pytorch.org/docs/stable/optim.html#weight-averaging-swa-and-ema

    >>> a = gpunn.zeros(1)
    >>> gpunn.optim.swa_utils.get_ema_multi_avg_fn(0.75)([a], [gpunn.ones(1)], 1)
    >>> a
    tensor([0.2500])
    """
    _check_decay(decay)

    def ema_update(averages: list[Tensor], currents: list[Tensor], num_averaged: Any) -> None:
        _move(averages, currents, 1 - decay)

    return ema_update


def get_swa_multi_avg_fn() -> MultiAvgFn:
    """The plain average of all values so far, on lists.

    Source: https://docs.pytorch.org/docs/stable/optim.html#weight-averaging-swa-and-ema

    >>> a = gpunn.zeros(1)
    >>> gpunn.optim.swa_utils.get_swa_multi_avg_fn()([a], [gpunn.ones(1)], 1)
    >>> a
    tensor([0.5000])
    """

    def swa_update(averages: list[Tensor], currents: list[Tensor], num_averaged: Any) -> None:
        _move(averages, currents, 1.0 / (float(num_averaged) + 1))

    return swa_update


def get_ema_avg_fn(decay: float = 0.999) -> AvgFn:
    """The exponential moving average of one parameter, returned.

    Source: https://docs.pytorch.org/docs/stable/optim.html#weight-averaging-swa-and-ema

    >>> gpunn.optim.swa_utils.get_ema_avg_fn(0.75)(gpunn.zeros(1), gpunn.ones(1), 1)
    tensor([0.2500])
    """
    _check_decay(decay)

    @autograd.no_grad()
    def ema_update(average: Any, current: Any, num_averaged: Any) -> Tensor:
        return decay * average + (1 - decay) * current

    return ema_update


def get_swa_avg_fn() -> AvgFn:
    """The plain average of one parameter, returned.

    Source: https://docs.pytorch.org/docs/stable/optim.html#weight-averaging-swa-and-ema

    >>> gpunn.optim.swa_utils.get_swa_avg_fn()(gpunn.zeros(1), gpunn.ones(1), 1)
    tensor([0.5000])
    """

    @autograd.no_grad()
    def swa_update(average: Any, current: Any, num_averaged: Any) -> Tensor:
        return average + (current - average) / (num_averaged + 1)

    return swa_update


class AveragedModel(Module):
    """A copy of a model (in `module`) whose parameters are averages of the model's.

    `update_parameters(model)` takes the model's parameters in; the first call copies them. The
    average is plain unless `avg_fn(average, current, num_averaged)`, which returns the new
    average, or `multi_avg_fn`, which changes lists in place, is given. `use_buffers` averages
    the buffers, too; otherwise they are copied. Raises AssertionError where both functions are
    given.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.swa_utils.AveragedModel.html,
    https://arxiv.org/abs/1803.05407

    >>> model = nn.Linear(1, 1)
    >>> averaged = gpunn.optim.swa_utils.AveragedModel(model)
    >>> for value in (1.0, 3.0):
    ...     _ = nn.init.constant_(model.weight, value)
    ...     averaged.update_parameters(model)
    >>> averaged.module.weight.item()
    2.0
    """

    n_averaged: Any

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: AvgFn | None = None,
        multi_avg_fn: MultiAvgFn | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=dtypes.int64, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The averaged model's output."""
        return self.module(*args, **kwargs)

    @autograd.no_grad()
    def update_parameters(self, model: Module) -> None:
        """Takes the parameters of `model` into the averages."""
        averages: list[Any] = list(self.module.parameters())
        currents: list[Any] = list(model.parameters())
        own_buffers: list[Any] = list(self.module.buffers())
        buffers = list(model.buffers())
        if self.use_buffers:
            averages, currents = averages + own_buffers, currents + buffers
        else:
            for own, buffer in zip(own_buffers, buffers, strict=True):
                own.copy_(buffer)
        averages = [a.detach() for a in averages]
        currents = [c.detach().to(a.device) for a, c in zip(averages, currents, strict=False)]
        if self.n_averaged.item() == 0:
            for average, current in zip(averages, currents, strict=False):
                average.copy_(current)
        else:
            self._average(averages, currents)
        self.n_averaged += 1

    def _average(self, averages: list[Any], currents: list[Any]) -> None:
        if self.avg_fn is not None:
            for average, current in zip(averages, currents, strict=False):
                count = self.n_averaged.to(average.device)
                average.copy_(self.avg_fn(average, current, count))
            return
        multi_avg_fn = self.multi_avg_fn or get_swa_multi_avg_fn()
        alike: dict[Any, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
        for average, current in zip(averages, currents, strict=False):
            group = alike[average.device, average.dtype]
            group[0].append(average)
            group[1].append(current)
        for (device, _), (some, others) in alike.items():
            multi_avg_fn(some, others, self.n_averaged.to(device))


@autograd.no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Computes the running statistics of the model's BatchNorm layers anew, over `loader`.

    A batch that is a list or tuple gives its first element to the model. For a model whose
    parameters are averages, its own statistics fit none of the models that were averaged.
    Source: https://docs.pytorch.org/docs/stable/optim.html#torch.optim.swa_utils.update_bn

    >>> model = nn.BatchNorm1d(1)
    >>> gpunn.optim.swa_utils.update_bn([gpunn.tensor([[1.0], [3.0]])], model)
    >>> model.running_mean
    tensor([2.])
    """
    from gpunn.nn.norm import _BatchNorm

    momenta: dict[Any, Any] = {}
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
            momenta[module] = module.momentum
    if not momenta:
        return
    was_training = model.training
    model.train()
    for module in momenta:
        module.momentum = None  # the plain average over all batches
    for batch in loader:
        x = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(x if device is None else x.to(device))
    for module, momentum in momenta.items():
        module.momentum = momentum
    model.train(was_training)


class SWALR(LRScheduler):
    """The rate goes to `swa_lr` in `anneal_epochs` epochs and stays there.

    Along a cosine or a line (`anneal_strategy` "cos", "linear"). Raises ValueError for another
    strategy and for negative epochs.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.optim.swa_utils.SWALR.html

    >>> optimizer = gpunn.optim.SGD([gpunn.ones(1)], lr=1.0)
    >>> scheduler = gpunn.optim.swa_utils.SWALR(optimizer, swa_lr=0.5, anneal_epochs=1)
    >>> optimizer.step()
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        swa_lrs = per_group("swa_lr", optimizer, swa_lr)
        for lr, group in zip(swa_lrs, optimizer.param_groups, strict=True):
            group["swa_lr"] = lr
        self._anneal_strategy = anneal_strategy
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def anneal_func(self, t: float) -> float:
        """How much of the way is gone after the share t of the epochs."""
        return t if self._anneal_strategy == "linear" else (1 - math.cos(math.pi * t)) / 2

    def get_lr(self) -> list[Any]:
        self._check_within_step()
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        before, now = (
            self.anneal_func(max(0, min(1, s / max(1, self.anneal_epochs))))
            for s in (step - 1, step)
        )
        lrs = []
        for group in self.optimizer.param_groups:
            lr, end = group["lr"], group["swa_lr"]
            start = end if before == 1 else (lr - before * end) / (1 - before)
            lrs.append(end * now + start * (1 - now))
        return lrs
