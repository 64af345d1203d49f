"""Functions whose answer comes later."""

from gpunn.distributed.rpc import functions
from gpunn.futures import Future
from tests.distributed.ranks import run_ranks


def test_the_decorator_keeps_the_function():
    @functions.async_execution
    def later(x):
        """Documented."""
        future = Future()
        future.set_result(x)
        return future

    assert later.__doc__ == "Documented." and later(3).wait() == 3


def test_async_execution():
    body = """
import threading
from gpunn.distributed import rpc
from gpunn.distributed.rpc import remote, rpc_async, rpc_sync

@rpc.functions.async_execution
def async_add_chained(to, x, y, z):  # PyTorch's page
    return rpc_async(to, gpunn.add, args=(x, y)).then(lambda fut: fut.wait() + z)

class AsyncExecutionClass:
    @staticmethod
    @rpc.functions.async_execution
    def static_async_add(to, x, y, z):
        return rpc_async(to, gpunn.add, args=(x, y)).then(lambda fut: fut.wait() + z)
    @classmethod
    @rpc.functions.async_execution
    def class_async_add(cls, to, x, y, z):
        ret = gpunn.futures.Future()
        rpc_async(to, gpunn.add, args=(x, y)).then(lambda fut: ret.set_result(fut.wait() + z))
        return ret
    @rpc.functions.async_execution
    def bound_async_add(self, to, x, y, z):
        return rpc_async(to, gpunn.add, args=(x, y)).then(lambda fut: fut.wait() + z)

@rpc.functions.async_execution
def not_later():
    return 1

@rpc.functions.async_execution
def fails_later():
    return rpc_async("worker1", gpunn.add, args=(1,)).then(lambda fut: fut.wait())

waiting = []
lock = threading.Lock()

@rpc.functions.async_execution
def meet(k, count):  # the batching parameter server: all get their answer from the last
    with lock:
        future = gpunn.futures.Future()
        waiting.append((k, future))
        if len(waiting) == count:
            total = sum(k for k, _ in waiting)
            for _, f in waiting: f.set_result(total)
            waiting.clear()
    return future

rpc.init_rpc(f"worker{rank}", rank=rank, world_size=world,
             rpc_backend_options=rpc.TensorPipeRpcBackendOptions(num_worker_threads=2))
if rank == 0:
    one, cls = gpunn.ones(2), AsyncExecutionClass
    args = ("worker2", one, 1, 1)
    for f in (async_add_chained, cls.static_async_add, cls.class_async_add, cls().bound_async_add):
        assert rpc_sync("worker1", f, args=args).tolist() == [3, 3]
        assert remote("worker1", f, args=args).to_here().tolist() == [3, 3]
    ref = remote("worker1", cls)
    assert ref.rpc_sync().static_async_add(*args).tolist() == [3, 3]
    assert ref.rpc_sync().class_async_add(*args).tolist() == [3, 3]
    assert ref.remote().bound_async_add(*args).to_here().tolist() == [3, 3]
    wrong = (not_later, RuntimeError, "must return"), (fails_later, TypeError, "add")
    for f, kind, text in wrong:
        try:
            rpc_sync("worker1", f)
        except kind as error:
            assert text in str(error)
        else:
            raise AssertionError("no error")
    futures = [rpc_async("worker1", meet, args=(k, 40)) for k in range(40)]  # on two threads
    assert gpunn.futures.wait_all(futures) == [780] * 40
    report(True)
rpc.shutdown()
"""
    assert run_ranks(3, body, backend=None)[0] is True
