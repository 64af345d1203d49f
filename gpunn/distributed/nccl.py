"""The engine over NCCL, through CuPy's thin binding of it, for arrays of GPUs.

Operations are queued on a stream of the engine's own, which waits for the caller's stream before
each; `Work.wait()` lets the caller's stream wait in turn, and the host goes on. A thread asks
whether what is queued is done: a rank that is gone or late ends it with an error.
"""

from __future__ import annotations

import importlib
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import numpy as np

from gpunn import cuda
from gpunn.device import resolve
from gpunn.distributed.comm import Comm, Message, Request, Waiting
from gpunn.distributed.errors import DistBackendError, DistStoreError
from gpunn.distributed.work import Work
from gpunn.dtypes import bfloat16
from gpunn.threads import spawn

_INSTALL = (
    "the nccl backend needs a GPU and NCCL: pip install 'gpunn[dist]' beside 'gpunn[cuda12]', or "
    "'nvidia-nccl-cu13' beside 'gpunn[cuda13]'"
)
_BOOL = np.dtype(np.bool_)


def module() -> Any:
    """CuPy's binding; RuntimeError with what to install where NCCL is not there."""
    if not cuda.is_available():
        raise RuntimeError(f"{_INSTALL} (gpunn.doctor() says why there is no GPU)")
    name = resolve("cuda").xp.__name__
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy warns where there is no library: ours is an error
        found = importlib.import_module(f"{name}.cuda.nccl")
    if not found.available:
        raise RuntimeError(_INSTALL)
    return found


def is_installed() -> bool:
    """Whether there are a GPU and NCCL."""
    try:
        module()
    except (RuntimeError, ImportError):
        return False
    return True


