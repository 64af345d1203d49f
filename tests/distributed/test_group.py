"""Process groups: made, used, ended, over real processes, against PyTorch."""

from datetime import timedelta

import pytest

import gpunn
from gpunn import distributed as dist
from tests.distributed.alike import alike, ours
from tests.distributed.ranks import free_port, run_ranks, try_ranks

VALUES = """
rank, world = dist.get_rank(), dist.get_world_size()
x = T.ones(2)
found["default"] = [dist.is_initialized(), dist.get_backend(), dist.group.WORLD.size(),
                    dist.group.WORLD.rank(), dist.get_process_group_ranks(None),
                    dist.group.WORLD.group_name, dist.get_pg_count(),
                    dist.GroupMember.NON_GROUP_MEMBER]
pairs = [dist.new_group(ranks) for ranks in ([0, 1], [1, 2], [2, 0])]
mine = [g for g in pairs if g is not dist.GroupMember.NON_GROUP_MEMBER]
found["pairs"] = [dist.get_rank(g) for g in pairs] + [dist.get_world_size(g) for g in pairs]
found["their ranks"] = [[dist.get_process_group_ranks(g), dist.get_group_rank(g, rank),
                         dist.get_global_rank(g, 0), g.size(), g.rank()] for g in mine]
for g in mine:  # in the order in which they were made
    dist.all_reduce(x, group=g)
found["sums"] = x
found["count"] = dist.get_pg_count()
local = None
if rank != 1:
    local = dist.new_group([0, 2], use_local_synchronization=True)
    dist.all_reduce(x := T.full((2,), float(rank)), group=local)
    again = dist.new_group([0, 2], use_local_synchronization=True)
    dist.broadcast(x, group=again, group_src=1)
found["local"] = [x, dist.get_rank(local)]
if rank == 1:
    found["left out"] = dist.new_group([0, 2], use_local_synchronization=True)
own, all_of_them = dist.new_subgroups_by_enumeration([[0, 2], [1]])
dist.all_reduce(x := T.full((2,), float(rank)), group=own)
found["subgroups"] = [x, len(all_of_them), dist.get_rank(own)]
ordered = dist.new_group([2, 0, 1], sort_ranks=False, group_desc="mine")
found["ordered"] = [dist.get_rank(ordered), dist.get_process_group_ranks(ordered),
                    ordered.group_desc]
dist.destroy_process_group(ordered)
dist.barrier()
found["refused"] = [
    error("ranks list must not contain duplicate entries", lambda: dist.new_group([0, 0])),
    error("out of range. Valid ranks are 0 to 2", lambda: dist.new_group([0, 5])),
    error("must not contain duplicate", lambda: dist.new_group([0, 1, 2, 2])),
    error("Expected timeout argument to be of type datetime.timedelta",
          lambda: dist.new_group([0], timeout=3.0)),
    error("trying to initialize the default process group twice!",
          lambda: dist.init_process_group("gloo")),
    error("Invalid process group specified", lambda: dist.destroy_process_group(ordered)),
    error("is not part of group", lambda: dist.get_global_rank(own, 7)),
    error("is not part of group", lambda: dist.get_group_rank(own, 7)),
    error("Invalid process group specified",
          lambda: dist.get_backend(dist.GroupMember.NON_GROUP_MEMBER)),
    error("cannot be empty", lambda: dist.new_subgroups_by_enumeration([])),
]
found["destroying nothing"] = dist.destroy_process_group(dist.GroupMember.NON_GROUP_MEMBER)
dist.destroy_process_group(mine[0])
dist.all_reduce(x := T.ones(1))
found["after"] = x
dist.barrier()
dist.destroy_process_group()
found["ended"] = [
    dist.is_initialized(), dist.group.WORLD,
    error("Default process group has not been initialized", dist.get_rank),
    error("Default process group has not been initialized", lambda: dist.all_reduce(x)),
    error("Process group cannot be None", dist.destroy_process_group),
    error("Cannot specify both init_method and store",
          lambda: dist.init_process_group("gloo", "env://", store=dist.HashStore())),
    error("world_size must be positive if using store",
          lambda: dist.init_process_group("gloo", store=dist.HashStore())),
    error("rank must be non-negative if using store",
          lambda: dist.init_process_group("gloo", store=dist.HashStore(), world_size=1)),
    error("Expected timeout argument to be of type datetime.timedelta",
          lambda: dist.init_process_group("gloo", timeout=1)),
    error("o rendezvous handler", lambda: dist.init_process_group("gloo", "http://x")),
    error("Unknown backend type telepathy", lambda: dist.init_process_group("telepathy")),
]
"""


