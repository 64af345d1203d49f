"""add_at: repeated places add up, in a fixed order, by every path."""

import numpy as np
import pytest

from gpunn.ops.accumulate import add_at

rng = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(50,), (50, 8), (50, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.complex128])
@pytest.mark.parametrize("count", [0, 1, 7, 5000])
def test_rows(shape, dtype, count):
    whole = rng.integers(0, 9, shape).astype(dtype)
    rows = rng.integers(0, 50, count)
    values = rng.integers(0, 9, (count, *shape[1:])).astype(dtype)
    wanted = whole.copy()
    np.add.at(wanted, rows, values)
    again = whole.copy()
    add_at(whole, (rows,), values)
    np.testing.assert_allclose(whole, wanted)
    add_at(again, (rows,), values)
    np.testing.assert_array_equal(again, whole)


def test_other_keys():
    whole = np.zeros((3, 4))
    add_at(whole, (slice(None), np.array([1, 1])), np.ones((3, 2)))
    assert whole[:, 1].tolist() == [2, 2, 2]
    add_at(whole, (whole > 1,), 1.0)
    assert whole[:, 1].tolist() == [3, 3, 3]
    add_at(whole, (np.array([0, 0]), np.array([0, 0])), np.array([1.0, 2.0]))
    assert whole[0, 0] == 3
