"""The default generators of the CUDA devices. Seeding never touches the driver."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from gpunn.cuda.detect import is_initialized
from gpunn.cuda.devices import current_device, device_count, index_of
from gpunn.device import Device
from gpunn.generator import Generator, default_for, unforeseen
from gpunn.tensor import Tensor


def _generators() -> list[Generator]:
    return [default_for(Device("cuda", i)) for i in range(device_count())]


def _of(device: Any) -> Generator:
    return default_for(Device("cuda", index_of(device)))


def manual_seed(seed: int) -> None:
    """Seeds the generator of the current device; does nothing on a CPU machine.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.manual_seed.html

    >>> gpunn.cuda.manual_seed(0)
    """
    index = current_device() if is_initialized() else 0
    for generator in _generators()[index : index + 1]:
        generator.manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    """Seeds the generators of all CUDA devices; does nothing on a CPU machine.

    >>> gpunn.cuda.manual_seed_all(0)
    """
    for generator in _generators():
        generator.manual_seed(int(seed))


def seed() -> None:
    """Seeds the generator of the current device with a number that cannot be foreseen.

    >>> gpunn.cuda.seed()
    """
    manual_seed(unforeseen())


def seed_all() -> None:
    """Seeds the generators of all CUDA devices with one number that cannot be foreseen.

    >>> gpunn.cuda.seed_all()
    """
    manual_seed_all(unforeseen())


def initial_seed() -> int:
    """The seed of the current device's generator; RuntimeError on a CPU machine.

    >>> if gpunn.cuda.is_available():
    ...     gpunn.cuda.manual_seed(3)
    ...     assert gpunn.cuda.initial_seed() == 3
    """
    return _of(None).initial_seed()


def get_rng_state(device: Any = "cuda") -> Tensor:
    """The state of a device's generator, 16 uint8 on the CPU; RuntimeError on a CPU machine.

    >>> if gpunn.cuda.is_available():
    ...     gpunn.cuda.set_rng_state(gpunn.cuda.get_rng_state())
    """
    return _of(device).get_state()


def set_rng_state(new_state: Tensor, device: Any = "cuda") -> None:
    """Makes a device's generator go on from a state of `get_rng_state`.

    >>> if gpunn.cuda.is_available():
    ...     gpunn.cuda.set_rng_state(gpunn.cuda.get_rng_state())
    """
    _of(device).set_state(new_state)


def get_rng_state_all() -> list[Tensor]:
    """The states of all devices' generators; an empty list on a CPU machine.

    >>> len(gpunn.cuda.get_rng_state_all()) == gpunn.cuda.device_count()
    True
    """
    return [generator.get_state() for generator in _generators()]


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """Makes all devices' generators go on from the states of `get_rng_state_all`.

    >>> gpunn.cuda.set_rng_state_all(gpunn.cuda.get_rng_state_all())
    """
    for generator, state in zip(_generators(), new_states, strict=True):
        generator.set_state(state)
