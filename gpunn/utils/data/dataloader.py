"""The DataLoader: batches of a dataset, made in this process or by workers.

Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.DataLoader
"""

from __future__ import annotations

import itertools
import math
import multiprocessing
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import connection
from typing import Any, Generic, NoReturn, TypeVar

import gpunn
from gpunn.utils import progress as bars
from gpunn.utils.data.collate import default_collate, default_convert
from gpunn.utils.data.dataset import Dataset, IterableDataset
from gpunn.utils.data.pin_memory import Stager
from gpunn.utils.data.pool import end_of, start_workers, stop_workers
from gpunn.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler
from gpunn.utils.data.transport import Failure, Receiver
from gpunn.utils.data.worker import End, Job, get_worker_info

__all__ = ["DataLoader", "default_collate", "default_convert", "get_worker_info"]

T_co = TypeVar("T_co", covariant=True)
_FIXED = {"batch_size", "batch_sampler", "sampler", "drop_last", "dataset", "persistent_workers"}


class DataLoader(Generic[T_co]):
    """An iterable over the batches of a dataset; each `iter()` is one epoch.

    `shuffle` or a `sampler` orders the samples, `batch_size` of them make a batch (None: single
    samples), or a `batch_sampler` yields the lists of indices; `collate_fn` makes a batch of a
    list of samples. `num_workers` processes, started by `multiprocessing_context` ("fork",
    "spawn", ...), each prepare up to `prefetch_factor` batches ahead; `persistent_workers` lives
    on between epochs; `worker_init_fn(id)` runs at the start of each; `timeout` is in seconds;
    `in_order=False` yields batches as they come. `pin_memory` gives page-locked tensors on a
    machine with a GPU, and with `pin_memory_device="cuda"` tensors on that device, copied there
    while the training step before runs. `progress=True` shows a tqdm bar.

    Seeded alike, order and workers' seeds are PyTorch's, and the default generator stands where
    PyTorch's does afterwards. Raises ValueError for options that exclude each other. An
    exception in a worker is raised here with its type and traceback; RuntimeError where a worker
    was killed, or took longer than `timeout`.
    Source: https://docs.pytorch.org/docs/stable/data.html#torch.utils.data.DataLoader

    >>> data = gpunn.utils.data.TensorDataset(gpunn.arange(5))
    >>> for (x,) in gpunn.utils.data.DataLoader(data, batch_size=2):
    ...     print(x)
    tensor([0, 1])
    tensor([2, 3])
    tensor([4])
    """

    __initialized = False

    def __init__(
        self,
        dataset: Dataset[T_co] | Sequence[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[Any] | None = None,
        batch_sampler: Iterable[Any] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        multiprocessing_context: Any = None,
        generator: gpunn.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        progress: bool = False,
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        self.dataset: Any = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.in_order = in_order
        self.progress = progress
        self._streams = isinstance(dataset, IterableDataset)
        if self._streams:
            _check_stream(shuffle, sampler, batch_sampler)
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, "
                    "sampler, and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError(
                "batch_size=None option disables auto-batching and is mutually exclusive with "
                "drop_last"
            )
        if sampler is None:
            if self._streams:
                sampler = itertools.repeat(None)
            elif shuffle:
                sampler = RandomSampler(dataset, generator=generator)  # type: ignore[arg-type]
            else:
                sampler = SequentialSampler(dataset)  # type: ignore[arg-type]
        if batch_size is not None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.generator = generator
        default = default_convert if batch_sampler is None else default_collate
        self.collate_fn = collate_fn or default
        self.persistent_workers = persistent_workers
        self._iterator: Any = None
        self._reported: int | None = None  # what len() said of a stream
        self.__initialized = True
        _warn_of_many_workers(num_workers)

    @property
    def multiprocessing_context(self) -> Any:
        """The context that starts the workers; None is Python's default one."""
        return self._context

    @multiprocessing_context.setter
    def multiprocessing_context(self, context: Any) -> None:
        if context is not None and not self.num_workers:
            raise ValueError(
                f"multiprocessing_context can only be used with multi-process loading "
                f"(num_workers > 0), but got num_workers={self.num_workers}"
            )
        if isinstance(context, str):
            methods = multiprocessing.get_all_start_methods()
            if context not in methods:
                raise ValueError(
                    f"multiprocessing_context option should specify a valid start method in "
                    f"{methods!r}, but got multiprocessing_context={context!r}"
                )
            context = multiprocessing.get_context(context)
        if context is not None and not isinstance(context, multiprocessing.context.BaseContext):
            raise TypeError(
                f"multiprocessing_context option should be a valid context object or a string "
                f"specifying the start method, but got multiprocessing_context={context}"
            )
        self._context = context

    def __setattr__(self, name: str, value: Any) -> None:
        if self.__initialized and name in _FIXED:
            raise ValueError(
                f"{name} attribute should not be set after {type(self).__name__} is initialized"
            )
        super().__setattr__(name, value)

    @property
    def _index_sampler(self) -> Any:
        return self.sampler if self.batch_sampler is None else self.batch_sampler

    def __iter__(self) -> Iterator[Any]:
        if not self.num_workers:
            return _SingleProcessDataLoaderIter(self)
        if not self.persistent_workers:
            return _MultiProcessingDataLoaderIter(self)
        if self._iterator is None or not self._iterator._stop.alive:
            self._iterator = _MultiProcessingDataLoaderIter(self)
        else:
            self._iterator._reset()
        return self._iterator

    def __len__(self) -> int:
        if not self._streams:
            return len(self._index_sampler)
        length = self._reported = len(self.dataset)
        if self.batch_size is None:
            return length
        return length // self.batch_size if self.drop_last else math.ceil(length / self.batch_size)


def _check_workers(num_workers: int, timeout: float, prefetch: int | None, persist: bool) -> None:
    if num_workers < 0:
        raise ValueError(
            "num_workers option should be non-negative; use num_workers=0 to disable "
            "multiprocessing."
        )
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch is not None:
        raise ValueError(
            "prefetch_factor option could only be specified in multiprocessing. Let num_workers "
            "> 0 to enable multiprocessing, otherwise set prefetch_factor to None."
        )
    if prefetch is not None and prefetch < 0:
        raise ValueError("prefetch_factor option should be non-negative")
    if persist and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")


def _check_stream(shuffle: Any, sampler: Any, batch_sampler: Any) -> None:
    options = {"shuffle": shuffle or None, "sampler": sampler, "batch_sampler": batch_sampler}
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"DataLoader with IterableDataset: expected unspecified {name} option, but got "
                f"{name}={value}"
            )


