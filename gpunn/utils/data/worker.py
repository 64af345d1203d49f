"""What runs in a DataLoader's worker process, and fetching batches in either process.

Source: https://docs.pytorch.org/docs/stable/data.html#multi-process-data-loading
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import gpunn
from gpunn.threads import set_num_threads
from gpunn.utils.data.collate import default_collate
from gpunn.utils.data.dataset import IterableDataset, whole_batch
from gpunn.utils.data.transport import Failure, Sender

__all__ = ["WorkerInfo", "get_worker_info"]

PARENT_CHECK = 5.0  # seconds between looks whether the loader's process is alive


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """A worker process: its `id` (0 .. num_workers - 1), `num_workers`, its `seed` and its own
    copy of the `dataset`."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The DataLoader worker that this process is; None in the main process.

    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.get_worker_info

    >>> gpunn.utils.data.get_worker_info() is None
    True
    """
    return _info


class End:
    """In place of a batch: this worker's iterable dataset has no more."""


@dataclass
class Job:
    """What makes batches: everything a worker needs, and the loader itself without workers."""

    dataset: Any
    batched: bool
    collate_fn: Callable[[Any], Any]
    drop_last: bool
    base_seed: int = 0
    num_workers: int = 0
    init_fn: Callable[[int], Any] | None = None

    @property
    def iterable(self) -> bool:
        """Whether the dataset is a stream."""
        return isinstance(self.dataset, IterableDataset)

    def fetcher(self) -> Callable[[Any], Any]:
        """A new pass over the data: a function from an index, or a list of them, to a batch."""
        if not self.iterable:
            return self._fetch
        return _Stream(iter(self.dataset), self.batched, self.collate_fn, self.drop_last)

    def _fetch(self, index: Any) -> Any:
        try:
            if not self.batched:
                return self.collate_fn(self.dataset[index])
            if self.collate_fn is default_collate:
                batch = whole_batch(self.dataset, index)
                if batch is not None:
                    return batch
            if getattr(self.dataset, "__getitems__", None):
                return self.collate_fn(self.dataset.__getitems__(index))
            return self.collate_fn([self.dataset[i] for i in index])
        except StopIteration as error:
            raise RuntimeError(f"DataLoader: dataset[{index}] raised StopIteration") from error


class _Stream:
    """Batches of an iterator, as a function that raises StopIteration at the end."""

    def __init__(self, samples: Any, batched: bool, collate_fn: Any, drop_last: bool) -> None:
        self.samples, self.batched = samples, batched
        self.collate_fn, self.drop_last = collate_fn, drop_last
        self.ended = False

    def __call__(self, index: Any) -> Any:
        if self.ended:
            raise StopIteration
        if not self.batched:
            return self.collate_fn(next(self.samples))
        batch = []
        for _ in index:
            try:
                batch.append(next(self.samples))
            except StopIteration:
                self.ended = True
                break
        if not batch or (self.drop_last and len(batch) < len(index)):
            raise StopIteration
        return self.collate_fn(batch)


def seed_worker(base_seed: int, worker_id: int) -> None:
    """Seeds Python, gpunn and NumPy with what PyTorch gives this worker."""
    seed = base_seed + worker_id
    random.seed(seed)
    gpunn.manual_seed(seed)
    entropy = [worker_id, base_seed & 0xFFFFFFFF, base_seed >> 32, 0]
    np.random.seed(np.random.SeedSequence(entropy).generate_state(4))


def run(job: Job | bytes, worker_id: int, conn: Any) -> None:
    """The worker process. Tasks are `(key, index, returned segments)`; None is the end.

    A key of None begins a new pass. Every other task gets exactly one answer.
    """
    tasks: queue.SimpleQueue[Any] = queue.SimpleQueue()
    closed = threading.Event()
    threading.Thread(target=_read, args=(conn, tasks, closed), daemon=True).start()
    # The loader is stopping, too, or gone.
    with contextlib.suppress(KeyboardInterrupt, ConnectionError):
        _serve(job, worker_id, Sender(conn), tasks, closed)


def _read(conn: Any, tasks: Any, closed: threading.Event) -> None:
    """Keeps the pipe empty, so that the loader never waits to send, and sees its end at once."""
    parent = multiprocessing.parent_process()
    try:
        while conn.poll(PARENT_CHECK) or (parent is not None and parent.is_alive()):
            if not conn.poll():
                continue
            task = conn.recv()
            if task is None:
                break
            tasks.put(task)
    except (EOFError, OSError):
        pass
    closed.set()
    tasks.put(None)


def _serve(job: Any, worker_id: int, sender: Sender, tasks: Any, closed: threading.Event) -> None:
    """Sets the worker up and answers tasks; an error in setting up is every task's answer."""
    where = f"in DataLoader worker process {worker_id}"
    answer: Any
    fetch: Any = None
    broken: Failure | None = None
    ended = False
    try:
        job = _set_up(job, worker_id)
    except Exception:
        broken = Failure(where)
    while (task := tasks.get()) is not None and not closed.is_set():
        key, index, returned = task
        sender.free.update(returned)
        if key is None:
            fetch, ended = None, False
            continue
        try:
            if fetch is None and broken is None:
                fetch = job.fetcher()
            answer = broken or (End() if ended else fetch(index))
        except StopIteration:  # only of a stream: other datasets' become RuntimeError
            answer, ended = End(), True
        except Exception:
            answer = Failure(where)
        sender.send(key, answer, where)
        del answer  # while it waits, a worker holds no batch


def _set_up(job: Job | bytes, worker_id: int) -> Job:
    global _info
    if isinstance(job, bytes):
        job = pickle.loads(job)
    assert isinstance(job, Job)
    set_num_threads(1)  # the workers share the cores among themselves
    seed_worker(job.base_seed, worker_id)
    _info = WorkerInfo(worker_id, job.num_workers, job.base_seed + worker_id, job.dataset)
    if job.init_fn is not None:
        job.init_fn(worker_id)
    return job
