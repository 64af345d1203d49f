"""DistributedDataParallel where something goes wrong: every rank ends, in time, and says why."""

import re

import pytest

import gpunn
import gpunn.distributed as dist
from gpunn import nn
from gpunn.nn.parallel import DistributedDataParallel as DDP  # noqa: N817
from tests.distributed.ranks import try_ranks
from tests.nn.parallel.ddp_models import PREPARED

FAILS = """
model = DDP(perceptron())
optimizer = gpunn.optim.SGD(model.parameters(), 0.1)
try:
    for step in range(1000):
        since = time.monotonic()
        x = mine(rows(5)).float()
        if rank == 1 and step == 3:
            {action}
        loss = model(x).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
except dist.DistBackendError as error:
    report([str(error), step, time.monotonic() - since])
    raise
"""
ACTIONS = {
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1 is gone: killed"),
    "raised": ("raise ValueError('no such image')", "rank 1 raised ValueError: no such image"),
    "left": ("break", "rank 1 has left"),
    "waits": ("time.sleep(7)", "no answer after 3 s; rank 1 last reached"),
}


@pytest.mark.parametrize("how", list(ACTIONS))
def test_a_lost_rank_ends_the_others_with_its_name(how):
    action, message = ACTIONS[how]
    limit = "timeout=__import__('datetime').timedelta(seconds=3)" if how == "waits" else None
    outcomes = try_ranks(3, PREPARED + FAILS.format(action=action), timeout=60, init=limit)
    for rank in (0, 2):
        assert outcomes[rank].code == 1, outcomes[rank].output
        told, step, seconds = outcomes[rank].result
        assert message in told and step in (2, 3)
        assert re.match(r"all_reduce of bucket 0: 2.bias to 0.weight #\d+ of the def", told), told
        assert seconds < 15
    assert outcomes[1].code == {"killed": -9, "left": 0}.get(how, 1)


@pytest.mark.parametrize("how", ["killed", "raised"])
def test_a_lost_rank_ends_all_under_mpi(how):
    action, message = ACTIONS[how]
    outcomes = try_ranks(2, PREPARED + FAILS.format(action=action), backend="mpi", timeout=60)
    assert all(o.code not in (0, -9) for o in outcomes)  # ended, and not by the time limit
    if how == "raised":
        assert "ValueError: no such image" in outcomes[0].output


ONE_RANK_UNUSED = """
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(5, 1), nn.Linear(5, 1)

    def forward(self, x, both):
        return (self.a(x) + self.b(x) if both else self.a(x)).mean()

model = DDP(Two())
for step in range(3):
    model(mine(rows(5)).float(), step < 1 or rank == 0).backward()
"""


def test_a_parameter_that_one_rank_does_not_use_is_named_on_both():
    outcomes = try_ranks(2, PREPARED + ONE_RANK_UNUSED, timeout=60)
    assert [o.code for o in outcomes] == [1, 1]
    for outcome in outcomes:
        assert "rank 1: b.weight, b.bias" in outcome.output, outcome.output


def test_what_cannot_be_distributed(alone):
    linear = nn.Linear(2, 3)
    for options, message in [
        ({"device_ids": [0, 1]}, "device_ids can only be None or contain a single element"),
        ({"device_ids": [0]}, "only work with single-device/multiple-device GPU modules or CPU"),
        ({"output_device": 1}, "only work with single-device/multiple-device GPU modules or CPU"),
        ({"delay_all_reduce_named_params": []}, "need to be set at the same time"),
        ({"mixed_precision": object()}, "under gpunn.autocast"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            DDP(linear, **options)
    with pytest.raises(RuntimeError, match="doesn't have any parameter that requires a gradient"):
        DDP(nn.ReLU())
    with pytest.raises(RuntimeError, match="uninitialized parameters can't be used with `Distr"):
        DDP(nn.LazyLinear(3))
    model = DDP(linear)
    model.double()
    loss = model(gpunn.ones(1, 2, dtype=gpunn.float64)).sum()
    with pytest.raises(RuntimeError, match="is torch.float64 on cpu, its bucket torch.float32"):
        loss.backward()


def test_without_a_process_group():
    with pytest.raises(ValueError, match="Default process group has not been initialized"):
        DDP(nn.Linear(2, 3))


def test_a_mesh_names_the_group(alone):
    class Mesh:
        ndim = 1

        def get_group(self, mesh_dim):
            return dist.group.WORLD

    assert DDP(nn.Linear(1, 1), device_mesh=Mesh()).process_group is dist.group.WORLD
    with pytest.raises(RuntimeError, match="both process_group and device_mesh"):
        DDP(nn.Linear(1, 1), process_group=dist.group.WORLD, device_mesh=Mesh())
    Mesh.ndim = 2
    with pytest.raises(RuntimeError, match="Only 1D device mesh is supported"):
        DDP(nn.Linear(1, 1), device_mesh=Mesh())
