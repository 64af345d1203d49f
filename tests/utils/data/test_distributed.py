"""DistributedSampler: the parts of the ranks, against PyTorch's."""

import pytest

import gpunn
from gpunn.utils.data import DataLoader, DistributedSampler
from gpunn.utils.data.distributed import DistributedSampler as TheSame


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
    with pytest.raises(RuntimeError, match="needs num_replicas= and rank="):
        DistributedSampler([1, 2, 3])
