"""Functions of one tensor against NumPy and math."""

import math

import numpy as np
import pytest
from check import check

import gpunn

rng = np.random.default_rng(0)
ANY, POSITIVE = rng.normal(size=(3, 4)), rng.uniform(0.2, 3, size=(3, 4))
INSIDE, ABOVE = rng.uniform(-0.9, 0.9, size=(3, 4)), rng.uniform(1.1, 3, size=(3, 4))

CASES = {
    "exp": ANY, "exp2": ANY, "expm1": ANY, "sin": ANY, "cos": ANY, "tan": INSIDE, "sinh": ANY,
    "cosh": ANY, "tanh": ANY, "arctan": ANY, "arcsinh": ANY, "deg2rad": ANY, "rad2deg": ANY,
    "log": POSITIVE, "log2": POSITIVE, "log10": POSITIVE, "log1p": POSITIVE, "sqrt": POSITIVE,
    "reciprocal": POSITIVE, "arcsin": INSIDE, "arccos": INSIDE, "arctanh": INSIDE,
    "arccosh": ABOVE, "abs": ANY, "sinc": ANY, "sign": ANY, "floor": ANY, "ceil": ANY,
    "trunc": ANY, "round": ANY,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_against_numpy(name):
    check(getattr(gpunn, name), [CASES[name]], getattr(np, name), rtol=4e-2)


def test_what_numpy_lacks():
    check(gpunn.rsqrt, [POSITIVE], lambda x: x**-0.5, rtol=3e-2)
    check(gpunn.sigmoid, [ANY * 3], lambda x: 1 / (1 + np.exp(-x)), rtol=3e-2)
    check(gpunn.logit, [POSITIVE / 4], lambda x: np.log(x / (1 - x)), rtol=6e-2)
    check(lambda x: gpunn.logit(x, 0.1), [POSITIVE / 3],
          lambda x: -np.log(1 / np.clip(x, 0.1, 0.9) - 1), rtol=6e-2)  # fmt: skip
    check(gpunn.frac, [ANY * 3], lambda x: x - np.trunc(x), dtypes=("float64", "float32"))


def test_sigmoid_keeps_its_tails():
    x = gpunn.tensor([-80.0, -20.0, 0.0, 20.0, -math.inf, math.inf, math.nan])
    y = gpunn.sigmoid(x).tolist()
    assert y[0] == pytest.approx(math.exp(-80), rel=1e-4) and y[1] == pytest.approx(2.0612e-9, 1e-4)
    assert y[2:6] == [0.5, 1, 0, 1] and math.isnan(y[6])
    many = x[:6].repeat(2000).double()
    np.testing.assert_allclose(gpunn.sigmoid(many)[:6].tolist(), y[:6], rtol=1e-6)


def test_powers_of_ten_have_exact_logarithms():
    assert gpunn.log10(gpunn.tensor([1.0, 10.0, 100.0, 1e5])).tolist() == [0, 1, 2, 5]


def test_integers():
    x = gpunn.tensor([-3, 0, 4])
    assert gpunn.exp(x).dtype is gpunn.float32 and gpunn.floor(x).tolist() == [-3, 0, 4]
    assert gpunn.abs(x).dtype is gpunn.int64 and abs(x).tolist() == [3, 0, 4]
    assert gpunn.sign(x).tolist() == [-1, 0, 1] and gpunn.sgn(gpunn.tensor([True])).item() is True
    assert gpunn.round(x).dtype is gpunn.int64
    with pytest.raises(RuntimeError, match="abs_cpu.* not implemented for 'Bool'"):
        gpunn.tensor([True]).abs()


def test_signs_of_nan_and_zero():
    x = gpunn.tensor([math.nan, -0.0, -2.0, math.inf])
    assert gpunn.sign(x).tolist() == [0, 0, -1, 1] == gpunn.sgn(x).tolist()


def test_rounding_to_decimals():
    x = gpunn.tensor([1.2345, -0.055, 1250.0], dtype=gpunn.float64)
    assert gpunn.round(x, decimals=2).tolist() == [1.23, -0.06, 1250]
    assert gpunn.round(x, decimals=-2).tolist() == [0, 0, 1200]
    assert gpunn.round(gpunn.tensor([0.5, 1.5, -2.5])).tolist() == [0, 2, -2]
    y = x.clone().requires_grad_()
    y.round(decimals=1).sum().backward()
    assert y.grad.tolist() == [0, 0, 0]


def test_the_sign_itself():
    assert gpunn.positive(x := gpunn.ones(1)) is x and +x is x
    with pytest.raises(RuntimeError, match="on a bool tensor"):
        +gpunn.tensor([True])


def test_frexp():
    x = gpunn.tensor([8.0, -0.75, 0.0], requires_grad=True)
    mantissa, exponent = made = gpunn.frexp(x)
    assert mantissa.tolist() == [0.5, -0.75, 0] and exponent.tolist() == [4, 0, 0]
    assert exponent.dtype is gpunn.int32 and type(made).__name__ == "frexp"
    mantissa.sum().backward()
    assert x.grad.tolist() == [1 / 16, 1, 1]
    with pytest.raises(RuntimeError, match="only supports floating-point dtypes"):
        gpunn.frexp(gpunn.tensor([1]))


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "sin", "tanh", "asin", "reciprocal", "abs"])
def test_complex_values_and_gradients(name):
    z = np.array([0.3 + 0.4j, -0.5 + 0.2j])
    x = gpunn.from_numpy(z).requires_grad_()
    f = {"asin": np.arcsin}.get(name) or getattr(np, name)
    y = getattr(gpunn, name)(x)
    np.testing.assert_allclose(y.detach().numpy(), f(z))
    (y.real if y.is_complex() else y).sum().backward()
    eps = 1e-6
    along = [(f(z + d).real - f(z - d).real) / (2 * eps) for d in (eps, eps * 1j)]
    np.testing.assert_allclose(x.grad.numpy(), along[0] + 1j * along[1], rtol=1e-6)


def test_the_gradient_of_abs_at_zero():
    x = gpunn.tensor([0.0, -2.0], requires_grad=True)
    x.abs().sum().backward()
    assert x.grad.tolist() == [0, -1]
