"""nonzero, searchsorted and isin."""

import numpy as np
import pytest

import gpunn

x = np.array([[0, 3, 0], [4, 0, 5]])


def test_nonzero():
    t = gpunn.tensor(x)
    assert t.nonzero().tolist() == np.argwhere(x).tolist() == gpunn.argwhere(t).tolist()
    for ours, theirs in zip(t.nonzero(as_tuple=True), x.nonzero(), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)
    assert gpunn.tensor(5).nonzero().shape == (1, 0)


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted(right):
    edges, values = np.array([1.0, 3.0, 3.0, 7.0]), np.array([[0.0, 3.0], [5.0, 9.0]])
    got = gpunn.searchsorted(gpunn.tensor(edges), gpunn.tensor(values), right=right)
    np.testing.assert_array_equal(got.numpy(), edges.searchsorted(values, ["left", "right"][right]))
    assert gpunn.equal(gpunn.bucketize(gpunn.tensor(values), gpunn.tensor(edges), right=right), got)
    rows = gpunn.searchsorted(gpunn.tensor([[1, 2], [5, 6]]), gpunn.tensor([[2], [2]]), right=right)
    assert rows.tolist() == [[1 + right], [0]]


def test_isin():
    assert gpunn.isin(gpunn.tensor(x), gpunn.tensor([3, 5])).tolist() == np.isin(x, [3, 5]).tolist()
    assert gpunn.isin(gpunn.tensor([1, 2]), 2, invert=True).tolist() == [True, False]


def test_errors():
    with pytest.raises(RuntimeError, match="side"):
        gpunn.searchsorted(gpunn.tensor([1]), gpunn.tensor([1]), side="middle")
