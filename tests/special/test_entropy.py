"""entr and xlog1py."""

import math

import numpy as np
from check import check

import gpunn

rng = np.random.default_rng(0)
X, Y = rng.uniform(0.2, 2, size=(3, 4)), rng.uniform(-0.5, 2, size=4)


def test_values_and_gradients():
    check(gpunn.special.entr, [X], lambda x: -x * np.log(x), rtol=3e-2)
    check(gpunn.special.xlog1py, [X, Y], lambda x, y: x * np.log1p(y), rtol=3e-2)
    assert gpunn.special.xlog1py(2, gpunn.tensor([0.0])).item() == 0


def test_edges():
    x = gpunn.tensor([0.0, -1.0, math.nan, math.inf])
    np.testing.assert_array_equal(
        gpunn.special.entr(x).numpy(), [0, -math.inf, math.nan, -math.inf]
    )
    zero = gpunn.zeros(1, requires_grad=True)
    y = gpunn.special.xlog1py(zero, gpunn.tensor([-1.0]))
    assert y.item() == 0
    y.backward()
    assert zero.grad.item() == 0
    assert gpunn.special.xlog1py(zero, gpunn.tensor([math.nan])).isnan()
