"""x[...] = value, index_add and their kind."""

import numpy as np
import pytest
from check import check

import gpunn

x = np.arange(12.0).reshape(3, 4)
v = np.array([[10.0, 20.0, 30.0, 40.0], [1.0, 2.0, 3.0, 4.0]])
INDEX = gpunn.tensor([2, 0])


def assigned(key):
    def f(t, value):
        y = t * 1
        y[key] = value
        return y

    def reference(a, value):
        a = a.copy()
        a[key.numpy() if isinstance(key, gpunn.Tensor) else key] = value
        return a

    return f, reference


@pytest.mark.parametrize("key", [slice(0, 2), INDEX, (slice(1, 3), slice(None))], ids=str)
def test_assignment(key):
    f, reference = assigned(key)
    check(f, [x, v], reference)


def test_assignment_casts_and_broadcasts():
    t = gpunn.zeros(2, 3, dtype=gpunn.int64)
    t[0] = 1.9
    t[:, 2] = gpunn.tensor([7.0])
    assert t.tolist() == [[1, 1, 7], [0, 0, 7]]
    with pytest.raises(RuntimeError):
        t[0] = gpunn.ones(2)


def test_adding_to_repeated_places():
    index = gpunn.tensor([1, 1])
    check(lambda t, s: t.index_add(0, index, s), [x, v],
          lambda a, s: a + np.stack([a[0] * 0, s.sum(0), a[0] * 0]))  # fmt: skip
    t = gpunn.zeros(3)
    t.index_put_((index,), gpunn.ones(2), accumulate=True)
    assert t.tolist() == [0, 2, 0]


def test_copy_and_fill():
    check(lambda t, s: t.index_copy(0, INDEX, s), [x, v], lambda a, s: np.stack([s[1], a[1], s[0]]))
    assert gpunn.tensor(x).index_fill(0, INDEX, -1)[:, 0].tolist() == [-1, 4, -1]
    check(lambda t, s: gpunn.select_scatter(t, s[0], 0, 1), [x, v],
          lambda a, s: np.stack([a[0], s[0], a[2]]))  # fmt: skip


def test_an_index_out_of_range_changes_nothing():
    t = gpunn.zeros(3)
    with pytest.raises((IndexError, RuntimeError), match="out of bounds|out of range"):
        t.index_add_(0, gpunn.tensor([0, 3]), gpunn.ones(2))
    with pytest.raises(IndexError, match="out of bounds"):
        t[gpunn.tensor([0, 5])] = 1
    assert t.tolist() == [0, 0, 0]
