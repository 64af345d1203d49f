"""Functions of one tensor against NumPy's."""

import math

import numpy as np
import pytest
from check import check

import gpunn

x = np.random.default_rng(0).uniform(-3, 3, (4, 5))
positive = abs(x) + 0.1
inside = x / 4
CASES = [
    ("exp", x, np.exp), ("exp2", x, np.exp2), ("expm1", x, np.expm1), ("log", positive, np.log),
    ("log2", positive, np.log2), ("log10", positive, np.log10), ("log1p", positive, np.log1p),
    ("sqrt", positive, np.sqrt), ("rsqrt", positive, lambda x: 1 / np.sqrt(x)),
    ("reciprocal", positive, lambda x: 1 / x), ("sin", x, np.sin), ("cos", x, np.cos),
    ("tan", inside, np.tan), ("asin", inside, np.arcsin), ("acos", inside, np.arccos),
    ("atan", x, np.arctan), ("sinh", x, np.sinh), ("cosh", x, np.cosh), ("tanh", x, np.tanh),
    ("asinh", x, np.arcsinh), ("acosh", positive + 1, np.arccosh), ("atanh", inside, np.arctanh),
    ("deg2rad", x, np.deg2rad), ("rad2deg", x, np.rad2deg), ("sinc", x, np.sinc),
    ("sigmoid", x, lambda x: 1 / (1 + np.exp(-x))), ("abs", x, abs), ("sign", x, np.sign),
    ("floor", x, np.floor), ("ceil", x, np.ceil), ("trunc", x, np.trunc), ("round", x, np.round),
    ("frac", x, lambda x: x - np.trunc(x)),
    ("logit", 0.5 + inside / 2, lambda p: np.log(p / (1 - p))),
]  # fmt: skip
STEPS = {"floor", "ceil", "trunc", "round", "sign"}


@pytest.mark.parametrize("name, array, reference", CASES, ids=[c[0] for c in CASES])
def test_values_and_gradients(name, array, reference):
    f = getattr(gpunn, name)
    check(f, [array], reference, rtol=4e-2, second=name not in STEPS | {"frac"})
    t = gpunn.tensor(array)
    np.testing.assert_array_equal(getattr(t, name)().numpy(), f(t).numpy())
    in_place = t.clone()
    assert getattr(in_place, name + "_")() is in_place and gpunn.equal(in_place, f(t))
    out = gpunn.empty(0, dtype=gpunn.float64)
    assert f(t, out=out) is out and gpunn.equal(out, f(t))


def test_integers_become_floats_or_stay():
    i = gpunn.tensor([1, 2])
    assert i.exp().dtype is gpunn.float32 and i.floor().dtype is gpunn.int64
    assert i.abs().dtype is gpunn.int64


def test_round_to_decimals():
    assert gpunn.tensor([1.234, 150.0], dtype=gpunn.float64).round(decimals=2).tolist() == [1.23, 150]
    assert gpunn.tensor([1234.0]).round(decimals=-2).tolist() == [1200]


def test_nan_and_infinities():
    t = gpunn.tensor([math.nan, math.inf, -math.inf, 1.0])
    assert t.isnan().tolist() == [True, False, False, False]
    assert t.isinf().tolist() == [False, True, True, False]
    assert t.nan_to_num(0.0, 9.0, -9.0).tolist() == [0, 9, -9, 1]
    assert gpunn.log(gpunn.zeros(1)).item() == -math.inf and gpunn.log(-gpunn.ones(1)).isnan().item()


def test_complex_numbers():
    z = np.array([1 + 2j, -0.5j])
    t = gpunn.tensor(z)
    for name in ("exp", "sin", "sqrt", "tanh"):
        np.testing.assert_allclose(getattr(t, name)().numpy(), getattr(np, name)(z))
    with pytest.raises(RuntimeError):
        t.floor()
