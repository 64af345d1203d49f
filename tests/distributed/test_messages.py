"""Sends and receives over real processes, against PyTorch's gloo and over MPI."""

import pytest

from tests.distributed.alike import alike, compare, ours
from tests.distributed.ranks import try_ranks

VALUES = """
rank, world = dist.get_rank(), dist.get_world_size()
right, left = (rank + 1) % world, (rank - 1) % world
dtypes = [T.float32, T.float64, T.float16, T.bfloat16, T.int64, T.int32, T.int8, T.uint8, T.bool,
          T.complex64]
for dtype in dtypes:
    for shape in [(), (0,), (3,), (2, 3), (20000,)]:
        x, y = T.full(shape, rank + 1).to(dtype), T.zeros(shape, dtype=dtype)
        if rank % 2:
            sender = dist.recv(y, left)
            dist.send(x, right)
        else:
            dist.send(x, right)
            sender = dist.recv(y, left)
        found[f"{dtype} {shape}"] = [sender, y.reshape(-1)[-3:] if y.numel() > 9 else y]

# Tags: the messages are taken in the other order.
works = [dist.isend(T.full((2,), 10.0 * rank + tag), right, tag=tag) for tag in (1, 2, 3)]
ys = [T.zeros(2) for _ in range(3)]
for tag in (3, 1, 2):
    dist.recv(ys[tag - 1], left, tag=tag)
found["tags"] = [ys, [w.wait() for w in works]]

# From whoever sends first: all that matters is that all come.
if rank == 0:
    ys = [T.zeros(1) for _ in range(2 * (world - 1))]
    senders = sorted(dist.recv(y, tag=5) for y in ys)
    found["any"] = [senders, sorted(y.item() for y in ys)]
else:
    for k in range(2):
        dist.send(T.full((1,), 10.0 * rank + k), 0, tag=5)
dist.barrier()  # or a later message with that tag is taken too

# Many in flight, waited for backwards.
ys = [T.zeros(500) for _ in range(50)]
works = [dist.irecv(y, left, tag=k) for k, y in enumerate(ys)]
works += [dist.isend(T.full((500,), float(k + rank)), right, tag=k) for k in range(50)]
found["many"] = [all(w.wait() for w in reversed(works)), [y.mean() for y in ys],
                 all(w.is_completed() for w in works)]

x = T.arange(12.0).reshape(3, 4) + rank
y, z = T.zeros(3, 4), T.zeros(3, 4)
ops = [dist.P2POp(dist.irecv, y, left, tag=1), dist.P2POp(dist.isend, x, right, tag=1),
       dist.P2POp(dist.isend, x * 2, left, tag=2), dist.P2POp(dist.irecv, z, right, tag=2)]
found["batch"] = [[w.wait() for w in dist.batch_isend_irecv(ops)], y, z, repr(ops[1]),
                  ops[0].peer, ops[0].group_peer]

group = dist.new_group([0, 2])
if rank != 1:
    other, place = 2 - rank, rank // 2
    ops = [dist.P2POp(dist.isend, x, other, group), dist.P2POp(dist.irecv, y, other, group)]
    found["group"] = [[w.wait() for w in dist.batch_isend_irecv(ops)], y]
    ops = [dist.P2POp(dist.isend, x + 1, group=group, group_peer=1 - place),
           dist.P2POp(dist.irecv, y, group=group, group_peer=1 - place)]
    found["group_peer"] = [[w.wait() for w in dist.batch_isend_irecv(ops)], y, ops[0].peer]
    if rank == 0:
        dist.send(x, group=group, group_dst=1)
        sender = dist.recv(y, group=group)
    else:
        sender = dist.recv(y, group=group, group_src=0)
        dist.send(x, 0, group)
    found["in group"] = [sender, y]
else:
    found["outside"] = [dist.recv(y, 0, group), dist.irecv(y, 0, group)]
dist.barrier()

two = dist.new_group([0, 1])
if rank == 0:
    found["refused"] = [
        error("Expected parameter `tensor`", lambda: dist.send(3, 1)),
        error("Must specify global_rank or group_rank", lambda: dist.send(x)),
        error("Can't specify both group_rank and global_rank",
              lambda: dist.isend(x, 1, group_dst=1)),
        error("destination rank should not be the same as the rank of the current",
              lambda: dist.send(x, 0)),
        error("is not part of group", lambda: dist.send(x, 2, two)),
        error("Expected ``op`` to be of type ``torch.distributed.isend``",
              lambda: dist.P2POp(dist.broadcast, x, 1)),
        error("Must specify global_rank or group_rank", lambda: dist.P2POp(dist.isend, x)),
        error("Invalid ``p2p_op_list``", lambda: dist.batch_isend_irecv([x])),
        error("All ops need to use the same group", lambda: dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, x, 1), dist.P2POp(dist.isend, x, 1, two)])),
    ]
dist.barrier()
"""

