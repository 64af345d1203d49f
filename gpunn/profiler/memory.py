"""Memory of a profile: what operations return or keep for backward, counted until it is freed."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from gpunn.autograd.graph import Output
from gpunn.device import Device
from gpunn.tensor import ARRAY_TYPES, Tensor, root


class _Block(weakref.ref):
    """The memory of an array: who it is, its bytes, where it lies."""

    __slots__ = ("key", "bytes", "device")
    key: int
    bytes: int
    device: Device


class Memory:
    """Counts the bytes of new arrays for the thread that makes them, and again when they go.

    Scratch memory that an operation gives back before it returns is not seen, nor are arrays
    from before the profile. `events`: (nanosecond, thread, bytes, device, bytes in all).
    """

    def __init__(self, local: Any):
        self.local = local
        self.blocks: dict[int, _Block] = {}
        self.total = {"cpu": 0, "cuda": 0}
        self.events: list[tuple[int, int, int, Device, int]] = []

    def returned(self, args: Any, kwargs: Any, out: Any) -> None:
        """Counts what an operation returned and what its node keeps."""
        old = keys((*args, *kwargs.values()))
        for t in out if type(out) in (list, tuple) else (out,):
            if not isinstance(t, Tensor) or any(t is a for a in args):
                continue
            self.add(array_of(t), t.device, old)
            node = t.node.node if type(t.node) is Output else t.node
            for kept in () if node is None else node.saved:
                self.add(kept, t.device, old)

    def computed(self, old: Iterable[int], found: Any, device: Device) -> None:
        """Counts gradients that are not the memory of `old`, the keys of what they are made of."""
        for g in found if type(found) is tuple else (found,):
            self.add(array_of(g) if isinstance(g, Tensor) else g, device, old)

    def add(self, array: Any, device: Device, old: Iterable[int]) -> None:
        """Counts an array's memory where it is new; other things have none."""
        if type(array) not in ARRAY_TYPES:
            return
        owner = root(array)
        key = id(owner)
        if key in self.blocks or key in old:
            return
        block = self.blocks[key] = _Block(owner, self._freed)
        block.key, block.bytes, block.device = key, owner.nbytes, device
        self._note(block.bytes, device)

    def _freed(self, block: Any) -> None:
        if self.blocks.pop(block.key, None) is not None:
            self._note(-block.bytes, block.device)

    def _note(self, count: int, device: Device) -> None:
        local, kind = self.local, device.type
        local.allocated[kind == "cuda"] += count
        self.total[kind] += count
        self.events.append(
            (time.perf_counter_ns(), local.native_id, count, device, self.total[kind])
        )

    def stop(self) -> None:
        """Forgets the arrays that are still there."""
        self.blocks.clear()


def array_of(t: Tensor) -> Any:
    """A tensor's array; None of a sparse one, and of a parameter without a shape so far."""
    try:
        return t.array
    except (AttributeError, RuntimeError, ValueError):
        return None


def keys(values: Any) -> set[int]:
    """Who owns the memory of arrays and tensors, also of those in lists."""
    return set(_keys(values))


def _keys(values: Any) -> Iterator[int]:
    for v in values:
        if isinstance(v, Tensor):
            v = array_of(v)
        if type(v) in ARRAY_TYPES:
            yield id(root(v))
        elif type(v) in (list, tuple):
            yield from _keys(v)
