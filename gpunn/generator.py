"""Generators: the streams of random 32-bit words that all draws start from.

A CPU generator is MT19937 as PyTorch seeds, runs and saves it. CUDA devices have a Philox4x32-10
counter stream: word w of the stream of seed s is word w % 4 of `philox4x32` of counter
(w // 4, 0) and key s, whatever the launch shape.

Sources: Matsumoto and Nishimura, "Mersenne Twister" (1998); Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3" (2011).
"""

from __future__ import annotations

import functools
import os
import threading
from typing import Any

import numpy as np

from gpunn.device import CPU, Device, resolve, to_host
from gpunn.tensor import Tensor, wrap

_DEFAULT_SEED = 67280421310721  # of a new Generator, as in PyTorch
_U32 = 0xFFFFFFFF
_WORDS = 624  # in the state of MT19937

# PyTorch's saved state of a CPU generator, 5,056 bytes.
_STATE = np.dtype(
    {
        "names": ["seed", "left", "seeded", "next", "words", "spare", "has_spare", "float_spare"],
        "formats": ["<u8", "<i4", "<i4", "<u8", ("<u8", _WORDS), "<f8", "<i4", "V5"],
        "offsets": [0, 8, 12, 16, 24, 5024, 5040, 5048],
        "itemsize": 5056,
    }
)


def unforeseen() -> int:
    """A seed of 64 bits that cannot be foreseen."""
    return int.from_bytes(os.urandom(8), "little")


class _Mersenne:
    """MT19937, run by NumPy, with PyTorch's state; `spare` is the normal number kept back."""

    def __init__(self) -> None:
        self.seed = _DEFAULT_SEED
        self.spare: float | None = None
        self.float_spare: Any = np.zeros((), "V5")

    @functools.cached_property
    def _twister(self) -> tuple[Any, Any]:
        # On first use, because importing numpy.random takes 20 ms.
        bits = np.random.MT19937(0)
        state = np.random.RandomState(bits)
        state.seed(self.seed & _U32)
        return bits, state

    def restart(self, seed: int) -> None:
        self.seed, self.spare, self.float_spare = seed, None, np.zeros((), "V5")
        if "_twister" in self.__dict__:
            self._twister[1].seed(seed & _U32)

    def words(self, n: int) -> np.ndarray:
        bits, state = self._twister
        if n < 1024:  # the quicker call for few, half as fast for many
            return bits.random_raw(n).astype(np.uint32)
        return state.randint(0, 1 << 32, n, np.uint32)

    def skip(self, n: int) -> None:
        self._twister[0].random_raw(n, output=False)

    def state(self) -> np.ndarray:
        """625 uint32: the words and the position in them, as kernels/mersenne.h reads them."""
        twister = self._twister[0].state["state"]
        return np.append(twister["key"], np.uint32(twister["pos"]))

    def resume(self, state: np.ndarray) -> None:
        self._twister[0].state = {
            "bit_generator": "MT19937",
            "state": {"key": state[:_WORDS], "pos": int(state[_WORDS])},
        }

    def dump(self) -> np.ndarray:
        state, twister = np.zeros((), _STATE), self._twister[0].state["state"]
        position, words = twister["pos"], twister["key"]
        fresh = position == _WORDS and words[0] == self.seed & _U32
        state["seed"], state["seeded"], state["words"] = self.seed, 1, words
        state["left"], state["next"] = _WORDS + 1 - position, 0 if fresh else position
        state["float_spare"] = self.float_spare
        if self.spare is not None:
            state["spare"], state["has_spare"] = self.spare, 1
        return state.reshape(1).view(np.uint8)

    def load(self, data: np.ndarray) -> None:
        if data.size != _STATE.itemsize:
            raise RuntimeError(
                f"Expected a CPUGeneratorImplState of size {_STATE.itemsize} but found the input "
                f"RNG state size to be {data.size}"
            )
        state = data.view(_STATE)[0]
        if state["seeded"] != 1 or not 0 < state["left"] <= _WORDS or state["next"] > _WORDS:
            raise RuntimeError("Invalid mt19937 state")
        position = _WORDS if state["left"] == 1 else int(state["next"])
        self.resume(np.append(state["words"], position).astype(np.uint32))
        self.seed = int(state["seed"])
        self.spare = float(state["spare"]) if state["has_spare"] else None
        self.float_spare = state["float_spare"].copy()