def test_groups_are_those_of_pytorch():
    alike(3, VALUES)


def test_overlapping_groups_over_mpi():
    ours(3, """
        rank = dist.get_rank()
        groups = [dist.new_group(ranks) for ranks in ([0, 1], [1, 2], [2, 0], [2, 1, 0])]
        x = [T.full((4,), float(rank)) for _ in groups]
        works = [dist.all_reduce(v, group=g, async_op=True) for v, g in
                 list(zip(x, groups))[::1 if rank else -1]
                 if g is not dist.GroupMember.NON_GROUP_MEMBER]
        for work in works:
            work.wait()
        sums = [1, 3, 2, 3]
        for v, total, ranks in zip(x, sums, ([0, 1], [1, 2], [2, 0], [2, 1, 0])):
            assert v.tolist() == [float(total if rank in ranks else rank)] * 4, (rank, x)
        try:
            dist.new_group([0], use_local_synchronization=True)
        except ValueError as error:
            assert "MPI backend doesn't support" in str(error)
        assert dist.get_backend() == "mpi"
    """, "mpi")  # fmt: skip


AGAIN = """
    from datetime import timedelta
    def go(*args, **options):
        dist.init_process_group(*args, **options)
        x = gpunn.full((3,), rank + 1.0)
        dist.all_reduce(x)
        group = dist.new_group([0, 1])
        dist.all_reduce(x, group=group)
        work = dist.broadcast(x, 0, async_op=True)
        if rank:
            dist.destroy_process_group(group)
        dist.destroy_process_group()
        assert work.is_success()  # what was under way has been done
        return x.tolist()

    made = [go("gloo"), go(), go(backend="gloo", init_method="env://"), go("cpu:gloo,cuda:nccl")]
    place = dict(rank=rank, world_size=world)
    made += [go("gloo", TCP, **place), go("gloo", TCP + f"?rank={rank}&world_size=2")]
    made += [go("gloo", FILE + "1", **place), go("gloo", FILE + "2", **place)]
    store = dist.FileStore(FILE[7:] + "3", 2)
    made += [go("gloo", store=store, **place)]
    store = dist.TCPStore("127.0.0.1", PORT, 2, rank == 0)
    made += [go("gloo", store=dist.PrefixStore("a", store), **place)]
    made += [go("gloo", store=dist.PrefixStore("b", store), **place)]
    report(made)
"""


def test_made_and_ended_again_and_again_by_every_way_to_meet(tmp_path):
    places = f"""
    PORT, TCP, FILE = {free_port()}, "tcp://127.0.0.1:{free_port()}", "file://{tmp_path}/meet"
"""
    text = places + AGAIN
    first, second = run_ranks(2, text, None)
    assert first == second == [[6.0] * 3] * 11


def test_threads_use_groups_at_once():
    run_ranks(2, """
        import threading
        groups = [dist.new_group([0, 1]) for _ in range(4)]
        def one(group):
            for k in range(25):
                x = gpunn.full((1000,), float(k))
                work = dist.all_reduce(x, group=group, async_op=k % 2)
                if work:
                    work.wait()
                assert x[0] == 2 * k
            done.append(1)
        done = []
        threads = [threading.Thread(target=one, args=(g,)) for g in groups]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        assert len(done) == 4

        # Callbacks that ask for operations: next in order, on all ranks.
        order = []
        def chain(future, k=0):
            order.append(k)
            x = gpunn.full((10,), float(k))
            work = dist.all_reduce(x, async_op=True)
            return work.get_future().then(lambda f: chain(f, k + 1)) if k < 5 else x
        first = dist.all_reduce(gpunn.zeros(100000), async_op=True)
        chained = first.get_future().then(chain)
        after = dist.all_reduce(y := gpunn.ones(3), async_op=True)
        after.wait()
        while isinstance(chained, gpunn.futures.Future):
            chained = chained.wait()
        assert order == list(range(6)) and chained[0] == 10 and y[0] == 2
    """)  # fmt: skip


