"""Keys taken apart: the view first, then the arrays."""

import numpy as np
import pytest

import gpunn
from gpunn.ops.index_key import is_basic, split_key, take_key, width_of

X = gpunn.zeros(2, 3, 4)
ROWS = np.array([0, 1])


def test_basic_keys():
    assert is_basic((0, slice(None), None, ...)) and not is_basic((True,))
    assert not is_basic((np.int64(1),)) and not is_basic((..., 0, ...))
    with pytest.raises(ValueError, match="step must be greater than zero"):
        is_basic((slice(None, None, -1),))


def parts(key):
    basic, arrays = split_key(key, X)
    return basic, None if arrays is None else tuple(
        k if type(k) is slice else k.tolist() for k in arrays
    )


FULL = slice(None)


def test_integers_select_before_arrays():
    assert parts((0, FULL, ROWS)) == ((0, FULL, FULL), (FULL, [0, 1]))
    assert parts((ROWS, 1)) == ((FULL, 1), ([0, 1],))
    assert parts((..., ROWS)) == (None, (FULL, FULL, [0, 1]))
    assert parts((None, ROWS)) == ((None, FULL), (FULL, [0, 1]))
    assert parts((slice(1), ROWS)) == ((slice(1), FULL), (FULL, [0, 1]))
    assert parts([0, 1]) == (None, ([0, 1],))
    assert parts(gpunn.tensor(1)) == ((1,), None)
    assert parts((..., 0, ...)) == ((..., 0), None)


def test_bools_are_new_dimensions_and_masks_name_several():
    assert parts(True) == ((None,), ([0],))
    assert parts((False, 0)) == ((None, 0), ([],))
    mask = gpunn.ones(2, 3, dtype=gpunn.bool)
    assert parts((mask, 0)) == ((FULL, FULL, 0), (mask.tolist(),))
    assert [width_of(k) for k in (None, ..., 0, FULL, ROWS, mask.array)] == [0, 0, 1, 1, 1, 2]


def test_errors_name_dimension_and_size():
    with pytest.raises(IndexError, match="index -3 is out of bounds for dimension 0 with size 2"):
        take_key(X.array, (np.array([0, -3]),))
    with pytest.raises(IndexError, match=r"broadcast together with shapes \[3\], \[2\]"):
        take_key(X.array, (np.zeros(3, int), np.zeros(2, int)))
