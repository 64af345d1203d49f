"""Joining tensors."""

import numpy as np
import pytest
from check import check

import gpunn

a, b = np.arange(6.0).reshape(2, 3), np.arange(6.0, 12.0).reshape(2, 3)


@pytest.mark.parametrize(
    "f, reference",
    [
        (lambda x, y: gpunn.cat([x, y], 1), lambda x, y: np.concatenate([x, y], 1)),
        (lambda x, y: gpunn.stack([x, y], -1), lambda x, y: np.stack([x, y], -1)),
        (lambda x, y: gpunn.vstack([x, y]), lambda x, y: np.vstack([x, y])),
        (lambda x, y: gpunn.hstack([x, y]), lambda x, y: np.hstack([x, y])),
        (lambda x, y: gpunn.dstack([x, y]), lambda x, y: np.dstack([x, y])),
        (lambda x, y: gpunn.column_stack([x, y]), lambda x, y: np.column_stack([x, y])),
        (lambda x, y: gpunn.block_diag(x, y),
         lambda x, y: np.block([[x, np.zeros((2, 3))], [np.zeros((2, 3)), y]])),
    ],
)  # fmt: skip
def test_values_and_gradients(f, reference):
    check(f, [a, b], reference)


def test_dtypes_and_empty_parts():
    mixed = gpunn.cat([gpunn.tensor([1]), gpunn.tensor([0.5])])
    assert mixed.dtype is gpunn.float32 and mixed.tolist() == [1, 0.5]
    assert gpunn.cat([gpunn.zeros(0), gpunn.ones(2, 2)]).shape == (2, 2)


def test_grids():
    rows, columns = gpunn.meshgrid(gpunn.arange(2), gpunn.arange(3), indexing="ij")
    assert rows.tolist() == [[0] * 3, [1] * 3] and columns.tolist() == [[0, 1, 2]] * 2
    pairs = gpunn.cartesian_prod(gpunn.tensor([1, 2]), gpunn.tensor([3]))
    assert pairs.tolist() == [[1, 3], [2, 3]]
    assert gpunn.combinations(gpunn.arange(3)).tolist() == [[0, 1], [0, 2], [1, 2]]


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: gpunn.cat([gpunn.ones(2, 2), gpunn.ones(3, 3)]), "Sizes of tensors must match"),
        (lambda: gpunn.stack([gpunn.ones(2), gpunn.ones(3)]), "equal size"),
        (lambda: gpunn.cat([gpunn.tensor(1)]), "zero-dimensional"),
        (lambda: gpunn.stack([]), "non-empty"),
    ],
)
def test_errors_say_what_is_wrong(call, words):
    with pytest.raises(RuntimeError, match=words):
        call()
