"""References to values on other workers: real processes."""

import pickle
from datetime import timedelta

import pytest

from gpunn.distributed import HashStore, rpc
from gpunn.distributed.rpc import rref
from gpunn.distributed.rpc.agent import Agent, set_agent
from tests.distributed.ranks import run_ranks

START = """
import gc, time
from gpunn.distributed import rpc
from gpunn.distributed.rpc import RRef, remote, rpc_async, rpc_sync
from gpunn.distributed.rpc import rref as _rref

def caught(run, *args, **kwargs):
    try:
        return ["nothing", str(run(*args, **kwargs))]
    except Exception as error:
        return [type(error).__name__, str(error)]

def kept():
    gc.collect()
    return len(_rref._values)

def kept_at(worker, count):  # releases take a moment
    gc.collect()  # errors hold the frames that they came through
    for _ in range(300):
        if rpc_sync(worker, kept) == count:
            return True
        time.sleep(0.02)
    return rpc_sync(worker, kept)
"""


def test_references():
    body = START + """
class Counter:
    def __init__(self, start=0):
        self.count = start
    def add(self, k=1):
        self.count += k
        return self.count
    def fail(self):
        raise KeyError("counter")
    @rpc.functions.async_execution
    def later(self, k):
        return rpc_async("worker2", gpunn.add, args=(gpunn.ones(1), k)).then(
            lambda f: f.wait().item() + self.count)

def bad():
    raise ValueError("not made")

def slow(x):
    time.sleep(0.3)
    return x

def use(ref):
    return ref.owner_name(), ref.is_owner(), ref.to_here()

def own(ref):
    return ref.is_owner() and ref.local_value() + 1

def give():
    return RRef(gpunn.ones(2))

kept_ref = []
def keep(ref):
    kept_ref.append(ref)
def read_kept():
    return kept_ref[0].to_here()
def forget_kept():
    kept_ref.clear()

rpc.init_rpc(f"worker{rank}", rank=rank, world_size=world)
if rank == 0:
    r1 = remote("worker1", gpunn.add, args=(gpunn.ones(2), 3))  # PyTorch's page
    r2 = remote("worker1", gpunn.add, args=(gpunn.ones(2), 1))
    assert (r1.to_here() + r2.to_here()).tolist() == [6, 6]
    assert r1.owner() == rpc.get_worker_info("worker1") and r1.owner_name() == "worker1"
    assert not r1.is_owner() and r1.confirmed_by_owner()
    kind, text = caught(r1.local_value)
    assert kind == "RuntimeError" and "can't call localValue() on user WorkerInfo(id=0" in text
    assert "Call it on owner WorkerInfo(id=1, name=worker1)" in text
    assert repr(r1).startswith("UserRRef(RRefId = GloballyUniqueId(created_on=0, local_id=")
    assert rpc_sync("worker2", use, args=(r1,))[:2] == ("worker1", False)
    assert rpc_sync("worker2", use, args=(r1,))[2].tolist() == [4, 4]
    assert rpc_sync("worker1", own, args=(r1,)).tolist() == [5, 5]

    counter = remote("worker1", Counter, args=(5,))
    assert counter.rpc_sync().add() == 6
    assert counter.rpc_async().add(k=2).wait() == 8
    assert counter.remote().add().to_here() == 9
    assert counter.rpc_sync().later(2) == 12
    assert caught(counter.rpc_sync().fail)[0] == "KeyError"
    assert caught(counter.rpc_sync().nothing)[0] == "AttributeError"
    assert counter.to_here().count == 9
    model = remote("worker1", nn.Linear, args=(2, 3))
    assert model.rpc_sync().forward(gpunn.ones(4, 2)).shape == (4, 3)

    broken = remote("worker1", bad)
    assert caught(broken.to_here)[0] == "ValueError" == caught(broken.to_here)[0]
    mine = RRef([1, 2])
    assert mine.is_owner() and mine.local_value() is mine.to_here() and mine.confirmed_by_owner()
    assert repr(mine).startswith("OwnerRRef(GloballyUniqueId(created_on=0, local_id=")
    assert rpc_sync("worker2", use, args=(mine,)) == ("worker0", False, [1, 2])
    begun = time.monotonic()
    selfish = remote("worker0", slow, args=("x",))
    passed_on = rpc_async("worker2", use, args=(remote("worker1", slow, args=("y",)),))
    assert time.monotonic() - begun < 0.25  # neither waits for the value
    assert selfish.is_owner() and selfish.local_value() == "x"
    assert passed_on.wait()[2] == "y"
    late = remote("worker1", slow, args=("z",))
    assert "RPC ran for more than set timeout" in caught(late.to_here, timeout=0.05)[1]
    assert late.to_here() == "z"
    assert rpc_sync("worker1", give).to_here().tolist() == [1, 1]

    # a third worker holds on to a value
    del r1, r2, counter, model, broken, late, passed_on
    assert kept_at("worker1", 0) is True, kept_at("worker1", 0)
    ref = remote("worker1", list, args=([7],))
    rpc_sync("worker2", keep, args=(ref,))
    del ref
    assert kept_at("worker1", 1) is True
    assert rpc_sync("worker2", read_kept) == [7]
    rpc_sync("worker2", forget_kept)
    assert kept_at("worker1", 0) is True
    # values that hold references; forgotten before they are made
    for _ in range(20):
        remote("worker1", list, args=([RRef(1), remote("worker2", list)],))
    remote("worker1", slow, args=(1,))
    assert kept_at("worker1", 0) is True and kept_at("worker2", 0) is True
    del mine, selfish
    assert kept_at("worker0", 0) is True
    report(True)
rpc.shutdown()
"""
    assert run_ranks(3, body, backend=None)[0] is True


@pytest.fixture
def alone():
    store = HashStore()
    store.set_timeout(timedelta(seconds=20))
    set_agent(Agent(store, "me", 0, 1, 20.0, 4, rref.share))
    rref.start()
    yield
    rpc.shutdown()


def test_only_remote_calls_send_references(alone):
    with pytest.raises(RuntimeError, match="Can not pickle rref in python pickler"):
        pickle.dumps(rpc.RRef(1))


def test_a_value_that_is_no_more(alone):
    with pytest.raises(RuntimeError, match="no such value"):
        rref.value_of((0, 12345))


def test_a_worker_alone_calls_itself(alone):
    made = rpc.remote("me", sorted, args=([2, 1],))
    assert made.to_here() == [1, 2] and made.rpc_sync().index(2) == 1
    assert rpc.rpc_async("me", max, args=(1, 2)).wait() == 2
    with pytest.raises(RuntimeError, match="already initialized"):
        rpc.init_rpc("again")


def test_without_init_rpc():
    with pytest.raises(RuntimeError, match="RPC has not been initialized"):
        rpc.RRef(1)
    with pytest.raises(RuntimeError, match="Worker name must match"):
        rpc.init_rpc("bad name!")
    with pytest.raises(TypeError, match="member of BackendType"):
        rpc.init_rpc("name", backend="gloo")
    with pytest.raises(TypeError, match="instance of RpcBackendOptions"):
        rpc.init_rpc("name", rpc_backend_options={})
    rpc.shutdown()  # nothing to do
