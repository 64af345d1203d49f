"""Distinct values and histograms."""

import numpy as np
import pytest

import gpunn

x = np.array([3, 1, 3, 2, 1, 3])


def test_unique():
    values, inverse, counts = gpunn.tensor(x).unique(return_inverse=True, return_counts=True)
    assert values.tolist() == [1, 2, 3] and counts.tolist() == [2, 1, 3]
    np.testing.assert_array_equal(values.numpy()[inverse.numpy()], x)
    rows = gpunn.tensor([[1, 2], [1, 2], [0, 5]]).unique(dim=0)
    assert rows.tolist() == [[0, 5], [1, 2]]


def test_unique_consecutive():
    values, counts = gpunn.unique_consecutive(gpunn.tensor([1, 1, 2, 1]), return_counts=True)
    assert values.tolist() == [1, 2, 1] and counts.tolist() == [2, 1, 1]


def test_bincount():
    t = gpunn.tensor(x)
    assert t.bincount().tolist() == [0, 2, 1, 3] and t.bincount(minlength=6).shape == (6,)
    weights = gpunn.arange(6.0)
    np.testing.assert_allclose(t.bincount(weights).numpy(), np.bincount(x, np.arange(6.0)))
    with pytest.raises(RuntimeError, match="non-negative"):
        gpunn.tensor([-1]).bincount()


def test_histograms():
    values = np.random.default_rng(0).normal(size=100)
    got = gpunn.histc(gpunn.tensor(values), 10, -2, 2)
    np.testing.assert_array_equal(got.numpy(), np.histogram(values, 10, (-2, 2))[0])
