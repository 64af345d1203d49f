"""Error functions against SciPy's."""

import numpy as np
import pytest
from check import check

import gpunn

scipy = pytest.importorskip("scipy.special", reason="SciPy is the reference")
x = np.random.default_rng(0).uniform(-3, 3, (5, 7))


@pytest.mark.parametrize("name", ["erf", "erfc", "erfcx", "log_ndtr", "ndtr"])
def test_values_and_gradients(name):
    check(getattr(gpunn.special, name), [x], getattr(scipy, name), rtol=3e-2)


@pytest.mark.parametrize("name, array", [("erfinv", x / 3.1), ("ndtri", 0.5 + x / 6.2)])
def test_inverses(name, array):
    check(getattr(gpunn.special, name), [array], getattr(scipy, name), rtol=6e-2,
          dtypes=("float64",))  # fmt: skip


def test_far_out():
    wide = np.array([-30.0, -8.0, 0.0, 8.0, 30.0, np.inf, -np.inf, np.nan])
    for name in ("erf", "erfc", "log_ndtr"):
        got = getattr(gpunn.special, name)(gpunn.tensor(wide)).numpy()
        np.testing.assert_allclose(got, getattr(scipy, name)(wide), rtol=1e-12)
