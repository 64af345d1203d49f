"""cat, stack and what is made of them; products and combinations of vectors."""

import numpy as np
import pytest
from both import refused, same
from check import check, check_grad

import gpunn

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(2, 3)), RNG.normal(size=(2, 3))


def test_cat_and_stack():
    for d in (0, 1, -1):
        check(lambda a, b, d=d: gpunn.cat([a, b, a], d), [A, B],
              lambda a, b, d=d: np.concatenate([a, b, a], d))  # fmt: skip
        check(lambda a, b, d=d: gpunn.stack([a, b], d), [A, B],
              lambda a, b, d=d: np.stack([a, b], d))  # fmt: skip
    for f in (
        lambda T: T.cat([T.ones(2), T.tensor([1])]), lambda T: T.cat((T.zeros(0), T.ones(2, 2)), 1),
        lambda T: T.cat([T.zeros(0)]), lambda T: T.concat([T.ones(1), T.ones(1).double()]),
        lambda T: T.concatenate([T.ones(1, 2), T.ones(1, 1)], axis=1),
        lambda T: T.stack([T.tensor(1), T.tensor(2.5)]), lambda T: T.cat([T.ones(1)] * 3, dim=-1),
        lambda T: T.stack([T.tensor(True), T.tensor(False)]),
    ):  # fmt: skip
        same(f)


def test_only_what_requires_a_gradient_gets_one():
    a, b = gpunn.ones(2, requires_grad=True), gpunn.ones(2)
    gpunn.cat([b, a * 3]).sum().backward()
    assert a.grad.tolist() == [3.0, 3.0] and b.grad is None
    with gpunn.no_grad():
        assert not gpunn.stack([a, a]).requires_grad


@pytest.mark.parametrize("name", ["hstack", "vstack", "dstack", "column_stack", "row_stack"])
def test_directed_stacks(name):
    for shape in ((), (3,), (2, 3), (2, 3, 2)):
        same(lambda T, s=shape: getattr(T, name)([T.ones(s), T.zeros(s)]))
    check_grad(lambda a, b: getattr(gpunn, name)([a, b]), [A, B])


def test_out():
    out = gpunn.empty(4, 3)
    assert gpunn.cat([gpunn.tensor(A), gpunn.tensor(B)], out=out) is out
    np.testing.assert_allclose(out, np.concatenate([A, B]), rtol=1e-6)


def test_at_least():
    for n in (1, 2, 3):
        for shape in ((), (2,), (2, 3), (2, 3, 4), (0,)):
            same(lambda T, n=n, s=shape: getattr(T, f"atleast_{n}d")(T.ones(s)))
        same(lambda T, n=n: getattr(T, f"atleast_{n}d")(T.tensor(1), T.ones(2, 2)))
        same(lambda T, n=n: getattr(T, f"atleast_{n}d")([T.tensor(1), T.ones(2)]))


def test_products():
    for f in (
        lambda T: T.block_diag(T.ones(2, 1), T.tensor([3, 4]), T.tensor(5)),
        lambda T: T.block_diag(T.ones(1, 0), T.ones(1, 2)), lambda T: T.block_diag(),
        lambda T: T.meshgrid(T.tensor([1, 2]), T.tensor(3), T.tensor([4, 5, 6]), indexing="ij"),
        lambda T: T.meshgrid([T.tensor([1, 2]), T.tensor([3])], indexing="xy"),
        lambda T: T.cartesian_prod(T.tensor([1, 2]), T.tensor([3, 4, 5])),
        lambda T: T.cartesian_prod(T.tensor([1, 2])), lambda T: T.combinations(T.tensor([1, 2, 3])),
        lambda T: T.combinations(T.tensor([1, 2, 3]), 2, True),
        lambda T: T.combinations(T.tensor([1, 2]), 3), lambda T: T.combinations(T.tensor([1]), 0),
    ):  # fmt: skip
        same(f)
    check_grad(lambda a, b: gpunn.block_diag(a, b), [A, B])
    check_grad(lambda a: gpunn.meshgrid(a, a, indexing="ij")[1] * 2, [A[0]])
    check_grad(lambda a: gpunn.cartesian_prod(a, a), [A[0]])
    check_grad(lambda a: gpunn.combinations(a, 2), [A[0]])


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: T.cat([]), "expected a non-empty list of Tensors"),
    (lambda T: T.cat(T.ones(2)), "must be tuple of Tensors, not Tensor"),
    (lambda T: T.cat([T.ones(2), 1]), "expected Tensor as element 1 in argument 0, but got int"),
    (lambda T: T.cat([T.tensor(1.0), T.tensor(2.0)]), "zero-dimensional tensor .at position 0."),
    (lambda T: T.cat([T.ones(2, 2), T.ones(2)]), "Tensors must have same number of dimensions"),
    (lambda T: T.cat([T.ones(2, 2), T.ones(2, 3)]), "Sizes of tensors must match except in dim"),
    (lambda T: T.cat([T.ones(2)], 1), "Dimension out of range"),
    (lambda T: T.stack([]), "stack expects a non-empty TensorList"),
    (lambda T: T.stack([T.ones(2), T.ones(3)]), "stack expects each tensor to be equal size"),
    (lambda T: T.hstack([]), "hstack expects a non-empty TensorList"),
    (lambda T: T.block_diag(T.ones(1, 1, 1)), "must have 2 or fewer dimensions"),
    (lambda T: T.meshgrid(T.ones(2, 2), indexing="ij"), "Expected 0D or 1D tensor"),
    (lambda T: T.meshgrid(T.ones(2), indexing="ji"), "indexing must be one of"),
    (lambda T: T.meshgrid(T.ones(2), T.ones(2).int(), indexing="ij"), "have the same dtype"),
    (lambda T: T.cartesian_prod(T.ones(2, 2)), "Expect a 1D vector"),
    (lambda T: T.combinations(T.ones(2, 2)), "Expect a 1D vector"),
    (lambda T: T.combinations(T.ones(2), -1), "Expect a non-negative number"),
    (lambda T: T.cat([v := T.ones(2)], out=v), "refer to a single memory location"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)
