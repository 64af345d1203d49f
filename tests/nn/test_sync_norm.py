"""SyncBatchNorm: BatchNorm alone, and over the batches of processes that are threads here."""

import sys
import threading
import types

import numpy as np
import pytest
from both import refused, same

import gpunn
from gpunn import nn
from tests.distributed.ranks import run_ranks

rng = np.random.default_rng(0)


class World:
    """Ranks that are threads: what SyncBatchNorm calls of `gpunn.distributed`."""

    def __init__(self, size):
        self.size, self.slots, self.barrier = size, [None] * size, threading.Barrier(size)
        self.local = threading.local()
        self.module = types.ModuleType("gpunn.distributed")
        self.module.is_initialized = lambda: True
        self.module.group = types.SimpleNamespace(WORLD=self)
        self.module.get_world_size = lambda group=None: size
        self.module.all_gather, self.module.all_reduce = self.all_gather, self.all_reduce

    def exchange(self, tensor):
        self.slots[self.local.rank] = tensor.array.copy()
        self.barrier.wait(60)
        found = list(self.slots)
        self.barrier.wait(60)
        return found

    def all_gather(self, into, tensor, group=None):
        for t, a in zip(into, self.exchange(tensor), strict=True):
            t.array[...] = a

    def all_reduce(self, tensor, op=None, group=None):
        tensor.array[...] = sum(self.exchange(tensor))

    def run(self, f):
        """[f(rank), ...], each in its thread."""
        found = [None] * self.size

        def body(rank):
            self.local.rank = rank
            try:
                found[rank] = f(rank)
            except BaseException as error:
                self.barrier.abort()
                found[rank] = error

        threads = [threading.Thread(target=body, args=(rank,)) for rank in range(self.size)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(60)
        for e in found:
            if isinstance(e, BaseException):
                raise e
        return found


@pytest.fixture
def world(monkeypatch):
    made = World(3)
    monkeypatch.setitem(sys.modules, "gpunn.distributed", made.module)
    return made


@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 4, 2), (3, 0, 2), (1, 1, 1)])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_all_ranks_normalise_as_one_batch(world, sizes, dtype):
    x = rng.normal(size=(sum(sizes), 3, 4)).astype(dtype) + 2
    seed = rng.normal(size=x.shape).astype(dtype)
    cuts = np.cumsum(sizes)[:-1]
    parts, seeds = np.split(x, cuts), np.split(seed, cuts)
    weight, bias = (gpunn.from_numpy(rng.normal(size=3).astype(dtype)) for _ in range(2))

    def made(cls):
        m = cls(3).to(weight.dtype)
        m.weight.data.copy_(weight), m.bias.data.copy_(bias)
        return m

    def rank(r):
        m, leaf = made(nn.SyncBatchNorm), gpunn.from_numpy(parts[r]).requires_grad_()
        y = m(leaf)
        y.backward(gpunn.from_numpy(seeds[r]))
        return m, leaf, y.detach()

    found = world.run(rank)
    m, leaf = made(nn.BatchNorm1d), gpunn.from_numpy(x).requires_grad_()
    y = m(leaf)
    y.backward(gpunn.from_numpy(seed))
    tolerance = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-10}
    close = lambda a, b: np.testing.assert_allclose(a, b.detach().numpy(), **tolerance)  # noqa: E731
    close(np.concatenate([y.numpy() for *_, y in found]), y)
    close(np.concatenate([part.grad.numpy() for _, part, _ in found]), leaf.grad)
    for name in ("weight", "bias"):
        close(sum(getattr(n, name).grad.numpy() for n, *_ in found), getattr(m, name).grad)
    for n, *_ in found:
        close(n.running_mean.numpy(), m.running_mean)
        close(n.running_var.numpy(), m.running_var)
        assert n.num_batches_tracked.item() == 1


def test_evaluation_speaks_to_nobody(world):
    module = nn.SyncBatchNorm(3).eval()
    x = gpunn.randn(2, 3, 4)
    assert gpunn.equal(module(x), nn.BatchNorm1d(3).eval()(x))


def test_no_second_derivative_over_processes(world):
    def rank(r):
        x = gpunn.ones(2, 3, requires_grad=True) * gpunn.arange(3.0)
        with pytest.raises(RuntimeError, match="no second derivative"):
            gpunn.autograd.grad(nn.SyncBatchNorm(3)(x).sum(), x, create_graph=True)
        return True

    assert world.run(rank) == [True] * 3


