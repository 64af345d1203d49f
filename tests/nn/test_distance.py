"""Norms of vectors."""

import numpy as np
from check import check

import gpunn
import gpunn.nn.functional as F

x = np.random.default_rng(0).normal(size=(4, 5))


def test_normalize():
    check(F.normalize, [x], lambda x: x / np.linalg.norm(x, axis=1, keepdims=True), rtol=2e-2)
    check(lambda x: F.normalize(x, p=1, dim=0), [x], lambda x: x / abs(x).sum(0), rtol=2e-2)


def test_a_zero_vector_stays_zero():
    assert F.normalize(gpunn.zeros(1, 3)).tolist() == [[0, 0, 0]]
