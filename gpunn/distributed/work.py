"""Work: an operation under way between ranks, and the thread that does a group's operations.

Operations of a group run one after the other, in the order in which they were asked for. Those
that are waited for at once run in the caller's thread when nothing is before them.
"""

from __future__ import annotations

import datetime
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

from gpunn.futures import Future
from gpunn.threads import spawn


class Work:
    """A handle of an asynchronous operation; `wait()` returns when its results may be read.

    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.Work
    """

    def __init__(self, results: list[Any], what: str = "operation"):
        self._future: Future[Any] = Future()
        self._results = results
        self._source = -1
        self.what = what

    def wait(self, timeout: datetime.timedelta | None = None) -> bool:
        """Waits until the operation is done; raises what it raised, or the timeout."""
        if timeout is not None and timeout.total_seconds() > 0:
            with self._future._condition:
                done = self._future._condition.wait_for(self.is_completed, timeout.total_seconds())
            if not done:
                from gpunn.distributed.errors import DistBackendError

                raise DistBackendError(f"{self.what}: not done after {timeout}")
        self._future.wait()
        return True

    def is_completed(self) -> bool:
        """Whether the operation is done, well or not."""
        return self._future.done()

    def is_success(self) -> bool:
        """Whether the operation is done and raised nothing."""
        return self.is_completed() and self._future._error is None

    def exception(self) -> BaseException | None:
        """What the operation raised, if anything."""
        return self._future._error

    def result(self) -> list[Any]:
        """The tensors that the operation wrote."""
        self.wait()
        return self._results

    def get_future(self) -> Future[Any]:
        """A future of `result()`."""
        return self._future

    def synchronize(self) -> None:
        """The same as `wait()`."""
        self.wait()

    def source_rank(self) -> int:
        """The sender of what was received."""
        self.wait()
        return self._source

    def _run(self, body: Callable[[], Any]) -> None:
        """Does the operation: here and now."""
        try:
            found = body()
        except BaseException as error:
            self._future.set_exception(error)
        else:
            self._source = found if isinstance(found, int) else -1
            self._future.set_result(self._results)


class Worker:
    """Runs operations in order: on a thread of its own, or the caller's where nothing waits."""

    def __init__(self, name: str):
        self._name = name
        self._order = threading.Lock()
        self._queue: queue.SimpleQueue[tuple[Work, Callable[[], Any]] | None] | None = None
        self._last: weakref.ref[Work] | None = None
        self.failed = False
        self._running = threading.RLock()
        self._thread: threading.Thread | None = None

    def later(self, work: Work, body: Callable[[], Any]) -> None:
        """Runs the operation after those before it, on the thread.

        One that a callback of another asks for comes next, so that all ranks have the same order.
        """
        if threading.current_thread() is self._thread:
            return self._do(work, body)
        with self._order:
            if self._queue is None:
                self._queue = queue.SimpleQueue()
                self._thread = spawn(self._serve, self._queue, name=self._name)
            self._last = weakref.ref(work)
            self._queue.put((work, body))

    def now(self, work: Work, body: Callable[[], Any]) -> None:
        """Runs the operation after those before it, and returns when it is done."""
        with self._order:
            last = None if self._last is None else self._last()
            mine = threading.current_thread() is self._thread
            idle = mine or last is None or last.is_completed()
            if idle:
                self._running.acquire()
        if not idle:
            self.later(work, body)
        else:
            try:
                self._do(work, body)
            finally:
                self._running.release()
        work.wait()

    def _do(self, work: Work, body: Callable[[], Any]) -> None:
        work._run(body)
        self.failed = self.failed or not work.is_success()

    def _serve(self, tasks: queue.SimpleQueue[Any]) -> None:
        while (item := tasks.get()) is not None:
            with self._running:
                self._do(*item)
            del item  # the arrays of an operation live no longer than it

    def close(self) -> None:
        """Ends the thread, and returns when what is queued is done."""
        with self._order:
            found, self._queue, self._last = self._queue, None, None
        if found is not None:
            found.put(None)
            assert self._thread is not None
            if threading.current_thread() is not self._thread:
                self._thread.join()
