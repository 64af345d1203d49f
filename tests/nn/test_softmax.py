"""Softmax against its definition, small (NumPy) and large (the C++ library)."""

import numpy as np
import pytest
from both import same
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("shape, axis", [((3, 5), 1), ((3, 5), 0), ((2, 3, 4), -2), ((7,), 0),
                                         ((64, 80), 1), ((80, 64), 0)])  # fmt: skip
def test_values_and_gradients(shape, axis):
    x = rng.normal(size=shape) * 3
    check(lambda x: F.softmax(x, axis), [x], lambda x: softmax(x, axis), rtol=2e-2)
    check(lambda x: F.log_softmax(x, axis), [x], lambda x: np.log(softmax(x, axis)), rtol=5e-2)


def test_large_numbers_do_not_overflow():
    x = gpunn.tensor([1000.0, 0.0, -1000.0])
    assert F.softmax(x, 0).tolist() == [1.0, 0.0, 0.0]
    assert F.log_softmax(x, 0).tolist() == [0.0, -1000.0, -2000.0]


def test_integers_are_refused_unless_a_dtype_is_given():
    with pytest.raises(RuntimeError, match="softmax_lastdim_kernel_impl.*'Long'"):
        F.softmax(gpunn.tensor([1, 2]), 0)
    assert F.softmax(gpunn.tensor([1, 1]), 0, dtype=gpunn.float64).tolist() == [0.5, 0.5]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 3, 4), (1, 2, 3, 4)])
def test_without_dim_pytorchs_choice_is_taken_with_a_warning(shape):
    def program(T):
        x = T.arange(24.0)[: int(np.prod(shape))].reshape(shape)
        found = []
        for f in (T.nn.functional.softmax, T.nn.functional.log_softmax, T.nn.functional.softmin):
            with pytest.warns(UserWarning, match="^Implicit dimension choice for .* deprecated"):
                found.append(f(x))
        return found

    same(program)
    with pytest.warns(UserWarning, match="choice for log_softmax") as caught:
        nn.LogSoftmax()(gpunn.ones(3))
    assert caught[0].filename == __file__


def test_modules():
    x = gpunn.randn(3, 4)
    assert gpunn.equal(nn.Softmax(1)(x), x.softmax(1)) and repr(nn.Softmax(1)) == "Softmax(dim=1)"
    assert gpunn.equal(nn.LogSoftmax(0)(x), x.log_softmax(0))
