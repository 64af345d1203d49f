"""entr and xlog1py against SciPy's."""

import numpy as np
import pytest
from check import check

import gpunn

scipy = pytest.importorskip("scipy.special", reason="SciPy is the reference")
rng = np.random.default_rng(0)
x, y = rng.uniform(0.1, 3, (4, 5)), rng.uniform(-0.5, 3, (4, 5))


def test_values_and_gradients():
    check(gpunn.special.entr, [x], scipy.entr, rtol=4e-2)
    check(gpunn.special.xlog1py, [x, y], scipy.xlog1py, rtol=5e-2)


def test_the_edge():
    t = gpunn.tensor([0.0, -1.0])
    assert gpunn.special.entr(t).tolist() == [0, -np.inf]
    assert gpunn.special.xlog1py(gpunn.zeros(1), -gpunn.ones(1)).item() == 0
