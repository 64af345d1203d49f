"""Hooks that average as it is and in 16 bits, over real processes; and against PyTorch's DDP."""

import numpy as np
import pytest

from tests.distributed.ranks import run_ranks
from tests.nn.parallel.ddp_models import END, PREPARED

HOOKS = """
from gpunn.distributed.algorithms import ddp_comm_hooks
hooks = ddp_comm_hooks.default_hooks
comm = dist.group.WORLD.engine(gpunn.device("cpu"))
sent = []
def counted(x, op, before=comm.all_reduce):
    sent.append((str(x.dtype), x.size))
    before(x, op)
comm.all_reduce = counted
x = rows(5).float()
gpunn.manual_seed(0)
start = perceptron()

def run(hook, state=None, passes=1, **options):
    ddp = DDP(copy.deepcopy(start), **options)
    if hook is not None:
        ddp.register_comm_hook(state, hook)
    for _ in range(passes):
        ddp.zero_grad()
        sent.clear()
        ddp(mine(x)).sum().backward()
    assert len({str(g) for g in by_rank(grads(ddp))}) == 1
    return np.concatenate([p.grad.numpy().ravel() for p in ddp.parameters()])

plain = run(None)
count = plain.size
for as_view in (False, True):
    options = {"gradient_as_bucket_view": as_view}
    for state in (None, dist.group.WORLD):
        assert np.array_equal(run(hooks.allreduce_hook, state, **options), plain)
    for hook, state, dtype, tolerance in [
        (hooks.fp16_compress_hook, None, "float16", 1e-3),
        (hooks.bf16_compress_hook, None, "bfloat16", 1e-2),
        (hooks.fp16_compress_wrapper(hooks.allreduce_hook), None, "float16", 1e-3),
        (hooks.bf16_compress_wrapper(hooks.allreduce_hook), None, "bfloat16", 1e-2),
    ]:
        found = run(hook, state, passes=2, **options)
        assert sent == [(dtype, count)], sent  # half of the bytes
        np.testing.assert_allclose(found, plain, rtol=tolerance, atol=tolerance)
        assert not np.array_equal(found, plain)
report(True)
"""


def test_averages_whole_and_in_16_bits():
    assert all(run_ranks(2, PREPARED + HOOKS, timeout=60))


SAME = """
import importlib
T = importlib.import_module(os.environ["IMPL"])
importlib.import_module(os.environ["IMPL"] + ".distributed.algorithms.ddp_comm_hooks.default_hooks")
hooks = T.distributed.algorithms.ddp_comm_hooks.default_hooks
power = importlib.import_module(
    os.environ["IMPL"] + ".distributed.algorithms.ddp_comm_hooks.powerSGD_hook")
T.distributed.init_process_group("gloo")

def losses(hook=None, state=None, steps=12, **options):
    T.manual_seed(0)
    n = T.nn
    model = n.Sequential(n.Linear(10, 32), n.Tanh(), n.Linear(32, 32), n.Tanh(), n.Linear(32, 4))
    ddp = n.parallel.DistributedDataParallel(model, **options)
    if hook is not None:
        ddp.register_comm_hook(state, hook)
    optimizer, found = T.optim.SGD(ddp.parameters(), lr=0.2, momentum=0.9), []
    rng = np.random.default_rng(0)
    x, y = (T.tensor(rng.normal(size=(16, n)).astype("float32")) for n in (10, 4))
    for step in range(steps):
        optimizer.zero_grad()
        loss = (ddp(x.chunk(world)[rank]) - y.chunk(world)[rank]).pow(2).mean()
        loss.backward()
        optimizer.step()
        total = loss.detach().clone()
        T.distributed.all_reduce(total)
        found.append(total.item() / world)
    return found

def state(rank=2):
    return power.PowerSGDState(None, matrix_approximation_rank=rank, start_powerSGD_iter=3)

found = {
    "plain": losses(), "small": losses(bucket_cap_mb=0.001), "static": losses(static_graph=True),
    "view": losses(gradient_as_bucket_view=True, find_unused_parameters=True),
    "fp16": losses(hooks.fp16_compress_hook),
    "power": losses(power.powerSGD_hook, state(), steps=40),
    "power of fp16": losses(hooks.fp16_compress_wrapper(power.powerSGD_hook), state(), steps=40),
    "whole": losses(steps=40),
}
end(T, found)
"""


@pytest.fixture(scope="module")
def both():
    """The losses of the same program under gpunn and under PyTorch, two ranks each."""
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    return [
        run_ranks(2, END + SAME, backend=None, timeout=120, env={"IMPL": impl})[0]
        for impl in ("gpunn", "torch")
    ]


@pytest.mark.parametrize("case, tolerance", [
    ("plain", 1e-6), ("small", 1e-6), ("static", 1e-6), ("view", 1e-6), ("whole", 1e-5),
    ("fp16", 1e-3),
])  # fmt: skip
def test_losses_are_those_of_pytorchs_ddp(both, case, tolerance):
    ours, theirs = (np.array(found[case]) for found in both)
    np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    assert ours[-1] < 0.9 * ours[0]


@pytest.mark.parametrize("case", ["power", "power of fp16"])
def test_powersgd_converges_as_pytorchs(both, case):
    ours, theirs = (np.array(found[case]) for found in both)
    np.testing.assert_allclose(ours[:4], theirs[:4], rtol=1e-3)  # sent whole: the first three
    whole = both[0]["whole"]
    assert ours[-1] < 0.5 * ours[0] and ours[-1] < 1.5 * max(theirs[-1], whole[-1])
    assert not np.allclose(ours[6:], np.array(whole)[6:], rtol=1e-4)  # it does approximate


