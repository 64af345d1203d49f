"""Seeding, and the states of the default generators: PyTorch's `torch.random`.

The draws that fill arrays (`uniform`, `normal`, `randint`, ...) live in `gpunn/draw.py` and
`gpunn/draw_integers.py` and can be had from here, too.
Source: https://docs.pytorch.org/docs/stable/random.html
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from typing import Any

from gpunn.device import CPU, Device, resolve
from gpunn.draw import cauchy, exponential, fill, log_normal, normal, uniform
from gpunn.draw_integers import bernoulli, geometric, multinomial, randint, randperm
from gpunn.generator import Generator, default_for, default_generator, defaults, pick
from gpunn.tensor import Tensor

__all__ = [
    "Generator", "bernoulli", "cauchy", "default_for", "default_generator", "exponential", "fill",
    "fork_rng", "geometric", "get_rng_state", "initial_seed", "log_normal", "manual_seed",
    "multinomial", "normal", "pick", "randint", "randperm", "seed", "set_rng_state",
    "uniform",
]  # fmt: skip


def manual_seed(seed: int) -> Generator:
    """Seeds the default generators of all devices; returns the CPU's.

    `seed` is what `int` takes, from -2**63 to 2**64 - 1; ValueError beyond.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.manual_seed.html

    >>> _ = gpunn.manual_seed(0)
    >>> gpunn.randn(2)
    tensor([ 1.5410, -0.2934])
    """
    for generator in list(defaults.values()):
        generator.manual_seed(int(seed))
    return default_generator


def seed() -> int:
    """Seeds the default generators with a number that cannot be foreseen, and returns it.

    >>> gpunn.seed() == gpunn.initial_seed()
    True
    """
    number = secrets.randbits(64)
    manual_seed(number)
    return number


def initial_seed() -> int:
    """The seed of the CPU's default generator.

    >>> gpunn.manual_seed(7).initial_seed(), gpunn.initial_seed()
    (7, 7)
    """
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the CPU's default generator, 5,056 uint8 in PyTorch's layout.

    >>> gpunn.get_rng_state().shape
    torch.Size([5056])
    """
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Makes the CPU's default generator go on from a state of `get_rng_state`, or of PyTorch's.

    Raises TypeError for anything but a uint8 tensor, RuntimeError for a state that is none.

    >>> gpunn.set_rng_state(gpunn.get_rng_state())
    """
    default_generator.set_state(new_state)


@contextlib.contextmanager
def fork_rng(
    devices: Iterable[Any] | None = None, enabled: bool = True, device_type: str = "cuda"
) -> Iterator[None]:
    """A block after which the default generators go on as if it had not drawn anything.

    `devices`: the devices (numbers are of type `device_type`) beside the CPU, by default all.
    With `enabled=False` it does nothing.
    Source: https://docs.pytorch.org/docs/stable/random.html#torch.random.fork_rng

    >>> _ = gpunn.manual_seed(0)
    >>> with gpunn.random.fork_rng():
    ...     _ = gpunn.rand(100)
    >>> gpunn.rand(2)
    tensor([0.4963, 0.7682])
    """
    if not enabled:
        yield
        return
    kept = {CPU: default_generator}
    if devices is None:
        kept.update(defaults)
    else:
        for d in devices:
            device = resolve(Device(device_type, d) if isinstance(d, int) else d)
            kept[device] = default_for(device)
    states = [(generator, generator.get_state()) for generator in kept.values()]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)
        if devices is None:  # a generator first used in the block starts anew at its next use
            for device in defaults.keys() - kept.keys():
                del defaults[device]
