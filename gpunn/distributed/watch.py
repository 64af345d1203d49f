"""Watch: who is alive, and how far each rank has come. It turns a lost rank into an error.

Every process tells the store when it leaves, and why; for one that cannot, the store's server
does, when its connection ends. A thread of each process waits for such news, and writes there how
far its own rank has come. So the one who asks whether all are alive only reads what is known here.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Sequence

from gpunn.distributed.errors import DistBackendError, DistError, DistNetworkError, DistStoreError
from gpunn.distributed.store import Store

_KILLED = b"killed, or its connection was lost"
_EVERY = 1.0  # seconds between notes of how far this rank has come
_LEFT = "has left: it destroyed its process group, or its process ended"
_STOPPED = "stopped: "
_LINGER = 2.0  # seconds that the rank with the store stays for those who have not left yet


class Watch:
    """One per process, for all its groups. `store` is that of the job, `rank` this process's.

    `reached` is called as each operation starts, `check` by whoever waits, `fail` with what ends
    this process, `close` when it has done its part.
    """

    def __init__(self, store: Store, rank: int, world_size: int):
        self.rank, self.world_size = rank, world_size
        self._store, self._told, self._blamed = store, False, ""
        self._reached: dict[str, tuple[int, str]] = {}  # by group: operation number and name
        self._departed: dict[int, str] = {}  # rank: what it did, oldest first
        self._last: dict[int, dict[str, tuple[int, str]]] = {}  # how far who left had come
        self._news = threading.Condition()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None
        if world_size > 1:
            self._own = store.clone()  # the thread's connection, whose end the server notices
            self._own.hello(f"departed/{rank}", b"is gone: " + _KILLED)
            self._thread = threading.Thread(target=self._run, name="gpunn watch", daemon=True)
            self._thread.start()

    def reached(self, group: str, sequence: int, what: str) -> None:
        """An operation of a group starts here."""
        self._reached[group] = (sequence, what)

    def _run(self) -> None:
        """Writes down how far this rank is and reads who has departed, about once a second."""
        written, known = "", 0
        while not self._closed.is_set():
            now = json.dumps(dict(self._reached))
            try:
                if now != written:
                    self._own.set(f"reached/{self.rank}", now)
                    written = now
                with contextlib.suppress(DistStoreError):
                    found = self._own.below("departed/", known, _EVERY)
                    known = len(found)
                    self._learn(found)
            except DistNetworkError:
                if not self._closed.is_set():
                    self._learn({"0": b"is gone, and the store with it: " + _KILLED})
                break
        if self._own is not self._store:
            self._own.close()

    def _learn(self, found: dict[str, bytes]) -> None:
        with self._news:
            for rank, why in found.items():
                if int(rank) != self.rank:
                    self._departed.setdefault(int(rank), why.decode())
            self._news.notify_all()

    # --- errors ---

    def check(self, what: str, sequence: int, group: str, ranks: Sequence[int]) -> None:
        """DistBackendError where one of the ranks is gone that operation `sequence` needs."""
        if not self._departed:
            return
        lost = [r for r, why in list(self._departed.items()) if r in ranks and why != _LEFT]
        if lost:  # first whoever did not stop because of another one
            raise self._error(what, group, min(lost, key=self._is_secondary))
        for rank in ranks:
            # Who left may have done its part of this operation before: then that goes on.
            if self._departed.get(rank) == _LEFT and self._place(rank, group)[0] < sequence:
                raise self._error(what, group, rank)

    def gone(self, what: str, sequence: int, group: str, rank: int, detail: str) -> Exception:
        """The error for a rank whose connection ended; waits a little to learn why."""
        with self._news:
            self._news.wait_for(lambda: rank in self._departed, 1.0)
        try:  # it may have stopped because of another one, which then is to be named
            self.check(what, sequence, group, [rank])
        except DistBackendError as error:
            return error
        return self._error(what, group, rank, f"is gone: {detail}")

    def timeout_error(
        self, what: str, sequence: int, group: str, ranks: Sequence[int], waited: float
    ) -> DistBackendError:
        """The error for an operation that took too long: which ranks are where."""
        time.sleep(max(0.0, 1.2 * _EVERY - waited))  # until the others have written it down
        places = self._places()
        here, others = [], []
        for r in sorted(ranks):
            number, name = places.get(r, {}).get(group, (0, ""))
            if r == self.rank or (number, name) == (sequence, what):
                here.append(r)
            elif name:
                others.append(f"rank {r} last reached {name} #{number}")
            else:
                others.append(f"rank {r} has not reached anything yet")
        told = "; ".join([*others, f"{_listed(here)} in {what} #{sequence}"])
        self._blamed = f"timed out, no answer after {waited:g} s; {told}"
        return DistBackendError(f"{what} #{sequence} of {_name(group)}: {self._blamed}")

    def _error(self, what: str, group: str, rank: int, did: str = "") -> DistBackendError:
        number, name = self._place(rank, group)
        did = self._departed.get(rank, did)
        told = name and not did.startswith(_STOPPED)
        last = f"; it last reached {name} #{number}" if told else ""
        sequence = self._reached.get(group, (0, ""))[0]
        self._blamed = f"rank {rank} {did}{last}"
        return DistBackendError(f"{what} #{sequence} of {_name(group)}: {self._blamed}")

    def _is_secondary(self, rank: int) -> bool:
        return self._departed[rank].startswith(_STOPPED)

    def _place(self, rank: int, group: str) -> tuple[int, str]:
        """How far a rank has come; one that departed is asked for once."""
        if rank not in self._last:
            found = self._places().get(rank, {})
            if rank not in self._departed:
                return found.get(group, (0, ""))
            self._last[rank] = found
        return self._last[rank].get(group, (0, ""))

    def _places(self) -> dict[int, dict[str, tuple[int, str]]]:
        """How far all ranks have come in each group, as far as the store knows."""
        try:
            other = self._store.clone()  # the store itself may be waiting for something
            found = other.below("reached/")
            if other is not self._store:
                other.close()
        except DistError:
            return {}
        return {
            int(rank): {group: tuple(place) for group, place in json.loads(text).items()}
            for rank, text in found.items()
        }

    # --- the end of this process ---

    def fail(self, message: str) -> bool:
        """Tells the others that this process ends with an error, such as "ValueError: ...".

        They hear the first line. Where it ends because of another rank, they hear about that one
        first; True then.
        """
        secondary = bool(self._blamed) and self._blamed in message
        first = message.splitlines()[0]
        self._tell(f"{_STOPPED}{self._blamed}" if secondary else f"raised {first}")
        return secondary

    def _tell(self, why: str) -> None:
        if self._told or self._thread is None:
            return
        self._told = True
        with contextlib.suppress(DistError):
            self._store.set(f"reached/{self.rank}", json.dumps(self._reached))
            self._store.compare_set(f"departed/{self.rank}", "", why)

    def close(self) -> None:
        """Leaves in order. Rank 0, with whom the store goes, waits a little for the others."""
        if self._thread is None or self._closed.is_set():
            return
        self._tell(_LEFT)
        if self.rank == 0:
            self._linger()
        self._closed.set()  # the thread ends at its next look

    def _linger(self) -> None:
        deadline = time.monotonic() + _LINGER
        with self._news:
            self._news.wait_for(
                lambda: len(self._departed) >= self.world_size - 1, deadline - time.monotonic()
            )


def _name(group: str) -> str:
    return "the default group" if group in ("0", "default") else f"group {group}"


def _listed(ranks: Sequence[int]) -> str:
    numbers = ", ".join(map(str, ranks))
    return f"rank {numbers} waits" if len(ranks) == 1 else f"ranks {numbers} wait"
