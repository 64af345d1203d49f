"""Uneven inputs: averages, modes, errors; the same program under gpunn and under PyTorch."""

import pytest

import gpunn
import gpunn.distributed as dist
from gpunn.distributed.algorithms.join import Join, Joinable, JoinHook
from tests.distributed.ranks import run_ranks, try_ranks
from tests.nn.parallel.ddp_models import END

UNEVEN = """
import importlib, re, warnings
impl = os.environ["IMPL"]
T = importlib.import_module(impl)
join = importlib.import_module(impl + ".distributed.algorithms.join")
D, n = T.distributed, T.nn
started = not D.is_initialized()
if started:
    D.init_process_group("gloo")
DDP = n.parallel.DistributedDataParallel
batches = 3 + 2 * rank
found = {}

def data(step, *shape):
    return T.tensor(np.random.default_rng(10 * step + rank).normal(size=shape).astype("float32"))

def model(*layers):
    T.manual_seed(0)
    return n.Sequential(*(layers or (n.Linear(3, 4), n.Tanh(), n.Linear(4, 2))))

def state(ddp):
    return {k: v.tolist() for k, v in ddp.state_dict().items()}

def trained(ddp, body=None, count=batches, **options):
    optimizer = T.optim.SGD(ddp.parameters(), lr=0.1)
    with ddp.join(**options):
        for step in range(count):
            optimizer.zero_grad()
            if body is None:
                ddp(data(step, 4, 3)).pow(2).mean().backward()
            else:
                body(ddp, step)
            optimizer.step()
    return state(ddp)

for whole in (True, False):
    found[f"divided by all: {whole}"] = trained(
        DDP(model()), divide_by_initial_world_size=whole)
    found[f"views: {whole}"] = trained(
        DDP(model(), gradient_as_bucket_view=True, bucket_cap_mb=0.00005),
        divide_by_initial_world_size=whole)
found["even"] = trained(DDP(model()), count=3)
found["not enabled"] = trained(DDP(model()), count=3, enable=False)
found["one has none"] = trained(DDP(model()), count=2 * rank)

# some parameters unused, other ones on each rank
class Branches(n.Module):
    def __init__(self):
        super().__init__()
        T.manual_seed(0)
        self.a, self.b, self.c = n.Linear(3, 1), n.Linear(3, 1), n.Linear(3, 1)

    def forward(self, x, b):
        return self.b(x) if b else self.a(x)

found["unused"] = trained(
    DDP(Branches(), find_unused_parameters=True),
    lambda ddp, step: ddp(data(step, 4, 3), (step + rank) % 2).mean().backward())
found["static"] = trained(
    DDP(Branches(), static_graph=True),
    lambda ddp, step: ddp(data(step, 4, 3), 1).pow(2).mean().backward())

# every second pass only adds up
def accumulate(ddp, step):
    import contextlib
    with ddp.no_sync() if step % 2 else contextlib.nullcontext():
        ddp(data(step, 4, 3)).pow(2).mean().backward()

found["accumulation"] = trained(DDP(model()), accumulate)

# buffers come from the highest rank that has data
norm = DDP(model(n.Linear(3, 4), n.BatchNorm1d(4)))
found["buffers"] = trained(
    norm, lambda ddp, step: ddp(data(step, 4, 3)).pow(2).mean().backward())

# all raise as soon as one is done
steps = []
ddp = DDP(model())
try:
    trained(ddp, lambda d, step: (d(data(step, 4, 3)).mean().backward(), steps.append(step)),
            throw_on_early_termination=True)
except RuntimeError as error:
    found["thrown"] = [str(error), len(steps)]
found["after"] = trained(ddp, count=2)  # and goes on

# several joinables under one context, and a class of one's own
class Counter(join.Joinable):
    def __init__(self):
        super().__init__()
        self.total, self.posts, self.shadowed = 0, [], 0

    def step(self):
        work = join.Join.notify_join_context(self)
        if work is not None:
            work.wait()
        one = T.ones(1)
        D.all_reduce(one)
        self.total += int(one)

    def join_hook(self, **kwargs):
        outer, self.kwargs = self, sorted(kwargs)

        class Hook(join.JoinHook):
            def main_hook(self):
                D.all_reduce(T.zeros(1))
                outer.shadowed += 1

            def post_hook(self, is_last_joiner):
                outer.posts.append(is_last_joiner)

        return Hook()

    join_device = property(lambda self: T.device("cpu"))
    join_process_group = property(lambda self: D.group.WORLD)

counter, ddp = Counter(), DDP(model())
with join.Join([counter, ddp], divide_by_initial_world_size=False):
    for step in range(batches):
        counter.step()
        ddp(data(step, 4, 3)).pow(2).mean().backward()
found["both"] = [counter.total, counter.posts, counter.shadowed, counter.kwargs, state(ddp)]
end(T, found, started)
"""


