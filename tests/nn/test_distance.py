"""Norms of vectors."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F

x = np.random.default_rng(0).normal(size=(4, 5))


def test_normalize():
    check(F.normalize, [x], lambda x: x / np.linalg.norm(x, axis=1, keepdims=True), rtol=2e-2)
    check(lambda x: F.normalize(x, p=1, dim=0), [x], lambda x: x / abs(x).sum(0), rtol=2e-2)


def test_a_zero_vector_stays_zero():
    assert F.normalize(gpunn.zeros(1, 3)).tolist() == [[0, 0, 0]]


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0, np.inf])
def test_distances_of_all_pairs(p):
    y = np.random.default_rng(1).normal(size=(2, 3, 5))
    check(
        lambda x, y: gpunn.cdist(x, y, p), [x, y],
        lambda x, y: np.linalg.norm(x[:, None] - y[:, None], ord=p, axis=-1), rtol=3e-2,
    )  # fmt: skip


def test_points_that_meet_have_distance_and_slope_zero():
    a = gpunn.ones(1, 2, requires_grad=True)
    gpunn.cdist(a, gpunn.ones(1, 2)).sum().backward()
    assert a.grad.tolist() == [[0, 0]]
    assert gpunn.cdist(gpunn.zeros(1, 3), gpunn.tensor([[0.0, 2.0, 3.0]]), p=0).item() == 2
    with pytest.raises(RuntimeError, match="same number of columns. X1: 2 X2: 3"):
        gpunn.cdist(gpunn.zeros(1, 2), gpunn.zeros(1, 3))
