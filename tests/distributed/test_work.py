"""Works and the thread that does a group's operations in order."""

import gc
import threading
import time
import weakref
from datetime import timedelta

import pytest

from gpunn.distributed.errors import DistBackendError
from gpunn.distributed.work import Work, Worker


def ran(worker, body, results=(), later=True):
    work = Work(list(results), "step")
    (worker.later if later else worker.now)(work, body)
    return work


def test_a_work_tells_how_it_ended():
    worker, go = Worker("test"), threading.Event()
    work = ran(worker, lambda: go.wait(10) and 7, ["result"])
    assert not work.is_completed() and not work.is_success() and work.exception() is None
    with pytest.raises(DistBackendError, match="step: not done after 0:00:00.01"):
        work.wait(timedelta(seconds=0.01))
    go.set()
    assert work.wait() and work.is_completed() and work.is_success()
    assert work.result() == ["result"] == work.get_future().wait() and work.source_rank() == 7
    assert work.synchronize() is None
    worker.close()


def test_an_error_is_raised_by_wait_and_the_next_goes_on():
    worker = Worker("test")
    failed, after = ran(worker, lambda: 1 / 0), ran(worker, lambda: None)
    for ask in (failed.wait, failed.result, failed.source_rank, failed.get_future().wait):
        with pytest.raises(ZeroDivisionError):
            ask()
    assert failed.is_completed() and not failed.is_success()
    assert type(failed.exception()) is ZeroDivisionError
    assert after.wait() and worker.failed
    with pytest.raises(ZeroDivisionError):
        ran(worker, lambda: 1 / 0, later=False)
    worker.close()


def test_operations_keep_their_order_over_threads_and_callbacks():
    worker, order, go = Worker("test"), [], threading.Event()
    first = ran(worker, lambda: go.wait(10) and order.append("first"))
    first.get_future().then(
        lambda f: [ran(worker, lambda: order.append("asked by a callback")),
                   ran(worker, lambda: order.append("and at once"), later=False)]
    )  # fmt: skip
    ran(worker, lambda: order.append("second"))
    threading.Timer(0.05, go.set).start()
    ran(worker, lambda: order.append("waited for"), later=False)
    assert order == ["first", "asked by a callback", "and at once", "second", "waited for"]
    worker.close()


def test_what_is_waited_for_runs_in_the_callers_thread_where_nothing_is_before_it():
    worker, places = Worker("test"), []

    def note():
        places.append(threading.current_thread())

    ran(worker, note, later=False)
    ran(worker, note).wait()
    ran(worker, note, later=False)
    assert places[0] is places[2] is threading.current_thread() is not places[1]
    worker.close()


def test_one_at_a_time():
    worker, inside, most = Worker("test"), [], []

    def body():
        inside.append(1)
        most.append(len(inside))
        time.sleep(1e-4)
        inside.pop()

    def several(later):
        for _ in range(30):
            ran(worker, body, later=later)

    threads = [threading.Thread(target=several, args=(k % 2 == 0,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(20)
    worker.close()
    assert len(most) == 120 and max(most) == 1


def test_close_waits_for_what_is_queued_and_ends_the_thread():
    worker, done = Worker("test"), []
    for k in range(5):
        ran(worker, lambda k=k: (time.sleep(0.01), done.append(k)))
    thread = worker._thread
    worker.close()
    worker.close()
    assert done == list(range(5)) and not thread.is_alive()
    inner = Worker("test")
    ran(inner, inner.close).wait()  # by a callback, say: not for itself
    ran(inner, lambda: done.append("again")).wait()
    assert done[-1] == "again"
    inner.close()


def test_nothing_holds_the_arrays_of_an_operation_that_is_done():
    class Array:
        pass

    worker, array = Worker("test"), Array()
    known = weakref.ref(array)
    work = ran(worker, lambda array=array: None, [array])
    work.wait()
    ran(worker, lambda: None).wait()
    del work, array
    gc.collect()
    assert known() is None
    worker.close()
