"""Indices that must lie in a dimension."""

import numpy as np
import pytest

from gpunn.ops.bounds import bounded, out_of_range


def error(bad):
    return IndexError(f"bad {bad}")


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_the_cpu_raises_at_once(dtype):
    good = np.array([0, 4, -2], dtype)
    assert bounded("op", good, 5, error, below=5) is good
    for values, below, bad in (([0, 5], 0, 5), ([-1, 0], 0, -1), ([-6, 2], 5, -6)):
        with pytest.raises(IndexError, match=f"bad {bad}$"):
            bounded("op", np.array(values, dtype), 5, error, below=below)


def test_nothing_is_out_of_range_in_an_empty_index():
    assert out_of_range(np.zeros(0, np.int64), 0) is None


def test_everything_is_out_of_range_in_an_empty_dimension():
    with pytest.raises(IndexError, match="bad 0"):
        bounded("op", np.zeros(1, np.int64), 0, error)
