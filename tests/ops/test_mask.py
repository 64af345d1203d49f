"""masked_fill and masked_scatter."""

import numpy as np
import pytest
from both import refused, same
from check import check, check_grad

import gpunn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4))
MASK = X > 0.2


def test_masked_fill():
    check(lambda x, m: x.masked_fill(m, -2.0), [X, MASK], lambda x, m: np.where(m, -2.0, x))
    row = MASK[:1]
    check(lambda x, m: x.masked_fill(m, 0), [X, row], lambda x, m: np.where(m, 0, x))
    wide = np.stack([MASK, ~MASK])
    check(lambda x, m: x.masked_fill(m, 5), [X, wide], lambda x, m: np.where(m, 5, x))
    check_grad(lambda x, m, v: x.masked_fill(m, v), [X, MASK, np.array(1.5)])
    same(lambda T: T.arange(4).masked_fill(T.tensor([True, False, True, False]), 1.7))
    same(lambda T: T.arange(2).masked_fill(T.tensor([True, False]), T.tensor(1.7)))
    same(lambda T: T.zeros(2).masked_fill(T.tensor([True, False]), float("-inf")))
    same(lambda T: T.zeros(2, dtype=T.bool).masked_fill(T.tensor([True, False]), True))
    same(lambda T: T.tensor(1.0).masked_fill(T.tensor(True), 2))


@pytest.mark.parametrize("recorded", [False, True])
def test_masked_fill_in_place(recorded):
    def program(T):
        a = T.arange(6.0).reshape(2, 3).requires_grad_(recorded)
        v = T.tensor(3.0, requires_grad=recorded)
        x = a * 1
        same_one = x.masked_fill_(T.tensor([True, False, False]), 9) is x
        x.t().masked_fill_(T.tensor([[False], [False], [True]]), v)
        if recorded:
            (x * x).sum().backward()
            return same_one, x, a.grad, v.grad
        return same_one, x

    same(program)


def test_masked_scatter():
    def program(T):
        x = T.zeros(2, 3, requires_grad=True)
        s = T.arange(1.0, 8.0, requires_grad=True)
        y = x.masked_scatter(T.tensor([True, False, True]), s)
        z = (x * 1).masked_scatter_(T.tensor([[True], [False]]), s)
        (y * T.arange(6.0).reshape(2, 3) + z).sum().backward()
        return y, z, x.grad, s.grad

    same(program)
    same(lambda T: T.tensor(1.0).masked_scatter(T.tensor(True), T.tensor([5.0])))
    same(lambda T: T.tensor(1.0).masked_scatter(T.tensor(False), T.tensor([5.0])))


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: T.zeros(3).masked_fill(T.tensor([1, 0, 1]), 1), "only supports boolean masks"),
    (lambda T: T.zeros(3).masked_fill(T.ones(3) > 0, T.ones(1)), "only supports a 0-dimensional"),
    (lambda T: T.zeros(3).masked_fill(T.ones(3) > 0, 1j), "without overflow"),
    (lambda T: T.zeros(3).masked_fill(T.ones(3) > 0, T.tensor(1j)), "without overflow"),
    (lambda T: T.zeros(3).masked_fill_(T.ones(2, 3) > 0, 1), "doesn't match the broadcast shape"),
    (lambda T: T.zeros(1).expand(3).masked_scatter_(T.ones(3) > 0, T.ones(3)), "more than one"),
    (lambda T: T.zeros(3).masked_scatter(T.ones(3) > 0, T.ones(2)), "Number of elements of source"),
    (lambda T: T.zeros(3).masked_scatter(T.ones(3) > 0, T.ones(3).long()), "have same dtypes"),
    (lambda T: T.zeros(3).masked_scatter(T.ones(3), T.ones(3)), "only supports boolean masks"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)


def test_one_value_of_a_mask_is_counted():
    v = gpunn.tensor(2.0, requires_grad=True)
    gpunn.zeros(2, 3).masked_fill(gpunn.tensor([[True], [False]]), v).sum().backward()
    assert v.grad.item() == 3.0
