"""Copies of a module on several devices, through which gradients flow back to it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeVar

from gpunn import autograd
from gpunn.device import Device
from gpunn.nn.module import Module
from gpunn.nn.module_members import BUFFER, MODULE
from gpunn.nn.parallel.comm import as_device, copies
from gpunn.tensor import Tensor

__all__ = ["replicate"]

M = TypeVar("M", bound=Module)


def replicate(network: M, devices: Sequence[Any], detach: bool = False) -> list[M]:
    """Copies of a module, one for each device, in the order of the devices.

    Parameters become tensors on the copy's device, which are no leaves: gradients are summed into
    the module's own (not with `detach`). The first copy, on the module's device, shares memory with
    the module, so that running statistics and the like reach it; the others get copies, also where
    a device is named twice. What is shared inside the module (tied weights, a module used in two
    places) is shared inside each copy. Other attributes are shared as they are.
    RuntimeError for a module whose parameters have no shape yet.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.DataParallel.html

    >>> one, two = nn.parallel.replicate(nn.Linear(2, 3), ["cpu:0", "cpu:1"])
    >>> two.weight.device, two.weight.is_leaf
    (device(type='cpu', index=1), False)
    """
    modules = list(network.modules())
    shells = [{m: m._replicate_for_data_parallel() for m in modules} for _ in devices]
    own = (m.__dict__[name] for m in modules for name, role in m._roles.items() if role != MODULE)
    tensors = list(dict.fromkeys(t for t in own if t is not None))
    with autograd.set_grad_enabled(autograd.is_grad_enabled() and not detach):
        for i, (device, replicas) in enumerate(zip(map(as_device, devices), shells, strict=True)):
            _fill(replicas, _on(device, tensors, first=i == 0))
    return [replicas[network] for replicas in shells]  # type: ignore[misc]


def _on(device: Device, tensors: list[Tensor], first: bool) -> dict[Tensor, Tensor]:
    """Each tensor's copy on a device; the module's own memory for the first replica."""
    made: dict[Tensor, Tensor] = {}
    for source in {t.device: None for t in tensors}:
        group = [t for t in tensors if t.device is source]
        share = first and source is device
        made.update(zip(group, copies(group, device, share), strict=True))
    return made


def _fill(replicas: dict[Module, Any], made: dict[Tensor, Tensor]) -> None:
    """Gives the replicas of all modules of a network their tensors and each other."""
    for module, replica in replicas.items():
        values = replica.__dict__
        plain = type(replica).__setattr__ is Module.__setattr__
        values["_former_parameters"] = OrderedDict()  # for those who ask what parameters() had
        for name, role in module._roles.items():
            value = module.__dict__[name]
            if role == MODULE:
                values[name] = replicas.get(value)
            elif role == BUFFER:
                values[name] = made.get(value)
            elif value is None:
                replica.register_parameter(name, None)
            else:
                copy = values["_former_parameters"][name] = made[value]
                if plain:
                    values[name] = copy
                else:
                    setattr(replica, name, copy)