class _StreamWork(Work):
    """An operation queued on the engine's stream, and what the watching thread needs of it."""

    event: Any = None
    waiting: Waiting  # until when, for whom
    body: Any = None  # holds the arrays until they are done with
    stream: Any = None  # the caller's

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Lets the current stream wait; with a timeout the host waits too."""
        if timeout is not None:
            return super().wait(timeout)
        if self._future.done():
            self._future.wait()  # raises what went wrong
        elif self.event is not None:
            self.event.wait(cuda.current_stream())
        return True


class NcclComm(Comm):
    """The engine of a group over a NCCL communicator of the current device."""

    name = "nccl"
    device_types = ("cuda",)
    deferred = True

    def __init__(self, store: Any, rank: int, size: int, waiting: Waiting):
        super().__init__(rank, size, waiting)
        self._nccl = module()
        self._device = self.gpu = cuda.current_device()
        self._comm = self._connect(store)
        self._stream = cuda.Stream(self._device)
        self._queued: deque[_StreamWork] = deque()
        self._order, self._changed = threading.Lock(), threading.Condition()
        self._failed: BaseException | None = None
        self._closed = False
        self._watching = spawn(self._watch, name="gpunn nccl")

    def _connect(self, store: Any) -> Any:
        """The communicator: NCCL waits for all ranks, so a thread of its own does, and we watch."""
        if self.rank == 0:
            store.set("id", self._nccl.get_unique_id())
        while True:
            try:
                store.wait(["id"], timedelta(seconds=0.2))
                break
            except DistStoreError:
                self.waiting.check()
        identity, found = store.get("id"), []

        def connect() -> None:
            try:
                with cuda.device(self._device):
                    found.append(self._nccl.NcclCommunicator(self.size, identity, self.rank))
            except Exception as error:
                found.append(error)

        spawn(connect, name="gpunn nccl connect")
        self.waiting.poll(lambda: found)
        if isinstance(found[0], Exception):
            raise DistBackendError(f"NCCL could not connect the ranks: {found[0]}") from found[0]
        return found[0]

    # --- what is queued ---

    def enqueue(
        self, body: Callable[[], Any], results: list[Any], what: str,
        waiting: Waiting | None = None,
    ) -> _StreamWork:  # fmt: skip
        """Queues what `body` launches after what the current stream has so far."""
        work = _StreamWork(results, what)
        with self._order, cuda.device(self._device):
            if self._failed is not None:
                raise self._failed
            work.body, work.stream = body, cuda.current_stream()
            self._stream.wait_stream(work.stream)
            try:
                with self._stream:
                    body()
            except self._nccl.NcclError as error:
                raise DistBackendError(f"{what}: NCCL says: {error}") from error
            now = self.waiting  # the operation that `body` began
            work.waiting = waiting or now.aside(now.what, now.sequence, now.timeout)
            work.event = self._stream.record_event()
            with self._changed:
                self._queued.append(work)
                self._changed.notify_all()
        return work

    def _watch(self) -> None:
        """Ends work that is done, and all of it where a rank is gone or late."""
        with cuda.device(self._device):
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._queued or self._closed)
                    if not self._queued:
                        return
                    work = self._queued[0]
                try:
                    while not self._is_done(work):
                        work.waiting.check()
                        time.sleep(5e-4)
                except Exception as error:
                    self._fail(error)
                else:
                    self._finish(work)

    def _is_done(self, work: _StreamWork) -> bool:
        """Whether work is done, or was ended; DistBackendError for an error of NCCL's own."""
        if work.is_completed() or work.event.query():
            return True
        try:
            self._comm.check_async_error()
        except self._nccl.NcclError as error:
            raise DistBackendError(f"{work.what}: NCCL says: {error}") from error
        return False

    def _finish(self, work: _StreamWork) -> None:
        """Callbacks of work that is done launch what they do on the stream that asked for it."""
        with self._changed:
            if not (self._queued and self._queued[0] is work):
                return  # it was ended
            self._queued.popleft()
            self._changed.notify_all()
        work.body = None
        with work.stream:
            work._future.set_result(work._results)

    def _fail(self, error: BaseException) -> None:
        """Ends everything that is queued with the error; kernels that wait for a rank, too."""
        with self._changed:
            first, self._failed = self._failed is None, self._failed or error
            queued = list(self._queued)
            self._queued.clear()
            self._changed.notify_all()
        for work in queued:
            work._future.set_exception(error)
        if first:
            self._comm.abort()

    def _kind(self, dtype: np.dtype) -> tuple[int, int]:
        """NCCL's number of a dtype, and how many of it make one element."""
        nccl, table = self._nccl, {"f4": "FLOAT32", "f8": "FLOAT64", "f2": "FLOAT16",
                                   "i1": "INT8", "u1": "UINT8", "i4": "INT32", "u4": "UINT32",
                                   "i8": "INT64", "u8": "UINT64", "b1": "UINT8"}  # fmt: skip
        if dtype == bfloat16.numpy:
            return nccl.NCCL_BFLOAT16, 1
        if dtype.kind == "c":
            return (nccl.NCCL_FLOAT32 if dtype.itemsize == 8 else nccl.NCCL_FLOAT64), 2
        name = table.get(f"{dtype.kind}{dtype.itemsize}")
        if name is None:
            raise TypeError(f"Input tensor data type is not supported for NCCL: {dtype}")
        return getattr(nccl, f"NCCL_{name}"), 1

    def _op(self, op: str, dtype: np.dtype) -> int:
        names = {"sum": "SUM", "product": "PROD", "min": "MIN", "max": "MAX"}
        if op not in names:
            raise RuntimeError(f"Cannot use ReduceOp.{op.upper()} with NCCL")
        if dtype == _BOOL and op in ("sum", "product"):
            op = "max" if op == "sum" else "min"
        return getattr(self._nccl, f"NCCL_{names[op]}")

    def _count(self, x: Any) -> tuple[int, int]:
        """(elements, NCCL's number of their dtype)."""
        number, each = self._kind(x.dtype)
        return x.size * each, number

    @property
    def _raw_stream(self) -> int:
        return self._stream.cuda_stream

    # --- operations: launched on the engine's stream by `enqueue` ---

    def all_reduce(self, x: Any, op: str) -> None:
        self._comm.allReduce(x.data.ptr, x.data.ptr, *self._count(x), self._op(op, x.dtype),
                             self._raw_stream)  # fmt: skip

    def reduce(self, x: Any, root: int, op: str) -> None:
        self._comm.reduce(x.data.ptr, x.data.ptr, *self._count(x), self._op(op, x.dtype), root,
                          self._raw_stream)  # fmt: skip

    def broadcast(self, x: Any, root: int) -> None:
        self._comm.broadcast(x.data.ptr, x.data.ptr, *self._count(x), root, self._raw_stream)

    def all_gather(self, out: Any, x: Any) -> None:
        self._comm.allGather(x.data.ptr, out.data.ptr, *self._count(x), self._raw_stream)

    def reduce_scatter(self, out: Any, x: Any, op: str) -> None:
        self._comm.reduceScatter(x.data.ptr, out.data.ptr, *self._count(out),
                                 self._op(op, x.dtype), self._raw_stream)  # fmt: skip

    def exchange(self, messages: Sequence[Message]) -> None:
        if any(m.peer is None for m in messages):
            raise RuntimeError("recv: NCCL has to know the sender: give src=")
        self._nccl.groupStart()
        try:
            for m in messages:
                move = self._comm.send if m.kind == "send" else self._comm.recv
                move(m.array.data.ptr, *self._count(m.array), m.peer, self._raw_stream)
        finally:
            self._nccl.groupEnd()

    def send(self, x: Any, peer: int, tag: int) -> None:
        self.exchange([Message("send", x, peer, tag)])

    def recv(self, x: Any, peer: int | None, tag: int) -> int:
        self.exchange([Message("recv", x, peer, tag)])
        return -1 if peer is None else peer

    def isend(self, x: Any, peer: int, tag: int, waiting: Waiting | None = None) -> Request:
        work = self.enqueue(lambda: self.send(x, peer, tag), [], "send", waiting)
        return Request(lambda: self._ended(work), lambda: self.rank)

    def irecv(
        self, x: Any, peer: int | None, tag: int, waiting: Waiting | None = None
    ) -> Request:
        work = self.enqueue(lambda: self.recv(x, peer, tag), [], "recv", waiting)
        return Request(lambda: self._ended(work), lambda: self.rank if peer is None else peer)

    @staticmethod
    def _ended(work: _StreamWork) -> bool:
        """Whether work is done; raises what ended it."""
        if work.is_completed():
            work._future.wait()
        return work.is_completed()

    def barrier(self) -> None:
        xp = resolve(f"cuda:{self._device}").xp
        self.all_reduce(xp.zeros(1, np.int32), "sum")

    def close(self) -> None:
        """When what is queued is done, or was ended: by its deadline at the latest."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        if threading.current_thread() is not self._watching:
            self._watching.join()
        if self._failed is None:
            self._comm.destroy()

    def abort(self) -> None:
        self._fail(DistBackendError("the process group was aborted"))
