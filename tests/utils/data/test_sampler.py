"""Samplers: orders and draws equal to PyTorch's."""

import pytest

import gpunn
from gpunn.utils.data import BatchSampler, RandomSampler, Sampler, WeightedRandomSampler

WEIGHTS = [0.1, 0.9, 0.4, 0.7, 3.0, 0.6]
SAMPLERS = {
    "sequential": lambda data, g: data.SequentialSampler(range(7)),
    "random": lambda data, g: data.RandomSampler(range(100), generator=g),
    "more samples than data": lambda data, g: data.RandomSampler(range(10), False, 27, g),
    "fewer samples": lambda data, g: data.RandomSampler(range(10), num_samples=3, generator=g),
    "replacement": lambda data, g: data.RandomSampler(range(100), True, generator=g),
    "replacement by 32": lambda data, g: data.RandomSampler(range(64), True, generator=g),
    "replacement, 77": lambda data, g: data.RandomSampler(range(10), True, 77, g),
    "subset": lambda data, g: data.SubsetRandomSampler([9, 4, 7, 1], g),
    "weighted": lambda data, g: data.WeightedRandomSampler(WEIGHTS, 50, generator=g),
    "weighted, no replacement": lambda data, g: data.WeightedRandomSampler(WEIGHTS, 5, False, g),
    "batches": lambda data, g: data.BatchSampler(data.SubsetRandomSampler(range(9), g), 4, False),
    "whole batches": lambda data, g: data.BatchSampler(range(9), 4, True),
}


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("own_generator", [False, True])
def test_orders_and_later_draws_are_pytorchs(name, own_generator):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def passes(lib):
        lib.manual_seed(3)
        generator = lib.Generator().manual_seed(5) if own_generator else None
        sampler = SAMPLERS[name](lib.utils.data, generator)
        found = []
        for _ in range(2):
            found += [list(sampler), lib.rand(2).tolist()]
            found += lib.rand(2, generator=generator).tolist()
        return found, len(sampler)

    assert passes(gpunn) == passes(torch)


def test_length_follows_the_data():
    data = [0]
    sampler = RandomSampler(data)
    data += [1, 2]
    assert len(sampler) == sampler.num_samples == 3
    assert sorted(sampler) == [0, 1, 2]


def test_batches_of_any_iterable():
    assert list(BatchSampler("abcde", 2, False)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(BatchSampler(iter("abcde"), 2, True)) == [["a", "b"], ["c", "d"]]
    assert [len(BatchSampler(range(n), 3, True)) for n in (0, 2, 3, 4)] == [0, 0, 1, 1]
    assert [len(BatchSampler(range(n), 3, False)) for n in (0, 2, 3, 4)] == [0, 1, 1, 2]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RandomSampler([0], replacement=1), TypeError, "replacement should be a boolean"),
        (lambda: RandomSampler([0], num_samples=0), ValueError, "num_samples should be a positive"),
        (lambda: RandomSampler([]), ValueError, "num_samples should be a positive integer"),
        (lambda: WeightedRandomSampler([1], True), ValueError, "num_samples should be a positive"),
        (lambda: WeightedRandomSampler([1], 1, 0), ValueError, "replacement should be a boolean"),
        (lambda: WeightedRandomSampler([[1]], 1), ValueError, "weights should be a 1d sequence"),
        (lambda: BatchSampler([0], 0, False), ValueError, "batch_size should be a positive"),
        (lambda: BatchSampler([0], True, False), ValueError, "batch_size should be a positive"),
        (lambda: BatchSampler([0], 1, None), ValueError, "drop_last should be a boolean"),
        (lambda: iter(Sampler()), NotImplementedError, "should implement __iter__"),
    ],
)
def test_errors(make, error, message):
    with pytest.raises(error, match=message):
        make()