@pytest.mark.parametrize("backend", ["gloo", "mpi"])
def test_who_is_late_is_named_and_then_all_of_it_ends(backend):
    body = """
        import time
        from datetime import timedelta
        x = gpunn.zeros(3)
        dist.all_reduce(x)
        start = time.monotonic()
        if rank == 0:
            works = [dist.all_reduce(x, async_op=True), dist.all_reduce(x, async_op=True)]
            try:
                works[0].wait()
            except dist.DistBackendError as error:
                found = str(error)
            dist.destroy_process_group()
            assert works[1].is_completed() and not works[1].is_success()
            report([found, time.monotonic() - start])
        else:
            time.sleep(5)
        os._exit(0)
    """
    limit = "timeout=__import__('datetime').timedelta(seconds=1)"
    (found, seconds), _ = (e.result for e in try_ranks(2, body, backend, init=limit))
    assert "all_reduce #3" in found and "rank 1 last reached all_reduce #2" in found, found
    assert seconds < 4.5


def test_wait_has_a_timeout_of_its_own():
    run_ranks(2, """
        import time
        from datetime import timedelta
        x = gpunn.ones(3)
        if rank == 1:
            time.sleep(0.5)
        work = dist.all_reduce(x, async_op=True)
        if rank == 0:
            try:
                work.wait(timedelta(milliseconds=50))
            except dist.DistBackendError as error:
                assert "all_reduce: not done after" in str(error)
            else:
                assert False
        assert work.wait() and x.tolist() == [2, 2, 2]
    """)  # fmt: skip


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield dist.group.WORLD
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_group_tells_what_it_is(alone):
    assert repr(alone) == "<ProcessGroup 0 gloo: rank 0 of 1, global ranks [0]>"
    assert alone.get_group_store().check([]) is True
    alone.set_timeout(timedelta(seconds=5))
    assert alone.timeout == timedelta(seconds=5)
    alone.engines = {"cuda": "nccl"}
    with pytest.raises(RuntimeError, match="No backend type associated with device type cpu"):
        dist.all_reduce(gpunn.zeros(2))


def test_a_group_that_was_destroyed_is_refused(alone):
    group = dist.new_group([0])
    dist.destroy_process_group(group)
    with pytest.raises(ValueError, match="Invalid process group specified.*was destroyed"):
        dist.all_reduce(gpunn.zeros(2), group=group)


@pytest.mark.parametrize(
    "text, engines",
    [
        ("gloo", {"cpu": "gloo", "cuda": "gloo"}), ("GLOO", {"cpu": "gloo", "cuda": "gloo"}),
        ("nccl", {"cuda": "nccl"}), ("cpu:gloo,cuda:nccl", {"cpu": "gloo", "cuda": "nccl"}),
        ("cpu:mpi, cuda:nccl", {"cpu": "mpi", "cuda": "nccl"}),
        (None, {"cpu": "gloo", "cuda": "nccl"}), ("undefined", {"cpu": "gloo", "cuda": "nccl"}),
    ],
)  # fmt: skip
def test_names_of_backends(text, engines):
    from gpunn.distributed.group import parse_backend

    assert parse_backend(text) == engines


def test_backends_that_are_not():
    with pytest.raises(ValueError, match="Backend constructor parameter must be string-ish"):
        dist.Backend(3)
    with pytest.raises(ValueError, match="the nccl backend moves arrays of GPUs only"):
        dist.init_process_group("cpu:nccl")
    with pytest.raises(AssertionError, match="Unknown backend type ucc: init_process_group got"):
        dist.init_process_group("ucc", store=dist.HashStore(), rank=0, world_size=1)
    assert dist.Backend("MPI") == dist.Backend.MPI == "mpi" and not dist.is_initialized()