def uneven(impl, backend=None):
    return run_ranks(3, END + UNEVEN, backend=backend, timeout=120, env={"IMPL": impl})


@pytest.fixture(scope="module")
def ours():
    return uneven("gpunn")


def test_ranks_end_with_the_same_model(ours):
    for case, state in ours[0].items():
        if isinstance(state, dict):
            assert all(found[case] == state for found in ours), case


def test_all_are_told_when_the_first_is_done(ours):
    others = "Detected at least one rank that exhausted inputs. Throwing across all ranks."
    for rank, found in enumerate(ours):
        message, steps = found["thrown"]
        assert message == (others if rank else "Rank 0 exhausted all inputs.") and steps == 3


def test_a_class_of_ones_own(ours):
    for rank, found in enumerate(ours):
        total, posts, shadowed, keywords, _ = found["both"]
        assert total == [9, 13, 15][rank] and shadowed == [4, 2, 0][rank]
        assert posts == [rank == 2] and keywords == ["divide_by_initial_world_size"]


def test_over_mpi_it_is_the_same(ours):
    close(uneven("gpunn", "mpi"), ours)


def test_it_is_pytorchs_join(ours):
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    close(ours, uneven("torch"))


def close(ours, others):
    for mine, theirs in zip(ours, others, strict=True):
        assert mine.keys() == theirs.keys()
        for case, value in theirs.items():
            if isinstance(value, dict):
                for name, expected in value.items():
                    got, wanted = gpunn.tensor(mine[case][name]), gpunn.tensor(expected)
                    assert gpunn.allclose(got, wanted, 1e-4, 1e-6), (case, name)
            else:
                assert mine[case][:4] == value[:4], case


def test_alone():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = gpunn.nn.parallel.DistributedDataParallel(gpunn.nn.Linear(2, 1))
        with pytest.raises(ValueError, match="at least one joinable"):
            Join([])
        with model.join(throw_on_early_termination=True):
            model(gpunn.ones(1, 2)).sum().backward()
        assert model.module.bias.grad.item() == 1
        assert Join.notify_join_context(model) is None and Join.active(model) == 0
        with pytest.raises(KeyError, match="mine"), model.join():
            raise KeyError("mine")  # goes through
        hook = JoinHook()
        assert hook.main_hook() is hook.post_hook(True) is None
        with pytest.raises(TypeError, match="abstract"):
            Joinable()
    finally:
        dist.destroy_process_group()


LOST = """
import os, signal
model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
try:
    with model.join():
        for step in range(2 + 1000 * rank):
            if rank == 1 and step == 5:
                raise ValueError("bad row")
            model(gpunn.ones(1, 2)).sum().backward()
except dist.DistBackendError as error:
    report(str(error))
    raise
"""


def test_a_rank_that_fails_ends_those_that_wait_for_it():
    outcomes = try_ranks(2, LOST, timeout=60)
    assert [o.code for o in outcomes] == [1, 1]
    assert "rank 1 raised ValueError: bad row" in outcomes[0].result
