"""Comparisons, logic, bits, and equality of tensors."""

import operator

import numpy as np
import pytest

import gpunn

rng = np.random.default_rng(0)
a, b = rng.integers(-3, 4, (4, 5)), rng.integers(-3, 4, (4, 5))


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons(name):
    f, reference = getattr(gpunn, name), getattr(operator, name)
    for x, y in ((a, b), (a * 0.5, b * 0.5)):
        got = f(gpunn.tensor(x), gpunn.tensor(y))
        assert got.dtype is gpunn.bool and not got.requires_grad
        np.testing.assert_array_equal(got.numpy(), reference(x, y))
        np.testing.assert_array_equal(reference(gpunn.tensor(x), 1).numpy(), reference(x, 1))


@pytest.mark.parametrize("name", ["logical_and", "logical_or", "logical_xor"])
def test_logic(name):
    got = getattr(gpunn, name)(gpunn.tensor(a), gpunn.tensor(b))
    np.testing.assert_array_equal(got.numpy(), getattr(np, name)(a, b))
    np.testing.assert_array_equal(gpunn.logical_not(gpunn.tensor(a)).numpy(), a == 0)


@pytest.mark.parametrize("name, symbol", [("and", operator.and_), ("or", operator.or_),
                                          ("xor", operator.xor)])  # fmt: skip
def test_bits(name, symbol):
    x, y = gpunn.tensor(a), gpunn.tensor(b)
    np.testing.assert_array_equal(symbol(x, y).numpy(), symbol(a, b))
    np.testing.assert_array_equal(getattr(gpunn, f"bitwise_{name}")(x, 2).numpy(), symbol(a, 2))
    np.testing.assert_array_equal((~x).numpy(), ~a)
    with pytest.raises(RuntimeError):
        symbol(gpunn.ones(1), gpunn.ones(1))


def test_shifts():
    x = gpunn.tensor([1, -8])
    assert (x << 2).tolist() == [4, -32] and (x >> 1).tolist() == [0, -4]


def test_closeness():
    x = gpunn.tensor([1.0, float("nan")])
    y = gpunn.tensor([1.0 + 1e-7, float("nan")])
    assert gpunn.isclose(x, y).tolist() == [True, False]
    assert gpunn.allclose(x, y, equal_nan=True) and not gpunn.allclose(x, y)
    assert gpunn.equal(x[:1], x[:1]) and not gpunn.equal(x, y) and not gpunn.equal(x, x[:1])
    with pytest.raises(RuntimeError):
        gpunn.isclose(x, x.double())