@pytest.mark.parametrize("shape", [(4, 3), (2, 3, 4), (2, 3, 2, 2)])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"momentum": None}, {"bias": False}])
def test_alone_it_is_batch_norm(shape, options):
    def program(T):
        m = T.nn.SyncBatchNorm(3, **options)
        x = ((T.arange(float(np.prod(shape))) * 7) % 11).reshape(shape)
        return repr(m), m(x), m.eval()(x), [(k, v) for k, v in m.state_dict().items()]

    same(program)


def test_convert():
    def program(T):
        net = T.nn.Sequential(
            T.nn.Linear(3, 4), T.nn.BatchNorm1d(4, eps=1e-3),
            T.nn.Sequential(T.nn.BatchNorm2d(2, affine=False), T.nn.InstanceNorm1d(2)).eval(),
        )  # fmt: skip
        weight, mean = net[1].weight, net[1].running_mean
        made = T.nn.SyncBatchNorm.convert_sync_batchnorm(net)
        kept = made is net, made[1].weight is weight, made[1].running_mean is mean
        alone = T.nn.SyncBatchNorm.convert_sync_batchnorm(T.nn.BatchNorm3d(2))
        return repr(made), kept, made[1].training, made[2][0].training, repr(alone)

    same(program)


def test_errors():
    refused(lambda T: T.nn.SyncBatchNorm(3)(T.ones(3)), r"expected at least 2D input \(got 1D")
    refused(lambda T: T.nn.SyncBatchNorm(3)(T.ones(2, 0)), "number of input channels should be non")
    refused(lambda T: T.nn.SyncBatchNorm(3)(T.ones(1, 3)), "Expected more than 1 value per channel")


PROCESSES = """
sizes = [2, 4, 1]
cuts = np.cumsum(sizes)[:-1]
draw = np.random.default_rng(0)
for shape, flat in (((3,), nn.BatchNorm1d), ((3, 4), nn.BatchNorm1d), ((3, 2, 2), nn.BatchNorm2d)):
    for dtype, close in ((gpunn.float64, 1e-10), (gpunn.float32, 2e-5)):
        whole, seed = (draw.normal(size=(7, *shape)) + 1 for _ in range(2))
        x, g = (gpunn.tensor(np.split(a, cuts)[rank], dtype=dtype) for a in (whole, seed))
        x.requires_grad_()
        gpunn.manual_seed(0)
        one = nn.Sequential(flat(3), nn.Tanh(), flat(3, momentum=None)).to(dtype)
        twin = nn.Sequential(flat(3), nn.Tanh(), flat(3, momentum=None)).to(dtype)
        net = nn.parallel.DistributedDataParallel(nn.SyncBatchNorm.convert_sync_batchnorm(twin))
        assert [type(m).__name__ for m in net.module][::2] == ["SyncBatchNorm"] * 2
        inputs = gpunn.tensor(whole, dtype=dtype, requires_grad=True)
        for _ in range(2):
            y, expected = net(x), one(inputs)
        y.backward(g), expected.backward(gpunn.tensor(seed, dtype=dtype))
        def same(a, b):
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), close, close)
        same(y, expected.split(sizes)[rank])
        same(x.grad, inputs.grad.split(sizes)[rank])
        for p, q in zip(net.parameters(), one.parameters(), strict=True):
            same(p.grad * world, q.grad)  # DistributedDataParallel's are means
        for (name, a), b in zip(net.module.named_buffers(), one.buffers(), strict=True):
            same(a, b)
        net.eval(), one.eval()
        if rank == 0:  # speaks to nobody
            same(net.module(x), one(inputs).split(sizes)[rank])

# the processes of a group only
groups = [dist.new_group([0, 2]), dist.new_group([1])]
group = groups[rank == 1]
norm = nn.SyncBatchNorm(1, affine=False, process_group=group)
x = gpunn.tensor([[rank], [rank + 1.0]])
y = norm(x).flatten()
if rank == 1:
    assert gpunn.allclose(y, gpunn.tensor([-1.0, 1.0]), atol=1e-3)
else:  # of 0, 1, 2, 3
    assert gpunn.allclose(y, (x.flatten() - 1.5) / 1.25 ** 0.5, atol=1e-3)
report(True)
"""


def test_over_processes_as_on_the_whole_batch():
    assert all(run_ranks(3, PROCESSES, timeout=60))
