"""Columns: reading every window and adding it back are transposes of each other."""

import numpy as np
import pytest

from gpunn.nn.columns import Geometry, columns, uncolumns

rng = np.random.default_rng(0)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("stride, before, after, dilation", [
    ((1, 1), (0, 0), (0, 0), (1, 1)), ((2, 1), (1, 2), (1, 3), (1, 2)),
])  # fmt: skip
def test_inner_products_agree(groups, stride, before, after, dilation):
    geo = Geometry((6, 7), (3, 2), stride, before, after, dilation, groups)
    x = rng.normal(size=(2, 4, 6, 7))
    cols = columns(x, geo)
    assert cols.shape == (2, groups, 4 // groups * 6, geo.out[0] * geo.out[1])
    other = rng.normal(size=cols.shape)
    assert np.isclose((cols * other).sum(), (x * uncolumns(other, 4, geo)).sum())


def test_a_window_is_a_column():
    x = np.arange(9.0).reshape(1, 1, 3, 3)
    cols = columns(x, Geometry((3, 3), (2, 2), (1, 1), (0, 0), (0, 0), (1, 1), 1))
    assert cols[0, 0, :, 0].tolist() == [0, 1, 3, 4] and cols[0, 0, :, 3].tolist() == [4, 5, 7, 8]
