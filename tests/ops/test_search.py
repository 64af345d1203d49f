"""nonzero, searchsorted, bucketize, isin, unravel_index."""

import numpy as np
import pytest
from both import refused, same
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn

NAN, INF = float("nan"), float("inf")


def test_nonzero():
    for f in (
        lambda T: T.tensor([[0, 3], [4, 0]]).nonzero(), lambda T: T.tensor(1.0).nonzero(),
        lambda T: T.tensor([[0, 3], [4, 0]]).nonzero(as_tuple=True),
        lambda T: T.tensor(2).nonzero(as_tuple=True), lambda T: T.zeros(0, 2).nonzero(),
        lambda T: T.argwhere(T.tensor([True, False, True])), lambda T: T.tensor(0).nonzero(),
        lambda T: T.nonzero_static(T.tensor([[1, 0], [2, 3]]), size=2),
        lambda T: T.nonzero_static(T.tensor([[1, 0], [2, 3]]), size=5, fill_value=7),
        lambda T: T.tensor(1).nonzero_static(size=2),
    ):  # fmt: skip
        same(f)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.integers(0, 5), max_size=6), st.lists(st.integers(-1, 6), max_size=6),
    st.booleans(), st.sampled_from(["int64", "float32", "uint8", "float64"]),
)  # fmt: skip
def test_searchsorted(edges, values, right, dtype):
    edges = np.sort(np.array(edges, dtype))
    values = np.array(values).clip(0).astype(dtype)
    got = gpunn.searchsorted(gpunn.tensor(edges), gpunn.tensor(values), right=right)
    want = np.searchsorted(edges, values, "right" if right else "left")
    np.testing.assert_array_equal(got, want)
    again = gpunn.bucketize(gpunn.tensor(values), gpunn.tensor(edges), right=right)
    np.testing.assert_array_equal(again, want)


def test_searchsorted_rows_sorter_and_numbers():
    for f in (
        lambda T: T.searchsorted(T.tensor([[1, 3, 5], [2, 4, 6]]), T.tensor([[3, 6], [3, 6]])),
        lambda T: T.searchsorted(T.tensor([5.0, 1.0, 3.0]), T.tensor([2.0, NAN, INF]),
                                 sorter=T.tensor([1, 2, 0])),
        lambda T: T.searchsorted(T.tensor([[5, 1, 3], [2, 6, 4]]), T.tensor([[3], [3]]),
                                 side="right", sorter=T.tensor([[1, 2, 0], [0, 2, 1]])),
        lambda T: T.searchsorted(T.tensor([1, 3, 5]), 3, out_int32=True),
        lambda T: T.searchsorted(T.tensor([1.0, 3.0]), T.tensor([2])),
        lambda T: T.bucketize(3, T.tensor([1, 3, 5]), right=True),
        lambda T: T.searchsorted(T.tensor([1.0, 2.0]).bfloat16(), T.tensor([1.5]).bfloat16()),
    ):  # fmt: skip
        same(f)


def test_isin_and_unravel_index():
    for f in (
        lambda T: T.isin(T.tensor([[1.0, NAN], [3.0, 1.5]]), T.tensor([3, 1])),
        lambda T: T.isin(T.tensor([1, 2]), 2), lambda T: T.isin(1, T.tensor([1, 2])),
        lambda T: T.isin(T.tensor([1, 2, 2]), T.tensor([2]), invert=True),
        lambda T: T.unravel_index(T.tensor([[5, 9], [-1, 0]]), (2, 3)),
        lambda T: T.unravel_index(T.tensor([5], dtype=T.uint8), 7),
    ):  # fmt: skip
        same(f)


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: T.searchsorted(T.ones(3), T.ones(1), side="x"), "side can only be 'left' or"),
    (lambda T: T.searchsorted(T.ones(3), T.ones(1), side="left", right=True), "set to opposites"),
    (lambda T: T.searchsorted(T.ones(2, 3), T.ones(3, 2)), "should be 1 dimension or the first"),
    (lambda T: T.searchsorted(T.ones(2, 3), 1.0), "can be a scalar only when boundaries"),
    (lambda T: T.searchsorted(T.tensor(1.0), T.ones(1)), "should have positive dimension"),
    (lambda T: T.searchsorted(T.ones(3), T.ones(1), sorter=T.tensor([0, 1])), "have the same size"),
    (lambda T: T.searchsorted(T.ones(2), T.ones(1), sorter=T.tensor([0, 2])), "out of range"),
    (lambda T: T.searchsorted(T.ones(2), T.ones(1), sorter=T.ones(2)), "tensor of long dtype"),
    (lambda T: T.searchsorted(T.ones(2), T.ones(1), out=T.zeros(1).int()), "dtype is wrong"),
    (lambda T: T.bucketize(T.ones(1), T.ones(2, 2)), "boundaries tensor must be 1 dimension"),
    (lambda T: T.nonzero_static(T.ones(1), size=-1), "'size' must be an non-negative integer"),
    (lambda T: T.nonzero(T.ones(1), out=T.zeros(1, 1)), "Expected out tensor to have scalar type"),
    (lambda T: T.isin(T.tensor([True]), T.tensor([True])), "Unsupported input type encountered"),
    (lambda T: T.isin(1, 2), "invalid combination of arguments"),
    (lambda T: T.unravel_index(T.ones(1), (2,)), "expected 'indices' to be integer dtype"),
    (lambda T: T.unravel_index(T.tensor([1]), (2, -3)), "cannot have negative values"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)
