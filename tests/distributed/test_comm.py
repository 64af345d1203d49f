"""What every engine has from the few things that it must offer, and how it waits."""

import time

import numpy as np
import pytest

from gpunn.distributed.comm import COMBINE, Comm, Message, Request, Waiting
from gpunn.distributed.errors import DistBackendError
from gpunn.distributed.store import HashStore
from tests.distributed.test_tcp import every


class Board(Comm):
    """An engine that offers no more than it must: everything is pinned to a common board."""

    def __init__(self, board, rank, size):
        super().__init__(rank, size, Waiting(None, range(size)))
        self.board, self.steps, self.sent = board, 0, {}
        self.waiting.begin("step", 1, 20.0)

    def _swap(self, x):
        self.steps += 1
        self.board.set(f"{self.steps}/{self.rank}", x.tobytes())
        parts = [self.board.get(f"{self.steps}/{r}") for r in range(self.size)]
        return [np.frombuffer(p, x.dtype).reshape(x.shape) for p in parts]

    def all_reduce(self, x, op):
        parts = self._swap(x)
        total = parts[0].copy()
        for part in parts[1:]:
            COMBINE[op](total, part, out=total)
        x[...] = total

    def broadcast(self, x, root):
        x[...] = self._swap(x)[root]

    def all_gather(self, out, x):
        out[...] = np.stack(self._swap(x))

    def reduce_scatter(self, out, x, op):
        self.all_reduce(y := x.copy(), op)
        out[...] = y[self.rank]

    def isend(self, x, peer, tag, waiting=None):
        k = self.sent[peer, tag] = self.sent.get((peer, tag), -1) + 1
        self.board.set(f"{self.rank}>{peer}/{tag}/{k}", x.tobytes())
        return Request(lambda: True, lambda: self.rank)

    def irecv(self, x, peer, tag, waiting=None):
        k = self.sent["from", peer, tag] = self.sent.get(("from", peer, tag), -1) + 1
        key = f"{peer}>{self.rank}/{tag}/{k}"

        def test():
            if self.board.check([key]):
                x[...] = np.frombuffer(self.board.get(key), x.dtype).reshape(x.shape)
                return True
            return False

        return Request(test, lambda: peer)

    def close(self):
        self.closed = True


@pytest.fixture(params=[1, 2, 3])
def made(request):
    board = HashStore()
    return [Board(board, rank, request.param) for rank in range(request.param)]


def test_what_is_made_of_the_rest(made):
    size = len(made)

    def body(comm):
        mine, root = np.full(3, comm.rank + 1.0), size - 1
        x = mine.copy()
        comm.reduce(x, root, "sum")
        outs = [np.zeros(3) for _ in range(size)]
        comm.gather(outs if comm.rank == root else None, mine, root)
        part = np.zeros(3)
        comm.scatter(part, [mine * k for k in range(size)] if comm.rank == root else None, root)
        swapped = [np.zeros(2) for _ in range(size)]
        comm.all_to_all(swapped, [np.full(2, 10.0 * comm.rank + k) for k in range(size)])
        comm.barrier()
        return x, outs, part, swapped

    for rank, (x, outs, part, swapped) in enumerate(every(made, body)):
        last = rank == size - 1
        assert x[0] == (size * (size + 1) / 2 if last else rank + 1)  # the others keep theirs
        assert [o[0] for o in outs] == ([r + 1.0 for r in range(size)] if last else [0.0] * size)
        assert part[0] == size * rank
        assert [s[0] for s in swapped] == [10.0 * r + rank for r in range(size)]


def test_messages_that_progress_together(made):
    def body(comm):
        others = [r for r in range(comm.size) if r != comm.rank]
        rooms = [np.zeros(1) for _ in others]
        comm.exchange(
            [Message("recv", room, r, 4) for room, r in zip(rooms, others, strict=True)]
            + [Message("send", np.full(1, float(comm.rank)), r, 4) for r in others]
        )
        if comm.size > 1 and comm.rank < 2:
            comm.send(np.full(1, 5.0), 1 - comm.rank, 0)
            assert comm.recv(x := np.zeros(1), 1 - comm.rank, 0) == 1 - comm.rank and x[0] == 5
        return [room[0] for room in rooms] == others

    assert all(every(made, body))
    made[0].abort()
    assert made[0].closed
    with pytest.raises(DistBackendError, match="step: the process group was aborted"):
        made[0].waiting.poll(lambda: False)
    with pytest.raises(DistBackendError, match="barrier: the process group was aborted"):
        made[0].waiting.begin("barrier", 2, 1.0)


class Watch:
    """Says that a rank is gone after so many looks."""

    def __init__(self, looks=10**9):
        self.looks, self.noted = looks, []

    def reached(self, *place):
        self.noted.append(place)

    def check(self, what, sequence, group, ranks):
        self.looks -= 1
        if self.looks < 0:
            raise DistBackendError(f"{what} #{sequence} of {group}: one of {ranks} is gone")

    def timeout_error(self, what, sequence, group, ranks, waited):
        return DistBackendError(f"{what} #{sequence}: no answer after {waited:g} s from {ranks}")


def test_waiting_ends_with_the_answer_a_lost_rank_or_the_deadline():
    watch = Watch()
    waiting = Waiting(watch, [3, 4], "group")
    waiting.begin("all_reduce", 7, 0.2)
    assert watch.noted == [("group", 7, "all_reduce")]
    assert waiting.poll(lambda: "here") == "here"
    answers = iter([0, 0, None, [], "late"])
    assert waiting.poll(lambda: next(answers)) == "late"
    with pytest.raises(DistBackendError, match=r"#7: no answer after 0.2 s from \[3, 4\]"):
        waiting.poll(lambda: False)
    waiting.begin("broadcast", 8, 60)
    watch.looks = 1
    start = time.monotonic()
    with pytest.raises(DistBackendError, match=r"broadcast #8 of group: one of \[3, 4\] is gone"):
        waiting.poll(lambda: False)
    assert time.monotonic() - start < 30


def test_waiting_beside_the_operations_has_its_own_time_and_is_not_published():
    watch = Watch()
    waiting = Waiting(watch, [0, 1])
    waiting.begin("all_reduce", 1, 0.0)
    beside = waiting.aside("recv", 1, 60.0)
    assert (beside.what, beside.timeout, beside.ranks) == ("recv", 60.0, [0, 1])
    beside.check()
    assert len(watch.noted) == 1
    with pytest.raises(DistBackendError):
        waiting.poll(lambda: False)


def test_nobody_watched():
    waiting = Waiting(None, [0])
    waiting.check()  # no deadline before the first operation
    waiting.begin("send", 1, -1.0)
    with pytest.raises(DistBackendError, match="send: no answer after -1 s"):
        waiting.check()
