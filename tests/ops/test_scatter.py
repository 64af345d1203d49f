"""Scattering and its reductions."""

import numpy as np
import pytest
from check import check

import gpunn

x = np.arange(1.0, 7.0).reshape(2, 3)
src = np.array([[10.0, 20.0], [30.0, 40.0]])
INDEX = np.array([[0, 2], [1, 0]])


def put(a, s, how):
    a = a.copy()
    for i in range(2):
        for j in range(2):
            a[i, INDEX[i, j]] = how(a[i, INDEX[i, j]], s[i, j])
    return a


def test_values_and_gradients():
    index = gpunn.tensor(INDEX)
    check(lambda t, s: t.scatter(1, index, s), [x, src], lambda a, s: put(a, s, lambda p, q: q))
    check(lambda t, s: t.scatter_add(1, index, s), [x, src],
          lambda a, s: put(a, s, lambda p, q: p + q))  # fmt: skip


@pytest.mark.parametrize("reduce, how", [("sum", lambda p, q: p + q), ("prod", lambda p, q: p * q),
                                         ("amax", max), ("amin", min)])  # fmt: skip
def test_reductions(reduce, how):
    index = gpunn.tensor(INDEX)
    check(lambda t, s: t.scatter_reduce(1, index, s, reduce), [x, src],
          lambda a, s: put(a, s, how))  # fmt: skip


def test_repeated_indices_add_up():
    t = gpunn.zeros(2).scatter_add(0, gpunn.tensor([1, 1, 1]), gpunn.ones(3))
    assert t.tolist() == [0, 3]
    mean = gpunn.zeros(1).scatter_reduce(0, gpunn.tensor([0, 0]), gpunn.tensor([2.0, 4.0]), "mean",
                                         include_self=False)  # fmt: skip
    assert mean.tolist() == [3]


def test_errors_change_nothing():
    t = gpunn.zeros(2)
    with pytest.raises((RuntimeError, IndexError), match="index 2"):
        t.scatter_(0, gpunn.tensor([2]), gpunn.ones(1))
    with pytest.raises(RuntimeError, match="dtype"):
        t.scatter_add_(0, gpunn.tensor([0]), gpunn.ones(1).double())
    assert t.tolist() == [0, 0]
