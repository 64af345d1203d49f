"""Shared memory: who can have it, whose bank is whose."""

import os
import threading

import numpy as np
import pytest

from gpunn.distributed import shared, sockets
from gpunn.distributed.comm import Waiting
from gpunn.distributed.errors import DistBackendError
from gpunn.distributed.store import HashStore
from tests.distributed.ranks import run_ranks


@pytest.fixture(autouse=True)
def little(monkeypatch):
    monkeypatch.setattr(shared, "BANK", 4096)


def attached(size, attach=shared.attach):
    """What each of so many ranks, here threads, gets."""
    store, found = HashStore(), {}

    def one(rank):
        waiting = Waiting(None, range(size))
        waiting.begin("test", 1, 20.0)
        found[rank] = attach(store, rank, size, waiting)

    threads = [threading.Thread(target=one, args=(r,)) for r in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return [found[r] for r in range(size)]


def test_what_one_writes_all_read_and_banks_take_turns():
    ranks = attached(3)
    dtype = np.dtype(np.float32)
    first = [memory.bank(dtype, 1024) for memory in ranks]
    for rank, banks in enumerate(first):
        banks[rank][...] = rank + 1
    second = [memory.bank(dtype, 5) for memory in ranks]
    for rank, banks in enumerate(second):
        banks[rank][...] = -rank
    for banks, others in zip(first, second):
        assert [set(b.tolist()) for b in banks] == [{1.0}, {2.0}, {3.0}]
        assert [b.tolist() for b in others] == [[-r] * 5 for r in range(3)]
    third = ranks[0].bank(dtype, 5)
    assert third[1].tolist() == [2.0] * 5


def test_no_files_are_left_open():
    before = len(os.listdir("/proc/self/fd"))
    memory = attached(2)
    del memory
    assert len(os.listdir("/proc/self/fd")) <= before


def test_one_rank_without_it_and_nobody_has_it(monkeypatch):
    def elsewhere(store, rank, size, waiting):
        return real(Renamed(store, rank), rank, size, waiting)

    class Renamed:
        """A store in which rank 1 says that it runs on another machine, or has a wrong token."""

        def __init__(self, store, rank):
            self.store, self.rank = store, rank

        def set(self, key, value):
            if key == "memory/1":
                value = change(value)
            self.store.set(key, value)

        def __getattr__(self, name):
            return getattr(self.store, name)

    real = shared.attach
    machine = sockets.machine()
    for change in (
        lambda text: text.replace(machine, "another"),
        lambda text: text.replace(text.split()[1], "00" * 16),
        lambda text: "- " + text.split(" ", 1)[1],
        lambda text: "/proc/1/fd/99999 " + text.split(" ", 1)[1],
    ):
        assert attached(2, elsewhere) == [None, None]


def test_without_files_in_memory_there_is_none(monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert attached(2) == [None, None]


def test_a_rank_that_does_not_come_is_waited_for_in_time():
    waiting = Waiting(None, range(2))
    waiting.begin("all_reduce", 1, 0.3)
    with pytest.raises(DistBackendError, match="all_reduce: no answer after 0.3 s"):
        shared.attach(HashStore(), 0, 2, waiting)


def test_processes_of_one_machine_have_it():
    found = run_ranks(
        2,
        """
        x = gpunn.full((12_000_000,), float(rank + 1))
        dist.all_reduce(x)
        out = gpunn.empty(2 * 100_000)
        dist.all_gather_into_tensor(out, x[:100_000] + rank)
        comm = dist.group.WORLD.engine(gpunn.device("cpu"))
        report([comm._memory is not None, (x == 3).all().item(), out[::100_000].tolist()])
        """,
    )
    assert found == [[os.path.exists("/proc"), True, [3.0, 4.0]]] * 2
