"""Collective operations over TCP against NumPy; ranks are threads here, each with its own sockets,
and processes where that matters."""

import contextlib
import threading
import time

import ml_dtypes
import numpy as np
import pytest

from gpunn.distributed import shared, tcp
from gpunn.distributed.comm import COMBINE, Message, Waiting
from gpunn.distributed.errors import DistBackendError
from gpunn.distributed.store import HashStore
from gpunn.distributed.tcp import TcpComm
from tests.distributed.ranks import run_ranks, try_ranks

SIZES = [1, 2, 3, 4, 9]


@contextlib.contextmanager
def comms(size, timeout=60.0):
    """The engines of so many ranks."""
    store, made = HashStore(), []
    for rank in range(size):
        waiting = Waiting(None, range(size))
        made.append(TcpComm(store, rank, size, waiting))
        waiting.begin("operation", 1, timeout)
    try:
        yield made
    finally:
        for comm in made:
            comm.close()


def every(made, body):
    """What body(comm) gives on all ranks at once; raises the first rank's error."""
    found, errors = {}, {}

    def one(comm):
        try:
            found[comm.rank] = body(comm)
        except Exception as error:
            errors[comm.rank] = error

    threads = [threading.Thread(target=one, args=(comm,)) for comm in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[min(errors)]
    return [found[comm.rank] for comm in made]


def draw(rank, shape, dtype="float64"):
    return np.random.default_rng(rank).integers(1, 5, shape).astype(dtype)


@pytest.fixture(autouse=True, params=["ring", "shared"])
def way(request, monkeypatch):
    """How large arrays go; a few thousand numbers are many pieces."""
    monkeypatch.setattr(tcp, "_PIECE", 4096)
    monkeypatch.setattr(tcp, "BANK", 1 << 14)
    monkeypatch.setattr(tcp, "_MEDIUM", 1 << 13)
    monkeypatch.setattr(shared, "BANK", 1 << 14)
    monkeypatch.setattr(tcp, "_SHARE", request.param == "shared")
    return request.param


once = pytest.mark.parametrize("way", ["shared"], indirect=True)

SHAPES = [(), (0,), (1,), (7,), (3, 5), (1024,), (8193,), (20011,)]  # the last two are large


@pytest.mark.parametrize("size", SIZES)
def test_all_collectives_of_all_shapes(size):
    with comms(size) as made:
        for shape in SHAPES:
            xs = [draw(r, shape) for r in range(size)]
            total = sum(xs)
            root = len(shape) % size

            def reduced(comm, xs=xs):
                x = xs[comm.rank].copy()
                comm.all_reduce(x, "sum")
                return x

            def sent(comm, xs=xs, root=root):
                x = xs[comm.rank].copy()
                comm.broadcast(x, root)
                return x

            def gathered(comm, xs=xs, shape=shape):
                out = np.empty((size, *shape))
                comm.all_gather(out, xs[comm.rank])
                return out

            def scattered(comm, shape=shape):
                x = np.stack([draw(10 * comm.rank + p, shape) for p in range(size)])
                out, before = np.empty(shape), x.copy()
                comm.reduce_scatter(out, x, "sum")
                assert np.array_equal(x, before)
                return out

            for x in every(made, reduced):
                np.testing.assert_array_equal(x, total)
            for x in every(made, sent):
                np.testing.assert_array_equal(x, xs[root])
            for x in every(made, gathered):
                np.testing.assert_array_equal(x, np.stack(xs))
            for rank, x in enumerate(every(made, scattered)):
                expected = sum(draw(10 * r + rank, shape) for r in range(size))
                np.testing.assert_array_equal(x, expected)
        every(made, lambda comm: comm.barrier())


@pytest.mark.parametrize("op", COMBINE)
@pytest.mark.parametrize("count", [5, 30011])
def test_every_operation(op, count):
    dtypes = ["int32", "uint8"] if op[0] == "b" else ["float32", "int64", "complex64"]
    with comms(3) as made:
        for dtype in dtypes:
            if dtype == "complex64" and op in ("min", "max"):
                continue
            xs = [draw(r, count, dtype) for r in range(3)]

            def body(comm, xs=xs):
                x = xs[comm.rank].copy()
                comm.all_reduce(x, op)
                return x

            expected = COMBINE[op](COMBINE[op](xs[0], xs[1]), xs[2])
            for x in every(made, body):
                np.testing.assert_array_equal(x, expected)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("count", [1000, 50000])
@pytest.mark.parametrize("size", [2, 4])
def test_sums_of_16_bits_are_close_and_the_same_everywhere(dtype, count, size, way):
    xs = [np.random.default_rng(r).standard_normal(count).astype(dtype) for r in range(size)]

    def body(comm):
        x = xs[comm.rank].copy()
        comm.all_reduce(x, "sum")
        return x

    with comms(size) as made:
        first, *others = every(made, body)
        again = every(made, body)
    exact = sum(x.astype(np.float64) for x in xs)
    step = float(ml_dtypes.finfo(dtype).eps)
    assert first.dtype == dtype
    hops = 1 if count == 1000 or way == "shared" else size
    np.testing.assert_allclose(first.astype(np.float64), exact, step * hops, 4 * step * hops)
    for other in [*others, *again]:
        assert other.tobytes() == first.tobytes()


def test_sums_of_floats_are_the_same_on_every_rank_and_run():
    for count in (100, 40000):
        xs = [np.random.default_rng(r).standard_normal(count) for r in range(4)]

        def body(comm, xs=xs):
            x = xs[comm.rank].copy()
            comm.all_reduce(x, "sum")
            return x.tobytes()

        with comms(4) as made:
            assert len({*every(made, body), *every(made, body)}) == 1


@once
def test_messages_by_tag_and_sender_in_any_order():
    def body(comm):
        if comm.rank == 0:
            for tag in (3, 1, 2):
                comm.send(np.full(1000, tag, np.int16), 1, tag)
            comm.send(np.zeros(0), 1, 9)
            return None
        found = {}
        for tag in (2, 3, 1):
            x = np.zeros(1000, np.int16)
            assert comm.recv(x, 0 if tag != 2 else None, tag) == 0
            found[tag] = set(x.tolist())
        comm.recv(np.zeros(0), 0, 9)
        return found

    with comms(2) as made:
        assert every(made, body)[1] == {1: {1}, 2: {2}, 3: {3}}


@once
def test_both_may_send_first_however_much_it_is():
    big = 4_000_000

    def body(comm):
        x, out = np.full(big, comm.rank, np.uint8), np.empty(big, np.uint8)
        other = 1 - comm.rank
        comm.exchange([Message("send", x, other, 0), Message("recv", out, other, 0)])
        begun = comm.isend(x, other, 1)  # nobody waits for it at first
        comm.barrier()
        comm.recv(out, other, 1)
        comm.waiting.poll(begun.test)
        return set(out.tolist())

    with comms(2) as made:
        assert every(made, body) == [{1}, {0}]


@once
def test_what_was_begun_goes_on_while_other_things_happen():
    """A send that nobody waits for gets there, though its sender is busy elsewhere."""

    def body(comm):
        x = np.full(3_000_000, 7, np.uint8)
        if comm.rank == 0:
            request = comm.isend(x, 1, 0)
            arrived.wait(30)  # not in any operation of the engine
            return request.test()
        comm.recv(x := np.zeros_like(x), 0, 0)
        arrived.set()
        return bool((x == 7).all())

    arrived = threading.Event()
    with comms(2) as made:
        assert every(made, body) == [True, True]


@once
def test_all_to_all_gather_and_scatter():
    def body(comm):
        parts = [np.array([10 * comm.rank + p]) for p in range(3)]
        outs = [np.empty(1, int) for _ in range(3)]
        comm.all_to_all(outs, parts)
        gathered = [np.empty(1, int) for _ in range(3)]
        comm.gather(gathered if comm.rank == 1 else None, np.array([comm.rank]), 1)
        one = np.empty(1, int)
        comm.scatter(one, parts if comm.rank == 2 else None, 2)
        return [int(o[0]) for o in outs], [int(g[0]) for g in gathered], int(one[0])

    with comms(3) as made:
        found = every(made, body)
    assert [f[0] for f in found] == [[0, 10, 20], [1, 11, 21], [2, 12, 22]]
    assert found[1][1] == [0, 1, 2]
    assert [f[2] for f in found] == [20, 21, 22]


@once
def test_shapes_that_differ_are_told():
    for count, message in ((3, "rank 1: it sent 16 bytes where 24"),
                           (5000, "rank 1 has 39992 bytes where 40000")):  # fmt: skip
        with comms(2, timeout=10.0) as made, pytest.raises(
            DistBackendError, match=f"operation: {message} are expected: shapes or dtypes differ"
        ):
            every(made, lambda comm, n=count: comm.all_reduce(np.zeros(n - comm.rank), "sum"))
    with comms(9, timeout=10.0) as made, pytest.raises(
        DistBackendError, match="another rank has 39... bytes where 40000 are|where 399.. are exp"
    ):
        every(made, lambda comm: comm.all_reduce(np.zeros(5000 - comm.rank), "sum"))


@once
def test_nobody_answers_within_the_timeout():
    with comms(2, timeout=0.3) as made:
        start = time.monotonic()
        with pytest.raises(DistBackendError, match="operation: no answer after 0.3 s"):
            made[0].all_reduce(np.zeros(3), "sum")
        with pytest.raises(DistBackendError, match="no answer"):
            made[1].recv(np.zeros(3), None, 0)
        assert time.monotonic() - start < 10


@once
def test_a_closed_connection_ends_the_waiting():
    with comms(2) as made:
        every(made, lambda comm: comm.barrier())
        threading.Timer(0.1, made[1].close).start()
        with pytest.raises(DistBackendError, match="operation: rank 1: its connection was closed"):
            made[0].all_reduce(np.zeros(3), "sum")


@once
def test_abort_ends_what_another_thread_waits_for():
    with comms(2) as made:
        threading.Timer(0.1, made[0].abort).start()
        with pytest.raises(DistBackendError, match="closed meanwhile"):
            made[0].all_reduce(np.zeros(3), "sum")


@once
def test_groups_threads_and_messages_side_by_side():
    found = run_ranks(
        4,
        """
        halves = [dist.new_group([0, 1]), dist.new_group([2, 3])]
        mine = halves[rank // 2]
        x = gpunn.full((200_000,), float(rank))
        works = [dist.all_reduce(x, async_op=True)]
        y = gpunn.full((3,), float(rank))
        works.append(dist.all_reduce(y, group=mine, async_op=True))
        right, left = (rank + 1) % 4, (rank - 1) % 4
        z = gpunn.zeros(500_000)
        receiving = dist.irecv(z, left)
        sending = dist.isend(gpunn.full((500_000,), float(rank)), right)
        for work in [sending, receiving, *works]:
            work.wait()
        report([x[0].item(), x[-1].item(), y.tolist(), z.mean().item()])
        """,
    )
    for rank, (first, last, y, z) in enumerate(found):
        assert (first, last, z) == (6, 6, (rank - 1) % 4)
        assert y == [1 if rank < 2 else 5] * 3


@pytest.mark.parametrize("share", [True, False])
@once
def test_a_rank_killed_in_the_middle_of_much_data_is_named(share):
    outcomes = try_ranks(
        3,
        f"""
        import threading, time
        from gpunn.distributed import tcp
        tcp._SHARE = {share}
        x = gpunn.ones(10_000_000)
        dist.all_reduce(x)
        if rank == 2:
            threading.Timer(0.3, os.kill, [os.getpid(), 9]).start()
        start = time.monotonic()
        try:
            while True:
                dist.all_reduce(x)
        except dist.DistBackendError as error:
            report([str(error), time.monotonic() - start])
            raise
        """,
    )
    for rank in (0, 1):
        said, seconds = outcomes[rank].result
        assert "rank 2 is gone: killed" in said and seconds < 15
