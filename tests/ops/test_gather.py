"""gather, take, index_select, masked_select and one_hot."""

import numpy as np
import pytest
from both import refused, same
from check import check, check_grad

import gpunn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 5))
INDEX = RNG.integers(0, 4, (3, 5))


def test_gather():
    check(lambda x, i: x.gather(0, i), [X, INDEX], lambda x, i: np.take_along_axis(x, i, 0))
    j = RNG.integers(0, 5, (4, 7))
    check(lambda x, j: x.gather(-1, j), [X, j], lambda x, j: np.take_along_axis(x, j, 1))
    same(lambda T: T.arange(6.0).reshape(2, 3).gather(1, T.tensor([[2, 0]])))
    same(lambda T: T.tensor(3.0).gather(0, T.tensor([0, 0])))
    same(lambda T: T.tensor([1.0, 2.0]).gather(0, T.tensor(1)))
    same(lambda T: T.zeros(2, 3).gather(0, T.zeros(0, 3, dtype=T.int64)))


def test_take_and_take_along_dim():
    i = np.array([[0, 19], [-1, 3]])
    check(lambda x, i: x.take(i), [X, i], lambda x, i: x.reshape(-1)[i])
    check_grad(lambda x, i: x.take(i), [X, np.array(3)])
    order = np.argsort(X, 1)
    check(
        lambda x, i: gpunn.take_along_dim(x, i, 1), [X, order],
        lambda x, i: np.take_along_axis(x, i, 1),
    )  # fmt: skip
    same(lambda T: T.arange(6).reshape(2, 3).take_along_dim(T.tensor([[-1]]), 1))
    same(lambda T: T.arange(6).reshape(2, 3).take_along_dim(T.tensor([5])))


def test_index_select_and_masked_select():
    i = np.array([3, 0, 3])
    check(lambda x, i: x.index_select(0, i), [X, i], lambda x, i: x[i])
    check(lambda x, i: x.index_select(-1, i), [X, i], lambda x, i: x[:, i])
    same(lambda T: T.tensor(2.0).index_select(0, T.tensor([0])))
    same(lambda T: T.arange(3).index_select(0, T.tensor([2, 1], dtype=T.int32)))
    mask = X > 0
    check(lambda x, m: x.masked_select(m), [X, mask], lambda x, m: x[m])
    same(lambda T: T.arange(6).reshape(2, 3).masked_select(T.tensor([True, False, True])))
    same(lambda T: T.tensor(1.0).masked_select(T.tensor([True, True])))


@pytest.mark.parametrize("classes", [-1, 3, 5])
def test_one_hot(classes):
    same(lambda T: T.nn.functional.one_hot(T.tensor([[0, 2], [1, 0]]), classes))
    same(lambda T: T.nn.functional.one_hot(T.zeros(0, dtype=T.int64), 4))


x23, long = (lambda T: T.arange(6.0).reshape(2, 3)), (lambda T, *v: T.tensor(v))


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: x23(T).gather(0, T.tensor([[5]])), "index 5 is out of bounds for dimension 0 with"),
    (lambda T: x23(T).gather(0, T.tensor([[-1]])), "index -1 is out of bounds for dimension 0"),
    (lambda T: x23(T).gather(0, T.tensor([0])), "must have the same number of dimensions as input"),
    (lambda T: x23(T).gather(0, T.tensor([[0.0]])), "Expected dtype int32/int64 for index"),
    (lambda T: x23(T).gather(1, T.zeros(3, 1).long()), "Size does not match at dimension 0"),
    (lambda T: x23(T).take(long(T, 7)), "tried to access index 7 on a tensor of 6 elements"),
    (lambda T: x23(T).take(T.tensor([1.0])), "Expected a long tensor for index, but got Float"),
    (lambda T: T.zeros(0).take(long(T, 0)), "tried to take from an empty tensor"),
    (lambda T: x23(T).index_select(0, long(T, -1)), "index out of range in self"),
    (lambda T: x23(T).index_select(0, T.tensor([[0]])), "Index is supposed to be a vector"),
    (lambda T: T.tensor(1.0).index_select(0, long(T, 0, 0)), "can have only 1 value, got 2"),
    (lambda T: x23(T).masked_select(long(T, 1, 1, 1)), "expected BoolTensor for mask"),
    (lambda T: x23(T).take_along_dim(T.tensor([[0]]).int(), 1), "should be Long but got Int"),
    (lambda T: x23(T).take_along_dim(T.tensor([0]), 1), "same number of dimensions"),
    (lambda T: T.nn.functional.one_hot(long(T, -1)), "Class values must be non-negative"),
    (lambda T: T.nn.functional.one_hot(long(T, 2), 2), "must be smaller than num_classes"),
    (lambda T: T.nn.functional.one_hot(T.tensor([0.0])), "index tensor of type LongTensor"),
    (lambda T: T.nn.functional.one_hot(T.zeros(0).long()), "Can not infer total number of"),
    (lambda T: T.gather(x23(T), 0, T.tensor([[0]]), out=T.zeros(1, 1).double()), "have dtype"),
    (lambda T: T.take(v := T.zeros(2), long(T, 0, 1), out=v), "clone"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)