class _Philox:
    """The counter stream of a device; `offset` is the number of words used, a multiple of 4."""

    def __init__(self, device: Device):
        self.device = device
        self.seed = _DEFAULT_SEED
        self.offset = 0

    def restart(self, seed: int) -> None:
        self.seed, self.offset = seed, 0

    def words(self, n: int) -> Any:
        xp, start = self.device.xp, self.offset // 4
        blocks = -(-n // 4)
        self.offset += 4 * blocks
        counter = xp.zeros((blocks, 2), np.uint64)
        counter[:, 0] = xp.arange(start, start + blocks, dtype=np.uint64)
        return philox4x32(counter, self.seed, xp).reshape(-1)[:n]

    def dump(self) -> np.ndarray:
        return np.array([self.seed, self.offset], "<u8").view(np.uint8)

    def load(self, data: np.ndarray) -> None:
        if data.size != 16:
            raise RuntimeError(f"RNG state is wrong size: expected 16 bytes, got {data.size}")
        self.seed, self.offset = (int(v) for v in data.view("<u8"))


def philox4x32(counter: Any, key: int, xp: Any = np) -> Any:
    """Philox4x32-10: four random 32-bit words from each counter.

    `counter`: uint64 (n, 2), the low and high half of n counters. `key`: 64 bits. Returns uint32
    (n, 4). Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).

    >>> [hex(w) for w in gpunn.generator.philox4x32(np.zeros((1, 2), np.uint64), 0)[0].tolist()]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    low = np.uint64(_U32)
    half = np.uint64(32)
    a, b = counter[:, 0] & low, counter[:, 0] >> half
    c, d = counter[:, 1] & low, counter[:, 1] >> half
    key0, key1 = key & _U32, key >> 32
    for _ in range(10):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a = (second >> half) ^ b ^ np.uint64(key0)
        c = (first >> half) ^ d ^ np.uint64(key1)
        b, d = second & low, first & low
        key0, key1 = (key0 + 0x9E3779B9) & _U32, (key1 + 0xBB67AE85) & _U32
    return xp.stack([a, b, c, d], axis=1).astype(np.uint32)


class Generator:
    """A source of random numbers with a state of its own, for the `generator=` of functions.

    `device`: "cpu" (MT19937, PyTorch's stream) or a CUDA device (Philox). Draws hold a lock, so
    threads may share one, though the order of their draws is then open.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Generator.html

    >>> g = gpunn.Generator().manual_seed(0)
    >>> gpunn.rand(2, generator=g)
    tensor([0.4963, 0.7682])
    """

    device: Device

    def __init__(self, device: Any = "cpu"):
        self.device = resolve(device)
        self.lock = threading.RLock()
        self.stream: Any = _Mersenne() if self.device.type == "cpu" else _Philox(self.device)

    @property
    def is_philox(self) -> bool:
        """Whether it is a counter stream, as those of CUDA devices are."""
        return type(self.stream) is _Philox

    def words(self, n: int) -> Any:
        """The next n 32-bit words, uint32, on the generator's device. The caller holds `lock`."""
        return self.stream.words(n)

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream of `seed` and returns itself.

        `seed` is from -2**63 to 2**64 - 1, negative ones count from 2**64 down; ValueError
        beyond, RuntimeError for what is no int.

        >>> gpunn.Generator().manual_seed(-1).initial_seed() == 2**64 - 1
        True
        """
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise RuntimeError(f"manual_seed expected a long, but got {type(seed).__name__}")
        if not -(1 << 63) <= seed < 1 << 64:
            raise ValueError(
                f"Overflow when unpacking long long: the seed {seed} is outside of "
                f"[-0x8000_0000_0000_0000, 0xffff_ffff_ffff_ffff]"
            )
        with self.lock:
            self.stream.restart(int(seed) % (1 << 64))
        return self

    def seed(self) -> int:
        """Starts a stream that cannot be foreseen; returns its seed."""
        seed = unforeseen()
        self.manual_seed(seed)
        return seed

    def initial_seed(self) -> int:
        """The seed of the stream."""
        return self.stream.seed

    def get_state(self) -> Tensor:
        """The state as a uint8 tensor: 5,056 bytes in PyTorch's layout on the CPU, 16 on CUDA."""
        with self.lock:
            return wrap(self.stream.dump())

    def set_state(self, new_state: Tensor) -> None:
        """Goes on from a state of `get_state`, or of the same method of a PyTorch CPU generator.

        Raises TypeError for anything but a uint8 tensor, RuntimeError for a state that is none.

        >>> g = gpunn.Generator()
        >>> state, first = g.get_state(), gpunn.rand(3, generator=g)
        >>> g.set_state(state)
        >>> first.tolist() == gpunn.rand(3, generator=g).tolist()
        True
        """
        state: Any = to_host(new_state.array) if isinstance(new_state, Tensor) else new_state
        if not hasattr(state, "__array__"):
            raise TypeError(f"expected a torch.ByteTensor, but got {type(state).__name__}")
        data = np.ascontiguousarray(state)
        if data.dtype != np.uint8:
            raise TypeError(f"RNG state must be a torch.ByteTensor, got dtype {data.dtype}")
        with self.lock:
            self.stream.load(data.reshape(-1))

    def clone_state(self) -> Generator:
        """A new generator that goes on from the same state."""
        twin = Generator(self.device)
        twin.set_state(self.get_state())
        return twin

    def get_offset(self) -> int:
        """The words of a CUDA stream used so far. RuntimeError on the CPU."""
        return self._counter().offset

    def set_offset(self, offset: int) -> None:
        """Goes on from word `offset`, a multiple of 4, of a CUDA stream. RuntimeError on a CPU."""
        if offset % 4:
            raise RuntimeError(f"offset must be a multiple of 4, got {offset}")
        self._counter().offset = offset

    def reserve(self, words: int) -> tuple[int, int]:
        """(seed, offset) of `words` words of a CUDA stream that a kernel will compute itself."""
        with self.lock:
            stream = self._counter()
            start = stream.offset
            stream.offset += -(-words // 4) * 4
            return stream.seed, start

    def _counter(self) -> _Philox:
        if not self.is_philox:
            raise RuntimeError("CPU Generator does not use offset")
        return self.stream

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.device, self.get_state().array)


def _restored(device: Device, state: np.ndarray) -> Generator:
    generator = Generator(device)
    generator.set_state(wrap(state))
    return generator


default_generator = Generator()
default_generator.seed()
defaults: dict[Device, Generator] = {CPU: default_generator}
_defaults_lock = threading.Lock()


def default_for(device: Device) -> Generator:
    """The generator that draws on `device` use where none is given; each device has its own."""
    found = defaults.get(device)
    if found is None:
        with _defaults_lock:
            fresh = Generator(device).manual_seed(default_generator.initial_seed())
            found = defaults.setdefault(fresh.device, fresh)
    return found


def pick(generator: Generator | None, device: Device) -> Generator:
    """`generator`, or the default one of `device`. RuntimeError where it is of another device."""
    if generator is None:
        return default_for(device)
    if not isinstance(generator, Generator):
        raise TypeError(f"generator must be a gpunn.Generator, not {type(generator).__name__}")
    if generator.device is not device and (generator.is_philox or device.type != "cpu"):
        raise RuntimeError(
            f"Expected a '{device}' device type for generator but found '{generator.device}'"
        )
    return generator
