"""Tables of resampling: their weights, and the transposed ones."""

import numpy as np
import pytest

import gpunn
from gpunn.nn.resample import Axis, resample, table, transposed

AXES = [
    Axis("nearest", 5, 8, None), Axis("nearest", 5, 3, 0.7), Axis("nearest-exact", 4, 9, 2.3),
    Axis("linear", 4, 7, None), Axis("linear", 7, 3, None, True), Axis("linear", 1, 4, None, True),
    Axis("cubic", 5, 11, 2.2), Axis("cubic", 6, 4, None, True),
    Axis("linear", 9, 4, None, False, True), Axis("cubic", 20, 3, None, False, True),
    Axis("lanczos", 13, 5, None, False, True), Axis("lanczos", 3, 8, None, False, True),
    Axis("linear", 6, 6, None),
]  # fmt: skip


def dense(indices, weights, n):
    matrix = np.zeros((indices.shape[1], n))
    weights = np.ones(indices.shape) if weights is None else weights
    np.add.at(matrix, (np.arange(indices.shape[1]), indices), weights)
    return matrix


@pytest.mark.parametrize("axis", AXES, ids=str)
def test_weights_sum_to_one_and_transpose(axis):
    made = table(axis, np.float64)
    matrix = dense(*made, axis.n)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)
    np.testing.assert_array_equal(dense(*transposed(*made, axis.n), axis.m), matrix.T)


def test_a_straight_line_stays_one_inside():
    x = gpunn.arange(40, dtype=gpunn.float64)
    y = resample(x, [Axis("linear", 40, 17, None)], "Line").numpy()
    np.testing.assert_allclose(y, (np.arange(17) + 0.5) * 40 / 17 - 0.5, rtol=1e-12)


def test_bytes_are_rounded_and_kept_in_range():
    x = gpunn.tensor([[0, 255, 255, 0]] * 4, dtype=gpunn.uint8)
    y = resample(x, [Axis("cubic", 4, 8, None)] * 2, "Bytes")
    assert y.dtype is gpunn.uint8 and y.max() == 255 and y.min() == 0


def test_infinities_stay_where_they_are():
    x = gpunn.tensor([1.0, 2.0, 3.0, 4.0, float("inf")])
    y = resample(x, [Axis("linear", 5, 10, None)], "Far")
    assert y[:6].isfinite().all()
