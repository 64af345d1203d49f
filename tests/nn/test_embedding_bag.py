"""Bags of embeddings: modes, weights, padding, and the errors."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F

rng = np.random.default_rng(0)


def bags(w, how):
    """[1, 0], [], [1, 3, 1] by hand."""
    rows = [w[[1, 0]], w[[1, 3, 1]]]
    made = [getattr(r, how)(axis=0) for r in rows]
    return np.stack([made[0], np.zeros(w.shape[1]), made[1]])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags(mode):
    index, offsets = gpunn.tensor([1, 0, 1, 3, 1]), gpunn.tensor([0, 2, 2])
    check(lambda w: F.embedding_bag(index, w, offsets, mode=mode), [rng.normal(size=(5, 3))],
          lambda w: bags(w, mode), rtol=3e-2)  # fmt: skip
    last = gpunn.tensor([0, 2, 2, 5])
    w = gpunn.randn(5, 3)
    assert gpunn.equal(F.embedding_bag(index, w, last, mode=mode, include_last_offset=True),
                       F.embedding_bag(index, w, offsets, mode=mode))  # fmt: skip


def test_bags_of_one_length_with_weights_and_padding():
    index = gpunn.tensor([[0, 1], [1, 2]])
    check(
        lambda w, s: F.embedding_bag(index, w, mode="sum", per_sample_weights=s, padding_idx=1),
        [rng.normal(size=(3, 2)), rng.normal(size=(2, 2))],
        lambda w, s: np.stack([w[0] * s[0, 0], w[2] * s[1, 1]]),
    )


def test_bag_errors():
    w = gpunn.zeros(3, 2)
    for call, error, words in (
        (lambda: F.embedding_bag(gpunn.tensor([0]), w), ValueError, "offsets has to be a 1D"),
        (lambda: F.embedding_bag(gpunn.tensor([0]), w, gpunn.tensor([1])), ValueError,
         "offsets.0."),
        (lambda: F.embedding_bag(gpunn.tensor([[0]]), w, mode="min"), ValueError, "mode has to be"),
        (lambda: F.embedding_bag(gpunn.tensor([[0]]), w, per_sample_weights=gpunn.ones(1, 1)),
         NotImplementedError, "only supported for mode='sum'"),
    ):  # fmt: skip
        with pytest.raises(error, match=words):
            call()
