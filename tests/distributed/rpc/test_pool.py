"""Threads that serve remote calls."""

import threading
import time

from gpunn.distributed.rpc.pool import Pool


def names():
    return [t.name for t in threading.enumerate() if t.name.startswith("pool under test")]


def until(condition):
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_tasks_run_on_a_few_threads_that_end():
    pool, seen, done = Pool(3, "pool under test"), set(), threading.Semaphore(0)

    def task():
        seen.add(threading.current_thread())
        time.sleep(0.001)
        done.release()

    for _ in range(50):
        pool.submit(task)
    assert all(done.acquire(timeout=20) for _ in range(50))
    assert 1 <= len(seen) <= 4  # one more, where this machine was slow enough to look stuck
    pool.close()
    assert until(lambda: not names())


def test_tasks_that_wait_for_later_ones_do_not_block_it():
    pool, chain = Pool(2, "pool under test"), [threading.Event() for _ in range(9)]

    def task(k):
        if k == 8 or chain[k + 1].wait(20):
            chain[k].set()

    for k in range(9):
        pool.submit(task, k)
    assert chain[0].wait(20)
    assert until(lambda: len(names()) <= 2)  # those that helped have ended
    pool.close()
    assert until(lambda: not names())


def test_a_thread_that_waits_keeps_nothing_of_its_last_task():
    import weakref

    class Thing:
        pass

    pool, thing = Pool(1, "pool under test"), Thing()
    there = weakref.ref(thing)
    pool.submit(lambda x: None, thing)
    del thing
    assert until(lambda: there() is None)
    pool.close()
    assert until(lambda: not names())
