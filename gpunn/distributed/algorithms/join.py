"""Uneven inputs: ranks that are done take part in the others' collective operations.

Source: https://docs.pytorch.org/docs/stable/distributed.algorithms.join.html
"""

from __future__ import annotations

import abc
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn.device import Device
from gpunn.distributed.collectives import all_reduce
from gpunn.distributed.group import ProcessGroup
from gpunn.tensor import Tensor, wrap

__all__ = ["Join", "JoinHook", "Joinable"]


class JoinHook:
    """What a rank that is done does: `main_hook` in each iteration of the others, `post_hook` once.

    Source: https://docs.pytorch.org/docs/stable/distributed.algorithms.join.html#torch.distributed.algorithms.JoinHook
    """

    def main_hook(self) -> None:
        """Shadows the collective operations of one iteration."""

    def post_hook(self, is_last_joiner: bool) -> None:
        """Called when all ranks are done; `is_last_joiner`: this one was among the last."""


class _Config:
    """The context that a Joinable is in."""

    def __init__(self, enable: bool = False, throw: bool = False, first: bool = False):
        self.enable, self.throw, self.first = enable, throw, first


class Joinable(abc.ABC):
    """A class whose ranks may do different numbers of iterations, as DistributedDataParallel.

    Its per-iteration method calls `Join.notify_join_context(self)` before its collectives.
    Source: https://docs.pytorch.org/docs/stable/distributed.algorithms.join.html#torch.distributed.algorithms.Joinable

    >>> issubclass(nn.parallel.DistributedDataParallel, gpunn.distributed.algorithms.Joinable)
    True
    """

    def __init__(self) -> None:
        self._join_config = _Config()
        self._join_active = 0

    @abc.abstractmethod
    def join_hook(self, **kwargs: Any) -> JoinHook:
        """What this does on a rank that is done."""

    @property
    @abc.abstractmethod
    def join_device(self) -> Device:
        """Where the counts live."""

    @property
    @abc.abstractmethod
    def join_process_group(self) -> ProcessGroup:
        """The group that is counted."""


class Join:
    """A context in which ranks may run out of data at different times.

    On its way out a rank that is done shadows the others' iterations until all are done.
    `throw_on_early_termination`: all ranks raise RuntimeError when the first is done.
    Other keywords go to the `join_hook` of each of `joinables`.
    Source: https://docs.pytorch.org/docs/stable/distributed.algorithms.join.html#torch.distributed.algorithms.Join

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> model = nn.parallel.DistributedDataParallel(nn.Linear(1, 1))
    >>> with dist.algorithms.Join([model]):
    ...     model(gpunn.ones(2, 1)).sum().backward()
    >>> dist.destroy_process_group()
    """

    def __init__(
        self, joinables: Sequence[Joinable], enable: bool = True,
        throw_on_early_termination: bool = False, **kwargs: Any,
    ):  # fmt: skip
        if not joinables:
            raise ValueError("The join context manager requires at least one joinable")
        groups = {id(j.join_process_group) for j in joinables}
        if len(groups) > 1:
            raise ValueError(
                "Using join context manager with multiple process groups: its joinables must share "
                "one"
            )
        self._joinables = list(joinables)
        self._enable, self._throw = enable, throw_on_early_termination
        self._hooks = [j.join_hook(**kwargs) for j in joinables]
        for k, j in enumerate(joinables):
            j._join_config = _Config(enable, throw_on_early_termination, k == 0)

    def __enter__(self) -> Join:
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        try:
            if self._enable and kind is None:
                self._shadow()
        finally:
            for j in self._joinables:
                j._join_config = _Config()
                j._join_active = 0

    def _shadow(self) -> None:
        """Takes part in iterations until no rank has data."""
        first, rounds, last = self._joinables[0], 0, True
        while True:
            active = _count(first, 0)
            if active == 0:
                break
            if self._throw:
                raise RuntimeError(f"Rank {first.join_process_group.rank()} exhausted all inputs.")
            last = False
            rounds += 1
            if rounds == 1000:
                warnings.warn(
                    "Detected uneven input skew of greater than 1000: this rank has been done for "
                    "1000 iterations of the others. Give the ranks about as much data each.",
                    stacklevel=3,
                )
            for j in self._joinables:
                j._join_active = active
            for hook in self._hooks:
                hook.main_hook()
        for hook in self._hooks:
            hook.post_hook(last)

    @staticmethod
    def active(joinable: Joinable) -> int:
        """How many ranks had data in this iteration; 0 outside of the context."""
        return joinable._join_active

    @staticmethod
    def notify_join_context(joinable: Joinable) -> Any:
        """Says that this rank begins an iteration; called before its first collective operation.

        A Work to wait for, or None outside of the context. RuntimeError, where it was asked for,
        once some rank is done.
        """
        config = joinable._join_config
        if not config.enable or not config.first:
            return None
        active = _count(joinable, 1)
        joinable._join_active = active
        if config.throw and active < joinable.join_process_group.size():
            raise RuntimeError(
                "Detected at least one rank that exhausted inputs. Throwing across all ranks."
            )
        return _Counted()


class _Counted:
    """A Work that is done."""

    def wait(self, timeout: Any = None) -> bool:
        return True


def _count(joinable: Joinable, mine: int) -> int:
    """How many ranks have data in this iteration."""
    device = joinable.join_device
    ones: Tensor = wrap(device.xp.full(1, mine, np.int32), device)
    all_reduce(ones, group=joinable.join_process_group)
    return int(ones.item())