OURS = """
import threading
rank = dist.get_rank()
other = 1 - rank

# Futures come by themselves, whether anybody waits or not.
y = T.zeros(3)
work = dist.irecv(y, other)
doubled = work.get_future().then(lambda f: f.value()[0] * 2)
dist.barrier()
dist.send(T.full((3,), 1.0 + rank), other)
assert doubled.wait().tolist() == [2 * (2.0 - rank)] * 3
assert work.is_completed() and work.is_success() and work.source_rank() == other

# Tensors that are not contiguous.
x, y = T.arange(12.0).reshape(3, 4) + rank, T.zeros(4, 6)
work = dist.isend(x.t(), other)
assert dist.recv(y[:, ::2], other) == other and work.wait()
assert y[:, ::2].tolist() == (T.arange(12.0).reshape(3, 4) + other).t().tolist()
assert y[:, 1::2].abs().sum() == 0

# Several threads, each with its own tag, and collective operations between them.
def talk(tag):
    for k in range(20):
        y = T.zeros(100)
        work = dist.irecv(y, other, tag=tag)
        dist.send(T.full((100,), 1000.0 * tag + k), other, tag=tag)
        work.wait()
        assert y.tolist() == [1000.0 * tag + k] * 100
        done.append(1)

done = []
threads = [threading.Thread(target=talk, args=(tag,)) for tag in (1, 2, 3)]
for t in threads:
    t.start()
for k in range(20):
    x = T.ones(5000)
    dist.all_reduce(x)
    assert x.sum() == 10000
for t in threads:
    t.join()
assert len(done) == 60

# Two threads wait for one message.
y = T.zeros(2)
work = dist.irecv(y, other, tag=9)
threads = [threading.Thread(target=work.wait) for _ in range(4)]
for t in threads:
    t.start()
dist.send(T.ones(2), other, tag=9)
for t in threads:
    t.join()
assert work.is_success() and y.tolist() == [1, 1]

# A wait that is too short may be made again; another length is an error on the receiver.
work = dist.irecv(y, other, tag=10)
found["late"] = error("recv", lambda: work.wait(timedelta(milliseconds=1)))
assert not work.is_completed()
dist.barrier()
dist.send(T.zeros(2), other, tag=10)
assert work.wait() and y.tolist() == [0, 0]
for tag, size in ((11, 3), (12, 1)):
    sent = dist.isend(T.zeros(size), other, tag=tag)
    work = dist.irecv(y, other, tag=tag)
    found[f"misfit {tag}"] = error("bytes where 8 are expected", work.wait)
    assert work.is_completed() and not work.is_success()
    found[f"again {tag}"] = error("bytes where 8 are expected", lambda: work.get_future().wait())
    sent.wait()
found["self"] = error("source rank should not be the same", lambda: dist.recv(y, rank))
dist.barrier()
"""


def test_values_are_those_of_pytorch():
    results = alike(3, VALUES)
    differences = compare(results, ours(3, VALUES, "mpi"))
    assert not differences, "\n".join(differences)


@pytest.mark.parametrize("backend", ["gloo", "mpi"])
def test_what_goes_beyond_pytorchs_gloo(backend):
    for found in ours(2, OURS, backend):
        assert all(f.get("has") for f in found.values()), found


def test_messages_are_not_late_because_an_operation_was_long_ago():
    body = """
        import time
        group = dist.new_group([0, 1])  # its engine starts with the first message
        time.sleep(1.5)  # longer than the timeout of what was last
        x = gpunn.zeros(1)
        (dist.send if rank == 0 else dist.recv)(x, 1 - rank)
        (dist.send if rank else dist.recv)(x, 1 - rank, group)
        report(True)
    """
    ended = try_ranks(2, body, init="timeout=__import__('datetime').timedelta(seconds=1)")
    assert [e.result for e in ended] == [True, True], ended


def test_a_receive_from_a_rank_that_is_gone_is_an_error_that_names_it():
    body = """
        store = dist.group.WORLD.store
        if rank == 1:
            store.wait(["rank 0 is past the start"])
            os._exit(3)
        store.set("rank 0 is past the start", "yes")
        work = dist.irecv(gpunn.zeros(1), 1)
        try:
            dist.recv(gpunn.zeros(1), 1, tag=1)
        except dist.DistBackendError as error:
            found = [str(error)]
        assert work.is_completed() and not work.is_success()
        found.append(str(work.exception()))
        report(found)
        os._exit(0)
    """
    told, _ = (e.result for e in try_ranks(2, body))
    assert all("recv" in text and "rank 1 " in text for text in told), told
