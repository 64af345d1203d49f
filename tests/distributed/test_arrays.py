"""ReduceOp, checks of arguments, and the way of tensors to an engine and back."""

import threading
from datetime import timedelta

import numpy as np
import pytest

import gpunn
from gpunn import cuda
from gpunn import distributed as dist
from gpunn.distributed import arrays
from gpunn.distributed.comm import Waiting
from gpunn.distributed.group import ProcessGroup, table
from gpunn.distributed.store import HashStore, PrefixStore
from gpunn.distributed.tcp import TcpComm

R = dist.ReduceOp


def test_reduce_ops_are_those_of_pytorch():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = torch.distributed.ReduceOp
    for name in ("SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR"):
        mine, wanted = getattr(R, name), getattr(theirs, name)
        assert (repr(mine), mine.value, str(mine)) == (repr(wanted), wanted.value, str(wanted))
        assert mine is getattr(R.RedOpType, name) is dist.RedOpType[name]


def test_what_dtypes_cannot_do():
    x = gpunn.zeros(2)
    assert arrays.op_name(R.AVG, x) == "sum" and arrays.op_name(R.PRODUCT, x) == "product"
    assert arrays.op_name(R.BXOR, x.long()) == "bxor" and arrays.op_name(R.BAND, x > 0) == "band"
    for op, tensor, error, words in [
        (R.BOR, x, RuntimeError, "Cannot use ReduceOp.BOR with non-integral dtype: torch.float32"),
        (R.BOR, x.to(gpunn.bfloat16), RuntimeError, "non-integral dtype: torch.bfloat16"),
        (R.MIN, x.to(gpunn.complex64), ValueError, "does not support .*MIN on complex"),
        (R.AVG, x > 0, RuntimeError, "Cannot use ReduceOp.AVG with torch.bool"),
        ("sum", x, TypeError, "op must be one of ReduceOp.SUM, AVG.*got 'sum'"),
    ]:  # fmt: skip
        with pytest.raises(error, match=words):
            arrays.op_name(op, tensor)


class Host:
    """As an engine for arrays of the host."""

    device_types, deferred, size = ("cpu",), False, 2


def test_tensors_that_lie_in_order_are_not_copied():
    cpu, x = gpunn.device("cpu"), gpunn.arange(6.0).reshape(2, 3)
    way = arrays.Arrays(Host, cpu)
    assert way.of(x) is x.array and way.out(x) is x.array
    turned = x.t()
    copy = way.out(turned)
    assert copy.flags.c_contiguous and not np.shares_memory(copy, x.array)
    copy[...] = 7
    assert x[0, 1] == 1
    way.finish()
    assert (x == 7).all()


def test_results_count_as_changes_in_place():
    x = gpunn.ones(3, requires_grad=True)
    y = x * 2
    z = y * y
    arrays.Arrays(Host, gpunn.device("cpu")).out(y.detach())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_means_of_integers_and_halves():
    for dtype, total, mean in [(np.int64, 7, 3), (np.int64, -7, -4), (np.float16, 7, 3.5)]:
        array = np.full(2, total, dtype)
        arrays.finish_mean(R.AVG, array, 2)
        assert array.dtype == dtype and array.tolist() == [mean] * 2
        arrays.finish_mean(R.SUM, array, 2)
        assert array.tolist() == [mean] * 2


def groups_of_threads(body):
    """body(group, rank) of two ranks, each a thread with a GPU and the engine of the host."""
    store, found = HashStore(), {}

    def one(rank):
        cuda.set_device(1 - rank)  # not the one whose tensors are sent
        waiting = Waiting(None, range(2))
        waiting.begin("start", 0, 20.0)
        group = ProcessGroup(f"thread {rank}", [0, 1], rank, {"cpu": "gloo", "cuda": "gloo"}, store,
                             None, timedelta(seconds=20))  # fmt: skip
        group._comms["gloo"] = TcpComm(PrefixStore("tcp", store), rank, 2, waiting)
        table.groups[group.group_name] = group
        try:
            found[rank] = body(group, rank)
            group.close()
        except BaseException as error:
            found[rank] = error

    threads = [threading.Thread(target=one, args=(r,)) for r in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    table.groups.clear()
    for answer in found.values():
        if isinstance(answer, BaseException):
            raise answer
    return found


def host(tensor):
    return tensor.cpu().tolist()


def test_tensors_of_gpus_over_an_engine_of_the_host(two_gpus):
    def body(group, rank):
        here = f"cuda:{rank}"
        x = gpunn.full((3, 2), rank + 1.0, device=here)
        dist.all_reduce(x, R.AVG, group)
        dist.all_reduce(x.t()[0], group=group, async_op=True).wait()
        outs = [gpunn.zeros(2, device=here) for _ in range(2)]
        dist.all_gather(outs, gpunn.full((2,), rank + 5.0, device=here), group, True).wait()
        y = gpunn.zeros(4, device=here)[::2]
        works = [dist.irecv(y, group=group, group_src=1 - rank),
                 dist.isend(x[0], group=group, group_dst=1 - rank)]  # fmt: skip
        waited = [w.wait() for w in works]
        dist.all_reduce_coalesced([x, y], group=group)
        return waited, *(host(t) for t in (x, y, *outs)), str(x.device)

    found = groups_of_threads(body)
    for rank in range(2):
        waited, x, y, *outs, device = found[rank]
        assert x == [[6.0, 3.0]] * 3 and y == [6.0, 3.0] and device == f"cuda:{rank}"
        assert outs == [[5.0, 5.0], [6.0, 6.0]] and waited == [True, True]


def test_several_gpus_in_one_operation_are_refused(two_gpus):
    first, second = (gpunn.zeros(2, device=d) for d in two_gpus)
    with pytest.raises(RuntimeError, match="gather: tensor 1 is on cuda:1, the first on cuda:0"):
        arrays.check_same("gather", [first, second], first)


def test_who_is_not_in_the_group_is_warned():
    with pytest.warns(UserWarning, match="Running all_reduce on global rank -1 which does not"):
        assert arrays.outside("all_reduce") is None
