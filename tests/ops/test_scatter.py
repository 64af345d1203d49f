"""scatter and its reductions, in place and not, with every kind of tie and zero."""

import numpy as np
import pytest
from both import refused, same
from check import check_grad

import gpunn

RNG = np.random.default_rng(0)
INDEX = [[0, 1, 1], [2, 0, 1]]
pytestmark = pytest.mark.filterwarnings("ignore:index_reduce", "ignore:The reduce argument")
VALUES = [3.0, -1.0, 2.0, 0.6, 4.0, -2.0]


def tensors(T, *, grad=False):
    x = T.arange(12.0, dtype=T.float64).reshape(4, 3) / 4 - 1
    src = T.tensor(VALUES, dtype=T.float64).reshape(2, 3)
    return x.requires_grad_(grad), T.tensor(INDEX), src.requires_grad_(grad)


OPS = [
    lambda x, i, s: x.scatter(0, i[:1], s[:1]),
    lambda x, i, s: x.scatter(1, i[:, :1], s[:, :1]),
    lambda x, i, s: x.scatter(0, i, 7.0), lambda x, i, s: x.scatter(0, i, value=-2),
    lambda x, i, s: x.scatter_add(0, i, s), lambda x, i, s: x.scatter_add(-1, i, s),
    lambda x, i, s: x.scatter_reduce(0, i, s, "sum", include_self=False),
    lambda x, i, s: x.scatter_reduce(0, i, s, "mean"),
    lambda x, i, s: x.scatter_reduce(0, i, s, "mean", include_self=False),
    lambda x, i, s: x.scatter_reduce(0, i, s, "prod"),
    lambda x, i, s: x.scatter_reduce(0, i, s, "amax", include_self=False),
    lambda x, i, s: x.scatter_reduce(1, i, s, "amin"),
    lambda x, i, s: x.index_reduce(0, i[0, :2], s, "prod"),
    lambda x, i, s: x.index_reduce(0, i[0, 1:], s, "amax", include_self=False),
    lambda x, i, s: x.index_reduce(0, i[0, 1:], s, "mean"),
]  # fmt: skip


@pytest.mark.parametrize("op", OPS)
def test_values_and_gradients(op):
    same(lambda T: op(*tensors(T)))

    def program(T):
        x, i, s = tensors(T, grad=True)
        y = op(x, i, s)
        (y * T.arange(12.0, dtype=T.float64).reshape(4, 3)).sum().backward()
        return y, x.grad, T.zeros_like(s) if s.grad is None else s.grad

    same(program)
    x, _, s = (t.detach().numpy() for t in tensors(gpunn))
    check_grad(lambda x, s: op(x, gpunn.tensor(INDEX), s), [x, s])


@pytest.mark.parametrize("recorded", [False, True])
def test_in_place(recorded):
    def program(T):
        a, i, s = tensors(T, grad=recorded)
        x = a * 1
        made = [
            x.scatter_(0, i[:1], s[:1]) is x, x.scatter_(1, i[:, :1], 0.5) is x,
            x.scatter_add_(0, i, s) is x, x.scatter_reduce_(0, i, s, "mean") is x,
        ]  # fmt: skip
        if recorded:
            (x * x).sum().backward()
            return made, x, a.grad, s.grad
        return made, x, a

    same(program)


@pytest.mark.parametrize("zeros", [0, 1, 2, 3])
@pytest.mark.parametrize("include_self", [True, False])
def test_products_with_zeros(zeros, include_self):
    """The gradient of a factor is the product of the others, and so is the second one."""

    def program(T):
        x = T.tensor([2.0, 0.0 if zeros > 2 else 3.0], dtype=T.float64, requires_grad=True)
        parts = [0.0 if k < zeros else 1.5 + k for k in range(4)]
        s = T.tensor(parts, dtype=T.float64, requires_grad=True)
        i = T.tensor([1, 1, 0, 1])
        y = x.scatter_reduce(0, i, s, "prod", include_self=include_self)
        first = T.autograd.grad(y.sum(), (x, s), create_graph=True)
        total = sum((g * (k + 1.0)).sum() for k, g in enumerate(first))
        return y, *first, *T.autograd.grad(total, (x, s), allow_unused=True)

    made = program(gpunn)
    check_grad(
        lambda x, s: x.scatter_reduce(0, gpunn.tensor([1, 1, 0, 1]), s, "prod",
                                      include_self=include_self),
        [np.array([2.0, 0.0 if zeros > 2 else 3.0]),
         np.array([0.0 if k < zeros else 1.5 + k for k in range(4)])],
    )  # fmt: skip
    assert all(np.isfinite(t.detach().numpy()).all() for t in made if t is not None)


