"""The engine over NCCL: all of it over a stand-in of CuPy's binding, and on GPUs where they are."""

import sys
import threading
import time
from datetime import timedelta

import emulated as emulation
import numpy as np
import pytest

import gpunn
from gpunn import cuda
from gpunn import distributed as dist
from gpunn.distributed import nccl as engine
from gpunn.distributed.comm import Waiting
from gpunn.distributed.group import ProcessGroup, table
from gpunn.distributed.store import HashStore
from tests.distributed import fake_nccl
from tests.distributed.ranks import run_ranks

R = dist.ReduceOp


@pytest.fixture
def nccl(two_gpus, monkeypatch):
    """The stand-in, on two emulated GPUs."""
    cupy = emulation.module()
    made = fake_nccl.make(cupy)
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", made)
    monkeypatch.setattr(cupy.cuda, "Event", made.Event)
    cupy.cuda.runtime.log.clear()
    return made


class Watch:
    """Knows who is gone when a test says so."""

    gone = ""

    def reached(self, group, sequence, what):
        pass

    def check(self, what, sequence, group, ranks):
        if self.gone:
            raise dist.DistBackendError(f"{what} #{sequence}: {self.gone}")

    def timeout_error(self, what, sequence, group, ranks, waited):
        return dist.DistBackendError(f"{what} #{sequence}: no answer after {waited:g} s")


