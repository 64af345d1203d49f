"""Futures: results that are not there yet, of asynchronous communication and remote calls.

Source: https://docs.pytorch.org/docs/stable/futures.html
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")

__all__ = ["Future", "collect_all", "wait_all"]


class Future(Generic[T]):
    """A result that some thread will set. `devices` is accepted and changes nothing.

    A callback runs in the thread that sets the result, or at once where it is set already.
    Source: https://docs.pytorch.org/docs/stable/futures.html#torch.futures.Future

    >>> future = gpunn.futures.Future()
    >>> doubled = future.then(lambda f: 2 * f.value())
    >>> future.set_result(21)
    >>> doubled.wait()
    42
    """

    def __init__(self, *, devices: Any = None):
        self._condition = threading.Condition()
        self._done = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Future[T]], Any]] = []

    def done(self) -> bool:
        """Whether there is a result or an error.

        >>> gpunn.futures.Future().done()
        False
        """
        return self._done

    def wait(self) -> T:
        """The result, once it is there; raises the error that took its place."""
        with self._condition:
            self._condition.wait_for(lambda: self._done)
        return self._outcome()

    def value(self) -> T:
        """The result of a future that is done; RuntimeError where it is not."""
        if not self._done:
            raise RuntimeError("value() of a Future that is not done: call wait(), or check done()")
        return self._outcome()

    def _outcome(self) -> T:
        if self._error is not None:
            raise self._error
        return self._result

    def set_result(self, result: T) -> None:
        """Sets the result, once; RuntimeError where there is one already."""
        self._finish(result, None)

    def set_exception(self, result: BaseException) -> None:
        """Sets an error, which `wait` and `value` raise."""
        if not isinstance(result, BaseException):
            raise AssertionError(f"{result} is of type {type(result)}, not an Exception.")
        self._finish(None, result)

    def _finish(self, result: Any, error: BaseException | None) -> None:
        with self._condition:
            if self._done:
                raise RuntimeError("Future can only be set once: it has a result or an error")
            self._result, self._error, self._done = result, error, True
            callbacks, self._callbacks = self._callbacks, []
            self._condition.notify_all()
        for callback in callbacks:
            callback(self)

    def add_done_callback(self, callback: Callable[[Future[T]], Any]) -> None:
        """Calls `callback(self)` once the future is done; what it raises is printed.

        >>> future = gpunn.futures.Future()
        >>> future.add_done_callback(lambda f: print(f.value()))
        >>> future.set_result("here")
        here
        """

        def guarded(future: Future[T]) -> None:
            try:
                callback(future)
            except Exception:
                import traceback

                traceback.print_exc()

        self._call(guarded)

    def then(self, callback: Callable[[Future[T]], Any]) -> Future[Any]:
        """A future of `callback(self)`, which is called once this one is done.

        >>> first = gpunn.futures.Future()
        >>> second = first.then(lambda f: f.value() + 1)
        >>> first.set_result(1)
        >>> second.value()
        2
        """
        made: Future[Any] = Future()

        def run(future: Future[T]) -> None:
            try:
                found = callback(future)
            except Exception as error:
                made.set_exception(error)
            else:
                made.set_result(found)

        self._call(run)
        return made

    def _call(self, callback: Callable[[Future[T]], Any]) -> None:
        with self._condition:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback(self)


def collect_all(futures: Sequence[Future[Any]]) -> Future[list[Future[Any]]]:
    """A future of the list of `futures`, done when all of them are; it fails with the first error.

    Source: https://docs.pytorch.org/docs/stable/futures.html#torch.futures.collect_all

    >>> parts = [gpunn.futures.Future(), gpunn.futures.Future()]
    >>> both = gpunn.futures.collect_all(parts)
    >>> for k, part in enumerate(parts):
    ...     part.set_result(k)
    >>> [part.value() for part in both.wait()]
    [0, 1]
    """
    futures = list(futures)
    made: Future[list[Future[Any]]] = Future()
    lock, left = threading.Lock(), [len(futures)]

    def one_done(future: Future[Any]) -> None:
        with lock:
            left[0] -= 1
            if left[0]:
                return
        error = next((f._error for f in futures if f._error is not None), None)
        made._finish(None if error else futures, error)

    for future in futures:
        future._call(one_done)
    if not futures:
        made.set_result([])
    return made


def wait_all(futures: Sequence[Future[Any]]) -> list[Any]:
    """The results of all futures, once all are done; raises the first error.

    Source: https://docs.pytorch.org/docs/stable/futures.html#torch.futures.wait_all

    >>> future = gpunn.futures.Future()
    >>> future.set_result(3)
    >>> gpunn.futures.wait_all([future])
    [3]
    """
    return [future.wait() for future in collect_all(futures).wait()]
