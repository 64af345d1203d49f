"""Python's operators."""

import operator

import numpy as np
import pytest
from check import check

import gpunn

rng = np.random.default_rng(0)
a, b = rng.normal(size=(3, 4)), rng.uniform(0.5, 2, (3, 4))
NAMES = ["add", "sub", "mul", "truediv", "pow"]


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name):
    f = getattr(operator, name)
    left = abs(a) + 0.5 if name == "pow" else a
    check(f, [left, b], f, rtol=4e-2)
    check(f, [left, b[:1]], f, rtol=4e-2)
    check(lambda x: f(x, 2.5), [left], lambda x: f(x, 2.5), rtol=4e-2)
    check(lambda x: f(2.5, x), [b], lambda x: f(2.5, x), rtol=4e-2)


@pytest.mark.parametrize("name", ["floordiv", "mod"])
def test_division_with_rest(name):
    f = getattr(operator, name)
    for x, y in ((a, b), (np.array([-7, 7]), np.array([2, -2]))):
        np.testing.assert_allclose(f(gpunn.tensor(x), gpunn.tensor(y)).numpy(), f(x, y))
    np.testing.assert_allclose(f(7, gpunn.tensor([2, 3])).numpy(), f(7, np.array([2, 3])))


@pytest.mark.parametrize("name", ["iadd", "isub", "imul", "itruediv", "ipow"])
def test_in_place(name):
    x = gpunn.tensor(b)
    same = getattr(operator, name)(x, gpunn.tensor(b))
    assert same is x
    np.testing.assert_allclose(x.numpy(), getattr(operator, name[1:])(b, b))


def test_matrix_product_and_signs():
    x = gpunn.tensor(a)
    np.testing.assert_allclose((x @ x.T).numpy(), a @ a.T)
    assert gpunn.equal(-x, 0 - x) and (+x) is not None and gpunn.equal(abs(x), x.abs())


def test_strangers_are_refused_or_asked():
    with pytest.raises(TypeError):
        gpunn.ones(1) + "a"

    class Other:
        def __radd__(self, tensor):
            return "asked"

    assert gpunn.ones(1) + Other() == "asked"


def test_bools_cannot_be_subtracted():
    t = gpunn.tensor([True])
    with pytest.raises(RuntimeError, match="Subtraction"):
        t - t
    with pytest.raises(RuntimeError, match="Negation"):
        -t
