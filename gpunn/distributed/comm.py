"""Comm: what an engine that moves arrays between ranks has to offer, and what follows from it.

An engine (tcp.py, mpi.py, nccl.py) works on raw C-contiguous arrays and counts ranks within its own
group. `Waiting` is how it waits: never longer than the deadline, and never for a rank that is gone.
"""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpunn.distributed.errors import DistBackendError

COMBINE: dict[str, Any] = {
    "sum": np.add, "product": np.multiply, "min": np.minimum, "max": np.maximum,
    "band": np.bitwise_and, "bor": np.bitwise_or, "bxor": np.bitwise_xor,
}  # fmt: skip


class Waiting:
    """What a blocking step of an engine waits for, until when, and who is watched meanwhile.

    `watch` knows which ranks are alive (None: nobody is watched), `ranks` are the global ranks of
    the group. `begin` names the operation that is under way.
    """

    def __init__(self, watch: Any, ranks: Sequence[int], group: str = "default"):
        self.watch, self.ranks, self.group = watch, list(ranks), group
        self.what, self.sequence, self.timeout = "start", 0, math.inf
        self.deadline = math.inf
        self.stopped = False

    def begin(self, what: str, sequence: int, timeout: float) -> None:
        """An operation starts; it may take `timeout` seconds."""
        self.what, self.sequence, self.timeout = what, sequence, timeout
        self.deadline = time.monotonic() + timeout
        self._go_on()
        if self.watch is not None:
            self.watch.reached(self.group, sequence, what)

    def aside(self, what: str, sequence: int, timeout: float) -> Waiting:
        """For what goes on beside the group's operations, which are one after the other."""
        made = Waiting(self.watch, self.ranks, self.group)
        made.what, made.sequence, made.timeout = what, sequence, timeout
        made.deadline = time.monotonic() + timeout
        return made

    def check(self) -> None:
        """DistBackendError where a rank is gone, the time is over or the engine was aborted."""
        self._go_on()
        if self.watch is not None:
            self.watch.check(self.what, self.sequence, self.group, self.ranks)
        if time.monotonic() > self.deadline:
            raise self.overdue()

    def _go_on(self) -> None:
        if self.stopped:
            raise DistBackendError(f"{self.what}: the process group was aborted")

    def overdue(self) -> Exception:
        """The error for a deadline that passed."""
        if self.watch is not None:
            return self.watch.timeout_error(
                self.what, self.sequence, self.group, self.ranks, self.timeout
            )
        return DistBackendError(f"{self.what}: no answer after {self.timeout:g} s")

    def poll(self, ready: Callable[[], Any]) -> Any:
        """Asks `ready()` until it answers with something true, and returns that."""
        found = ready()
        if found:
            return found
        start = checked = time.monotonic()
        while True:
            found = ready()
            if found:
                return found
            now = time.monotonic()
            if now - checked > 0.05:
                self.check()
                checked = now
            # At first only the interpreter is given up, then the core too, longer and longer.
            time.sleep(0 if now - start < 2e-4 else min(1e-3, (now - start) / 8))


class Request(NamedTuple):
    """A send or receive under way: `test()` is true once done; then `source()` is the sender."""

    test: Callable[[], Any]
    source: Callable[[], int]


class Message(NamedTuple):
    """One part of an `exchange`: kind "send" or "recv", the array, the other rank, the tag."""

    kind: str
    array: Any
    peer: int | None
    tag: int


class Comm(abc.ABC):
    """An engine of one group. Subclasses write the abstract methods; the rest is made of them.

    Attributes: `rank` and `size` within the group; `device_types` whose arrays it takes as they
    are (others are copied to the host and back); `deferred`: its methods return when the work is
    queued on a stream of its own, not when it is done; `gpu`: the index of the only one it serves.
    One operation runs at a time, except requests, which progress together.
    """

    name = "engine"
    device_types: tuple[str, ...] = ("cpu",)
    deferred = False
    gpu: int | None = None

    def __init__(self, rank: int, size: int, waiting: Waiting):
        self.rank, self.size, self.waiting = rank, size, waiting

    @abc.abstractmethod
    def all_reduce(self, x: Any, op: str) -> None:
        """Combines x over all ranks, in place; op is a key of COMBINE."""

    @abc.abstractmethod
    def broadcast(self, x: Any, root: int) -> None:
        """Makes x equal the root's, in place."""

    @abc.abstractmethod
    def all_gather(self, out: Any, x: Any) -> None:
        """out (size, *x.shape) gets every rank's x."""

    @abc.abstractmethod
    def reduce_scatter(self, out: Any, x: Any, op: str) -> None:
        """out gets this rank's part of x (size, *out.shape), combined over all ranks."""

    @abc.abstractmethod
    def isend(self, x: Any, peer: int, tag: int, waiting: Waiting | None = None) -> Request:
        """Begins to send x, which must stay as it is until the request is done.

        `waiting` is what there is to know of the message where it is no part of an operation.
        """

    @abc.abstractmethod
    def irecv(
        self, x: Any, peer: int | None, tag: int, waiting: Waiting | None = None
    ) -> Request:
        """Begins to receive into x, from a rank or (None) from whoever sends first."""

    @abc.abstractmethod
    def close(self) -> None:
        """Gives up what the engine holds; the others may be gone already."""

    def abort(self) -> None:
        """Ends what is under way, also on other threads, and what may still come."""
        self.waiting.stopped = True
        self.close()

    # --- made of the above ---

    def send(self, x: Any, peer: int, tag: int) -> None:
        """Returns when x may be changed again."""
        self.waiting.poll(self.isend(x, peer, tag).test)

    def recv(self, x: Any, peer: int | None, tag: int) -> int:
        """Receives into x; returns the sender's rank."""
        request = self.irecv(x, peer, tag)
        self.waiting.poll(request.test)
        return request.source()

    def exchange(self, messages: Sequence[Message]) -> None:
        """Sends and receives that progress together, in whatever order they get ready."""
        start: dict[str, Any] = {"send": self.isend, "recv": self.irecv}
        for request in [start[m.kind](m.array, m.peer, m.tag) for m in messages]:
            self.waiting.poll(request.test)

    def reduce(self, x: Any, root: int, op: str) -> None:
        """x of the root becomes the combination over all ranks."""
        mine = x if self.rank == root else x.copy()
        self.all_reduce(mine, op)

    def gather(self, outs: Sequence[Any] | None, x: Any, root: int) -> None:
        """outs of the root get every rank's x."""
        if self.rank != root:
            return self.send(x, root, -1)
        assert outs is not None
        outs[root][...] = x
        self.exchange([Message("recv", o, r, -1) for r, o in enumerate(outs) if r != root])

    def scatter(self, x: Any, parts: Sequence[Any] | None, root: int) -> None:
        """x gets this rank's entry of the root's parts."""
        if self.rank != root:
            self.recv(x, root, -1)
            return
        assert parts is not None
        x[...] = parts[root]
        self.exchange([Message("send", p, r, -1) for r, p in enumerate(parts) if r != root])

    def all_to_all(self, outs: Sequence[Any], parts: Sequence[Any]) -> None:
        """outs[r] gets the entry of rank r's parts for this rank."""
        outs[self.rank][...] = parts[self.rank]
        others = [(self.rank + k) % self.size for k in range(1, self.size)]
        self.exchange(
            [Message("recv", outs[r], r, -1) for r in others]
            + [Message("send", parts[r], r, -1) for r in others]
        )

    def barrier(self) -> None:
        """Returns when all ranks have called it."""
        self.all_reduce(np.zeros(1, np.int32), "sum")
