"""ZeroRedundancyOptimizer against the plain optimizer, and against PyTorch's; real processes."""

import json
import subprocess
import sys

import pytest

import gpunn
from gpunn import distributed as dist
from gpunn import nn
from gpunn.distributed.optim import ZeroRedundancyOptimizer
from tests.distributed.ranks import free_port, run_ranks

START = """
import copy, io
from gpunn.distributed.algorithms.join import Join
from gpunn.distributed.optim import ZeroRedundancyOptimizer as Zero
from gpunn.nn.parallel import DistributedDataParallel as DDP
gpunn.set_default_dtype(gpunn.float64)

def model(seed=0):
    gpunn.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 9), nn.Tanh(), nn.Linear(9, 5), nn.Tanh(), nn.Linear(5, 2))

def batch(step, of=None):
    rng = np.random.default_rng(step)
    x, y = gpunn.tensor(rng.normal(size=(8, 4))), gpunn.tensor(rng.normal(size=(8, 2)))
    return (x, y) if of is None else (x[of::world], y[of::world])

def train(net, optimizer, steps, mine=False, closure=False):
    losses = []
    for step in steps:
        x, y = batch(step, rank if mine else None)
        def run():
            optimizer.zero_grad()
            loss = ((net(x) - y) ** 2).mean()
            loss.backward()
            return loss
        if closure:
            losses.append(optimizer.step(run).item())
        else:
            losses.append(run().item())
            optimizer.step()
    return losses

def equal(a, b, tolerance=1e-12):
    pairs = list(zip(a.parameters(), b.parameters(), strict=True))
    return all(gpunn.allclose(p, q, rtol=tolerance, atol=tolerance) for p, q in pairs)

def caught(run, *args, **kwargs):
    try:
        return ["nothing", str(run(*args, **kwargs))]
    except Exception as error:
        return [type(error).__name__, str(error)]
"""

SAME = START + """
o = gpunn.optim
for kind, options in ((o.SGD, {"lr": 0.1, "momentum": 0.9}), (o.Adam, {"lr": 0.01}),
                      (o.AdamW, {"lr": 0.01, "weight_decay": 0.1, "amsgrad": True})):
    a, b = model(), model()
    plain, zero = kind(a.parameters(), **options), Zero(b.parameters(), kind, **options)
    net = DDP(b)  # with the same batches on all ranks, and with each its own
    assert np.allclose(train(a, plain, range(3)), train(net, zero, range(3)), rtol=1e-12)
    train(a, plain, range(3, 6)), train(net, zero, range(3, 6), mine=True)
    assert equal(a, b, 1e-10), kind
    # each rank has the state of its share alone
    counts = [None] * world
    dist.all_gather_object(counts, sum(p.numel() for p in zero.optim.state))
    assert sum(counts) == sum(p.numel() for p in b.parameters())
    assert max(counts) - min(counts) <= 45, counts
    # the whole state, on any rank, is that of the plain optimizer
    for to in (0, world - 1):
        message = caught(zero.state_dict)[1]
        zero.consolidate_state_dict(to)
        if rank == to:
            found, want = zero.state_dict(), plain.state_dict()
            assert found.keys() == want.keys() and list(found["state"]) == list(want["state"])
            for k, state in want["state"].items():
                assert state.keys() == found["state"][k].keys()
                for name, value in state.items():
                    assert gpunn.allclose(gpunn.as_tensor(found["state"][k][name]),
                                          gpunn.as_tensor(value), rtol=1e-9, atol=1e-12), name
            for g, w in zip(found["param_groups"], want["param_groups"]):
                assert {k: g[k] for k in w} == w
        else:
            assert "has not been consolidated on this rank" in caught(zero.state_dict)[1]
            assert f"consolidate_state_dict(to={rank})" in caught(zero.state_dict)[1]
        dist.barrier()
    # saved here, loaded into the plain optimizer, and the other way round
    zero.consolidate_state_dict(0)
    saved = [None]
    if rank == 0:
        file = io.BytesIO()
        gpunn.save(zero.state_dict(), file)
        saved = [file.getvalue()]
    dist.broadcast_object_list(saved, 0)
    c = copy.deepcopy(a)
    fresh = kind(c.parameters(), lr=1.0)
    fresh.load_state_dict(gpunn.load(io.BytesIO(saved[0])))
    d = copy.deepcopy(a)
    other = Zero(d.parameters(), kind, lr=1.0)
    other.load_state_dict(plain.state_dict())
    assert {p for p in other.optim.state} == {p for p, r in other._owner.items() if r == rank}
    train(a, plain, range(6, 9)), train(c, fresh, range(6, 9)), train(d, other, range(6, 9))
    assert equal(a, c, 1e-9) and equal(a, d)
report(counts)
"""


