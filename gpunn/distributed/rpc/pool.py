"""Threads that serve remote calls."""

from __future__ import annotations

import collections
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from gpunn.threads import spawn

_STUCK = 0.02  # seconds without a task begun, after which there is one more thread


class Pool:
    """Runs tasks on `limit` threads, and on more where those all wait for tasks in the queue.

    A task that calls another worker waits for it, and that one's task may call back: with a fixed
    number of threads such calls could wait for each other for ever.
    """

    def __init__(self, limit: int, name: str):
        self.limit, self.name = max(1, limit), name
        self._tasks: collections.deque[tuple[Callable[..., Any], Any]] = collections.deque()
        self._news = threading.Condition()
        self._threads = self._idle = self._begun = 0
        self._closed = self._helped = False

    def submit(self, run: Callable[..., Any], *args: Any) -> None:
        """Calls run(*args) on some thread."""
        with self._news:
            self._tasks.append((run, args))
            if self._idle >= len(self._tasks):
                self._news.notify()
            elif self._threads < self.limit:
                self._start()
            elif not self._helped:
                self._helped = True
                spawn(self._help, name=f"{self.name} helper")

    def close(self) -> None:
        """Ends the threads that have nothing to do, the others after their tasks."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def _start(self) -> None:
        self._threads += 1
        spawn(self._work, name=self.name)

    def _work(self) -> None:
        while True:
            with self._news:
                while not self._tasks:
                    if self._closed or self._threads > self.limit:
                        self._threads -= 1
                        return
                    self._idle += 1
                    self._news.wait()
                    self._idle -= 1
                run, args = self._tasks.popleft()
                self._begun += 1
            try:
                run(*args)
            except BaseException:  # of a callback; the thread goes on
                traceback.print_exc()
            del run, args  # a waiting thread keeps nothing alive

    def _help(self) -> None:
        """Starts a thread whenever the queue does not move."""
        while True:
            begun = self._begun
            time.sleep(_STUCK)
            with self._news:
                if not self._tasks:
                    self._helped = False
                    return
                if self._begun == begun:
                    self._start()
