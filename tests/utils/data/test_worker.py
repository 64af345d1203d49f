"""What a worker does with its tasks, and seeds: here without a process."""

import multiprocessing
import queue
import random
import threading

import numpy as np
import pytest

import gpunn
from gpunn.utils.data import IterableDataset, get_worker_info, worker
from gpunn.utils.data.transport import Failure
from gpunn.utils.data.worker import End, Job, WorkerInfo, seed_worker


class Count(IterableDataset):
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return iter(range(self.n))


class Recorder:
    """In place of a Sender."""

    def __init__(self):
        self.sent, self.free = [], set()

    def send(self, key, data, where):
        self.sent.append((key, data))


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setattr(worker, "_info", None)
    monkeypatch.setattr(worker, "set_num_threads", lambda n: None)
    monkeypatch.setattr(worker, "seed_worker", lambda base, number: None)

    def serve(job, *tasks):
        todo, recorder = queue.SimpleQueue(), Recorder()
        for task in (*tasks, None):
            todo.put(task)
        worker._serve(job, 1, recorder, todo, threading.Event())
        return recorder

    return serve


def test_tasks_are_answered_in_order_and_segments_noted(serve):
    job = Job("abcd", True, "".join, False, base_seed=5, num_workers=2)
    done = serve(job, (1, [0, 2], [4]), (2, [3], [5, 6]))
    assert done.sent == [(1, "ac"), (2, "d")]
    assert done.free == {4, 5, 6}
    assert get_worker_info() == WorkerInfo(1, 2, 6, "abcd")


def test_a_stream_begins_again_on_demand_and_every_task_is_answered(serve):
    tasks = [(i, [None, None], []) for i in range(3)]
    done = serve(Job(Count(3), True, list, False), *tasks, (None, None, []), *tasks[:1])
    assert [data for _, data in done.sent[:2]] == [[0, 1], [2]]
    assert isinstance(done.sent[2][1], End)
    assert done.sent[3] == (0, [0, 1])


def test_errors_are_answers(serve):
    done = serve(Job("ab", True, "".join, False), (1, [7], []), (2, [1], []))
    assert isinstance(done.sent[0][1], Failure) and done.sent[1] == (2, "b")

    def init(number):
        raise ValueError("no")

    done = serve(Job("ab", True, "".join, False, init_fn=init), (1, [0], []), (2, [0], []))
    assert [data.kind for _, data in done.sent] == [ValueError, ValueError]
    done = serve(b"no pickle", (1, [0], []))
    assert isinstance(done.sent[0][1], Failure)


def test_a_closed_pipe_ends_the_worker(serve):
    ours, theirs = multiprocessing.Pipe()
    tasks, closed = queue.SimpleQueue(), threading.Event()
    ours.send((1, [0], []))
    ours.close()
    worker._read(theirs, tasks, closed)
    assert tasks.get() == (1, [0], []) and tasks.get() is None and closed.is_set()
    recorder = Recorder()
    tasks.put((2, [0], []))
    worker._serve(Job("a", True, list, False), 0, recorder, tasks, closed)
    assert recorder.sent == []


@pytest.mark.parametrize("base_seed", [0, 7, 2**32 + 1, 2**62 + 5])
@pytest.mark.parametrize("number", [0, 3])
def test_seeds_are_pytorchs(base_seed, number):
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    from torch.utils.data._utils.worker import _generate_state

    kept = random.getstate(), np.random.get_state(), gpunn.get_rng_state()
    try:
        seed_worker(base_seed, number)
        assert gpunn.initial_seed() == base_seed + number
        assert random.random() == random.Random(base_seed + number).random()
        expected = np.random.RandomState(_generate_state(base_seed, number)).rand()
        assert np.random.rand() == expected
    finally:
        random.setstate(kept[0]), np.random.set_state(kept[1]), gpunn.set_rng_state(kept[2])


def test_worker_info_is_read_only():
    assert get_worker_info() is None
    with pytest.raises(AttributeError):
        WorkerInfo(0, 1, 2, []).id = 3
