"""Memory that all ranks of a group see, where they run on one machine.

Each rank has a file in memory, without a name, that the others map. It has two banks, used in
turn: what is in one may be read until everybody has met twice more.
"""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np

from gpunn.distributed import sockets
from gpunn.distributed.channel import published
from gpunn.distributed.comm import Waiting
from gpunn.distributed.store import Store

BANK = 1 << 25  # bytes
_TOKEN = 16  # random bytes at the end of a file, to know it by


class Shared:
    """The files of all ranks, by rank; `bank` gives arrays in the one whose turn it is."""

    def __init__(self, files: list[Any]):
        self._files, self._turn = files, 0

    def bank(self, dtype: Any, count: int) -> list[Any]:
        """An array of `count` elements in each rank's next bank."""
        start, self._turn = self._turn * BANK, 1 - self._turn
        size = count * dtype.itemsize
        return [file[start : start + size].view(dtype) for file in self._files]


def attach(store: Store, rank: int, size: int, waiting: Waiting) -> Shared | None:
    """Maps the files of all ranks, which all call this; None where that cannot be done here."""
    descriptor, token = -1, os.urandom(_TOKEN)
    try:
        descriptor = os.memfd_create("gpunn")
        os.ftruncate(descriptor, 2 * BANK + _TOKEN)
        os.pwrite(descriptor, token, 2 * BANK)
        where = f"/proc/{os.getpid()}/fd/{descriptor}"
    except (AttributeError, OSError):  # not Linux, or no memory
        where = "-"
    try:
        store.set(f"memory/{rank}", f"{where} {token.hex()} {sockets.machine()}")
        found = [published(store, f"memory/{r}", waiting).split(" ", 2) for r in range(size)]
        files = [_map(path, text, machine) for path, text, machine in found]
        store.set(f"mapped/{rank}", "-" if any(f is None for f in files) else "1")
        all_mapped = {published(store, f"mapped/{r}", waiting) for r in range(size)} == {"1"}
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return Shared(files) if all_mapped else None


def _map(path: str, token: str, machine: str) -> Any:
    """A rank's file as bytes; None where it is on another machine, or cannot be opened."""
    if machine != sockets.machine() or path == "-":
        return None
    try:
        descriptor = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        if os.pread(descriptor, _TOKEN, 2 * BANK).hex() != token:  # another process's number
            return None
        return np.frombuffer(mmap.mmap(descriptor, 2 * BANK), np.uint8)
    except (OSError, ValueError):
        return None
    finally:
        os.close(descriptor)