def test_ties_share_the_gradient():
    def program(T):
        x = T.tensor([2.0, 1.0], requires_grad=True)
        s = T.tensor([2.0, 2.0, 1.0], requires_grad=True)
        x.scatter_reduce(0, T.tensor([0, 0, 1]), s, "amax").sum().backward()
        return x.grad, s.grad

    same(program)


def _reduced(T, dtype, reduce):
    x, src = T.tensor([1, 0, 1], dtype=dtype), T.tensor([1, 1, 0], dtype=dtype)
    return x.scatter_reduce(0, T.tensor([0, 1, 1]), src, reduce)


def test_other_dtypes_and_shapes():
    for dtype in ("int64", "uint8", "float16", "bfloat16", "bool"):
        for reduce in ("sum", "prod", "amax", "amin"):
            same(lambda T, d=dtype, r=reduce: _reduced(T, getattr(T, d), r))
    same(lambda T: T.tensor([-3, 5]).scatter_reduce(0, T.tensor([0, 1]), T.tensor([0, 0]), "mean"))
    same(lambda T: T.tensor(1.0).scatter(0, T.tensor(0), 5.0))
    same(lambda T: T.tensor(1.0).scatter_add(0, T.tensor([0, 0]), T.ones(2)))
    same(lambda T: T.ones(3).index_reduce_(0, T.tensor([1]), T.tensor([5.0]), "mean"))
    same(lambda T: T.ones(3).scatter(0, T.zeros(0, dtype=T.int64), T.zeros(0)))
    same(lambda T: T.ones(2, 2).scatter(0, T.tensor([[1, 0]]), T.ones(1, 2), reduce="add"))
    same(lambda T: T.ones(2, 2).scatter_(0, T.tensor([[1, 0]]), 3.0, reduce="multiply"))


x23 = lambda T: T.arange(6.0).reshape(2, 3)  # noqa: E731
index = lambda T: T.tensor([[0, 1, 1]])  # noqa: E731


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: x23(T).scatter(0, index(T), T.ones(1, 2)), "to be no larger size than src"),
    (lambda T: x23(T).scatter(0, index(T), T.ones(1, 3).long()), "self.dtype to be equal to src"),
    (lambda T: x23(T).scatter(0, index(T), 1j), "cannot be converted to type float without"),
    (lambda T: x23(T).scatter(0, index(T), 1.0, reduce="x"), "either add or multiply"),
    (lambda T: x23(T).scatter(0, T.zeros(5, 5).long(), 1.0), "to be no larger than self"),
    (lambda T: x23(T).scatter(0, index(T) * 9, 1.0), "index 9 is out of bounds for dimension 0"),
    (lambda T: x23(T).scatter(0, T.tensor([0]), 1.0), "same number of dimensions as self tensor"),
    (lambda T: x23(T).scatter(0, index(T).float(), 1.0), "Expected dtype int32/int64 for index"),
    (lambda T: x23(T).scatter_add(0, index(T), 1.0), "must be Tensor, not float"),
    (lambda T: x23(T).scatter_reduce(0, index(T), T.ones(1, 3), "foo"), "either sum, prod, mean"),
    (lambda T: x23(T).index_reduce(0, T.tensor([0]), T.ones(1, 3), "sum"), "but got sum"),
    (lambda T: x23(T).index_reduce(0, T.tensor([5]), T.ones(1, 3), "amax"), "index out of range"),
    (lambda T: T.ones(1).expand(3).scatter_(0, T.tensor([0]), 1.0), "more than one element"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)
