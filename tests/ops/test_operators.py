"""Python's operators and conversions of tensors."""

import numpy as np
import pytest

import gpunn


class Stranger:
    """Knows what to do with a tensor on its left."""

    def __radd__(self, other):
        return "radd"

    def __rpow__(self, other):
        return "rpow"

    def __eq__(self, other):
        return "eq"

    __hash__ = None


def test_strangers_are_asked():
    x = gpunn.ones(2)
    assert x + Stranger() == "radd" and x ** Stranger() == "rpow" and (x == Stranger()) == "eq"
    for call in (lambda: x + None, lambda: "a" * x, lambda: x**[1], lambda: x & None):
        with pytest.raises(TypeError):
            call()


def test_reflected_operators():
    x = gpunn.tensor([1.0, 2.0, 4.0])
    assert (8 / x).tolist() == [8, 4, 2] and (1 - x).tolist() == [0, -1, -3]
    assert (2**x).tolist() == [2, 4, 16] and (7 % x).tolist() == [0, 1, 3]
    assert (7 // x).tolist() == [7, 3, 1] and (5 & x.int()).tolist() == [1, 0, 4]
    leaf = x.clone().requires_grad_()
    (8 / leaf + (1 - leaf) * 2).sum().backward()
    assert leaf.grad.tolist() == [-10, -4, -2.5]
    assert (np.float64(2) * x).tolist() == [2, 4, 8] == (x * np.float32(2)).tolist()


def test_truth_and_numbers():
    assert bool(gpunn.tensor([3.0])) and not gpunn.tensor(0)
    with pytest.raises(RuntimeError, match="more than one value is ambiguous"):
        bool(gpunn.ones(2))
    with pytest.raises(RuntimeError, match="no values is ambiguous"):
        bool(gpunn.empty(0))
    assert int(gpunn.tensor([2.7])) == 2 and float(gpunn.tensor(2)) == 2.0
    assert complex(gpunn.tensor(1j)) == 1j and [10, 20, 30][gpunn.tensor(1)] == 20
    with pytest.raises(TypeError, match="only integer tensors of a single element"):
        [1][gpunn.tensor(0.0)]


def test_membership_and_order():
    x = gpunn.tensor([1.0, 2.0])
    assert 2 in x and 3 not in x and gpunn.tensor(1.0) in x
    with pytest.raises(RuntimeError, match="only supports Tensor or scalar"):
        "a" in x  # noqa: B015
    assert list(reversed(x)) == [2, 1]
    assert reversed(gpunn.tensor(1.0)).item() == 1


def test_matrix_products():
    a, b = gpunn.ones(2, 3), gpunn.ones(3, 2)
    assert (a @ b).tolist() == [[3, 3], [3, 3]]


def test_old_names_of_division():
    x = gpunn.tensor([2.0])
    assert x.__div__(4).item() == 0.5 and x.__rdiv__(4).item() == 2 and x.__idiv__(2).item() == 1


@pytest.mark.parametrize("kind", [int, float, complex])
def test_python_numbers_come_of_one_element_only(kind):
    assert kind(gpunn.tensor([[3]])) == 3
    for n in (0, 2):
        with pytest.raises(ValueError, match="only one element tensors can be converted to Python"):
            kind(gpunn.ones(n))