@pytest.mark.parametrize("size", [2, 4])
def test_results_are_those_of_the_plain_optimizer(size):
    counts = run_ranks(size, SAME)
    assert len(counts[0]) == size and min(counts[0]) > 0


def test_groups_schedules_closures_frozen_tied_and_mixed_parameters():
    body = START + """
def groups(net):
    ps = list(net.parameters())
    return [{"params": ps[:2], "lr": 0.05}, {"params": ps[2:4], "weight_decay": 0.1}]

def both(make, change=lambda net: None):
    a, b = model(), model()
    change(a), change(b)
    return a, b, make(lambda p, **k: gpunn.optim.SGD(p, **k), a), make(
        lambda p, **k: Zero(p, gpunn.optim.SGD, **k), b)

# several groups, one of them added later, and a schedule
a, b, plain, zero = both(lambda new, net: new(groups(net), lr=0.1, momentum=0.9))
ones = [gpunn.optim.lr_scheduler.StepLR(s, 2, 0.5) for s in (plain, zero)]
for step in range(3):
    train(a, plain, [step]), train(b, zero, [step])
    for s in ones: s.step()
for net, one in ((a, plain), (b, zero)):
    one.add_param_group({"params": net[4].parameters(), "lr": 0.2, "initial_lr": 0.2})
train(a, plain, range(3, 6)), train(b, zero, range(3, 6))
assert equal(a, b) and [g["lr"] for g in zero.param_groups] == [g["lr"] for g in plain.param_groups]
assert len(zero.param_groups) == 3 == len(zero.optim.param_groups)
assert zero.param_groups[2]["momentum"] == 0.9 and zero.param_groups[0]["nesterov"] is False
zero.consolidate_state_dict()
if rank == 0:
    assert [g["params"] for g in zero.state_dict()["param_groups"]] == [[0, 1], [2, 3], [4, 5]]

# a closure
a, b, plain, zero = both(lambda new, net: new(net.parameters(), lr=0.1))
assert np.allclose(train(a, plain, range(3), closure=True), train(b, zero, range(3), closure=True))
assert equal(a, b)

# frozen and tied parameters, and one that gets no gradient
def change(net):
    net[0].weight.requires_grad_(False)
    net[2].extra = nn.Parameter(gpunn.ones(3))
    net[2].same = net[4].weight
a, b, plain, zero = both(lambda new, net: new(net.parameters(), lr=0.1, momentum=0.9), change)
train(a, plain, range(3)), train(b, zero, range(3))
assert equal(a, b) and gpunn.equal(b[0].weight, model()[0].weight)

# several dtypes, and parameters that start different become the owners'
ps = [nn.Parameter(gpunn.ones(3 + k, dtype=d)) for k, d in enumerate(
    (gpunn.float32, gpunn.float64, gpunn.bfloat16, gpunn.float16, gpunn.float32))]
zero = Zero(ps, gpunn.optim.Adam, lr=0.5)
for step in range(2):
    for p in ps: p.grad = gpunn.ones_like(p) * (rank + 1)
    zero.step()
for p in ps:
    sums = [gpunn.empty_like(p) for _ in range(world)]
    dist.all_gather(sums, p.detach())
    assert all(gpunn.equal(s, p) for s in sums) and abs(p.float() - 0.0).max() < 1e-2

# uneven inputs
a, b = model(), model()
net = DDP(b)
zero = Zero(net.parameters(), gpunn.optim.SGD, lr=0.1, momentum=0.9)
with Join([net, zero]):
    train(net, zero, range(3 + 2 * rank), mine=True)
both = [None] * world
dist.all_gather_object(both, [p.tolist() for p in b.parameters()])
assert both[0] == both[1]
with Join([net, zero], enable=False):
    train(net, zero, range(2), mine=True)

# a group of some ranks: consolidated to a rank of the group
group = dist.new_group([1])
if rank == 1:
    net = model()
    zero = Zero(net.parameters(), gpunn.optim.SGD, process_group=group, lr=0.1, momentum=0.9)
    train(net, zero, range(1))
    zero.consolidate_state_dict(0)
    assert len(zero.state_dict()["state"]) == 6
else:
    found = caught(Zero, model().parameters(), gpunn.optim.SGD, process_group=group, lr=0.1)
    assert found[0] == "ValueError" and "not in process_group" in found[1], found

# shares: as PyTorch's
gpunn.manual_seed(0)
zero = Zero(SHAPES([nn.Parameter(gpunn.ones(*s)) for s in SIZES]), gpunn.optim.SGD, lr=0.1)
report([zero._owner[p] for g in zero.param_groups for p in g["params"]])
"""
    found = run_ranks(2, "SIZES = " + SIZES + "\nSHAPES = " + GROUPS + body)
    assert found[0] == found[1] == partition_of_pytorch()