def _warn_of_many_workers(count: int) -> None:
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    if count > cores:
        warnings.warn(
            f"This DataLoader will create {count} worker processes in total. Our suggested max "
            f"number of worker in current system is {cores}, which is smaller than what this "
            f"DataLoader is going to create. Please be aware that excessive worker creation might "
            f"get DataLoader running slow or even freeze, lower the worker number to avoid "
            f"potential slowness/freeze if necessary.",
            stacklevel=3,
        )


class _BaseDataLoaderIter:
    """One epoch of a DataLoader."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self._loader = loader
        self._stager = Stager(loader.pin_memory, loader.pin_memory_device)
        # PyTorch's order of draws: this seed now, the sampler's own at the first batch.
        self._indices = iter(loader._index_sampler)
        base_seed = gpunn.empty((), dtype=gpunn.int64).random_(generator=loader.generator).item()
        self._job = Job(
            loader.dataset, loader.batch_sampler is not None, loader.collate_fn, loader.drop_last,
            base_seed, loader.num_workers, loader.worker_init_fn,
        )  # fmt: skip
        self._start_epoch()

    def _start_epoch(self) -> None:
        self._yielded = 0
        self._bar = _bar(self._loader) if self._loader.progress else None

    def __iter__(self) -> Iterator[Any]:
        return self

    def __len__(self) -> int:
        return len(self._loader._index_sampler)

    def __next__(self) -> Any:
        try:
            batch = self._next()
        except BaseException:
            if self._bar is not None:
                self._bar.close()
            raise
        self._yielded += 1
        if self._bar is not None:
            self._bar.update()
        reported = self._loader._reported
        if reported is not None and self._yielded > reported:
            hint = (
                " Each worker reads its own copy of an IterableDataset: divide the samples among "
                "them by get_worker_info()."
            )
            warnings.warn(
                f"Length of IterableDataset {self._job.dataset} was reported to be {reported} "
                f"(when accessing len(dataloader)), but {self._yielded} samples have been fetched."
                f"{hint if self._loader.num_workers else ''}",
                stacklevel=2,
            )
        return batch

    def _next(self) -> Any:
        raise NotImplementedError("a kind of DataLoader iterator gives the next batch")

    def __getstate__(self) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} cannot be pickled")


def _bar(loader: DataLoader[Any]) -> Any:
    try:
        total = len(loader)
    except TypeError:
        total = None
    return bars.bar(total=total, unit="batch")


class _SingleProcessDataLoaderIter(_BaseDataLoaderIter):
    """An epoch whose batches are made when they are asked for."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        if loader.timeout:
            raise AssertionError("DataLoader: timeout needs num_workers > 0")
        self._fetch = self._job.fetcher()

    def _next(self) -> Any:
        return self._stager.deliver(self._stager.stage(self._fetch(next(self._indices))))


