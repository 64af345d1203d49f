"""The agent: this process as a worker that calls others and serves their calls.

Workers find each other by name in the store of the job. A call takes a connection for itself until
its answer is there, and is served by the thread of that connection, so that calls may nest.
"""

from __future__ import annotations

import contextvars
import pickle
import socket
import struct
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, NamedTuple

from gpunn.distributed import sockets
from gpunn.distributed.autograd import contexts
from gpunn.distributed.autograd.contexts import Context
from gpunn.distributed.errors import DistNetworkError
from gpunn.distributed.rpc import messages
from gpunn.distributed.store import PrefixStore, Store
from gpunn.futures import Future
from gpunn.tensor import Tensor
from gpunn.threads import spawn

_HEAD = struct.Struct("<QqQ")  # bytes, context (0: none), message


class WorkerInfo(NamedTuple):
    """A worker: its `name` and its number, `id`.

    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.WorkerInfo
    """

    name: str
    id: int


class Agent:
    """This process among the workers of `store`; `share` reduces objects that stay where they are.

    `timeout`: how many seconds a call may take unless it says otherwise; 0 for ever.
    """

    def __init__(
        self, store: Store, name: str, rank: int, size: int, timeout: float, threads: int,
        share: Callable[[Any], Any],
    ):  # fmt: skip
        self.store, self.size, self.timeout, self.share = store, size, timeout, share
        self.info = WorkerInfo(name, rank)
        self._free: dict[int, list[socket.socket]] = {}
        self._lock = threading.Lock()
        self._callers = ThreadPoolExecutor(threads, thread_name_prefix="gpunn rpc")
        self._pending: set[Future[Any]] = set()
        self._closed = False
        self._listener = sockets.listen("")
        host = sockets.address_towards(getattr(_root(store), "host", "localhost"))
        port = self._listener.getsockname()[1]
        store.set(f"worker/{rank}", pickle.dumps((name, host, port)))
        spawn(self._accept, name="gpunn rpc")
        self._book = self._everyone()

    def _everyone(self) -> dict[int, tuple[str, str, int]]:
        """Name, host and port of each worker; ValueError for a name that two have."""
        found = {r: pickle.loads(self.store.get(f"worker/{r}")) for r in range(self.size)}
        names = [name for name, *_ in found.values()]
        if len(set(names)) != len(names):
            raise ValueError(f"RPC worker names must be unique, and these are not: {names}")
        return found

    def worker(self, to: Any = None) -> WorkerInfo:
        """The worker of a name, a number or a WorkerInfo; None for this one."""
        if to is None:
            return self.info
        if isinstance(to, WorkerInfo):
            return to
        for rank, (name, *_) in self._book.items():
            if to in (name, rank):
                return WorkerInfo(name, rank)
        names = ", ".join(name for name, *_ in self._book.values())
        raise RuntimeError(f"Unknown destination worker {to!r}: the workers are {names}")

    def workers(self) -> list[WorkerInfo]:
        """All workers, in order."""
        return [WorkerInfo(name, rank) for rank, (name, *_) in sorted(self._book.items())]

    # --- calling ---

    def call(self, to: WorkerInfo, task: Any, timeout: float | None = None) -> Any:
        """What `task` (a function and its arguments) gives on a worker; its error is raised."""
        if to.id == self.info.id:
            return run_task(task)
        context = contexts.current.context
        seconds = self.timeout if timeout is None or timeout < 0 else timeout
        data, number = messages.pack(task, context, self.share)
        if context is not None:
            context.workers.add(to.id)
        connection = self._connection(to)
        try:
            connection.settimeout(seconds or None)
            _send(connection, data, context, number)
            answer, _, number = _receive(connection)
        except TimeoutError:
            connection.close()
            raise RuntimeError(
                f"RPC to {to.name} ran for more than set timeout ({seconds * 1000:g} milliseconds)"
            ) from None
        except OSError as error:
            connection.close()
            raise DistNetworkError(f"RPC to {to.name}: the worker is gone ({error})") from None
        with self._lock:
            self._free.setdefault(to.id, []).append(connection)
        good, value = messages.unpack(answer, context, to.id, number)
        if not good:
            kind, text, trace = value
            raise _remote_error(kind, f"On {to.name}: {text}\n\n{trace}")
        return value

    def call_later(self, to: WorkerInfo, task: Any, timeout: float | None = None) -> Future[Any]:
        """A future of `call`, made on a thread in this thread's context."""
        future: Future[Any] = Future()
        context = contexts.current.context

        def run() -> None:
            contexts.current.context = context
            try:
                found = self.call(to, task, timeout)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(found)
            finally:
                contexts.current.context = None
                with self._lock:
                    self._pending.discard(future)

        with self._lock:
            self._pending.add(future)
        self._callers.submit(contextvars.copy_context().run, run)
        return future

    def _connection(self, to: WorkerInfo) -> socket.socket:
        with self._lock:
            free = self._free.get(to.id)
            if free:
                return free.pop()
        _, host, port = self._book[to.id]
        made = sockets.connect(host, port, 30.0)
        made.sendall(struct.pack("<q", self.info.id))
        return made

    # --- serving ---

    def _accept(self) -> None:
        while True:
            try:
                made, _ = self._listener.accept()
            except OSError:  # closed
                return
            sockets.tune(made)
            spawn(self._serve, made, name="gpunn rpc server")

    def _serve(self, connection: socket.socket) -> None:
        """Answers the calls of one connection."""
        try:
            (caller,) = struct.unpack("<q", _exactly(connection, 8))
            while True:
                data, number, message = _receive(connection)
                context = contexts.find(number, create=True) if number else None
                if context is not None:
                    context.workers.add(caller)
                answer, made = self._answer(data, context, caller, message)
                _send(connection, answer, context, made)
        except OSError:
            connection.close()

    def _answer(
        self, data: bytes, context: Context | None, caller: int, message: int
    ) -> tuple[bytes, int]:
        contexts.current.context = context
        try:
            task = messages.unpack(data, context, caller, message)
            return messages.pack((True, run_task(task)), context, self.share)
        except BaseException as error:
            found = (f"{type(error).__module__}.{type(error).__qualname__}", str(error),
                     traceback.format_exc())  # fmt: skip
            return messages.pack((False, found), None, self.share)
        finally:
            contexts.current.context = None

    # --- the end ---

    def close(self, graceful: bool = True, timeout: float = 0) -> None:
        """Ends this worker; gracefully when all workers have called it and are done calling."""
        if graceful:
            while pending := list(self._pending):
                for future in pending:
                    with future._condition:
                        future._condition.wait_for(future.done)
            limit = timedelta(seconds=timeout) if timeout else None
            self.store.barrier("shutdown", self.size, limit)
            self._last_of_all()
        self._closed = True
        self._callers.shutdown(wait=False)
        self._listener.close()
        for connections in self._free.values():
            for connection in connections:
                connection.close()


    def _last_of_all(self) -> None:
        """The worker that has the store stays until the others have heard that all are done."""
        if self.info.id:
            self.store.add("left", 1)
            return
        deadline = time.monotonic() + 5
        while self.store.add("left", 0) < self.size - 1 and time.monotonic() < deadline:
            time.sleep(0.01)


