"""A DataLoader's worker processes: their start, their pipes, their end."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import time
import warnings
import weakref
from multiprocessing.reduction import ForkingPickler
from typing import Any

from gpunn.utils.data.worker import Job, run

_STOP_WAIT = 5.0  # seconds that a worker has to finish what it is doing

# The loader's ends of its workers' pipes. A forked child closes its copies, or a worker could
# not see that the loader is gone.
_own_ends: weakref.WeakSet[Any] = weakref.WeakSet()


def _close_copies() -> None:
    for conn in list(_own_ends):
        conn.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)


def start_workers(job: Job, context: Any) -> tuple[list[Any], list[Any]]:
    """The worker processes and the pipes to them."""
    context = context or multiprocessing.get_context()
    what: Any = job
    if context.get_start_method() != "fork":
        # Pickled here, unpickled by the worker: errors there are reported like any other.
        what = bytes(ForkingPickler.dumps(job))
    processes, conns = [], []
    try:
        for worker_id in range(job.num_workers):
            ours, theirs = context.Pipe(duplex=True)
            _own_ends.add(ours)
            conns.append(ours)
            process = context.Process(target=run, args=(what, worker_id, theirs), daemon=True)
            with warnings.catch_warnings():
                # Python 3.12 warns of forks beside threads, such as a progress bar's. What the
                # workers run of gpunn and NumPy is safe after a fork.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            processes.append(process)
            theirs.close()
    except BaseException:
        stop_workers(processes, conns, os.getpid())
        raise
    return processes, conns


def stop_workers(processes: list[Any], conns: list[Any], owner: int) -> None:
    """Ends the workers: asks, waits a little, then kills. Only in the process that started them."""
    if os.getpid() != owner:
        return
    for conn in conns:
        with contextlib.suppress(OSError):
            conn.send(None)
        conn.close()
    end = time.monotonic() + _STOP_WAIT
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
    for process in processes:
        if process.is_alive():
            process.terminate()
            process.join(1)
        if process.is_alive():
            process.kill()
            process.join()


def end_of(process: Any) -> str:
    """How a process that no longer answers came to its end, for an error message."""
    process.join(_STOP_WAIT)
    code = process.exitcode
    if code is None:
        return "does not answer any more"
    if code >= 0:
        return f"exited with code {code}"
    names = {number.value: number.name for number in signal.Signals}
    name = names.get(-code, f"number {-code}")
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by signal {name}{hint}"
