"""DistributedDataParallel: one process per device, each with a copy of the model and its own data.

Parameters and buffers start as rank 0's; gradients are averaged over the ranks while the backward
pass goes on (reducer.py), so that every rank takes the same step.
Source: Li et al. 2020, PyTorch distributed: experiences on accelerating data parallel training.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gpunn.autograd.graph import mode
from gpunn.device import Device
from gpunn.distributed.algorithms.join import Join, Joinable, JoinHook
from gpunn.distributed.arrays import ReduceOp
from gpunn.distributed.collectives import all_reduce, broadcast_coalesced
from gpunn.distributed.group import ProcessGroup, chosen, default_group
from gpunn.nn.module import Module
from gpunn.nn.parallel.agreement import check_same_on_all_ranks
from gpunn.nn.parallel.bucket import FIRST_BYTES, GradBucket, make_buckets
from gpunn.nn.parallel.comm import as_device
from gpunn.nn.parallel.reducer import Reducer
from gpunn.nn.parameter import UninitializedParameter
from gpunn.tensor import Tensor, wrap

__all__ = ["DistributedDataParallel"]


class DistributedDataParallel(Module, Joinable):
    """Runs `module` on this process's part of the data and averages gradients over all processes.

    `device_ids`: this process's one CUDA device, to which inputs are moved; None for a module on
    the CPU, or on devices that it minds itself. `process_group`: all ranks by default.
    `forward_sync_buffers` (`broadcast_buffers` is its older name, and False there also means not at
    the start): buffers become rank 0's at the start of each forward pass.
    `find_unused_parameters`: some parameters take no part in the loss; without it the next forward
    pass raises and names them. `skip_all_reduce_unused_params`: they are the same on all ranks, and
    buckets of them alone are not sent. `bucket_cap_mb` (25): how many MiB of gradients are reduced
    at a time, in the order of `bucket_cap_mb_list` where that is given; the first bucket is of 1
    MiB. `delay_all_reduce_named_params`, which `param_to_hook_all_reduce` has to come with, are
    reduced last. `gradient_as_bucket_view`: gradients share memory with the buckets, one copy less.
    `static_graph`: every iteration uses the same parameters in the same way, as often as it likes.
    `init_sync=False` leaves out the start. `check_reduction` and `batched_grad_copy` are accepted
    and change nothing. `mixed_precision` is not there: use autocast.
    Attributes are the module's under `.module`; `state_dict` keys begin with "module.", and
    `load_state_dict` also takes those of the bare module.
    RuntimeError: a module without parameters that require gradients, or with some that have no
    shape yet; models that differ. ValueError: `device_ids` that do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> model = nn.parallel.DistributedDataParallel(nn.Linear(3, 2))
    >>> model(gpunn.ones(4, 3)).sum().backward()
    >>> model.module.bias.grad
    tensor([4., 4.])
    >>> dist.destroy_process_group()
    """

    def __init__(
        self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None,
        dim: int = 0, broadcast_buffers: bool | None = None, init_sync: bool = True,
        process_group: ProcessGroup | None = None, bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False, check_reduction: bool = False,
        gradient_as_bucket_view: bool = False, static_graph: bool = False,
        delay_all_reduce_named_params: Sequence[tuple[str, Tensor]] | None = None,
        param_to_hook_all_reduce: Tensor | None = None, mixed_precision: Any = None,
        device_mesh: Any = None, skip_all_reduce_unused_params: bool = False,
        bucket_cap_mb_list: Sequence[float] | None = None, batched_grad_copy: bool = False,
        forward_sync_buffers: bool | None = None,
    ):  # fmt: skip
        super().__init__()
        Joinable.__init__(self)
        if (delay_all_reduce_named_params is None) != (param_to_hook_all_reduce is None):
            raise ValueError(
                "delay_all_reduce_named_params and param_to_hook_all_reduce need to be set at the "
                "same time."
            )
        if mixed_precision is not None:
            raise ValueError(
                f"DistributedDataParallel has no mixed_precision, got {mixed_precision!r}: run "
                "forward under gpunn.autocast"
            )
        self.process_group = _group(process_group, device_mesh)
        self.module = module
        self.dim = dim
        self.parameters_to_ignore = set(getattr(module, "_ddp_params_and_buffers_to_ignore", ()))
        self._late = {name for name, _ in delay_all_reduce_named_params or ()}
        self._reduced = self._to_reduce()
        self.device = self._check(device_ids, output_device)
        self.device_ids = [self.device.index] if device_ids else None
        self.output_device = self.device_ids and (
            self.device.index if output_device is None else output_device
        )
        if forward_sync_buffers is None:
            self.forward_sync_buffers = init_buffers = broadcast_buffers is not False
        else:
            self.forward_sync_buffers, init_buffers = forward_sync_buffers, True
        self.find_unused_parameters = find_unused_parameters
        self.gradient_as_bucket_view = gradient_as_bucket_view
        self.static_graph = static_graph
        self.skip_all_reduce_unused_params = skip_all_reduce_unused_params
        self.bucket_bytes_cap = _bytes(25 if bucket_cap_mb is None else bucket_cap_mb)
        self.bucket_bytes_cap_list = [_bytes(mb) for mb in bucket_cap_mb_list or ()]
        self.require_backward_grad_sync = self.require_forward_param_sync = True
        self._divide_by_initial_world_size = True
        if init_sync:
            self._check_models_agree()
            self._share(self._listed(module.named_parameters()))
            if init_buffers:
                self._share(self._listed(module.named_buffers()))
        self.reducer = self._make_reducer()

    # --- construction ---

    def _to_reduce(self) -> list[tuple[str, Tensor]]:
        """The parameters whose gradients are averaged, with their names."""
        return _distinct(
            (n, p) for n, p in self.module.named_parameters()
            if p.requires_grad and n not in self.parameters_to_ignore
        )  # fmt: skip

    def _check(self, device_ids: Sequence[Any] | None, output_device: Any) -> Device:
        """The device of the module; errors for what cannot be distributed."""
        if not self._reduced:
            raise RuntimeError(
                "DistributedDataParallel is not needed when a module doesn't have any parameter "
                "that requires a gradient."
            )
        if any(isinstance(p, UninitializedParameter) for _, p in self._reduced):
            raise RuntimeError(
                "Modules with uninitialized parameters can't be used with "
                "`DistributedDataParallel`. Run a dummy forward pass to correctly initialize the "
                "modules"
            )
        devices = {p.device for _, p in self._reduced}
        if device_ids is not None and len(device_ids) > 1:
            raise ValueError(
                "device_ids can only be None or contain a single element. There is one process per "
                "device; nn.DataParallel splits a batch over several devices of one process."
            )
        kinds = {device.type for device in devices}
        if len(kinds) > 1:
            raise ValueError(
                "DistributedDataParallel's input module must be on the same type of devices, but "
                f"input module parameters locate in {sorted(kinds)}."
            )
        if not device_ids and not output_device:
            return self._reduced[0][1].device
        if len(devices) > 1 or kinds == {"cpu"} or not device_ids:
            raise ValueError(
                "DistributedDataParallel device_ids and output_device arguments only work with "
                f"single-device/multiple-device GPU modules or CPU modules, but got device_ids "
                f"{device_ids}, output_device {output_device}, and module parameters "
                f"{sorted(map(str, devices))}. Leave them out for a module on the CPU."
            )
        return as_device(device_ids[0])

    def _listed(self, named: Any) -> list[Tensor]:
        return [t for n, t in _distinct(named) if n not in self.parameters_to_ignore]

    def _check_models_agree(self) -> None:
        """RuntimeError on every rank, with the first difference, where models differ."""
        kinds = {"parameter": self.module.named_parameters(), "buffer": self.module.named_buffers()}
        tensors = [
            (kind, name, tuple(t.shape), str(t.dtype), t.requires_grad)
            for kind, named in kinds.items() for name, t in _distinct(named)
            if name not in self.parameters_to_ignore
        ]  # fmt: skip
        how = {
            "find_unused_parameters": self.find_unused_parameters,
            "static_graph": self.static_graph,
            "bucket_cap_mb": (self.bucket_bytes_cap, self.bucket_bytes_cap_list),
            "skip_all_reduce_unused_params": self.skip_all_reduce_unused_params,
        }  # fmt: skip
        check_same_on_all_ranks(tensors, how, self.process_group)

    def _share(self, tensors: Sequence[Tensor], root: int = 0) -> None:
        """Makes tensors equal those of a rank of the group."""
        broadcast_coalesced(tensors, root, self.process_group)

    def _make_reducer(self) -> Reducer:
        sparse_owners = {
            id(getattr(m, "weight", None)) for m in self.module.modules()
            if getattr(m, "sparse", False) is True
        }
        params, names = [p for _, p in self._reduced], [n for n, _ in self._reduced]
        cap = self.bucket_bytes_cap
        buckets = make_buckets(
            params, names, [id(p) in sparse_owners for p in params],
            self.bucket_bytes_cap_list or [min(FIRST_BYTES, cap), cap],
            [n in self._late for n in names],
        )  # fmt: skip
        return Reducer(
            params, names, buckets, self.process_group, self.find_unused_parameters,
            self.gradient_as_bucket_view, self.static_graph, self.skip_all_reduce_unused_params,
        )  # fmt: skip

    # --- forward ---

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        reduces = mode.grad and self.require_backward_grad_sync
        if mode.grad:
            self.reducer.check_finished()
        counted = Join.notify_join_context(self)
        if counted is not None:
            counted.wait()
            self._use_divisor()
        if self._join_config.enable:
            self._tell_joined(reduces)
        if self.require_forward_param_sync and self.forward_sync_buffers:
            self._share_buffers()
        if self.device_ids:
            inputs, kwargs = _moved(inputs, self.device), _moved(kwargs, self.device)
        outputs = self.module(*inputs, **kwargs)
        if reduces:
            self.require_forward_param_sync = True
            self.reducer.prepare(_tensors(outputs))
        else:
            self.require_forward_param_sync = False
        return outputs

    def _share_buffers(self) -> None:
        buffers = self._listed(self.module.named_buffers())
        if not buffers:
            return
        root = 0
        if self._join_config.enable:  # rank 0 may be done: as in PyTorch, the highest that is not
            root = self._highest(self.process_group.rank())
        self._share(buffers, root)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Within it, forward and backward only add up gradients; the first backward pass after it
        averages the sums.

        >>> dist = gpunn.distributed
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> model = nn.parallel.DistributedDataParallel(nn.Linear(1, 1))
        >>> with model.no_sync():
        ...     model(gpunn.ones(1, 1)).sum().backward()
        >>> model(gpunn.ones(1, 1)).sum().backward()
        >>> model.module.bias.grad
        tensor([2.])
        >>> dist.destroy_process_group()
        """
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    def register_comm_hook(self, state: Any, hook: Callable[[Any, GradBucket], Any]) -> None:
        """Lets `hook(state, bucket)` reduce each bucket: it returns a Future of the flat result.

        Called once, before training. `gpunn.distributed.algorithms.ddp_comm_hooks` has hooks that
        compress. TypeError for what cannot be called, RuntimeError for a second hook.
        Source: https://docs.pytorch.org/docs/stable/ddp_comm_hooks.html

        >>> dist = gpunn.distributed
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> hooks = dist.algorithms.ddp_comm_hooks.default_hooks
        >>> model = nn.parallel.DistributedDataParallel(nn.Linear(1, 1))
        >>> model.register_comm_hook(None, hooks.bf16_compress_hook)
        >>> model(gpunn.ones(4, 1)).sum().backward()
        >>> model.module.bias.grad
        tensor([4.])
        >>> dist.destroy_process_group()
        """
        if not callable(hook):
            raise TypeError("Communication hook must be callable.")
        _check_annotation(hook)
        if self.reducer.hook is not None:
            raise RuntimeError(
                "register_comm_hook or register_builtin_comm_hook can only be called once."
            )
        self.reducer.hook, self.reducer.state = hook, state

    @staticmethod
    def _set_params_and_buffers_to_ignore_for_model(module: Module, names: Sequence[str]) -> None:
        """Before wrapping: the ranks keep these of the module as they are, gradients too."""
        module._ddp_params_and_buffers_to_ignore = list(names)

    def _check_reducer_finalized(self) -> None:
        """RuntimeError, with names, where the last backward pass did not reach all parameters."""
        self.reducer.check_finished()

    def _set_static_graph(self) -> None:
        """The same as static_graph=True, before training."""
        self.static_graph = self.reducer.static = True

    def _get_ddp_logging_data(self) -> dict[str, Any]:
        """What the last backward pass took, in nanoseconds, and how the buckets are cut."""
        sizes = [b.flat.array.nbytes for b in self.reducer.buckets]
        return {
            **self.reducer.timing, "world_size": self.process_group.size(),
            "rank": self.process_group.rank(), "bucket_sizes": sizes,
            "backend_name": self.process_group.name(), "num_parameter_tensors": len(self._reduced),
            "total_parameter_size_bytes": sum(p.array.nbytes for _, p in self._reduced),
            "find_unused_parameters": self.find_unused_parameters,
            "gradient_as_bucket_view": self.gradient_as_bucket_view,
        }  # fmt: skip

    # --- states, copies ---

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """As Module's; keys without "module." are the bare module's."""
        if state_dict and not any(key.startswith("module.") for key in state_dict):
            return self.module.load_state_dict(state_dict, strict, assign)
        return super().load_state_dict(state_dict, strict, assign)

    def train(self, mode: bool = True) -> DistributedDataParallel:
        super().train(mode)
        return self

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and deepcopy: the group and the reducer's hooks stay behind."""
        state = dict(self.__dict__)
        for name in ("process_group", "reducer", "_reduced"):
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.process_group = default_group()
        self._reduced = self._to_reduce()
        self.reducer = self._make_reducer()

    # --- uneven inputs ---

    def join(
        self, divide_by_initial_world_size: bool = True, enable: bool = True,
        throw_on_early_termination: bool = False,
    ) -> Join:  # fmt: skip
        """A context for ranks whose numbers of batches differ: those that are done take part in
        the others' reductions with zeros.

        Averages are over all ranks, or with `divide_by_initial_world_size=False` over those that
        still have data. `throw_on_early_termination`: all ranks raise when the first is done.
        Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html#torch.nn.parallel.DistributedDataParallel.join

        >>> dist = gpunn.distributed
        >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        >>> model = nn.parallel.DistributedDataParallel(nn.Linear(1, 1))
        >>> with model.join():
        ...     for batch in gpunn.ones(3, 2, 1):  # elsewhere there may be more of them, or less
        ...         model(batch).sum().backward()
        >>> dist.destroy_process_group()
        """
        return Join(
            [self], enable, throw_on_early_termination,
            divide_by_initial_world_size=divide_by_initial_world_size,
        )  # fmt: skip

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """What a rank does that is done: see `join`."""
        return _DDPJoinHook(self, kwargs.get("divide_by_initial_world_size", True))

    @property
    def join_device(self) -> Device:
        """Where the counts of `join` live."""
        return self.device

    @property
    def join_process_group(self) -> ProcessGroup:
        """The group that `join` counts."""
        return self.process_group

    def _one(self, value: int) -> Tensor:
        return wrap(self.device.xp.full(1, value, np.int32), self.device)

    def _tell_joined(self, reduces: bool) -> bool:
        """Whether the ranks with data reduce in this iteration; the others learn it here."""
        told = self._one(int(reduces))
        all_reduce(told, group=self.process_group)
        return bool(told.item())

    def _highest(self, rank: int) -> int:
        """The highest of the ranks that name themselves."""
        found = self._one(rank)
        all_reduce(found, ReduceOp.MAX, group=self.process_group)
        return int(found.item())

    def _use_divisor(self) -> None:
        active = Join.active(self)
        whole = self._divide_by_initial_world_size
        self.reducer.divisor = self.process_group.size() if whole or not active else active


