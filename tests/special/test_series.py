"""How special functions are computed."""

import numpy as np
import pytest

import gpunn
from gpunn.special import _series as series


def test_horner():
    t = np.linspace(-1, 1, 5)
    np.testing.assert_allclose(series.horner(t, (1.0, 2.0, -3.0)), 1 + 2 * t - 3 * t * t)
    assert series.horner(np.float64(2), (1.0, 2.0)) == 5


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 5000), (20_000,)])
def test_bodies_see_float64_in_pieces(shape):
    seen = []

    def body(x, xp):
        seen.append((x.dtype, x.ndim, x.size))
        return x * 2

    x = np.ones(shape, np.float32).T
    y = series.computed(body)(x, np)
    assert y.shape == x.shape and y.dtype == np.float32 and (y == 2).all()
    assert all(d == np.float64 and n == 1 and size <= 8192 for d, n, size in seen)
    assert sum(size for _, _, size in seen) == x.size


def test_two_arrays_are_broadcast():
    a, b = np.ones((3, 1), np.float32), np.arange(4, dtype=np.float32)
    np.testing.assert_array_equal(series.computed(lambda a, b, xp: a + b)(a, b, np), a + b)


def test_rows_have_docs_that_say_where_they_are():
    assert "gpunn.special.entr(" in gpunn.special.entr.__doc__
    assert "special.html#torch.special.entr" in gpunn.special.entr.__doc__
    assert "gpunn.lgamma(" in gpunn.lgamma.__doc__ and "torch.lgamma.html" in gpunn.lgamma.__doc__


def test_the_namespace_is_pytorchs():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = {n for n, v in vars(torch.special).items() if callable(v) and not n.startswith("_")}
    assert theirs - {"Tensor"} <= set(gpunn.special.__all__)
