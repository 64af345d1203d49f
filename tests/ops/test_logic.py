"""Comparisons, logic, bits, tests of values and equality."""

import math
import operator

import numpy as np
import pytest

import gpunn

VALUES = [-1.0, 0.0, 2.0, math.nan]


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_comparisons(name):
    op = getattr(operator, name)
    x = gpunn.tensor(VALUES)
    y = gpunn.tensor([[0.0], [2.0]])
    for d in (gpunn.float32, gpunn.float16, gpunn.bfloat16):
        a, b = x.to(d), y.to(d)
        got = getattr(gpunn, name)(a, b)
        assert got.dtype is gpunn.bool
        np.testing.assert_array_equal(got.numpy(), op(x.numpy(), y.numpy()))
        assert op(a, 2).tolist() == op(x.numpy(), 2).tolist()
        assert op(2, a).tolist() == op(2, x.numpy()).tolist()
    i = gpunn.tensor([1, 2])
    assert op(i, 1.5).tolist() == [op(1, 1.5), op(2, 1.5)]
    x = x.clone()
    getattr(x, name + "_")(0)
    assert x.tolist() == [float(op(v, 0)) for v in VALUES]


def test_names_of_comparisons():
    assert gpunn.greater is gpunn.gt and gpunn.not_equal is gpunn.ne and gpunn.less is gpunn.lt
    assert gpunn.tensor([1]).greater_equal(1).item() is True


def test_half_precision_is_compared_with_the_number_rounded():
    x = gpunn.tensor([0.1]).half()
    assert (x == 0.1).item() and not (x < 0.1).item()
    assert (gpunn.tensor([0.1]).bfloat16() >= 0.1).item()


def test_what_has_no_order():
    z = gpunn.tensor([1j])
    assert (z == 1j).item() and (z != 1).item()
    with pytest.raises(RuntimeError, match="\"lt_cpu\" not implemented for 'ComplexFloat'"):
        z < 1j  # noqa: B015
    assert (gpunn.ones(2) == None) is False and (gpunn.ones(2) != "a") is True  # noqa: E711
    with pytest.raises(TypeError, match="not supported between"):
        gpunn.ones(2) < None  # noqa: B015


def test_logic():
    x, y = gpunn.tensor([0.0, 0.0, 2.0, math.nan]), gpunn.tensor([0, 3, 0, 1])
    assert gpunn.logical_and(x, y).tolist() == [False, False, False, True]
    assert gpunn.logical_or(x, y).tolist() == [False, True, True, True]
    assert gpunn.logical_xor(x, y).tolist() == [False, True, True, False]
    assert gpunn.logical_not(x).tolist() == [True, True, False, False]
    assert x.clone().logical_not_().tolist() == [1, 1, 0, 0]


def test_bits():
    x = gpunn.tensor([6, -1])
    assert ((x & 3).tolist(), (x | 8).tolist(), (x ^ 1).tolist()) == ([2, 3], [14, -1], [7, -2])
    assert (~x).tolist() == [-7, 0] and (~gpunn.tensor([True])).tolist() == [False]
    assert (gpunn.tensor([True, False]) & True).tolist() == [True, False]
    assert (x << 1).tolist() == [12, -2] and (x >> 1).tolist() == [3, -1]
    assert (x << 64).tolist() == [0, 0] and (x >> 70).tolist() == [0, -1]
    assert (1 << gpunn.tensor([3])).tolist() == [8]
    with pytest.raises(TypeError, match="only implemented on integer and Boolean-type tensors"):
        ~gpunn.ones(1)
    with pytest.raises(NotImplementedError, match="bitwise_not_cpu"):
        gpunn.bitwise_not(gpunn.ones(1))


def test_values():
    x = gpunn.tensor([1.0, math.nan, math.inf, -math.inf, -0.0])
    assert x.isnan().tolist() == [False, True, False, False, False]
    assert x.isinf().tolist() == [False, False, True, True, False]
    assert x.isfinite().tolist() == [True, False, False, False, True]
    assert x.isposinf().tolist() == [False, False, True, False, False]
    assert x.isneginf().tolist() == [False, False, False, True, False]
    assert x.signbit().tolist() == [False, False, False, True, True]
    i = gpunn.tensor([1, -2])
    assert i.isfinite().all() and not i.isnan().any() and i.signbit().tolist() == [False, True]
    assert gpunn.tensor([1j, 1]).isreal().tolist() == [False, True] and i.isreal().all()
    with pytest.raises(RuntimeError, match="isposinf does not support complex"):
        gpunn.isposinf(gpunn.tensor([1j]))


def test_closeness():
    x = gpunn.tensor([1.0, math.nan, math.inf])
    y = x + gpunn.tensor([1e-6, 0.0, 0.0])
    assert gpunn.isclose(x, y).tolist() == [True, False, True]
    assert gpunn.isclose(x, y, equal_nan=True).all() and gpunn.allclose(x, y, equal_nan=True)
    assert not gpunn.allclose(x[:1], y[:1], rtol=0, atol=1e-8)
    with pytest.raises(RuntimeError, match="did not match"):
        gpunn.isclose(x, x.double())
    with pytest.raises(RuntimeError, match="greater than or equal to zero"):
        gpunn.isclose(x, y, rtol=-1)


def test_equality():
    x = gpunn.ones(2, 2)
    assert gpunn.equal(x, x.clone()) and not gpunn.equal(x, gpunn.ones(4))
    assert not gpunn.equal(x * math.nan, x * math.nan) and x.equal(x)
