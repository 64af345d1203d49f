"""where, clamp and the functions that choose between two values."""

import numpy as np
import pytest
from check import check

import gpunn

rng = np.random.default_rng(0)
a, b = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))


def test_where():
    mask = a > 0
    check(lambda x, y: gpunn.where(gpunn.from_numpy(mask), x, y), [a, b],
          lambda x, y: np.where(mask, x, y))  # fmt: skip
    check(lambda x, y: gpunn.where(gpunn.from_numpy(mask), x, y), [a, b[:1]],
          lambda x, y: np.where(mask, x, y))  # fmt: skip
    assert gpunn.where(gpunn.tensor([True, False]), 1, 2.5).tolist() == [1, 2.5]
    rows, columns = gpunn.where(gpunn.tensor([[0, 1], [1, 0]]) > 0)
    assert rows.tolist() == [0, 1] and columns.tolist() == [1, 0]


def test_larger_and_smaller():
    check(gpunn.maximum, [a, b], np.maximum)
    check(gpunn.minimum, [a, b], np.minimum)
    check(gpunn.fmax, [a, b], np.fmax)
    check(gpunn.fmin, [a, b], np.fmin)


def test_equal_ones_share_the_gradient():
    x = gpunn.ones(1, requires_grad=True)
    y = gpunn.ones(1, requires_grad=True)
    gpunn.maximum(x, y).backward()
    assert x.grad.item() == y.grad.item() == 0.5


def test_clamp():
    check(lambda x: gpunn.clamp(x, -0.5, 0.5), [a], lambda x: np.clip(x, -0.5, 0.5))
    check(lambda x: x.clamp(min=0.2), [a], lambda x: np.maximum(x, 0.2), rtol=2e-2)
    check(lambda x, y: x.clamp(max=y), [a, b], np.minimum)
    with pytest.raises(RuntimeError, match="At least one of 'min' or 'max'"):
        gpunn.ones(1).clamp()


def test_wrong_conditions_are_named():
    with pytest.raises(RuntimeError, match="boolean tensor"):
        gpunn.where(gpunn.ones(1), 1, 2)
