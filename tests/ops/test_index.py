"""x[...]: reading, its gradient, and PyTorch's errors."""

import numpy as np
import pytest
from check import check

import gpunn

x = np.arange(24.0).reshape(2, 3, 4)
rows = np.array([1, 0, 1])
KEYS = [
    0, -1, slice(None, None, 2), (0, slice(1, 3)), (Ellipsis, 2), (None, 1), rows,
    (slice(None), np.array([2, 0])), (rows, np.array([0, 2, 1])), x[:, :, 0] > 5, x > 7,
    (0, np.array([[0, 1], [2, 2]])), (slice(None), [0, 0]),
]  # fmt: skip


def for_tensors(key):
    items = key if isinstance(key, tuple) else (key,)
    items = tuple(gpunn.tensor(k) if isinstance(k, np.ndarray) else k for k in items)
    return items if isinstance(key, tuple) else items[0]


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_values_and_gradients(key):
    check(lambda t: t[for_tensors(key)], [x], lambda a: a[key])


def test_slices_are_views_and_lists_are_copies():
    t = gpunn.tensor(x)
    t[0].zero_()
    assert (t[0] == 0).all()
    t[[1]].zero_()
    assert (t[1] != 0).any()


@pytest.mark.parametrize(
    "key, error, words",
    [
        (5, IndexError, "index 5 is out of bounds for dimension 0 with size 2"),
        ((0, 0, 0, 0), IndexError, "too many indices for tensor of dimension 3"),
        (gpunn.tensor([3]), IndexError, "index 3 is out of bounds for dimension 0 with size 2"),
        (gpunn.tensor([0.5]), IndexError, "must be long, int, byte or bool"),
        (gpunn.ones(3) > 0, IndexError, "shape of the mask"),
        (slice(None, None, -1), ValueError, "step must be greater than zero"),
        ("a", (IndexError, TypeError), "(?i)indices|index|dimensions|str"),
    ],
)
def test_errors_say_what_is_wrong(key, error, words):
    with pytest.raises(error, match=words):
        gpunn.tensor(x)[key]