class _DDPJoinHook(JoinHook):
    """Shadows the collective operations of an iteration, with zeros."""

    def __init__(self, ddp: DistributedDataParallel, divide_by_initial_world_size: bool):
        self.ddp = ddp
        ddp._divide_by_initial_world_size = divide_by_initial_world_size

    def main_hook(self) -> None:
        """One iteration of the others."""
        ddp = self.ddp
        ddp._use_divisor()
        reduces = ddp._tell_joined(False)
        if ddp.require_forward_param_sync and ddp.forward_sync_buffers:
            buffers = ddp._listed(ddp.module.named_buffers())
            if buffers:
                ddp._share(buffers, ddp._highest(-1))
        ddp.require_forward_param_sync = reduces
        if reduces:
            ddp.reducer.shadow()

    def post_hook(self, is_last_joiner: bool) -> None:
        """All are done: the parameters and buffers of a rank that was done last become all's."""
        ddp = self.ddp
        last = ddp._highest(ddp.process_group.rank() if is_last_joiner else -1)
        ddp._share(ddp._listed(ddp.module.named_parameters()), last)
        if ddp.forward_sync_buffers:
            ddp._share(ddp._listed(ddp.module.named_buffers()), last)
        ddp.reducer.divisor = ddp.process_group.size()


# --- helpers ------------------------------------------------------------------------------


