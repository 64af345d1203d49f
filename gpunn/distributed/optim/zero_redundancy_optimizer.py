"""ZeRO: each rank keeps the optimizer's state of its share of the parameters only.

After its step a rank sends its parameters to the others. Source: Rajbhandari et al. 2020, ZeRO:
memory optimizations toward training trillion parameter models (stage 1).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

from gpunn.device import Device
from gpunn.distributed.algorithms.join import Join, Joinable, JoinHook
from gpunn.distributed.collectives import broadcast_coalesced
from gpunn.distributed.group import ProcessGroup, chosen, default_group
from gpunn.distributed.objects import recv_object_list, send_object_list
from gpunn.optim.optimizer import Optimizer
from gpunn.tensor import Tensor

__all__ = ["ZeroRedundancyOptimizer"]


class ZeroRedundancyOptimizer(Optimizer, Joinable):
    """An optimizer whose state is divided over the ranks of a group; results are the plain one's.

    `params`: as of every optimizer, the same on all ranks; `optimizer_class` and its `defaults`:
    what steps on each rank's share. Parameters go to the rank with the fewest elements so far,
    large ones first. `state_dict` is that of the plain optimizer and is there, after
    `consolidate_state_dict(to)` on all ranks, on rank `to`; each rank of `load_state_dict` keeps
    its share of it. `parameters_as_bucket_view` is accepted and changes nothing.
    RuntimeError for a state_dict that was not consolidated, ValueError for `overlap_with_ddp`.
    Source: https://docs.pytorch.org/docs/stable/distributed.optim.html#torch.distributed.optim.ZeroRedundancyOptimizer

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> p = gpunn.ones(2, requires_grad=True)
    >>> zero = dist.optim.ZeroRedundancyOptimizer([p], gpunn.optim.SGD, lr=0.5)
    >>> p.sum().backward()
    >>> zero.step()
    >>> p
    tensor([0.5000, 0.5000], requires_grad=True)
    >>> dist.destroy_process_group()
    """

    def __init__(
        self, params: Any, optimizer_class: type[Optimizer],
        process_group: ProcessGroup | None = None, parameters_as_bucket_view: bool = False,
        overlap_with_ddp: bool = False, **defaults: Any,
    ):  # fmt: skip
        if overlap_with_ddp:
            raise ValueError(
                "ZeroRedundancyOptimizer: overlap_with_ddp=True is not offered: gradients are "
                "reduced while the backward pass goes on, the step comes after it"
            )
        Joinable.__init__(self)
        group = default_group() if process_group is None else chosen(process_group)
        if group is None:
            raise ValueError("ZeroRedundancyOptimizer: this process is not in process_group")
        self.process_group = group
        self.rank, self.world_size = group.rank(), group.size()
        self._optim_class, self._optim_defaults = optimizer_class, defaults
        self._loads = [0] * self.world_size
        self._owner: dict[Tensor, int] = {}
        self._everything: dict[int, Any] | None = None
        self.optim: Optimizer | None = None
        super().__init__(params, defaults)

    # --- shares ---

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group of parameters and divides it over the ranks."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        params = group["params"]
        for k in sorted(range(len(params)), key=lambda k: -params[k].array.size):
            rank = self._loads.index(min(self._loads))
            self._owner[params[k]] = rank
            self._loads[rank] += params[k].array.size
        mine = {**group, "params": [p for p in params if self._owner[p] == self.rank]}
        mine.pop("param_names", None)
        if self.optim is None:
            self.optim = self._optim_class([mine], **self._optim_defaults)
        else:
            self.optim.add_param_group(mine)
        for key, value in self.optim.param_groups[-1].items():
            if key != "params":
                group.setdefault(key, value)

    def _copy_options(self, source: Sequence[Any], target: Sequence[Any]) -> None:
        """Learning rates and the like, which schedulers change, from some groups to others."""
        for a, b in zip(source, target, strict=True):
            b.update({k: v for k, v in a.items() if k not in ("params", "param_names")})

    @property
    def _local(self) -> Optimizer:
        assert self.optim is not None
        return self.optim

    # --- steps ---

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """Steps on this rank's share, then all parameters become their owners'."""
        Join.notify_join_context(self)
        self._copy_options(self.param_groups, self._local.param_groups)
        loss = self._local.step(**({} if closure is None else {"closure": closure}), **kwargs)
        self._share()
        self._copy_options(self._local.param_groups, self.param_groups)
        return loss

    def _share(self) -> None:
        for rank in range(self.world_size):
            owned = [p for p, owner in self._owner.items() if owner == rank]
            if owned:
                broadcast_coalesced(owned, rank, self.process_group)

    # --- states ---

    def consolidate_state_dict(self, to: int = 0) -> None:
        """Brings all ranks' shares to rank `to` of the group, which can then call `state_dict`.

        All ranks of the group call it.
        """
        self._copy_options(self.param_groups, self._local.param_groups)
        group, target = self.process_group, to
        mine = {self._number(p): s for p, s in self._local.state.items()}
        if self.rank != target:
            self._everything = None
            send_object_list([_packed(mine)], group=group, group_dst=target)
            return
        states = dict(mine)
        for rank in range(self.world_size):
            if rank != target:
                found: list[Any] = [None]
                recv_object_list(found, group=group, group_src=rank)
                states.update(_unpacked(found[0]))
        self._everything = {k: states[k] for k in sorted(states)}

    def _number(self, param: Tensor) -> int:
        """The parameter's number in state dictionaries."""
        for k, p in enumerate(p for g in self.param_groups for p in g["params"]):
            if p is param:
                return k
        raise KeyError("a parameter of no group")

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as the plain optimizer's; RuntimeError where it is not on this rank."""
        if self._everything is None:
            raise RuntimeError(
                "Optimizer state has not been consolidated on this rank. Please call "
                f"`consolidate_state_dict(to={self.rank})` on all ranks "
                "beforehand if you meant to save the global state."
            )
        found = super().state_dict()
        found["state"] = self._everything
        return found

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes this rank's share of a whole state; the same is loaded on all ranks."""
        super().load_state_dict(state_dict)
        loaded, self.state = self.state, type(self.state)(dict)
        for param, state in loaded.items():
            if self._owner.get(param) == self.rank:
                self._local.state[param] = state
        self._copy_options(self.param_groups, self._local.param_groups)
        self._everything = None

    # --- uneven inputs ---

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """A rank that is done goes on stepping, with the gradients that it has."""
        return _ZeROJoinHook(self)

    @property
    def join_device(self) -> Device:
        """Where the counts of `Join` live."""
        return next(iter(self._owner)).device

    @property
    def join_process_group(self) -> ProcessGroup:
        """The group that `Join` counts."""
        return self.process_group


class _ZeROJoinHook(JoinHook):
    def __init__(self, zero: ZeroRedundancyOptimizer):
        self.zero = zero

    def main_hook(self) -> None:
        """A step, so that the others get this rank's share."""
        self.zero.step()


def _packed(state: dict[int, Any]) -> bytes:
    """A state as a file in memory: tensors in it may be on any device."""
    from gpunn.serialization import save

    buffer = io.BytesIO()
    save(state, buffer)
    return buffer.getvalue()


def _unpacked(data: bytes) -> dict[int, Any]:
    from gpunn.serialization import load

    return load(io.BytesIO(data), map_location="cpu")
