"""The agent: this process as a worker that calls others and serves their calls.

Workers find each other by name in the store of the job. A worker calls another over one connection;
a thread reads the answers, which may come in any order. Calls are served on the threads of a pool.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import pickle
import socket
import threading
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from gpunn.distributed import sockets
from gpunn.distributed.autograd import contexts
from gpunn.distributed.autograd.contexts import Context
from gpunn.distributed.errors import DistNetworkError, DistStoreError
from gpunn.distributed.rpc import connection, messages
from gpunn.distributed.rpc.connection import Connection, Frame
from gpunn.distributed.rpc.pool import Pool
from gpunn.distributed.store import PrefixStore, Store
from gpunn.futures import Future
from gpunn.threads import spawn

_HERE: Any = object()  # the context of the thread that calls


class WorkerInfo(NamedTuple):
    """A worker: its `name` and its number, `id`.

    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.WorkerInfo
    """

    name: str
    id: int

    def __repr__(self) -> str:
        return f"WorkerInfo(id={self.id}, name={self.name})"


class _Call:
    """A call that has no answer yet. `arrived(frame, error)` is called once."""

    __slots__ = ("arrived", "deadline", "seconds", "sent", "to", "via")

    def __init__(self, to: WorkerInfo, seconds: float, arrived: Callable[..., Any]):
        self.to, self.seconds, self.arrived = to, seconds, arrived
        self.deadline = time.monotonic() + seconds if seconds else math.inf
        self.via: Connection | None = None
        self.sent = False


class Agent:
    """This process among the workers of `store`; `share` reduces objects that stay where they are.

    `timeout`: how many seconds a call may take unless it says otherwise; 0 for ever.
    ValueError for a name that two workers have.
    """

    def __init__(
        self, store: Store, name: str, rank: int, size: int, timeout: float, threads: int,
        share: Callable[[Any], Any],
    ):  # fmt: skip
        self.store, self.size, self.timeout, self.share = store, size, timeout, share
        self.info = WorkerInfo(name, rank)
        self._secret = connection.secret_of(store)
        self._pool = Pool(threads, "gpunn rpc")
        self._numbers = itertools.count(1)
        self._news = threading.Condition()  # guards what follows
        self._calls: dict[int, _Call] = {}
        self._connections: dict[int, Connection] = {}
        self._served: set[Connection] = set()
        self._busy, self._begun, self._look = 0, 0, 0.0
        self._closed = False
        self._connecting = threading.Lock()
        address = sockets.address_towards(getattr(_root(store), "host", "localhost"))
        self._listener = sockets.listen(address if sockets.is_loopback(address) else "")
        try:
            # A connection of its own: its end tells the others that this process has ended, and
            # while it waits the store answers others here.
            self._signed = store.clone()
            self._signed.hello(f"gone/{rank}", b"its process has ended")
            here = (name, address, self._listener.getsockname()[1])
            store.set(f"worker/{rank}", json.dumps(here))
            self._book = self._everyone()
        except BaseException:
            self._listener.close()
            raise
        spawn(self._accept, name="gpunn rpc")
        spawn(self._keep_time, name="gpunn rpc clock")

    def _everyone(self) -> dict[int, tuple[str, str, int]]:
        """Name, host and port of each worker; ValueError for a name that two have."""
        found = {r: json.loads(self.store.get(f"worker/{r}")) for r in range(self.size)}
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
        raise RuntimeError(
            f"{self.info.name} could not find destination {'id' if isinstance(to, int) else 'name'}"
            f" {to}. Unknown destination worker: the workers are {names}"
        )

    def workers(self) -> list[WorkerInfo]:
        """All workers, in order."""
        return [WorkerInfo(name, rank) for rank, (name, *_) in sorted(self._book.items())]

    # --- calling ---

    def call(self, to: WorkerInfo, task: Any, timeout: float | None = None,
             context: Context | None = _HERE) -> Any:  # fmt: skip
        """What `task` (a function and its arguments) gives on a worker; its error is raised."""
        context = contexts.current.context if context is _HERE else context
        answer: Future[Frame] = Future()

        def arrived(frame: Frame | None, error: Exception | None) -> None:
            answer._finish(frame, error)

        self._begin(to, task, timeout, context, arrived)
        return _opened(answer.wait(), context, to)

    def call_later(self, to: WorkerInfo, task: Any, timeout: float | None = None,
                   context: Context | None = _HERE) -> Future[Any]:  # fmt: skip
        """A future of `call`; its callbacks run on a thread of the pool."""
        context = contexts.current.context if context is _HERE else context
        future: Future[Any] = Future()

        def arrived(frame: Frame | None, error: Exception | None) -> None:
            self._pool.submit(settle, frame, error)

        def settle(frame: Any, error: Exception | None) -> None:
            if error is None:
                try:
                    value = _opened(frame, context, to)
                except Exception as found:
                    error = found
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

        self._begin(to, task, timeout, context, arrived)
        return future

    def _begin(
        self, to: WorkerInfo, task: Any, timeout: float | None, context: Context | None,
        arrived: Callable[..., Any],
    ) -> None:  # fmt: skip
        """Sends a call; arguments are what they are now."""
        seconds = self.timeout if timeout is None or timeout < 0 else timeout
        parts, message = messages.pack(task, context, self.share)
        if context is not None:
            context.workers.add(to.id)
        call, number = _Call(to, seconds, arrived), next(self._numbers)
        with self._news:
            self._calls[number] = call
            self._begun += 1
            if call.deadline < self._look:
                self._news.notify_all()
        try:
            call.via = self._connection(to)
            call.via.send(Frame(number, 0 if context is None else context.number, message, parts))
            call.sent = True
        except (OSError, DistNetworkError) as error:
            self._end(number, error=_gone(to, error))
        except BaseException:
            self._end(number)
            raise

    def _connection(self, to: WorkerInfo) -> Connection:
        found = self._connections.get(to.id)
        if found is not None and not found.closed:
            return found
        with self._connecting:
            if self._closed:
                raise ConnectionError("this worker has shut down")
            found = self._connections.get(to.id)
            if found is None or found.closed:
                _, host, port = self._book[to.id]
                found = connection.connect(host, port, self.info.id, self._secret)
                self._connections[to.id] = found
                spawn(self._read, found, to, name="gpunn rpc answers")
        return found

    def _read(self, found: Connection, to: WorkerInfo) -> None:
        """Takes the answers of one worker until the connection ends: then no more will come."""
        try:
            while True:
                frame = found.receive()
                self._end(frame.call, frame)
                del frame  # nothing that was answered stays while this waits
        except Exception as error:  # no memory for an answer, too
            found.close()
            with self._news:
                if self._connections.get(to.id) is found:
                    del self._connections[to.id]
                lost = [number for number, call in self._calls.items() if call.via is found]
            for number in lost:
                self._end(number, error=_gone(to, error))

    def _end(self, number: int, frame: Any = None, error: Exception | None = None) -> None:
        """A call has its answer, or an error; later ones are not heard."""
        with self._news:
            call = self._calls.pop(number, None)
        if call is not None and (frame is not None or error is not None):
            call.arrived(frame, error)

    def _keep_time(self) -> None:
        """Ends calls that take too long."""
        while not self._closed:
            with self._news:
                now = time.monotonic()
                nearest = min((c.deadline for c in self._calls.values()), default=math.inf)
                self._look = min(nearest, now + 1.0)
                self._news.wait(self._look - now)
            self._end_late()

    def _end_late(self) -> None:
        with self._news:
            now = time.monotonic()
            late = [(n, c) for n, c in self._calls.items() if c.deadline <= now]
        for number, call in late:
            self._end(number, error=RuntimeError(
                f"RPC ran for more than set timeout ({call.seconds * 1000:g} ms) and will now "
                f"be marked with an error: no answer from {call.to.name}"
            ))  # fmt: skip
            if not call.sent and call.via is not None:  # its thread is stuck in sending
                call.via.close()

    # --- serving ---

    def _accept(self) -> None:
        while True:
            try:
                made, _ = self._listener.accept()
            except OSError:  # closed
                return
            spawn(self._serve, Connection(sockets.tune(made)), name="gpunn rpc calls")

    def _serve(self, made: Connection) -> None:
        """Takes the calls of one connection."""
        try:
            self._served.add(made)
            caller = made.welcome(self._secret)
            while not self._closed:
                frame = made.receive()
                self._count(1)
                self._pool.submit(self._answer, made, caller, frame)
                del frame
        except (OSError, MemoryError):
            pass
        finally:
            self._served.discard(made)
            made.close()

    def _answer(self, made: Connection, caller: int, frame: Frame) -> None:
        context = contexts.find(frame.context, create=True) if frame.context else None

        def reply(future: Future[Any]) -> None:
            try:
                parts, message = self._packed(future, context)
                with contextlib.suppress(OSError):  # the caller has gone
                    made.send(Frame(frame.call, frame.context, message, parts))
            finally:
                self._count(-1)

        if context is not None:
            context.workers.add(caller)
        content = frame.parts, context, caller, frame.message
        self._run(lambda: messages.unpack(*content), context)._call(reply)

    def _packed(self, future: Future[Any], context: Context | None) -> tuple[list[Any], int]:
        """What a call gave, as its answer."""
        try:
            return messages.pack((True, future.value()), context, self.share)
        except BaseException as error:
            text = "".join(traceback.format_exception(error))
            told = (_pickled_type(error), type(error).__qualname__,
                    f"On {self.info!r}:\n{error!r}\n{text}")  # fmt: skip
            return messages.pack((False, told), None, self.share)

    def _run(self, task: Callable[[], Any], context: Context | None) -> Future[Any]:
        """A future of what the task that `task()` gives gives, run in a context."""
        future: Future[Any] = Future()
        before, contexts.current.context = contexts.current.context, context
        try:
            found = run_task(task())
            if isinstance(found, Future):
                return found
            future.set_result(found)
        except BaseException as error:
            future.set_exception(error)
        finally:
            contexts.current.context = before
        return future

    def run_later(self, task: Any, future: Future[Any]) -> None:
        """Sets a future to what a task gives here, in this thread's context."""
        context = contexts.current.context

        def done(found: Future[Any]) -> None:
            future._finish(found._result, found._error)
            self._count(-1)

        self._count(1)
        self._pool.submit(lambda: self._run(lambda: task, context)._call(done))

    def _count(self, more: int) -> None:
        with self._news:
            self._busy += more
            self._begun += max(0, more)
            if not self._busy:
                self._news.notify_all()

    # --- the end ---

    def close(self, graceful: bool = True, timeout: float = 0) -> None:
        """Ends this worker; gracefully when all workers have called it and no call is under way."""
        try:
            if graceful:
                self._quiet(time.monotonic() + timeout if timeout else math.inf)
        finally:
            with contextlib.suppress(DistStoreError, DistNetworkError):
                if not graceful:
                    self.store.set(f"gone/{self.info.id}", "it called shutdown(graceful=False)")
                self._signed.goodbye()
                if graceful:
                    self._last_of_all()
            self._disconnect()

    def _disconnect(self) -> None:
        with self._connecting:
            self._closed = True
        self._pool.close()
        with contextlib.suppress(OSError):  # wakes the thread that accepts
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for made in [*self._connections.values(), *self._served]:
            made.close()
        with self._news:
            self._news.notify_all()
        if _root(self._signed) is not _root(self.store):
            self._signed.close()

    def _quiet(self, deadline: float) -> None:
        """Returns when no worker is busy: none was in two rounds, with no call begun between."""
        before = -1
        for turn in itertools.count():
            with self._news:
                while self._busy or self._calls:
                    if time.monotonic() > deadline:
                        raise RuntimeError("shutdown: calls are still under way after the timeout")
                    self._news.wait(0.01)
            key = f"quiet/{turn}"
            self.store.add(f"{key}/begun", self._begun)
            self._meet(key, deadline)
            total = self.store.add(f"{key}/begun", 0)
            if total == before:
                return
            before = total

    def _meet(self, key: str, deadline: float) -> None:
        """A barrier, however long it takes; RuntimeError where a worker has gone instead."""
        if self.store.add(f"{key}/count", 1) == self.size:
            self.store.set(f"{key}/done", "1")
        while True:
            try:
                return self._signed.wait([f"{key}/done"], timedelta(seconds=1))
            except DistNetworkError:
                raise
            except DistStoreError:
                self._check_all_there()
                if time.monotonic() > deadline:
                    raise

    def _check_all_there(self) -> None:
        for rank, why in self._signed.below("gone/").items():
            raise RuntimeError(f"shutdown: {self._book[int(rank)][0]} has gone: {why.decode()}")

    def _last_of_all(self) -> None:
        """The worker that has the store stays until the others have heard that all are done."""
        if self.info.id:
            self.store.add("left", 1)
            return
        deadline = time.monotonic() + 5
        while self.store.add("left", 0) < self.size - 1 and time.monotonic() < deadline:
            time.sleep(0.01)