def _distinct(named: Any) -> list[tuple[str, Tensor]]:
    """Each tensor once, under its first name."""
    found: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in named:
        found.setdefault(id(tensor), (name, tensor))
    return list(found.values())


def _bytes(mebibytes: float) -> int:
    return int(mebibytes * (1 << 20))


def _group(process_group: ProcessGroup | None, device_mesh: Any) -> ProcessGroup:
    """The group of the ranks; errors for both arguments at once, and for one without this rank."""
    if process_group is not None and device_mesh is not None:
        raise RuntimeError("Cannot specify both process_group and device_mesh arguments.")
    if device_mesh is not None:
        if device_mesh.ndim != 1:
            raise RuntimeError(f"Only 1D device mesh is supported, but got {device_mesh}.")
        process_group = device_mesh.get_group(mesh_dim=0)
    found = chosen(process_group)
    if found is None:
        raise ValueError("DistributedDataParallel: this process is not in process_group")
    return found


def _check_annotation(hook: Callable[..., Any]) -> None:
    """ValueError in PyTorch's words for a hook that says it takes something else than a bucket."""
    try:
        bucket = inspect.signature(hook).parameters.get("bucket")
    except ValueError:  # a built-in
        return
    wanted = bucket.annotation if bucket else inspect.Parameter.empty
    if wanted not in (inspect.Parameter.empty, GradBucket, Any) and not (
        str(wanted).endswith(("GradBucket", "Any"))  # a name, where annotations are not evaluated
    ):
        raise ValueError("Communication hook: bucket annotation should be dist.GradBucket.")


def _tensors(obj: Any) -> list[Tensor]:
    """The tensors in tuples, lists, dictionaries and dataclasses."""
    if isinstance(obj, Tensor):
        return [obj]
    if isinstance(obj, dict):
        obj = list(obj.values())
    elif hasattr(obj, "__dataclass_fields__"):
        obj = [getattr(obj, name) for name in obj.__dataclass_fields__]
    if isinstance(obj, (tuple, list)):
        return [t for part in obj for t in _tensors(part)]
    return []


def _moved(obj: Any, device: Device) -> Any:
    """An object with its tensors on a device."""
    from gpunn.nn.parallel.scatter_gather import scatter

    return scatter(obj, [device])[0]