def every(size, body, timeout=20.0, watch=None):
    """body(group, rank) of so many ranks, each a thread with the GPU of its number."""
    store, found, errors = HashStore(), {}, {}

    def one(rank):
        try:
            cuda.set_device(rank % 2)
            waiting = Waiting(watch, range(size))
            waiting.begin("start", 0, timeout)
            group = ProcessGroup(
                f"thread {rank}", range(size), rank, {"cuda": "nccl"}, store, watch,
                timedelta(seconds=timeout),
            )  # fmt: skip
            group._comms["nccl"] = engine.NcclComm(store, rank, size, waiting)
            table.groups[group.group_name] = group
            found[rank] = body(group, rank)
            group.close()
        except BaseException as error:
            errors[rank] = error

    threads = [threading.Thread(target=one, args=(r,)) for r in range(size)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    table.groups.clear()
    if errors:
        raise errors[min(errors)]
    return [found[r] for r in range(size)]


def draw(rank, dtype=gpunn.float32, shape=(2, 3), seed=0):
    values = np.random.default_rng(rank + 10 * seed).integers(1, 4, shape)
    return gpunn.from_numpy(values).to(dtype).to(f"cuda:{cuda.current_device()}")


def host(x):
    return [host(v) for v in x] if isinstance(x, (list, tuple)) else x.cpu().tolist()


DTYPES = [
    "float32", "float64", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "complex64",
    "complex128", "bool",
]  # fmt: skip


@pytest.mark.parametrize("size", [1, 2, 3])
def test_collectives_of_every_dtype(nccl, size):
    def body(group, rank):
        found = {}
        for name in DTYPES:
            dtype = getattr(gpunn, name)
            ops = [R.SUM] if name[0] == "c" else [R.SUM, R.PRODUCT, R.MIN, R.MAX]
            for op in ops + [R.AVG] * (name != "bool"):
                dist.all_reduce(x := draw(rank, dtype), op, group)
                found[f"{name} {op}"] = host(x)
            dist.broadcast(x := draw(rank, dtype), group=group, group_src=size - 1)
            dist.reduce(y := draw(rank, dtype), group=group, group_dst=0)
            parts = [gpunn.zeros_like(x) for _ in range(size)]
            dist.all_gather(parts, draw(rank, dtype), group)
            rows = [draw(rank, dtype, seed=k) for k in range(size)]
            dist.reduce_scatter(z := gpunn.zeros_like(x), rows, group=group)
            found[f"{name} moved"] = host([x, y if rank == 0 else x, parts, z])
        return found

    made = every(size, body)
    for rank in range(size):
        for name in DTYPES:
            dtype = getattr(gpunn, name)

            def at(r, seed=0, dtype=dtype):
                values = np.random.default_rng(r + 10 * seed).integers(1, 4, (2, 3))
                return gpunn.from_numpy(values).to(dtype)

            every_one = gpunn.stack([at(r) for r in range(size)])
            total = every_one.any(0) if name == "bool" else every_one.sum(0)
            assert made[rank][f"{name} {R.SUM}"] == total.tolist()
            if name[0] == "f":
                assert made[rank][f"{name} {R.MAX}"] == every_one.amax(0).tolist()
                assert made[rank][f"{name} {R.MIN}"] == every_one.amin(0).tolist()
                assert made[rank][f"{name} {R.PRODUCT}"] == every_one.prod(0).tolist()
                mean = (total / gpunn.tensor(size, dtype=dtype)).tolist()
                assert made[rank][f"{name} {R.AVG}"] == mean
            x, y, parts, z = made[rank][f"{name} moved"]
            assert x == at(size - 1).tolist() and parts == every_one.tolist()
            assert y == (total.tolist() if rank == 0 else x)
            mine = gpunn.stack([at(r, rank) for r in range(size)])
            assert z == (mine.any(0) if name == "bool" else mine.sum(0)).tolist()


def test_lists_messages_objects_and_odd_layouts(nccl):
    def body(group, rank):
        other, place = 1 - rank, f"cuda:{rank}"
        outs = [gpunn.zeros(3, device=place) for _ in range(2)]
        dist.gather(gpunn.full((3,), rank + 1.0, device=place), outs if rank else None, group=group,
                    group_dst=1)  # fmt: skip
        found = [host(outs)]
        dist.scatter(x := gpunn.zeros(3, device=place), outs if rank else None, group=group,
                     group_src=1)  # fmt: skip
        dist.all_to_all(outs, [gpunn.full((3,), 10.0 * rank + k, device=place) for k in range(2)],
                        group)  # fmt: skip
        found += [host(x), host(outs)]
        y, z = gpunn.zeros(2, 2, device=place), gpunn.arange(4.0, device=place).reshape(2, 2) + rank
        ops = [dist.P2POp(dist.irecv, y.t(), group=group, group_peer=other),
               dist.P2POp(dist.isend, z, group=group, group_peer=other)]  # fmt: skip
        works = dist.batch_isend_irecv(ops)
        found += [len(works), [w.wait() for w in works], host(y)]
        if rank:
            dist.send(z, group=group, group_dst=0)
        else:
            found.append(dist.recv(y, group=group, group_src=1))
        dist.all_reduce(z[:, 1], group=group)
        dist.all_reduce_coalesced([z, y], group=group)
        objects = [None, None]
        dist.all_gather_object(objects, {"rank": rank}, group)
        dist.broadcast_object_list(mine := [rank], group=group, group_src=1)
        dist.barrier(group)
        return [*found, host(z), objects, mine]

    first, second = every(2, body)
    assert first[:6] == [[[0.0] * 3] * 2, [1.0] * 3, [[0.0] * 3, [10.0] * 3], 1, [True],
                         [[1.0, 3.0], [2.0, 4.0]]]  # fmt: skip
    assert second[:6] == [[[1.0] * 3, [2.0] * 3], [2.0] * 3, [[1.0] * 3, [11.0] * 3], 1, [True],
                          [[0.0, 2.0], [1.0, 3.0]]]  # fmt: skip
    assert first[6] == 1
    assert first[-3:] == second[-3:] == [
        [[1.0, 6.0], [5.0, 14.0]], [{"rank": 0}, {"rank": 1}], [1]
    ]  # fmt: skip


def test_the_engines_stream_waits_for_the_callers_and_the_other_way_round(nccl):
    log, waiting = emulation.module().cuda.runtime.log, threading.Event()

    def body(group, rank):
        mine, x = cuda.Stream(), draw(rank)
        if rank == 1:
            waiting.wait(30)
        with cuda.stream(mine):
            dist.all_reduce(x, group=group)
        waiting.set()
        return mine.cuda_stream, group._comms["nccl"]._stream.cuda_stream

    nccl.asynchronous = True  # or the work is done, and nothing is left to wait for
    (caller, own), _ = every(2, body)
    steps = [(e[0], e[2]) for e in log if e[0] in ("record", "wait", "nccl")]
    steps = [s for s in steps if s[1] in (caller, own)]
    assert steps == [("record", caller), ("wait", own), ("nccl", own), ("record", own),
                     ("wait", caller)]  # fmt: skip


def test_callbacks_run_on_the_device_and_stream_that_asked(nccl):
    def body(group, rank):
        x, stream = draw(rank), cuda.Stream()
        with cuda.stream(stream):
            work = dist.all_reduce(x, group=group, async_op=True)
            place = work.get_future().then(
                lambda f: (cuda.current_device(), cuda.current_stream() == stream,
                           host(f.value()[0] * 2))
            )  # fmt: skip
            chained = work.get_future().then(
                lambda f: dist.all_reduce(x, group=group, async_op=True)
            )
        assert chained.wait().wait(timedelta(seconds=20))
        return [place.wait(), host(x)]

    for rank, (place, x) in enumerate(every(2, body)):
        assert place[:2] == (rank, True)
        assert x == place[2]  # summed twice over two ranks: doubled


def stuck(group, rank, count=3):
    """Works of rank 0 that wait for a rank that never comes."""
    x = [draw(rank) for _ in range(count)]
    return [dist.all_reduce(v, group=group, async_op=True) for v in x]


def ended(works, words):
    """All works end with one error, which has these words."""
    for work in works:
        with pytest.raises(dist.DistBackendError, match=words):
            work.wait(timedelta(seconds=10))
        assert work.is_completed() and not work.is_success() and work.exception() is not None
        with pytest.raises(dist.DistBackendError, match=words):
            work.wait()


@pytest.mark.parametrize("why", ["lost", "deadline", "error"])
def test_work_that_cannot_be_done_ends_with_an_error(nccl, why):
    watch, done = Watch(), threading.Event()
    words = {
        "lost": "all_reduce #.*rank 1 is gone",
        "deadline": "all_reduce #1.*no answer after 0.5",
        "error": "all_reduce: NCCL says: NCCL_ERROR_3",
    }[why]

    def body(group, rank):
        if rank == 1:
            if why == "error":
                with pytest.raises(dist.DistBackendError, match="NCCL says"):
                    dist.broadcast(draw(rank), group=group, group_src=0, async_op=True).wait(
                        timedelta(seconds=10)
                    )
            done.wait(30)
            return
        try:
            works = stuck(group, rank)
            if why == "lost":
                watch.gone = "rank 1 is gone"
            ended(works, words)
            with pytest.raises(dist.DistBackendError, match=words):
                dist.all_reduce(draw(rank), group=group)
            start = time.monotonic()
            group.close()
            assert time.monotonic() - start < 5
        finally:
            done.set()

    nccl.asynchronous = True
    every(2, body, timeout=0.5 if why == "deadline" else 20.0, watch=watch)
    assert (0, "abort") in nccl.log and (0, "destroy") not in nccl.log


def test_a_message_waits_by_its_own_time_and_a_failed_one_says_so(nccl):
    def body(group, rank):
        dist.all_reduce(draw(rank), group=group)
        time.sleep(0.8)  # longer than the timeout
        x = gpunn.zeros(2, device=f"cuda:{rank}")
        if rank == 0:
            dist.send(x + 5, group=group, group_dst=1)
            work = dist.irecv(x, group=group, group_src=1)
            with pytest.raises(dist.DistBackendError, match="recv"):
                work.wait()
            assert work.is_completed() and not work.is_success()
        else:
            dist.recv(x, group=group, group_src=0)
        return host(x)

    nccl.asynchronous = True
    assert every(2, body, timeout=0.6, watch=Watch())[1] == [5.0, 5.0]


def test_abort_and_close(nccl):
    released = threading.Event()

    def body(group, rank):
        if rank == 1:
            released.wait(30)
            return
        works = stuck(group, rank)
        group.abort()
        group.abort()
        ended(works, "was aborted")
        group.close()
        released.set()

    nccl.asynchronous = True
    every(2, body, watch=Watch())
    every(2, lambda group, rank: dist.all_reduce(draw(rank), group=group))
    assert nccl.log.count((0, "abort")) == 1 and nccl.log[-2:] != []
    assert {(0, "destroy"), (1, "destroy")} <= set(nccl.log)


def test_wrong_calls(nccl):
    def body(group, rank):
        x = draw(rank)
        with pytest.raises(TypeError, match="not supported for NCCL.*int16"):
            dist.all_reduce(x.to(gpunn.int16), group=group)
        with pytest.raises(RuntimeError, match="Cannot use ReduceOp.BAND with NCCL"):
            dist.all_reduce(x.to(gpunn.int32), R.BAND, group)
        with pytest.raises(RuntimeError, match="has to know the sender"):
            dist.recv(x, group=group)
        with pytest.raises(RuntimeError, match="No backend type associated with device type cpu"):
            dist.all_reduce(gpunn.zeros(2), group=group)
        nccl.refused = 4
        with pytest.raises(dist.DistBackendError, match="all_reduce: NCCL says: NCCL_ERROR_4"):
            dist.all_reduce(x, group=group)
        nccl.refused = 0
        dist.all_reduce(x, group=group)
        return host(x) == host(draw(rank))

    assert every(1, body) == [True]


@pytest.mark.parametrize("backend", ["nccl", "cpu:gloo,cuda:nccl", None])
def test_a_process_group_of_one(nccl, backend):
    dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        x = gpunn.full((3,), 2.0, device="cuda")
        dist.all_reduce(x)
        dist.barrier()
        dist.all_gather_object(out := [None], "here")
        assert host(x) == [2.0] * 3 and out == ["here"]
        model = gpunn.nn.parallel.DistributedDataParallel(gpunn.nn.Linear(3, 1).to("cuda"))
        model(x).sum().backward()
        assert host(model.module.weight.grad) == [[2.0] * 3]
        assert dist.get_backend() == ("nccl" if backend == "nccl" else "custom")
        if backend != "nccl":
            dist.all_reduce(gpunn.zeros(2))
    finally:
        dist.destroy_process_group()


def test_the_engine_is_on_the_gpu_of_the_first_tensor(nccl):
    dist.init_process_group("nccl", store=HashStore(), rank=0, world_size=1)
    try:
        x = gpunn.full((3,), 2.0, device="cuda:1")
        assert cuda.current_device() == 0
        dist.all_reduce(x)
        assert host(x) == [2.0] * 3 and dist.group.WORLD._comms["nccl"].gpu == 1
        with pytest.raises(RuntimeError, match="engine is on cuda:1, the tensor on cuda:0"):
            dist.all_reduce(gpunn.zeros(2, device="cuda:0"))
    finally:
        dist.destroy_process_group()


def test_without_nccl(monkeypatch, two_gpus):
    monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", type(sys)("cupy.cuda.nccl"))
    sys.modules["cupy.cuda.nccl"].available = False
    assert not dist.is_nccl_available()
    with pytest.raises(RuntimeError, match=r"needs a GPU and NCCL: pip install 'gpunn\[dist\]'"):
        engine.module()


def test_without_a_gpu():
    if cuda.is_available():
        pytest.skip("there is a GPU")
    assert not dist.is_nccl_available()
    with pytest.raises(RuntimeError, match="says why there is no GPU"):
        engine.module()


ON_GPUS = """
    x = gpunn.full((1000,), rank + 1.0, device="cuda")
    total = world * (world + 1) / 2
    for dtype in (gpunn.float32, gpunn.float16, gpunn.bfloat16, gpunn.int64, gpunn.float64):
        dist.all_reduce(y := x.to(dtype))
        assert (y == total).all(), dtype
        dist.all_reduce(y := x.to(dtype), dist.ReduceOp.MAX, async_op=True).wait()
        assert (y == world).all(), dtype
    parts = [gpunn.zeros(1000, device="cuda") for _ in range(world)]
    dist.all_gather(parts, x)
    assert [p[0].item() for p in parts] == [r + 1.0 for r in range(world)]
    dist.reduce_scatter(out := gpunn.zeros(1000, device="cuda"), parts)
    assert (out == world * (rank + 1.0)).all()
    dist.broadcast(y := x.clone(), world - 1)
    assert (y == world).all()
    right, left = (rank + 1) % world, (rank - 1) % world
    if world > 1:
        ops = [dist.P2POp(dist.isend, x, right), dist.P2POp(dist.irecv, y, left)]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        assert (y == left + 1.0).all()
    found = [None] * world
    dist.all_gather_object(found, {"rank": rank})
    assert [f["rank"] for f in found] == list(range(world))
    gpunn.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(10, 4).to("cuda"))
    loss = model(gpunn.ones(8, 10, device="cuda") * (rank + 1)).sum()
    loss.backward()
    assert gpunn.allclose(model.module.weight.grad, gpunn.full((4, 10), 8 * total / world,
                                                              device="cuda"))
    dist.barrier()
    report("done")
"""


@pytest.mark.gpu
def test_one_rank_on_a_gpu():
    assert run_ranks(1, ON_GPUS, "nccl", init="device_id=0") == ["done"]


@pytest.mark.multi_gpu
def test_two_ranks_on_two_gpus():
    assert run_ranks(2, ON_GPUS, "nccl", init="device_id=rank") == ["done"] * 2