# --- tasks, errors ------------------------------------------------------------------------


def run_task(task: Any) -> Any:
    """What a function gives for its arguments: a Future from a function of `async_execution`."""
    function, args, kwargs = task
    found = function(*args, **kwargs)
    kind = getattr(function, "_wraps_future", None)
    if kind == "always" and not isinstance(found, Future):
        raise RuntimeError(
            "Functions decorated with @rpc.functions.async_execution must return a "
            f"gpunn.futures.Future object, got {type(found).__name__}"
        )
    if kind is None and isinstance(found, Future):
        raise RuntimeError(
            "A Future cannot be sent to another worker: mark the function that returns it with "
            "@rpc.functions.async_execution"
        )
    return found


def later(function: Callable[..., Any], kind: str = "maybe") -> Callable[..., Any]:
    """Marks a function whose answer is the result of the Future that it returns."""
    function._wraps_future = kind  # type: ignore[attr-defined]
    return function


def _opened(frame: Frame, context: Context | None, to: WorkerInfo) -> Any:
    """The value of an answer; raises the error in its place."""
    good, value = messages.unpack(frame.parts, context, to.id, frame.message)
    if not good:
        raise _remote_error(*value)
    return value


def _pickled_type(error: BaseException) -> bytes:
    try:
        return pickle.dumps(type(error))
    except Exception:  # a class inside of a function
        return b""


def _remote_error(kind: bytes, name: str, text: str) -> Exception:
    """An error of the type that was raised elsewhere, where it can be made of a text."""
    try:
        made = pickle.loads(kind)(text)
    except Exception as error:
        made = error
    if isinstance(made, Exception) and type(made).__qualname__ == name:
        return made
    return RuntimeError(
        f"Failed to create original exception type {name}. Original exception on remote side was "
        f"{text}"
    )


def _gone(to: WorkerInfo, error: BaseException) -> DistNetworkError:
    why = str(error) or type(error).__name__
    return DistNetworkError(f"RPC to {to.name}: the worker is gone ({why})")


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