class _MultiProcessingDataLoaderIter(_BaseDataLoaderIter):
    """An epoch, or with persistent workers epoch after epoch, of batches made by workers.

    Batch i is a task of one worker, given out in turn; every task gets one answer, a batch, an
    error or the end of that worker's stream. As many tasks are out as the prefetch factor says.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        super().__init__(loader)
        self._epoch = 0
        self._most_tasks = max(1, loader.prefetch_factor or 0) * loader.num_workers
        self._processes, conns = start_workers(self._job, loader.multiprocessing_context)
        # Reused segments: those of batches on the way, and some for a loop that keeps a few.
        self._receivers = [Receiver(conn, lend=2 * self._most_tasks + 8) for conn in conns]
        self._stop = weakref.finalize(self, stop_workers, self._processes, conns, os.getpid())
        self._start_tasks()

    def _reset(self) -> None:
        """The next epoch of persistent workers."""
        self._start_epoch()
        self._epoch += 1
        for worker in range(len(self._receivers)):
            self._send(worker, None, None)
        self._start_tasks()

    def _start_tasks(self) -> None:
        self._indices = iter(self._loader._index_sampler)
        self._sent = self._wanted = 0
        self._tasks: dict[int, int] = {}  # batch number -> its worker, until the answer is here
        self._answers: dict[int, tuple[int, Any]] = {}  # batch number -> worker, answer
        self._load = [0] * len(self._receivers)
        self._active = [True] * len(self._receivers)
        self._turns = itertools.cycle(range(len(self._receivers)))
        for _ in range(self._most_tasks):
            self._send_task()

    def _send_task(self) -> None:
        """Gives the next batch to the worker whose turn it is, if there is one of each."""
        index = next(self._indices, self)
        if index is self:
            return
        for worker in itertools.islice(self._turns, len(self._receivers)):
            if self._active[worker] and (
                self._loader.in_order or self._load[worker] < self._most_tasks // sum(self._active)
            ):
                break
        else:
            return
        self._tasks[self._sent] = worker
        self._load[worker] += 1
        self._send(worker, (self._epoch, self._sent), index)
        self._sent += 1

    def _send(self, worker: int, key: Any, index: Any) -> None:
        receiver = self._receivers[worker]
        try:
            receiver.conn.send((key, index, receiver.take_returned()))
        except OSError:
            self._worker_died(worker)

    def _next(self) -> Any:
        while self._tasks or self._answers:
            number = self._next_number()
            if number is None:
                try:
                    self._receive()
                except KeyboardInterrupt:  # a message may be half read
                    self._stop()
                    raise
                continue
            worker, answer = self._answers.pop(number)
            self._load[worker] -= 1
            if isinstance(answer, End):
                self._active[worker] = False
            self._send_task()
            if isinstance(answer, Failure):
                answer.reraise()
            if not isinstance(answer, End):
                return self._stager.deliver(answer)
        if not self._loader.persistent_workers:
            self._stop()
        raise StopIteration

    def _next_number(self) -> int | None:
        """The batch to go on with: in order the wanted one, otherwise any; None: not here yet."""
        if not self._loader.in_order:
            return next(iter(self._answers), None)
        if self._wanted not in self._answers:
            return None
        self._wanted += 1
        return self._wanted - 1

    def _receive(self) -> None:
        """Waits until a worker has answered, and takes one answer of each that has."""
        if not self._stop.alive:
            raise RuntimeError("DataLoader: its workers have ended; begin a new epoch with iter()")
        waiting = {self._receivers[worker].conn: worker for worker in set(self._tasks.values())}
        exits = {self._processes[worker].sentinel: worker for worker in waiting.values()}
        ready = connection.wait([*waiting, *exits], self._loader.timeout or None)
        if not ready:
            raise RuntimeError(f"DataLoader timed out after {self._loader.timeout} seconds")
        readable = [waiting[conn] for conn in ready if conn in waiting]
        if not readable:
            self._worker_died(exits[ready[0]])
        for worker in readable:
            try:
                key, answer = self._receivers[worker].receive()
            except (EOFError, OSError):
                self._worker_died(worker)
            if key[0] == self._epoch:  # otherwise of an epoch that was left early
                self._answers[key[1]] = self._tasks.pop(key[1]), self._stager.stage(answer)

    def _worker_died(self, worker: int) -> NoReturn:
        process = self._processes[worker]
        how = end_of(process)
        self._stop()
        raise RuntimeError(
            f"DataLoader worker (pid(s) {process.pid}) exited unexpectedly: it {how}. What it "
            f"printed may say why; num_workers=0 shows the whole error."
        )
