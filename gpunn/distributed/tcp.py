"""TcpComm: collective operations of CPU arrays over TCP, PyTorch's backend "gloo".

Small arrays go straight from each rank to each other one, for the shortest way. Large ones go
through shared memory where all ranks are on one machine, and else round a ring in pieces, so that
every rank sends, receives and adds at once. Sums are made in the same order on every run and are
the same on every rank; 16-bit floats are added in float32, and round a ring rounded to be sent.

Sources: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations"
(2009); Thakur, Rabenseifner and Gropp, "Optimization of collective communication operations in
MPICH" (2005).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gpunn.distributed.channel import MISFIT, Channel, Transfer
from gpunn.distributed.comm import COMBINE, Comm, Message, Request, Waiting
from gpunn.distributed.errors import DistBackendError
from gpunn.distributed.shared import BANK, Shared, attach
from gpunn.distributed.store import PrefixStore

_TINY = 1 << 14  # bytes up to which sending them takes no longer than saying that they are there
_SMALL = 1 << 16  # bytes up to which the number of steps counts, and above which the bytes do
_MEDIUM = 1 << 21  # bytes that are read in the time that it takes all ranks to meet
_FEW = 8  # ranks up to which each may send to all others
_PIECE = 1 << 18  # bytes of a message round the ring: they stay in the cache between its steps
_REDUCE, _BROADCAST, _GATHER, _SCATTER, _MEET = range(5)
_SHARE = True  # use shared memory where that is possible


class TcpComm(Comm):
    """The engine "gloo". `store` is the group's own; ranks count within the group."""

    name = "gloo"
    device_types = ("cpu",)

    def __init__(self, store: Any, rank: int, size: int, waiting: Waiting):
        super().__init__(rank, size, waiting)
        # Apart, so that a message that nobody asked for yet never meets a collective operation.
        self._collective = Channel(PrefixStore("collective", store), rank, size, waiting)
        self._messages = Channel(PrefixStore("messages", store), rank, size, waiting)
        self._count = 0
        self._store = store
        self._memory: Shared | None = None
        self._asked = False

    def _tag(self, kind: int) -> int:
        """A tag that only this collective operation has, below all others."""
        self._count += 1
        return -(self._count << 4 | kind)

    # --- messages ---

    def isend(self, x: Any, peer: int, tag: int, waiting: Waiting | None = None) -> Request:
        waiting = waiting or self.waiting
        return self._request(self._messages.send(_bytes(x), peer, tag, waiting), waiting)

    def irecv(
        self, x: Any, peer: int | None, tag: int, waiting: Waiting | None = None
    ) -> Request:
        return self._request(self._messages.receive(_bytes(x), peer, tag), waiting or self.waiting)

    def _request(self, transfer: Transfer, waiting: Waiting) -> Request:
        def test() -> bool:
            if self._messages.test(transfer) and transfer.error:
                raise self._error(transfer, waiting)
            return transfer.done

        self._messages.move_later(transfer)
        return Request(test, lambda: -1 if transfer.peer is None else transfer.peer)

    def exchange(self, messages: Sequence[Message]) -> None:
        channel = self._messages
        transfers = [
            channel.receive(_bytes(m.array), m.peer, m.tag) for m in messages if m.kind == "recv"
        ]
        for m in messages:
            if m.kind == "send":
                assert m.peer is not None
                transfers.append(channel.send(_bytes(m.array), m.peer, m.tag, self.waiting))
        self._wait(channel, transfers)

    def send(self, x: Any, peer: int, tag: int) -> None:
        self.exchange([Message("send", x, peer, tag)])

    def recv(self, x: Any, peer: int | None, tag: int) -> int:
        transfer = self._messages.receive(_bytes(x), peer, tag)
        self._wait(self._messages, [transfer])
        assert transfer.peer is not None
        return transfer.peer

    def _wait(self, channel: Channel, transfers: Iterable[Transfer]) -> None:
        for transfer in transfers:
            if not transfer.done:
                channel.until(transfer, self.waiting)
            if transfer.error:
                raise self._error(transfer, self.waiting)

    def _error(self, transfer: Transfer, waiting: Waiting) -> Exception:
        what, peer = waiting.what, transfer.peer
        if peer is None:
            return DistBackendError(f"{what}: {transfer.error}")
        if waiting.watch is None or transfer.error.startswith(MISFIT):
            return DistBackendError(f"{what}: rank {waiting.ranks[peer]}: {transfer.error}")
        return waiting.watch.gone(
            what, waiting.sequence, waiting.group, waiting.ranks[peer], transfer.error
        )

    # --- collective operations ---

    def _send(self, x: Any, peer: int, tag: int) -> Transfer:
        return self._collective.send(_bytes(x), peer, tag, self.waiting)

    def _receive(self, x: Any, peer: int, tag: int) -> Transfer:
        return self._collective.receive(_bytes(x), peer, tag)

    def _finish(self, transfers: Iterable[Transfer]) -> None:
        self._wait(self._collective, transfers)

    def all_reduce(self, x: Any, op: str) -> None:
        if self.size == 1:
            return
        tag, flat = self._tag(_REDUCE), x.reshape(-1)
        if memory := self._shared(x.nbytes):
            self._shared_reduce(memory, flat, op)
        elif x.nbytes > _SMALL:
            chunks = _chunks(flat, self.size)
            sent = self._ring_reduce(chunks, op, tag, onward=True)
            self._ring_gather(chunks, tag, sent)
        elif self.size <= _FEW:
            parts = self._swap([flat] * self.size, tag)
            flat[...] = _combined(parts, op)
        else:
            self._tree_reduce(flat, op, tag)
            self._tree_broadcast(flat, 0, tag)

    def broadcast(self, x: Any, root: int) -> None:
        if self.size == 1:
            return
        tag, flat = self._tag(_BROADCAST), x.reshape(-1)
        if memory := self._shared(x.nbytes):
            self._shared_broadcast(memory, flat, root)
        elif x.nbytes > _SMALL and self.size > 2:
            self._chain(flat, root, tag)
        else:
            self._tree_broadcast(flat, root, tag)

    def all_gather(self, out: Any, x: Any) -> None:
        out[self.rank] = x
        if self.size == 1:
            return
        tag, rows = self._tag(_GATHER), out.reshape(self.size, -1)
        if memory := self._shared(x.nbytes):
            self._shared_gather(memory, rows)
        elif x.nbytes <= _SMALL and self.size <= _FEW:
            for peer, part in enumerate(self._swap([rows[self.rank]] * self.size, tag)):
                rows[peer] = part
        else:
            chunks = [_pieces(row) for row in rows]
            sent = [self._send(p, (self.rank + 1) % self.size, tag) for p in chunks[self.rank]]
            self._ring_gather(chunks, tag, sent)

    def reduce_scatter(self, out: Any, x: Any, op: str) -> None:
        if self.size == 1:
            out[...] = x.reshape(out.shape)
            return
        tag, rows = self._tag(_SCATTER), x.reshape(self.size, -1)
        flat = out.reshape(-1)
        if memory := self._shared(out.nbytes):
            self._shared_scatter(memory, flat, rows, op)
        elif out.nbytes <= _SMALL and self.size <= _FEW:
            flat[...] = _combined(self._swap(list(rows), tag), op)
        else:
            rows = rows.copy()
            self._finish(self._ring_reduce([_pieces(row) for row in rows], op, tag, onward=False))
            flat[...] = rows[self.rank]

    def close(self) -> None:
        self._collective.close()
        self._messages.close()
        self._memory = None

    # --- through shared memory ---

    def _shared(self, size: int) -> Shared | None:
        """The group's shared memory, if its ranks can have it and so many bytes are worth it."""
        if size <= _TINY or not _SHARE:
            return None
        if not self._asked:
            self._memory = attach(self._store, self.rank, self.size, self.waiting)
        self._asked = True
        return self._memory

    def _meet(self, size: int) -> None:
        """Goes on when all ranks are here, and have written what they wrote before: `size` bytes.

        DistBackendError where that is another number on another rank.
        """
        tag, mine = self._tag(_MEET), np.array([size, -size])
        if self.size <= _FEW:
            found = self._swap([mine] * self.size, tag)
        else:
            self._tree_reduce(mine, "max", tag)
            self._tree_broadcast(mine, 0, tag)
            found = [mine, -mine[::-1]]
        for rank, (other, _) in enumerate(found):
            if other != size:
                who = f"rank {self.waiting.ranks[rank]}" if self.size <= _FEW else "another rank"
                raise DistBackendError(
                    f"{self.waiting.what}: {who} has {other} bytes where {size} are expected: "
                    "shapes or dtypes differ between ranks"
                )

    def _shared_reduce(self, memory: Shared, flat: Any, op: str) -> None:
        """Each rank combines its part of what all have written, and reads the others' results;
        or all of it, where that takes less time than to meet again."""
        for piece in _pieces(flat, BANK):
            bounds = [len(piece) * k // self.size for k in range(self.size + 1)]
            parts = [slice(a, b) for a, b in zip(bounds, bounds[1:])]
            banks, mine = memory.bank(flat.dtype, len(piece)), parts[self.rank]
            banks[self.rank][...] = piece
            self._meet(flat.nbytes)
            if piece.nbytes * (self.size - 1) <= _MEDIUM:
                _combine_all(piece, banks, op)
                continue
            _combine_all(piece[mine], [bank[mine] for bank in banks], op)
            banks[self.rank][mine] = piece[mine]
            self._meet(flat.nbytes)
            for peer, part in enumerate(parts):
                if peer != self.rank:
                    piece[part] = banks[peer][part]

    def _shared_broadcast(self, memory: Shared, flat: Any, root: int) -> None:
        for piece in _pieces(flat, BANK):
            bank = memory.bank(flat.dtype, len(piece))[root]
            if self.rank == root:
                bank[...] = piece
            self._meet(flat.nbytes)
            if self.rank != root:
                piece[...] = bank

    def _shared_gather(self, memory: Shared, rows: Any) -> None:
        step = BANK // rows.itemsize
        for start in range(0, rows.shape[1], step):
            pieces = rows[:, start : start + step]
            banks = memory.bank(rows.dtype, pieces.shape[1])
            banks[self.rank][...] = pieces[self.rank]
            self._meet(rows.nbytes)
            for peer, bank in enumerate(banks):
                if peer != self.rank:
                    pieces[peer] = bank

    def _shared_scatter(self, memory: Shared, flat: Any, rows: Any, op: str) -> None:
        step = BANK // (rows.itemsize * self.size)
        for start in range(0, len(flat), step):
            pieces = rows[:, start : start + step]
            banks = [b.reshape(pieces.shape) for b in memory.bank(rows.dtype, pieces.size)]
            banks[self.rank][...] = pieces
            self._meet(rows.nbytes)
            _combine_all(flat[start : start + step], [b[self.rank] for b in banks], op)

    # --- through sockets ---

    def _swap(self, rows: Sequence[Any], tag: int) -> list[Any]:
        """rows[p] goes to rank p; what came from each, by rank."""
        others = [r for r in range(self.size) if r != self.rank]
        parts = [np.empty_like(row) for row in rows]
        parts[self.rank] = rows[self.rank]
        transfers = [self._receive(parts[p], p, tag) for p in others]
        transfers += [self._send(rows[p], p, tag) for p in others]
        self._finish(transfers)
        return parts

    def _ring_reduce(
        self, chunks: list[list[Any]], op: str, tag: int, onward: bool
    ) -> list[Transfer]:
        """Makes this rank's chunk the combination over all ranks, and spoils the others.

        Each chunk goes once round the ring, and each rank adds its own part to it. `onward` sends
        the finished chunk on too. Returns the sends, of which some may be under way.
        """
        rank, size, right = self.rank, self.size, (self.rank + 1) % self.size
        sent = [self._send(piece, right, tag) for piece in chunks[rank - 1]]
        steps = [(rank - 2 - s) % size for s in range(size - 1)]
        todo = [(piece, k != rank or onward) for k in steps for piece in chunks[k]]
        room = np.empty_like(max((p for c in chunks for p in c), key=len, default=[]))
        for piece, send_on in todo:
            here = room[: len(piece)]
            self._finish([self._receive(here, (rank - 1) % size, tag)])
            _combine(piece, here, op)
            if send_on:
                sent.append(self._send(piece, right, tag))
        return sent

    def _ring_gather(self, chunks: list[list[Any]], tag: int, sent: list[Transfer]) -> None:
        """Gives every rank every chunk; each rank has sent its own to its right one already."""
        rank, size = self.rank, self.size
        steps = [(rank - 1 - s) % size for s in range(size - 1)]
        todo = [(piece, k != (rank + 1) % size) for k in steps for piece in chunks[k]]
        coming = [self._receive(piece, (rank - 1) % size, tag) for piece, _ in todo]
        for (piece, send_on), transfer in zip(todo, coming):
            self._finish([transfer])
            if send_on:
                sent.append(self._send(piece, (rank + 1) % size, tag))
        self._finish(sent)

    def _chain(self, flat: Any, root: int, tag: int) -> None:
        """From the root to its right neighbour, and on, piece by piece."""
        place, pieces = (self.rank - root) % self.size, _pieces(flat)
        coming = [self._receive(p, (self.rank - 1) % self.size, tag) for p in pieces if place]
        sent = []
        for number, piece in enumerate(pieces):
            if place:
                self._finish([coming[number]])
            if place < self.size - 1:
                sent.append(self._send(piece, (self.rank + 1) % self.size, tag))
        self._finish(sent)

    def _tree_broadcast(self, flat: Any, root: int, tag: int) -> None:
        """From the root to half of the ranks' first, from these two to a quarter's, and so on."""
        place, bit = (self.rank - root) % self.size, 1
        while bit < self.size and not place & bit:
            bit <<= 1
        if place:
            self._finish([self._receive(flat, (place - bit + root) % self.size, tag)])
        sent = []
        while bit := bit >> 1:
            if place + bit < self.size:
                sent.append(self._send(flat, (place + bit + root) % self.size, tag))
        self._finish(sent)

    def _tree_reduce(self, flat: Any, op: str, tag: int) -> None:
        """Makes rank 0's array the combination over all ranks, and spoils the others."""
        bit, room = 1, np.empty_like(flat)
        while bit < self.size:
            if self.rank & bit:
                self._finish([self._send(flat, self.rank - bit, tag)])
                return
            if self.rank + bit < self.size:
                self._finish([self._receive(room, self.rank + bit, tag)])
                _combine(flat, room, op)
            bit <<= 1


def _bytes(x: Any) -> memoryview:
    """The memory of a contiguous array, also of a dtype that buffers do not know (bfloat16)."""
    return memoryview(x.reshape(-1).view(np.uint8))


def _is_half(dtype: Any) -> bool:
    return dtype.itemsize == 2 and dtype.kind in "fV"


def _combine(into: Any, other: Any, op: str) -> None:
    combine = COMBINE[op]
    if _is_half(into.dtype):
        into[...] = combine(into.astype(np.float32), other.astype(np.float32))
    else:
        combine(into, other, out=into)


def _combined(parts: Sequence[Any], op: str) -> Any:
    """All parts together, in the order of their ranks; 16-bit floats are rounded once."""
    wide = np.float32 if _is_half(parts[0].dtype) else parts[0].dtype
    total = parts[0].astype(wide)
    for part in parts[1:]:
        COMBINE[op](total, part.astype(wide, copy=False), out=total)
    return total


def _combine_all(out: Any, parts: Sequence[Any], op: str) -> None:
    """out = all parts together, in the order of their ranks."""
    if _is_half(out.dtype):
        out[...] = _combined(parts, op)
        return
    COMBINE[op](parts[0], parts[1], out=out)
    for part in parts[2:]:
        COMBINE[op](out, part, out=out)


def _pieces(flat: Any, size: int = 0) -> list[Any]:
    step = max(1, (size or _PIECE) // flat.itemsize)
    return [flat[k : k + step] for k in range(0, len(flat), step)]


def _chunks(flat: Any, size: int) -> list[list[Any]]:
    """One part per rank, of almost equal sizes, each in pieces."""
    bounds = [len(flat) * k // size for k in range(size + 1)]
    return [_pieces(flat[a:b]) for a, b in zip(bounds, bounds[1:])]
