"""Masked filling and scattering."""

import numpy as np
import pytest
from check import check

import gpunn

x = np.arange(6.0).reshape(2, 3)
mask = np.array([[True, False, True], [False, False, True]])


def test_values_and_gradients():
    m = gpunn.tensor(mask)
    check(lambda t: t.masked_fill(m, -1.0), [x], lambda a: np.where(mask, -1.0, a))
    check(lambda t, s: t.masked_scatter(m, s), [x, x + 10],
          lambda a, s: np.array([[s[0, 0], 1, s[0, 1]], [3, 4, s[0, 2]]]) + 0 * a)  # fmt: skip


def test_in_place():
    t = gpunn.tensor(x)
    assert t.masked_fill_(gpunn.tensor(mask[0]), 0.0) is t and t[:, 0].tolist() == [0, 0]


def test_errors():
    t = gpunn.tensor(x)
    with pytest.raises(RuntimeError, match="boolean masks"):
        t.masked_fill(gpunn.ones(2, 3), 0.0)
    with pytest.raises(RuntimeError, match="elements"):
        t.masked_scatter(gpunn.tensor(mask), gpunn.zeros(1, dtype=gpunn.float64))
