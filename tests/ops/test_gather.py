"""gather, take and index_select."""

import numpy as np
import pytest
from check import check

import gpunn

x = np.arange(12.0).reshape(3, 4)
INDEX = np.array([[0, 3], [1, 1], [2, 0]])


def test_values_and_gradients():
    index = gpunn.tensor(INDEX)
    check(lambda t: t.gather(1, index), [x], lambda a: np.take_along_axis(a, INDEX, 1))
    check(lambda t: gpunn.take_along_dim(t, index, 1), [x],
          lambda a: np.take_along_axis(a, INDEX, 1))  # fmt: skip
    check(lambda t: t.take(index), [x], lambda a: a.take(INDEX))
    rows = gpunn.tensor([2, 2, 0])
    check(lambda t: t.index_select(0, rows), [x], lambda a: a[[2, 2, 0]])
    mask = x > 4
    check(lambda t: t.masked_select(gpunn.tensor(mask)), [x], lambda a: a[mask])


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda t: t.gather(1, gpunn.tensor([[4]])), (RuntimeError, IndexError), "index 4"),
        (lambda t: t.gather(1, gpunn.tensor([0])), RuntimeError, "same number of dimensions"),
        (lambda t: t.gather(1, gpunn.tensor([[0.0]])), RuntimeError, "int64"),
        (lambda t: t.index_select(0, gpunn.tensor([3])), IndexError, "out of range"),
        (lambda t: t.take(gpunn.tensor([12])), IndexError, "out of range|out of bounds"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call(gpunn.tensor(x))
