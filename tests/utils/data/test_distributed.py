"""DistributedSampler: the parts of the ranks, against PyTorch's."""

import pytest

import gpunn
from gpunn.utils.data import DataLoader, DistributedSampler
from gpunn.utils.data.distributed import DistributedSampler as TheSame
from tests.distributed.ranks import run_ranks


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8, 9])
@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("shuffle", [False, True])
def test_parts_are_pytorchs(size, ranks, drop_last, shuffle):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def parts(lib):
        found = []
        for rank in range(ranks):
            sampler = lib.utils.data.DistributedSampler(
                range(size), ranks, rank, shuffle, seed=3, drop_last=drop_last
            )
            for epoch in (0, 1, 5):
                sampler.set_epoch(epoch)
                found.append((list(sampler), len(sampler), sampler.total_size))
        return found

    assert parts(gpunn) == parts(torch)


def test_a_forgotten_set_epoch_repeats_the_order_and_warns_once():
    sampler = DistributedSampler(range(50), 2, 0)
    first = list(sampler)
    with pytest.warns(UserWarning, match="Call sampler.set_epoch"):
        assert list(sampler) == first
    assert list(sampler) == first


def test_auto_epoch_advances_after_each_pass():
    sampler = DistributedSampler(range(50), 2, 1, auto_epoch=True)
    loader = DataLoader(range(50), 5, sampler=sampler)
    passes = [sum((batch.tolist() for batch in loader), []) for _ in range(3)]
    by_hand = DistributedSampler(range(50), 2, 1)
    for epoch, order in enumerate(passes):
        by_hand.set_epoch(epoch)
        assert order == list(by_hand)


def test_rank_outside_of_the_group():
    with pytest.raises(ValueError, match=r"Invalid rank 2, .* in the interval \[0, 1\]"):
        DistributedSampler(range(4), 2, 2)
    assert TheSame is DistributedSampler


def test_without_a_process_group_the_error_says_what_to_pass():
    with pytest.raises(ValueError, match="has not been initialized.*num_replicas= and rank="):
        DistributedSampler([1, 2, 3])


RANKS = """
from gpunn.utils.data import DataLoader, DistributedSampler, TensorDataset
from tests.nn.parallel.ddp_models import DDP, perceptron

def by_rank(value):
    found = [None] * world
    dist.all_gather_object(found, value)
    return found

x = gpunn.from_numpy(np.random.default_rng(0).normal(size=(22, 5)))
data = TensorDataset(gpunn.arange(22), x)
for drop_last in (False, True):
    sampler = DistributedSampler(data, drop_last=drop_last)  # rank and world are the group's
    assert sampler.rank == rank and sampler.num_replicas == world
    orders = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        mine = [i for numbers, _ in DataLoader(data, 4, sampler=sampler) for i in numbers.tolist()]
        everyones = by_rank(mine)
        counts = np.bincount(sum(everyones, []), minlength=22)
        assert {len(part) for part in everyones} == {7 if drop_last else 8} == {len(sampler)}
        if drop_last:
            assert counts.max() == 1 and counts.sum() == 21  # nobody twice
        else:
            assert counts.min() == 1 and counts.sum() == 24  # all, and two of them twice
        orders.append(mine)
    assert orders[0] != orders[1]

# in training: batch by batch the ranks' parts are the whole batch of one process
def trained(model, loader, epochs, set_epoch):
    optimizer, losses = gpunn.optim.SGD(model.parameters(), 0.1), []
    for epoch in range(epochs):
        set_epoch(epoch)
        for _, rows in loader:
            optimizer.zero_grad()
            loss = model(rows).pow(2).mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return np.array(losses)

data = TensorDataset(gpunn.arange(21), x[:21])
gpunn.manual_seed(0)
one = perceptron().double()
ddp = DDP(perceptron().double())
ddp.load_state_dict(one.state_dict())
sampler = DistributedSampler(data, seed=3)
losses = trained(ddp, DataLoader(data, 1, sampler=sampler), 2, sampler.set_epoch)
whole = DistributedSampler(data, 1, 0, seed=3)
expected = trained(one, DataLoader(data, world, sampler=whole), 2, whole.set_epoch)
np.testing.assert_allclose(np.mean(by_rank(losses.tolist()), axis=0), expected, 1e-9)
report(True)
"""


def test_over_processes_and_in_training():
    assert all(run_ranks(3, RANKS, timeout=60))
