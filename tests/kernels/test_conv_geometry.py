"""The numbers of struct Conv: exact division, sizes past the kernels' counts."""

import numpy as np
import pytest

from gpunn.cuda.kernels.conv_geometry import division, forward, input_grad

rng = np.random.default_rng(0)


@pytest.mark.parametrize("by", [1, 2, 3, 7, 49, 641, 3136, 65537, (1 << 30) + 1, (1 << 31) - 1])
def test_division_by_multiplication_is_exact(by):
    times, shift, same = division(by)
    edges = [k * by + e for k in (0, 1, 2, (1 << 31) // by) for e in (-1, 0, 1)]
    drawn = [*edges, *rng.integers(0, 1 << 31, 2000).tolist(), (1 << 31) - 1]
    for n in (n for n in drawn if 0 <= n < 1 << 31):
        high = n * times >> 32
        assert high + n < 1 << 32  # the kernel adds in 32 bits
        assert high + n >> shift == n // by
    assert same == by


def test_the_classes_of_an_input_gradient():
    sizes = input_grad((2, 8, 5), (8, 3, 3), (10,), (2,), (1,), (4,), 1)
    conv = sizes.struct()
    assert conv["phases"].tolist() == [1, 1, 2] and conv["places"].tolist() == [1, 1, 5]
    assert conv["tap_step"].tolist() == [1, 1, 1] and conv["stretch"].tolist() == [-1, -1, -2]
    assert (conv["rows"], conv["depth"]) == (sizes.rows, sizes.depth) == (3, 8)
    assert (sizes.places, sizes.classes, sizes.taps) == (10, 2, 3)
    assert sizes.struct(2)["per_tap"].tolist() == division(2)


def test_sizes_past_the_counts_are_refused():
    one = ((1,), (0,), (1,), 1)
    assert forward((1, 1, 8), (1, 1, 3), (6,), *one).fits
    assert not forward((1 << 20, 1, 1 << 12), (1, 1, 1), (1 << 12,), *one).fits
    assert not forward((1, 1, 1 << 29), (1, 1, 1), (1 << 29,), *one).fits
    assert not forward((1, 1, 1 << 21), (1, 1, 1 << 20), (1 << 20,), *one).fits


def test_what_is_pointwise_and_what_is_square():
    still, padded, strided = ((1, 1), (0, 0)), ((1, 1), (1, 0)), ((2, 2), (0, 0))
    for (stride, before), out, wanted in ((still, (4, 4), True), (padded, (6, 4), False),
                                          (strided, (2, 2), False)):  # fmt: skip
        sizes = forward((1, 2, 4, 4), (3, 2, 1, 1), out, stride, before, (1, 1), 1)
        assert sizes.pointwise is wanted
    assert forward((1, 2, 4, 4), (3, 2, 3, 3), (2, 2), *still, (1, 1), 1).square == 3
    assert input_grad((1, 3, 2, 2), (3, 2, 3, 3), (5, 5), *strided, (1, 1), 1).square == 0
