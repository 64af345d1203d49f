"""Diagonals and triangles."""

import numpy as np
import pytest
from check import check

import gpunn

x = np.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("offset", [-1, 0, 2])
def test_values_and_gradients(offset):
    check(lambda t: t.diagonal(offset), [x], lambda a: a.diagonal(offset))
    check(lambda t: t.tril(offset), [x], lambda a: np.tril(a, offset))
    check(lambda t: t.triu(offset), [x], lambda a: np.triu(a, offset))
    check(lambda t: gpunn.diag(t[0], offset), [x], lambda a: np.diag(a[0], offset))
    check(lambda t: gpunn.diag_embed(t, offset), [x],
          lambda a: np.stack([np.diag(r, offset) for r in a]))  # fmt: skip
    for ours, theirs in zip(gpunn.tril_indices(3, 4, offset), np.tril_indices(3, offset, 4),
                            strict=True):  # fmt: skip
        np.testing.assert_array_equal(ours.numpy(), theirs)


def test_trace_and_scatter():
    check(gpunn.trace, [x], np.trace, rtol=2e-2)
    change = ((0, 0), (0, 1))
    check(lambda t, s: t.diagonal_scatter(s), [x, np.array([7.0, 8.0, 9.0])],
          lambda a, s: a - np.pad(np.diag(a.diagonal() - s), change))  # fmt: skip


def test_the_diagonal_is_a_view():
    t = gpunn.tensor(x)
    t.diagonal().fill_(-1)
    assert t.diagonal().tolist() == [-1, -1, -1]


def test_errors():
    with pytest.raises(RuntimeError, match="identical"):
        gpunn.tensor(x).diagonal(0, 1, 1)
    with pytest.raises(RuntimeError, match="at least 2 dimensions"):
        gpunn.ones(2).tril()
