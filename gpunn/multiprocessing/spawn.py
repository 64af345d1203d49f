"""Starts a function in several processes, and tells which of them failed first and why.

Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#spawning-subprocesses
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing import connection
from typing import Any

_LONGEST = 16_000  # characters of a traceback: what a pipe holds that nobody reads yet
_PATIENCE = 30.0  # seconds from asking a process to end to making it


class ProcessException(Exception):  # noqa: N818 (PyTorch's name)
    """A process failed: `error_index` and `error_pid` say which, `msg` how.

    Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#spawning-subprocesses
    """

    def __init__(self, msg: str, error_index: int, error_pid: int):
        super().__init__(msg)
        self.msg, self.error_index, self.error_pid = msg, error_index, error_pid

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.msg, self.error_index, self.error_pid)


class ProcessRaisedException(ProcessException):
    """A process ended with an exception, whose traceback is in the message.

    Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#spawning-subprocesses
    """


class ProcessExitedException(ProcessException):
    """A process ended by a signal (`signal_name`) or with an exit code that is not 0.

    Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#spawning-subprocesses
    """

    def __init__(
        self, msg: str, error_index: int, error_pid: int, exit_code: int,
        signal_name: str | None = None,
    ):  # fmt: skip
        super().__init__(msg, error_index, error_pid)
        self.exit_code, self.signal_name = exit_code, signal_name

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.msg, self.error_index, self.error_pid, self.exit_code, self.signal_name,
        )  # fmt: skip


class ProcessContext:
    """The processes that `start_processes` started; `join` sees them through to their end.

    Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#spawning-subprocesses
    """

    def __init__(self, processes: Sequence[Any], errors: Sequence[Any]):
        self.processes, self._errors = list(processes), list(errors)
        self.sentinels = {process.sentinel: i for i, process in enumerate(self.processes)}

    def pids(self) -> list[int]:
        """The processes' numbers."""
        return [int(process.pid) for process in self.processes]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Waits until one or more processes ended; True when none is left.

        When one fails the others are ended, after `grace_period` seconds in which they may end by
        themselves. ProcessRaisedException or ProcessExitedException for the first that failed.
        """
        if not self.sentinels:
            return True
        for sentinel in connection.wait(list(self.sentinels), timeout):
            index = self.sentinels.pop(sentinel)  # type: ignore[arg-type]
            self.processes[index].join()
            if self.processes[index].exitcode:
                self._end(grace_period)
                raise self._error(index)
        return not self.sentinels

    def _end(self, grace_period: float | None) -> None:
        if grace_period is not None:
            self._wait(grace_period)
        for process in self.processes:
            if process.is_alive():
                process.terminate()
        self._wait(_PATIENCE if grace_period is None else grace_period)
        for process in self.processes:
            if process.is_alive():
                process.kill()
            process.join()
        self.sentinels.clear()

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))

    def _error(self, index: int) -> ProcessException:
        """The error of process `index`, or of the one that raised before it did."""
        raised = {}
        for i, pipe in enumerate(self._errors):
            with contextlib.suppress(EOFError, OSError):
                if pipe.poll():
                    raised[i] = pipe.recv()  # (when, traceback)
            pipe.close()
        if index in raised:
            index = min(raised, key=lambda i: raised[i][0])
            text = f"\n\n-- Process {index} terminated with the following error:\n"
            pid = self.processes[index].pid
            return ProcessRaisedException(text + raised[index][1], index, pid)
        return _exited(index, self.processes[index])


def _exited(index: int, process: Any) -> ProcessExitedException:
    code, name = process.exitcode, None
    how = f"exit code {code}"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"<Unknown signal {-code}>"
        how = f"signal {name}"
    message = f"process {index} terminated with {how}"
    return ProcessExitedException(message, index, process.pid, code, name)


def _run(fn: Callable[..., Any], index: int, args: Sequence[Any], errors: Any) -> None:
    """What a process does: the function; if it raises, its traceback goes to the parent."""
    _end_with_parent()
    try:
        fn(index, *args)
    except KeyboardInterrupt:
        pass  # Ctrl-C: the parent says so
    except Exception as error:
        when, text = time.time(), traceback.format_exc()
        if len(text) > _LONGEST:
            text = f"{text[: _LONGEST // 2]}\n  ...\n{text[-_LONGEST // 2 :]}"
        errors.send((when, text))
        groups = sys.modules.get("gpunn.distributed.group")
        if groups is not None:
            groups.tell_failure(error)
        sys.exit(1)


def _end_with_parent() -> None:
    """On Linux, when the parent is killed this process is interrupted."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(1, int(signal.SIGINT))  # PR_SET_PDEATHSIG


def start_processes(
    fn: Callable[..., Any], args: Sequence[Any] = (), nprocs: int = 1, join: bool = True,
    daemon: bool = False, start_method: str = "spawn",
) -> ProcessContext | None:  # fmt: skip
    """Runs `fn(i, *args)` in `nprocs` processes; `start_method` is one of multiprocessing's.

    Waits until all are done, or, with `join=False`, returns a ProcessContext at once. When one
    fails the others are ended. ProcessRaisedException with its traceback where it raised,
    ProcessExitedException where a signal or `sys.exit` ended it. In a notebook take "fork": a
    function that is defined there can't be found by processes that start anew.
    Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#spawning-subprocesses

    >>> gpunn.multiprocessing.start_processes(print, nprocs=2)
    """
    start = multiprocessing.get_context(start_method)
    processes: list[Any] = []
    errors = []
    for i in range(nprocs):
        reader, writer = start.Pipe(duplex=False)
        process = start.Process(  # type: ignore[attr-defined]
            target=_run, args=(fn, i, args, writer), daemon=daemon
        )
        process.start()
        writer.close()
        processes.append(process)
        errors.append(reader)
    context = ProcessContext(processes, errors)
    if not join:
        return context
    while not context.join():
        pass
    return None


def spawn(
    fn: Callable[..., Any], args: Sequence[Any] = (), nprocs: int = 1, join: bool = True,
    daemon: bool = False, start_method: str = "spawn",
) -> ProcessContext | None:  # fmt: skip
    """Runs `fn(i, *args)` in `nprocs` new Python processes: `start_processes` with "spawn".

    `fn` is a function of a module's top level, and the script's own start stands below
    `if __name__ == "__main__":`, for each process imports the script. Errors as there;
    FutureWarning for another start method, which is not taken.
    Source: https://docs.pytorch.org/docs/stable/multiprocessing.html#torch.multiprocessing.spawn.spawn

    >>> gpunn.multiprocessing.spawn(print, nprocs=1)
    """
    if start_method != "spawn":
        warnings.warn(
            f"This method only supports start_method=spawn (got: {start_method}).\n"
            "To use a different start_method use torch.multiprocessing.start_processes(...)",
            FutureWarning, stacklevel=2,
        )  # fmt: skip
    return start_processes(fn, args, nprocs, join, daemon)
