"""kernels/dropout.cpp against the stream and the arithmetic in NumPy."""

import numpy as np
import pytest

from gpunn import native
from gpunn.draw import words64
from gpunn.generator import Generator

pytestmark = pytest.mark.skipif(native.lib() is None, reason=native.status())


@pytest.mark.parametrize("n", [0, 1, 311, 312, 313, 624, 5000])
@pytest.mark.parametrize("skipped", [0, 1, 623, 624])
def test_coins_are_the_streams_words(n, skipped):
    one, other = Generator().manual_seed(5), Generator().manual_seed(5)
    for generator in one, other:
        generator.words(skipped)
    bound = 3 << 50
    state = one.stream.state()
    found = native.coins(state, (n,), bound)
    one.stream.resume(state)
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, words64(other, n) % (1 << 53) < bound)
    np.testing.assert_array_equal(one.words(700), other.words(700))


def test_coins_take_any_shape_and_are_sure_at_the_ends():
    state = Generator().stream.state()
    assert native.coins(state, (3, 400), 1 << 53).all()
    assert not native.coins(state, (3, 400), 0).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [0, 1, 31, 33, 70001])
def test_kept_numbers_are_scaled(n, dtype):
    rng = np.random.default_rng(0)
    x, kept = rng.standard_normal(n).astype(dtype), rng.random(n) < 0.7
    y = native.dropout(x, kept, 1 / 0.7)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x * np.where(kept, dtype(1 / 0.7), dtype(0)))


def test_strided_arrays_and_what_is_no_number():
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    kept = np.eye(4, 3, dtype=bool)
    np.testing.assert_array_equal(native.dropout(x.T, kept, 2.0), x.T * (kept * np.float32(2)))
    y = native.dropout(np.float32([np.nan, np.inf, -np.inf]), np.zeros(3, bool), 2.0)
    assert np.isnan(y).all()


def test_other_dtypes_are_numpys_turn():
    assert native.dropout(np.ones(3, np.float16), np.ones(3, bool), 2.0) is None
