"""Filling in place and its gradients."""

import numpy as np
import pytest

import gpunn


def test_fill_and_zero_cut_the_gradient_of_what_they_overwrite():
    for change in (lambda y: y.fill_(3), lambda y: y.zero_(), lambda y: y.fill_(gpunn.tensor(3.0))):
        x = gpunn.ones(3, requires_grad=True)
        y = x * 2
        assert change(y) is y and y.requires_grad
        y.sum().backward()
        assert x.grad.tolist() == [0, 0, 0]


def test_a_tensor_that_is_written_gets_its_gradient():
    value = gpunn.tensor(2.0, requires_grad=True)
    y = gpunn.zeros(3)
    y.fill_(value)
    (y * gpunn.arange(3.0)).sum().backward()
    assert value.grad.item() == 3
    assert gpunn.fill(gpunn.zeros(2), value).tolist() == [2, 2]


def test_fill_through_a_view():
    x = gpunn.ones(2, 2, requires_grad=True)
    y = x * 3
    y[0].fill_(7)
    assert y.tolist() == [[7, 7], [3, 3]]
    y.sum().backward()
    assert x.grad.tolist() == [[0, 0], [3, 3]]


def test_leaves_are_protected():
    with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
        gpunn.ones(1, requires_grad=True).zero_()
    with pytest.raises(RuntimeError, match="0-dimension"):
        gpunn.zeros(2).fill_(gpunn.ones(2))


def test_detach_in_place():
    y = gpunn.ones(2, requires_grad=True) * 2
    assert y.detach_() is y and y.is_leaf and not y.requires_grad
    with pytest.raises(RuntimeError, match="views"):
        gpunn.ones(2)[:1].detach_()


def test_diagonals():
    assert gpunn.zeros(2, 3).fill_diagonal_(1).tolist() == [[1, 0, 0], [0, 1, 0]]
    wrapped = gpunn.zeros(5, 2).fill_diagonal_(1, wrap=True)
    expected = np.zeros((5, 2))
    np.fill_diagonal(expected, 1, wrap=True)
    np.testing.assert_array_equal(wrapped.numpy(), expected)


def test_type_names():
    x = gpunn.zeros(1)
    assert x.type() == "torch.FloatTensor" and x.type("torch.LongTensor").dtype is gpunn.int64
    assert x.type(gpunn.float64).dtype is gpunn.float64
