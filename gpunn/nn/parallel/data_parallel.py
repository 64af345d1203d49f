"""DataParallel: a batch split over devices, the module run on all, the outputs joined."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from gpunn import autograd, cuda
from gpunn.device import Device
from gpunn.nn.module import Module
from gpunn.nn.parallel.comm import as_device
from gpunn.nn.parallel.parallel_apply import parallel_apply
from gpunn.nn.parallel.replicate import replicate
from gpunn.nn.parallel.scatter_gather import gather, rows, scatter_kwargs

__all__ = ["DataParallel", "data_parallel"]

_PREFIX = "module."


class DataParallel(Module):
    """Runs a module on several devices at once, each with its part of the batch.

    In each forward the inputs are split along `dim` (see `nn.parallel.scatter`), the module is
    copied to as many of `device_ids` as there are rows, the copies run side by side, and their
    outputs are joined on `output_device`, by default the first device. Gradients are summed into
    `module`, whose parameters and buffers must lie on the first device.

    `device_ids`: CUDA devices as ints, names or Devices, all GPUs by default, or CPU devices,
    `["cpu:0", "cpu:1"]`; one may be named twice. On a machine without a GPU the module is just
    called, unless CPU devices are named. With one device the module itself runs, on it.

    The parts' sizes differ by at most one, and no row is left out. Buffers that the copy on the
    first device changes in place, running statistics say, are changed in `module`; what else
    `forward` assigns to its module is gone with the copies, and the statistics are those of the
    first part of each batch. Hooks run once for each copy. Outputs of dimension 0 become a vector
    of one number a device, with a warning; with `reduce_scalars="mean"` (not PyTorch's) their mean
    weighted by rows, so a loss that is a mean stays that of the whole batch. Each device draws its
    own random numbers; copies on one device share them, in no fixed order.

    `state_dict` has PyTorch's keys, "module." before each; `load_state_dict` takes those and the
    bare module's. RuntimeError for parameters on another device, ValueError for a `reduce_scalars`
    that is neither None nor "mean".
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.DataParallel.html

    >>> net = nn.DataParallel(nn.Linear(3, 2), device_ids=["cpu:0", "cpu:1"])
    >>> net(gpunn.ones(5, 3)).shape
    torch.Size([5, 2])
    >>> net(gpunn.ones(5, 3)).sum().backward()
    >>> net.module.bias.grad
    tensor([5., 5.])
    """

    module: Module
    device_ids: list[Any]

    def __init__(
        self, module: Module, device_ids: Sequence[Any] | None = None, output_device: Any = None,
        dim: int = 0, *, reduce_scalars: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if reduce_scalars not in (None, "mean"):
            raise ValueError(f'reduce_scalars must be None or "mean", got {reduce_scalars!r}')
        self.module, self.dim, self.reduce_scalars = module, dim, reduce_scalars
        devices = _devices(device_ids)
        self.device_ids = [_shown(d) for d in devices]
        if not devices:
            return
        self.src_device_obj = devices[0]
        target = devices[0] if output_device is None else as_device(output_device)
        self.output_device = _shown(target)
        _check_balance(devices)
        if len(devices) == 1:
            module.to(devices[0])

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        """The module's outputs for the whole batch."""
        if not self.device_ids:
            return self.module(*inputs, **kwargs)
        _check_place(self.module, self.src_device_obj)
        parts, named = self.scatter(inputs, kwargs, self.device_ids)
        if not parts and not named:
            parts, named = ((),), ({},)
        if len(self.device_ids) == 1:
            return self.module(*parts[0], **named[0])
        replicas = self.replicate(self.module, self.device_ids[: len(parts)])
        outputs = self.parallel_apply(replicas, parts, named)
        if self.reduce_scalars is None:
            return self.gather(outputs, self.output_device)
        counts = (rows(part, self.dim) for part in zip(parts, named, strict=True))
        weights = [max(count, default=1) or 1 for count in counts]
        return gather(outputs, self.output_device, self.dim, weights=weights)

    def replicate(self, module: Module, device_ids: Sequence[Any]) -> list[Module]:
        """The module's copies: `nn.parallel.replicate`. A subclass may have its own way."""
        return replicate(module, device_ids, not autograd.is_grad_enabled())

    def scatter(
        self, inputs: tuple[Any, ...], kwargs: dict[str, Any] | None, device_ids: Sequence[Any]
    ) -> Any:
        """The arguments of each copy: tuples of positional and of keyword ones."""
        return scatter_kwargs(inputs, kwargs, device_ids, dim=self.dim)

    def parallel_apply(self, replicas: Sequence[Any], inputs: Sequence[Any], kwargs: Any) -> Any:
        """The outputs of the copies: `nn.parallel.parallel_apply`."""
        return parallel_apply(replicas, inputs, kwargs, self.device_ids[: len(replicas)])

    def gather(self, outputs: Any, output_device: Any) -> Any:
        """The outputs joined: `nn.parallel.gather`."""
        return gather(outputs, output_device, dim=self.dim)

    # --- state --------------------------------------------------------------------------

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """`Module.load_state_dict`, also of the state of the module without DataParallel.

        >>> net = nn.DataParallel(nn.Linear(3, 2))
        >>> net.load_state_dict(nn.Linear(3, 2).state_dict())
        <All keys matched successfully>
        """
        metadata = getattr(state_dict, "_metadata", None)
        if isinstance(state_dict, Mapping) and metadata and self._is_bare(state_dict, ""):
            state_dict = OrderedDict((_PREFIX + k, v) for k, v in state_dict.items())
            below = {_PREFIX + k if k else _PREFIX[:-1]: v for k, v in metadata.items()}
            state_dict._metadata = OrderedDict({"": {}} | below)  # type: ignore[attr-defined]
        return super().load_state_dict(state_dict, strict, assign)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        if self._is_bare(state_dict, prefix):
            for key in [k for k in state_dict if k.startswith(prefix)]:
                state_dict[prefix + _PREFIX + key[len(prefix) :]] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _is_bare(self, state_dict: Mapping[str, Any], prefix: str) -> bool:
        """Whether more keys are those of the bare module than those of this one."""
        bare = {prefix + key for key in self.module.state_dict()}
        own = {prefix + _PREFIX + key[len(prefix) :] for key in bare}
        return len(bare & state_dict.keys()) > len(own & state_dict.keys())


def data_parallel(
    module: Module, inputs: Any, device_ids: Sequence[Any] | None = None, output_device: Any = None,
    dim: int = 0, module_kwargs: dict[str, Any] | None = None,
) -> Any:  # fmt: skip
    """A module's output, computed on several devices: `DataParallel` as a function.

    `inputs`: one argument, a tuple of them, or None. RuntimeError on a machine without a GPU where
    no CPU devices are named.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.torch.nn.parallel.data_parallel.html

    >>> nn.parallel.data_parallel(nn.Flatten(), gpunn.ones(3, 2, 2), ["cpu:0", "cpu:1"]).shape
    torch.Size([3, 4])
    """
    if not isinstance(inputs, tuple):
        inputs = (inputs,) if inputs is not None else ()
    devices = _devices(device_ids)
    if not devices:
        raise RuntimeError(
            "device type could not be determined: there is no GPU; name CPU devices, such as "
            'device_ids=["cpu:0", "cpu:1"]'
        )
    _check_place(module, devices[0])
    parts, named = scatter_kwargs(inputs, module_kwargs, devices, dim)
    if not parts and not named:
        parts, named = ((),), ({},)
    if len(devices) == 1:
        return module(*parts[0], **named[0])
    used = devices[: len(parts)]
    outputs = parallel_apply(replicate(module, used), parts, named, used)
    return gather(outputs, devices[0] if output_device is None else output_device, dim)


def _devices(device_ids: Sequence[Any] | None) -> list[Device]:
    """The devices to run on; none where GPUs are meant and there is none, as in PyTorch."""
    if not cuda.is_available() and all(
        isinstance(d, int) or Device(d).type == "cuda" for d in device_ids or ()
    ):
        return []
    return list(map(as_device, range(cuda.device_count()) if device_ids is None else device_ids))


def _shown(device: Device) -> Any:
    """A device as PyTorch's attributes show it: the number of a GPU."""
    return device.index if device.type == "cuda" else device


def _check_place(module: Module, device: Device) -> None:
    for t in chain(module.parameters(), module.buffers()):
        if t.device is not device:
            raise RuntimeError(
                f"module must have its parameters and buffers on device {device} (device_ids[0]) "
                f"but found one of them on device: {t.device}"
            )


def _check_balance(devices: list[Device]) -> None:
    """Warns of a GPU with less than 75 % of the memory or cores of another."""
    gpus = [d for d in devices if d.type == "cuda"]
    found = [cuda.get_device_properties(d) for d in gpus]
    for what in ("total_memory", "multi_processor_count"):
        values = [getattr(p, what) for p in found]
        if values and min(values) < 0.75 * max(values):
            low, high = (gpus[values.index(v)].index for v in (min(values), max(values)))
            warnings.warn(
                f"There is an imbalance between your GPUs. You may want to exclude GPU {low} which "
                f"has less than 75% of the memory or cores of GPU {high}. You can do so by setting "
                "the device_ids argument to DataParallel, or by setting the CUDA_VISIBLE_DEVICES "
                "environment variable.",
                stacklevel=3,
            )
            return
