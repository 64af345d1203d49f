"""Diagonals and triangles."""

import numpy as np
import pytest
from both import refused, same
from check import check, check_grad

import gpunn

RNG = np.random.default_rng(0)
X = RNG.normal(size=(3, 4, 2))


@pytest.mark.parametrize("offset", [-5, -1, 0, 1, 3, 9])
def test_diagonals(offset):
    check(lambda x: x.diagonal(offset), [X], lambda x: np.diagonal(x, offset))
    check(lambda x: x.diagonal(offset, -1, 0), [X], lambda x: np.diagonal(x, offset, -1, 0))
    check(lambda x: gpunn.diag(x[0], offset), [X], lambda x: np.diagonal(x[0], offset))
    check(lambda x: gpunn.diag(x[0, 0], offset), [X], lambda x: np.diag(x[0, 0], offset))
    check(lambda x: gpunn.diagflat(x[0], offset), [X], lambda x: np.diagflat(x[0], offset))
    same(lambda T: T.diag_embed(T.arange(6.0).reshape(2, 3), offset))
    same(lambda T: T.diag_embed(T.arange(6.0).reshape(2, 3), offset, 0, -1))
    check_grad(lambda x: gpunn.diag_embed(x, offset), [X[0]])


def test_a_diagonal_is_a_view_that_may_be_written():
    x = gpunn.zeros(2, 3)
    x.diagonal().fill_(1.0)
    x.diagonal(1)[0] = 5.0
    assert x.tolist() == [[1.0, 5.0, 0.0], [0.0, 1.0, 0.0]]
    same(lambda T: T.diagflat(T.tensor(2.0)))


def test_diagonal_scatter():
    same(lambda T: T.zeros(2, 3).diagonal_scatter(T.tensor([1, 2]), 1))
    check_grad(lambda x, s: x.diagonal_scatter(s, -1, 1, 0), [X, RNG.normal(size=(2, 3))])


@pytest.mark.parametrize("k", [-4, -1, 0, 2, 7])
@pytest.mark.parametrize("name", ["tril", "triu"])
def test_triangles(name, k):
    check(lambda x: getattr(x, name)(k), [X], lambda x: getattr(np, name)(x, k))
    same(lambda T: getattr(T, name + "_indices")(3, 4, k))

    def program(T):
        x = T.ones(3, 3)
        return getattr(x, name + "_")(k) is x, x, getattr(T, name)(T.ones(2, 2) > 0, diagonal=k)

    same(program)


def test_indices_of_empty_matrices_and_other_dtypes():
    same(lambda T: T.tril_indices(0, 3))
    same(lambda T: T.triu_indices(2, 2, dtype=T.int32))


@pytest.mark.parametrize(("f", "match"), [
    (lambda T: T.ones(2, 2).diagonal(0, 0, 0), "diagonal dimensions cannot be identical 0, 0"),
    (lambda T: T.ones(2).diagonal(), "Dimension out of range"),
    (lambda T: T.ones(2, 2).diagonal_scatter(T.ones(5)), "expected src to have a size equal to"),
    (lambda T: T.diag_embed(T.ones(2, 2), 0, 1, 1), "diagonal dimensions cannot be identical"),
    (lambda T: T.diag(T.tensor(1.0)), "Supports 1D or 2D tensors. Got 0D"),
    (lambda T: T.ones(2).tril(), "must have at least 2 dimensions"),
    (lambda T: T.tril_indices(-1, 2), "row must be non-negative"),
    (lambda T: T.tril_indices(2, 2, dtype=T.float32), "not implemented for 'Float'"),
])  # fmt: skip
def test_refusals(f, match):
    refused(f, match)