SIZES = "[(3, 4), (5,), (2, 2), (7,), (1,), (3, 3), (12,), (4,), (6, 2), (1, 1)]"
GROUPS = 'lambda ps: [{"params": ps[:6]}, {"params": ps[6:], "lr": 0.2}]\n'


def partition_of_pytorch():
    """Which of two ranks PyTorch gives each of these parameters to."""
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    script = f"""
import json, sys, torch, torch.distributed as dist
from torch.distributed.optim import ZeroRedundancyOptimizer as Zero
rank = int(sys.argv[1])
dist.init_process_group("gloo", "tcp://127.0.0.1:{free_port()}", rank=rank, world_size=2)
ps = [torch.nn.Parameter(torch.ones(*s)) for s in {SIZES}]
zero = Zero(({GROUPS.strip()})(ps), torch.optim.SGD, lr=0.1)
if rank == 0: print("found", json.dumps([zero._param_to_rank[p] for p in ps]))
dist.destroy_process_group()
"""
    ranks = [
        subprocess.Popen([sys.executable, "-c", script, str(r)], stdout=subprocess.PIPE, text=True)
        for r in range(2)
    ]
    try:
        output = ranks[0].communicate(timeout=60)[0]
        ranks[1].communicate(timeout=60)
    finally:
        for one in ranks:
            one.kill()
    return json.loads(output.split("found", 1)[1])


@pytest.fixture
def alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_wrong_arguments(alone):
    p = nn.Parameter(gpunn.ones(2))
    with pytest.raises(ValueError, match="overlap_with_ddp"):
        ZeroRedundancyOptimizer([p], gpunn.optim.SGD, overlap_with_ddp=True, lr=0.1)
    with pytest.raises(ValueError, match="empty parameter list"):
        ZeroRedundancyOptimizer([], gpunn.optim.SGD, lr=0.1)
    with pytest.raises(TypeError, match="params"):
        ZeroRedundancyOptimizer(p, gpunn.optim.SGD, lr=0.1)
    with pytest.raises(ValueError, match="learning rate"):
        ZeroRedundancyOptimizer([p], gpunn.optim.SGD, lr=-1)


def test_alone_it_is_the_plain_optimizer(alone):
    p = nn.Parameter(gpunn.ones(2))
    zero = ZeroRedundancyOptimizer([p], gpunn.optim.SGD, lr=0.5, momentum=0.5)
    with pytest.raises(RuntimeError, match="has not been consolidated on this rank"):
        zero.state_dict()
    for _ in range(2):
        zero.zero_grad()
        p.sum().backward()
        zero.step()
    assert p.tolist() == [-0.25, -0.25]
    zero.consolidate_state_dict()
    assert zero.state_dict()["state"][0]["momentum_buffer"].tolist() == [1.5, 1.5]
