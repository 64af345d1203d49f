"""Packed sequences split by sequence and joined again."""

import numpy as np
import pytest

import gpunn
from gpunn.nn.parallel.packed import join_packed, split_packed
from gpunn.nn.utils.rnn import pack_sequence, pad_packed_sequence, unpack_sequence

CPUS = [gpunn.device("cpu"), gpunn.device("cpu:1"), gpunn.device("cpu:2")]


def sequences(counts):
    rng = np.random.default_rng(0)
    return [gpunn.from_numpy(rng.normal(size=(n, 2))).requires_grad_() for n in counts]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("counts", [[5, 4, 4, 1], [1, 4, 2, 5, 1, 3, 5], [2, 2, 2], [1, 1, 6]])
def test_there_and_back(counts, count):
    falling = counts == sorted(counts, reverse=True)
    given = sequences(counts)
    packed = pack_sequence(given, enforce_sorted=falling)
    parts = split_packed(packed, CPUS[:count])
    found = []
    for part, device in zip(parts, CPUS[:count], strict=True):
        assert part.data.device is device and part.batch_sizes.device.type == "cpu"
        assert len(part.batch_sizes) == max(counts)
        assert (part.sorted_indices is None) == falling
        padded, lengths = pad_packed_sequence(part, batch_first=True)
        assert padded.shape[1] == max(counts)
        found += [row[:n] for row, n in zip(padded, lengths.tolist(), strict=True)]
    for a, b in zip(found, given, strict=True):
        assert a.tolist() == b.tolist()
    joined = join_packed(parts, CPUS[1])
    assert joined.data.device is CPUS[1]
    assert joined.data.tolist() == packed.data.tolist()
    assert joined.batch_sizes.tolist() == packed.batch_sizes.tolist()
    for a, b in zip(unpack_sequence(joined), given, strict=True):
        assert a.tolist() == b.tolist()
    (joined.data.cpu() ** 2).sum().backward()
    for x in given:
        np.testing.assert_allclose(x.grad.numpy(), 2 * x.detach().numpy())


def test_parts_in_falling_order_that_do_not_fall_together():
    parts = [pack_sequence(sequences([2, 1])), pack_sequence(sequences([3, 1]))]
    joined = join_packed(parts, CPUS[0])
    assert [len(s) for s in unpack_sequence(joined)] == [2, 1, 3, 1]
    assert joined.sorted_indices.tolist() == [2, 0, 1, 3]
