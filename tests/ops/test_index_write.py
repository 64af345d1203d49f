"""index_add, index_copy, index_fill, index_put, put, and writing slices."""

import numpy as np
import pytest
from both import refused, same
from check import check_grad

import gpunn

X = np.arange(12.0).reshape(4, 3)

OPS = [
    lambda T, x, s: x.index_add(0, T.tensor([2, 0, 2]), s),
    lambda T, x, s: x.index_add(0, T.tensor([1, 1, 1]), s, alpha=-0.5),
    lambda T, x, s: x.index_copy(0, T.tensor([3, 0, 1]), s),
    lambda T, x, s: x.index_fill(1, T.tensor([0, -1]), 9.0),
    lambda T, x, s: x.index_fill(0, T.tensor([1, 1]), s[0, 0]),
    lambda T, x, s: x.index_put((T.tensor([2, 0]), T.tensor([1, 1])), s[0, :2]),
    lambda T, x, s: x.index_put((T.tensor([2, 2, 0]),), s, accumulate=True),
    lambda T, x, s: x.index_put((x.detach() > 5.5,), s[0, 0]),
    lambda T, x, s: x.put(T.tensor([1, -1, 4]), s[0]),
    lambda T, x, s: x.put(T.tensor([[1, 1], [0, 2]]), s[:2, :2], accumulate=True),
    lambda T, x, s: x.select_scatter(s[0], 0, -1),
    lambda T, x, s: x.slice_scatter(s, 0, 1), lambda T, x, s: x.slice_scatter(s[:2], 0, 0, 4, 2),
    lambda T, x, s: x.slice_scatter(x * 2, 1),
]  # fmt: skip


@pytest.mark.parametrize("op", OPS)
def test_values_and_gradients(op):
    def program(T):
        x = T.arange(12.0, dtype=T.float64).reshape(4, 3).requires_grad_()
        s = (T.arange(9.0, dtype=T.float64).reshape(3, 3) - 20).requires_grad_()
        y = op(T, x, s)
        (y * T.arange(12.0).reshape(4, 3)).sum().backward()
        return y, x, x.grad, T.zeros_like(s) if s.grad is None else s.grad

    same(program)
    check_grad(lambda x, s: op(gpunn, x, s), [X, np.arange(9.0).reshape(3, 3)])


@pytest.mark.parametrize("recorded", [False, True])
def test_in_place(recorded):
    def program(T):
        a = T.arange(12.0).reshape(4, 3).requires_grad_(recorded)
        s = T.ones(2, 3).requires_grad_(recorded)
        x = a * 1
        i = T.tensor([3, 0])
        made = [
            x.index_add_(0, i, s, alpha=2) is x, x.index_copy_(0, i, s * 3) is x,
            x.index_fill_(0, T.tensor([1]), 4) is x, x.put_(T.tensor([5]), s[0, :1]) is x,
            x.index_put_((i, i % 2), s[:, 0]) is x, x.t().index_add_(1, i, s.t()) is not x,
            x.index_put_((T.tensor(1), i % 3), s[0, :2], accumulate=True) is x,
        ]  # fmt: skip
        if recorded:
            (x * x).sum().backward()
            return made, x, a.grad, s.grad
        return made, x

    same(program)


def test_scalars():
    same(lambda T: T.tensor(1.0).index_add(0, T.tensor([0]), T.tensor(2.0)))
    same(lambda T: T.tensor(1.0).index_copy(0, T.tensor([0]), T.tensor([3.0])))
    same(lambda T: T.tensor(1.0).index_fill(0, T.tensor([0]), 3))
    same(lambda T: T.tensor(1.0).put(T.tensor([0]), T.tensor([3.0])))
    same(lambda T: T.tensor([1.0, 2.0]).index_copy(0, T.tensor(1), T.tensor(5.0)))
    same(lambda T: T.arange(4).index_add(0, T.tensor([1]), T.tensor([3]), alpha=2.5))
    same(lambda T: T.zeros(0).put(T.zeros(0, dtype=T.int64), T.zeros(0)))


x23 = lambda T: T.arange(6.0).reshape(2, 3)  # noqa: E731


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: x23(T).index_add(0, T.tensor([0, 1]), T.ones(1, 3)), r"Number of indices \(2\)"),
    (lambda T: x23(T).index_add(0, T.tensor([0]), T.ones(1, 4)), "must match self tensor shape"),
    (lambda T: x23(T).index_add(0, T.tensor([5]), T.ones(1, 3)), "index 5 is out of bounds"),
    (lambda T: x23(T).index_add(0, T.tensor([0]), T.ones(1, 3).long()), "same scalar type"),
    (lambda T: x23(T).index_add(0, T.tensor([[0]]), T.ones(1, 3)), "supposed to be a vector"),
    (lambda T: x23(T).index_copy(0, T.tensor([0, 1]), T.ones(1, 3)), r"Number of indices \(2\)"),
    (lambda T: x23(T).index_copy(0, T.tensor([5]), T.ones(1, 3)), "index 5 is out of bounds"),
    (lambda T: x23(T).index_copy(0, T.tensor([0]), T.ones(3)), "dimensionality must match"),
    (lambda T: x23(T).index_fill(0, T.tensor([5]), 1), "index 5 is out of bounds for dimension 0"),
    (lambda T: x23(T).index_fill(0, T.tensor([0]), 1j), "Converting complex Scalar to non-comp"),
    (lambda T: x23(T).index_fill(0, T.tensor([0]), T.ones(1)), "only supports a 0-dimensional"),
    (lambda T: x23(T).index_put((T.tensor([5]),), T.ones(3)), "index 5 is out of bounds"),
    (lambda T: x23(T).index_put((T.tensor([0]),), T.ones(3).long()), "dtypes match, got Float"),
    (lambda T: x23(T).index_put((T.tensor([0]),), 1.0), "must be Tensor, not float"),
    (lambda T: x23(T).put(T.tensor([9]), T.ones(1)), "tried to access index 9 on a tensor of 6"),
    (lambda T: x23(T).put(T.tensor([1, 2]), T.ones(1)), "same number of elements"),
    (lambda T: x23(T).select_scatter(T.ones(2), 0, 0), "expected src to have a size equal to"),
    (lambda T: x23(T).select_scatter(T.ones(3), 0, 9), "index 9 out of range for tensor of size"),
    (lambda T: x23(T).slice_scatter(T.ones(3), 0, 0), "expected src to have a size equal to"),
    (lambda T: x23(T).slice_scatter(T.ones(1, 3), 0, 0, 1, 0), "slice step must be positive"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)
