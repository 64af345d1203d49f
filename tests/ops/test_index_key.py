"""Keys: what counts as basic, and how lists and tensors are read."""

import pytest

import gpunn


@pytest.mark.parametrize("key", [0, slice(1, 2), (0, ...), (None, 1), gpunn.tensor(1)])
def test_views_come_from_basic_keys(key):
    t = gpunn.zeros(3, 3)
    t[key].fill_(1)
    assert (t == 1).any() or key is gpunn.tensor


@pytest.mark.parametrize("key", [[0, 1], gpunn.tensor([0, 1]), gpunn.ones(3) > 0])
def test_copies_come_from_the_others(key):
    t = gpunn.zeros(3, 3)
    t[key].fill_(1)
    assert (t == 0).all()


def test_slices_with_tensor_bounds():
    assert gpunn.arange(5)[gpunn.tensor(1) : gpunn.tensor(3)].tolist() == [1, 2]


def test_bools_are_masks_not_numbers():
    t = gpunn.arange(3)
    assert t[True].shape == (1, 3) and t[False].shape == (0, 3)
    assert t[gpunn.tensor([1, 0, 1], dtype=gpunn.bool)].tolist() == [0, 2]
