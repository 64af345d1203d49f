"""A stand-in for `cupy.cuda.nccl` (CuPy 14.2): ranks are threads, memory is the host's.

What is launched next on a stream is computed at once by the emulated device, so that calls return
when they are done; with `asynchronous` set, at once. `Event` goes with it: it knows what is not
done yet.

Each communicator does what it was given in order, and an operation happens when it is the next one
of all the ranks that it needs, as NCCL's kernels do on their streams. Arguments are checked against
the signatures of CuPy's binding; operations that differ between ranks are an asynchronous error.
"""

import collections
import ctypes
import os
import threading
import time
import types

import ml_dtypes
import numpy as np

_DTYPES = {
    "INT8": (0, np.int8), "UINT8": (1, np.uint8), "INT32": (2, np.int32), "UINT32": (3, np.uint32),
    "INT64": (4, np.int64), "UINT64": (5, np.uint64), "FLOAT16": (6, np.float16),
    "FLOAT32": (7, np.float32), "FLOAT64": (8, np.float64), "BFLOAT16": (9, ml_dtypes.bfloat16),
}  # fmt: skip
_OPS = {
    "SUM": (0, np.add), "PROD": (1, np.multiply), "MAX": (2, np.maximum), "MIN": (3, np.minimum),
}  # fmt: skip
_SIGNATURES = {
    "allReduce": "sendbuf recvbuf count datatype op stream",
    "reduce": "sendbuf recvbuf count datatype op root stream",
    "broadcast": "sendbuf recvbuf count datatype root stream",
    "allGather": "sendbuf recvbuf count datatype stream",
    "reduceScatter": "sendbuf recvbuf count datatype op stream",
    "send": "sendbuf count datatype peer stream",
    "recv": "recvbuf count datatype peer stream",
}


class NcclError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(f"NCCL_ERROR_{status}")


class Entry:
    """What one rank has queued: a collective operation, or messages that progress together."""

    def __init__(self, calls):
        self.calls, self.done = calls, False


class World:
    """The communicators that met over one id."""

    def __init__(self, size):
        self.size, self.lock = size, threading.RLock()
        self.queues = [collections.deque() for _ in range(size)]
        self.errors = [0] * size
        self.complete = threading.Event()
        self.joined = 0

    def progress(self):
        """Does what can be done now."""
        while self._step():
            pass

    def _step(self):
        heads = [queue[0] if queue else None for queue in self.queues]
        if all(h is not None and h.calls[0].name not in ("send", "recv") for h in heads):
            calls = [h.calls[0] for h in heads]
            if len({c.shape() for c in calls}) > 1:
                self.errors = [3] * self.size
                return False
            _COLLECTIVES[calls[0].name](calls)
            for queue, head in zip(self.queues, heads, strict=True):
                queue.popleft()
                head.done = True
            return True
        return self._messages(heads)

    def _messages(self, heads):
        moved = False
        for rank, head in enumerate(heads):
            for call in list(head.calls if head else []):
                there = heads[call.peer] if call.name == "send" else None
                calls = there.calls if there else []
                fits = [c for c in calls if c.name == "recv" and c.peer == rank]
                if fits:
                    assert (fits[0].count, fits[0].datatype) == (call.count, call.datatype)
                    fits[0].array("recvbuf")[...] = call.array("sendbuf")
                    head.calls.remove(call)
                    there.calls.remove(fits[0])
                    moved = True
        for queue, head in zip(self.queues, heads, strict=True):
            if head is not None and not head.calls:
                queue.popleft()
                head.done = moved = True
        return moved


class Call(types.SimpleNamespace):
    """One call with its arguments by name."""

    def shape(self):
        return tuple(getattr(self, n, None) for n in ("name", "count", "datatype", "op", "root"))

    def array(self, name, times=1):
        """The memory at an address, `times` the count of elements."""
        dtype = next(np.dtype(t) for number, t in _DTYPES.values() if number == self.datatype)
        count = self.count * times
        raw = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(getattr(self, name))
        return np.frombuffer(raw, dtype)

    def combine(self, arrays):
        f = next(f for number, f in _OPS.values() if number == self.op)
        total = arrays[0].copy()
        for other in arrays[1:]:
            total = f(total, other).astype(total.dtype)
        return total


def _all_reduce(calls):
    total = calls[0].combine([c.array("sendbuf") for c in calls])
    for c in calls:
        c.array("recvbuf")[...] = total


