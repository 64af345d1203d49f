"""Starting and ending worker processes."""

import multiprocessing
import os
import time

import pytest

from gpunn.utils.data import pool
from gpunn.utils.data.pool import end_of, start_workers, stop_workers
from gpunn.utils.data.worker import Job

fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"
)


def sleep(index):
    time.sleep(60)


def job(collate_fn=list, **options):
    return Job("ab", True, collate_fn, False, num_workers=2, **options)


@fork
def test_workers_start_and_stop():
    processes, conns = start_workers(job(), multiprocessing.get_context("fork"))
    assert all(process.is_alive() and process.daemon for process in processes)
    stop_workers(processes, conns, os.getpid() + 1)  # as in a forked child: nothing happens
    assert all(process.is_alive() for process in processes)
    stop_workers(processes, conns, os.getpid())
    assert [process.exitcode for process in processes] == [0, 0]
    assert all(conn.closed for conn in conns)
    stop_workers(processes, conns, os.getpid())


@fork
def test_a_busy_worker_is_killed(monkeypatch):
    monkeypatch.setattr(pool, "_STOP_WAIT", 0.05)
    processes, conns = start_workers(job(sleep), multiprocessing.get_context("fork"))
    conns[0].send((0, [0], []))
    while conns[0].poll():
        pass
    time.sleep(0.2)
    stop_workers(processes, conns, os.getpid())
    assert not any(process.is_alive() for process in processes)


@fork
def test_how_processes_end():
    context = multiprocessing.get_context("fork")
    ends = []
    for end in (lambda: os._exit(0), lambda: os._exit(3), lambda: os.kill(os.getpid(), 9)):
        process = context.Process(target=end)
        process.start()
        ends.append(end_of(process))
    assert ends[:2] == ["exited with code 0", "exited with code 3"]
    assert ends[2] == "was killed by signal SIGKILL, as the system does when memory runs out"


@fork
def test_a_child_has_no_copies_of_the_loaders_ends():
    processes, conns = start_workers(job(), multiprocessing.get_context("fork"))
    try:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, b"closed" if all(conn.closed for conn in conns) else b"open")
            os._exit(0)
        assert os.read(read, 10) == b"closed"
        os.waitpid(child, 0)
        os.close(read), os.close(write)
    finally:
        stop_workers(processes, conns, os.getpid())


def test_processes_that_do_not_start_leave_none_behind():
    class Context(type(multiprocessing.get_context("spawn"))):
        def Process(self, *args, **kwargs):
            raise OSError("too many processes")

    before = multiprocessing.active_children()
    with pytest.raises(OSError, match="too many processes"):
        start_workers(job(), Context())
    assert multiprocessing.active_children() == before
