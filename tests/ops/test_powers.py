"""Powers and logarithms of pairs against NumPy."""

import math

import numpy as np
import pytest
from check import check

import gpunn

rng = np.random.default_rng(0)
A, B = rng.uniform(0.3, 2, size=(3, 4)), rng.normal(size=(4,))


def test_powers():
    check(gpunn.pow, [A, B], np.power, rtol=3e-2)
    check(lambda b: 2.5**b, [B], lambda b: 2.5**b, rtol=3e-2)


@pytest.mark.parametrize("exponent", [2, 3, 0.5, -1, -0.5, 1, 0, 1.7, -2])
def test_powers_by_a_number(exponent):
    check(lambda a: a**exponent, [A], lambda a: a**exponent, rtol=3e-2)


def test_integer_powers():
    x = gpunn.tensor([-2, 2, 1, -1])
    assert (x**3).tolist() == [-8, 8, 1, -1] and (x**0).tolist() == [1, 1, 1, 1]
    assert (x ** gpunn.tensor([-1, -1, -3, -3])).tolist() == [0, 0, 1, -1]
    assert (2 ** gpunn.tensor([0, 3])).tolist() == [1, 8]
    with pytest.raises(RuntimeError, match="Integers to negative integer powers are not allowed"):
        x**-1
    assert (x**-1.0).tolist() == [-0.5, 0.5, 1, -1]
    assert gpunn.square(gpunn.tensor([True])).dtype is gpunn.int64


def test_gradients_at_zero():
    x = gpunn.zeros(3, requires_grad=True)
    y = gpunn.tensor([0.0, 1.0, 2.0], requires_grad=True)
    (x**y).sum().backward()
    assert x.grad.tolist() == [0, 1, 0] and y.grad[1:].tolist() == [0, 0]
    z = gpunn.zeros(1, requires_grad=True)
    (z**0).sum().backward()
    assert z.grad.item() == 0


def test_float_power():
    x = gpunn.tensor([2, 3])
    assert gpunn.float_power(x, 2).tolist() == [4, 9]
    assert gpunn.float_power(2, x).dtype is gpunn.float64
    assert gpunn.float_power(x, 1j).dtype is gpunn.complex128
    with pytest.raises(RuntimeError, match="base given to float_power_ has dtype Float but the"):
        gpunn.ones(1).float_power_(2)
    assert gpunn.full((1,), 3.0, dtype=gpunn.float64).float_power_(2).item() == 9
    with pytest.raises(RuntimeError, match="requires dtype Double"):
        gpunn.float_power(x, 2, out=gpunn.empty(2))


def test_ldexp():
    check(lambda x: gpunn.ldexp(x, gpunn.tensor([3, -2, 0, 1])), [A], lambda x: x * [8, 0.25, 1, 2])
    small = gpunn.tensor([2.0**-100])
    assert gpunn.ldexp(small, gpunn.tensor([200])).item() == 2.0**100  # no overflow on the way
    assert gpunn.ldexp(small.half(), gpunn.tensor(3)).dtype is gpunn.float16
    assert gpunn.ldexp(gpunn.tensor([1]), gpunn.tensor([2.5])).item() == pytest.approx(2**2.5)
    with pytest.raises(RuntimeError, match="at non-singleton dimension 0"):
        gpunn.ldexp(gpunn.ones(2), gpunn.ones(3).int())


def test_logarithms_of_sums():
    check(gpunn.logaddexp, [A * 10, B], np.logaddexp, rtol=3e-2)
    check(gpunn.logaddexp2, [A * 10, B], np.logaddexp2, rtol=3e-2)
    low = gpunn.tensor([-math.inf])
    assert gpunn.logaddexp(low, low).item() == -math.inf
    a, b = np.array([1 + 2j, -3j, 400.0]), np.array([0.5 - 1j, 2 + 1j, -3])
    got = gpunn.logaddexp(gpunn.from_numpy(a), gpunn.from_numpy(b)).numpy()
    np.testing.assert_allclose(np.exp(got[:2]), (np.exp(a) + np.exp(b))[:2])
    assert got[2] == 400


def test_xlogy():
    check(gpunn.xlogy, [B, A], lambda a, b: a * np.log(b), rtol=3e-2)
    zero, nan = gpunn.zeros(1), gpunn.tensor([math.nan])
    assert gpunn.xlogy(zero, zero).item() == 0 and gpunn.xlogy(zero, nan).isnan()
    assert gpunn.xlogy(2, gpunn.tensor([math.e])).item() == pytest.approx(2)


def test_complex_powers():
    x = gpunn.tensor([1 + 1j], dtype=gpunn.complex128, requires_grad=True)
    y = x**3
    y.real.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), [(1 + 1j) ** 3])
    np.testing.assert_allclose(x.grad.numpy(), [np.conj(3 * (1 + 1j) ** 2)])