def _reduce(calls):
    root = calls[calls[0].root]
    root.array("recvbuf")[...] = root.combine([c.array("sendbuf") for c in calls])


def _broadcast(calls):
    given = calls[calls[0].root].array("sendbuf").copy()
    for c in calls:
        c.array("recvbuf")[...] = given


def _all_gather(calls):
    everything = np.concatenate([c.array("sendbuf") for c in calls])
    for c in calls:
        c.array("recvbuf", len(calls))[...] = everything


def _reduce_scatter(calls):
    total = calls[0].combine([c.array("sendbuf", len(calls)) for c in calls])
    for c, part in zip(calls, np.split(total, len(calls)), strict=True):
        c.array("recvbuf")[...] = part


_COLLECTIVES = {
    "allReduce": _all_reduce, "reduce": _reduce, "broadcast": _broadcast,
    "allGather": _all_gather, "reduceScatter": _reduce_scatter,
}  # fmt: skip


def make(cupy):
    """The module for a stand-in `cupy`."""
    nccl = types.ModuleType("cupy.cuda.nccl")
    nccl.available, nccl.NcclError, nccl.log = True, NcclError, []
    for table in (_DTYPES, _OPS):
        for name, (number, _) in table.items():
            setattr(nccl, f"NCCL_{name}", number)
    worlds, local, streams = {}, threading.local(), collections.defaultdict(list)
    lock = threading.Lock()

    class Event(cupy.cuda.Event):
        after = ()

        def record(self, stream):
            super().record(stream)
            self.after = [entry for entry in streams[stream.ptr] if not entry.done]

        done = property(lambda self: all(e.done for e in self.after), lambda self, value: None)

    class NcclCommunicator:
        def __init__(self, ndev, commId, rank):  # noqa: N803
            assert type(commId) is bytes and len(commId) == 128 and 0 <= rank < ndev
            with lock:
                self.world = worlds.setdefault(commId, World(ndev))
                self.world.joined += 1
                if self.world.joined == ndev:
                    self.world.complete.set()
            assert self.world.complete.wait(30)
            self.rank, self.ended = rank, ""
            self.device = cupy.cuda.runtime.getDevice()

        def _call(self, name, *args):
            names = _SIGNATURES[name].split()
            if len(args) != len(names) or not all(type(a) is int for a in args):
                raise TypeError(f"{name}() takes ints {names}, got {args}")
            assert not self.ended, f"{name} after {self.ended}"
            assert cupy.cuda.runtime.getDevice() == self.device
            call = Call(name=name, **dict(zip(names, args, strict=True)))
            assert call.stream == cupy.cuda.get_current_stream().ptr != 0
            nccl.log.append((self.rank, name))
            cupy.cuda.runtime.log.append(("nccl", name, call.stream))
            if getattr(nccl, "refused", 0):
                raise NcclError(nccl.refused)
            if name in ("send", "recv") and getattr(local, "group", None) is not None:
                local.group.append((self, call))
            else:
                self._queue([call])

        def _queue(self, calls):
            entry = Entry(calls)
            with self.world.lock:
                self.world.queues[self.rank].append(entry)
                streams[calls[0].stream].append(entry)
                self.world.progress()
            deadline = time.monotonic() + 30
            while not (entry.done or nccl.asynchronous):
                assert time.monotonic() < deadline
                time.sleep(1e-4)

        def check_async_error(self):
            assert not self.ended
            if self.world.errors[self.rank]:
                raise NcclError(self.world.errors[self.rank])

        def abort(self):
            nccl.log.append((self.rank, "abort"))
            self.ended = self.ended or "abort"
            with self.world.lock:  # its kernels end, and with them what waits for them
                for entry in self.world.queues[self.rank]:
                    entry.done = True

        def destroy(self):
            nccl.log.append((self.rank, "destroy"))
            assert not self.world.queues[self.rank], "destroyed with work under way"
            self.ended = self.ended or "destroy"

    def _method(name):
        return lambda self, *args: self._call(name, *args)

    for name in _SIGNATURES:
        setattr(NcclCommunicator, name, _method(name))

    def group_start():
        local.group = []

    def group_end():
        calls, local.group = local.group, None
        for comm in dict.fromkeys(c for c, _ in calls):
            comm._queue([call for c, call in calls if c is comm])

    nccl.NcclCommunicator, nccl.Event, nccl.asynchronous = NcclCommunicator, Event, False
    nccl.get_unique_id = lambda: os.urandom(128)
    nccl.groupStart, nccl.groupEnd = group_start, group_end
    return nccl