# --- tasks, wires -------------------------------------------------------------------------


def run_task(task: Any) -> Any:
    """What a function gives for its arguments; a function of `async_execution` gives a future."""
    function, args, kwargs = task
    found = function(*args, **kwargs)
    if getattr(function, "_wraps_future", False):
        if not isinstance(found, Future):
            raise RuntimeError(
                "Functions decorated with @rpc.functions.async_execution must return a "
                f"gpunn.futures.Future object, got {type(found).__name__}"
            )
        return found.wait()
    return found


def _remote_error(kind: str, text: str) -> Exception:
    """An error of the type that was raised elsewhere, where it is one of Python's own."""
    import builtins

    module, _, name = kind.rpartition(".")
    found = getattr(builtins, name, None) if module == "builtins" else None
    if isinstance(found, type) and issubclass(found, Exception):
        try:
            return found(text)
        except TypeError:  # it wants other arguments
            pass
    return RuntimeError(f"{kind}: {text}")


def _send(connection: socket.socket, data: bytes, context: Context | None, message: int) -> None:
    number = 0 if context is None else context.number
    connection.sendall(_HEAD.pack(len(data), number, message))
    connection.sendall(data)


def _receive(connection: socket.socket) -> tuple[bytes, int, int]:
    size, number, message = _HEAD.unpack(_exactly(connection, _HEAD.size))
    return bytes(_exactly(connection, size)), number, message


def _exactly(connection: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if not count:
            raise ConnectionResetError("its connection was closed")
        view = view[count:]
    return data


def _root(store: Store) -> Any:
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    return store


# --- this process's agent -----------------------------------------------------------------

_agent: Agent | None = None


def agent() -> Agent:
    """This process's agent; RuntimeError before `init_rpc`."""
    if _agent is None:
        raise RuntimeError(
            "RPC has not been initialized. Call gpunn.distributed.rpc.init_rpc first."
        )
    return _agent


def set_agent(new: Agent | None) -> None:
    """Makes an agent this process's."""
    global _agent
    _agent = new


def is_running() -> bool:
    """Whether there is an agent."""
    return _agent is not None


# --- distributed autograd -----------------------------------------------------------------


def send_gradients(
    context: Context, elsewhere: dict[tuple[int, int], dict[int, Tensor]]
) -> None:
    """Gives gradients to the workers that tensors came from; returns when all are done."""
    me = agent()
    pending = [
        me.call_later(
            me.worker(rank), (_take_gradients, (context.number, message, part), {}), 0.0
        )
        for (rank, message), part in elsewhere.items()
    ]
    for future in pending:
        future.wait()


def _take_gradients(number: int, message: int, part: dict[int, Tensor]) -> None:
    """Gradients of tensors that this worker sent: its part of the backward pass."""
    context = contexts.find(number)
    tensors = context.sent[message]
    roots = [tensors[index] for index in part]
    grads = [g.detach() for g in part.values()]  # type: ignore[attr-defined]
    send_gradients(context, contexts.run(context, roots, grads))


def release_context(number: int) -> None:
    """Forgets a context here and on the workers that took part in it."""
    workers = contexts.release(number)
    if is_running():
        me = agent()
        for rank in workers - {me.info.id}:
            me.call_later(me.worker(rank), (release_context, (number,), {}))
