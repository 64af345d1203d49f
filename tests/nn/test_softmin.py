"""Softmin, softmax over channels and Gumbel-softmax against PyTorch and their formulas."""

import warnings

import numpy as np
import pytest
from both import refused, same
from check import check
from emulated import on_both

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))


def _softmax(x, axis):
    e = np.exp(x)
    return e / e.sum(axis, keepdims=True)


def test_softmin():
    check(lambda x: F.softmin(x, 1), [x], lambda x: _softmax(-x, 1), rtol=1e-2)
    same(lambda T: T.nn.functional.softmin(T.tensor([1, 2]), 0, dtype=T.float64))
    same(lambda T: repr(T.nn.Softmin(dim=1)))


def test_softmin_without_dim_warns():
    with pytest.warns(UserWarning, match="Implicit dimension choice for softmin has been deprec"):
        y = F.softmin(gpunn.ones(2, 4))
    assert y.tolist() == [[0.25] * 4] * 2


def test_softmax_over_channels():
    check(nn.Softmax2d(), [x], lambda x: _softmax(x, 1), rtol=1e-2)
    check(nn.Softmax2d(), [x[0]], lambda x: _softmax(x, 0), rtol=1e-2)
    refused(lambda T: T.nn.Softmax2d()(T.ones(2, 2)), "expected input to be 3D or 4D, got 2D")


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("tau, dim", [(1, -1), (0.5, 0)])
def test_gumbel_softmax_draws_pytorchs_numbers(hard, tau, dim):
    def program(T):
        T.manual_seed(5)
        x = T.linspace(-2, 2, 12, dtype=T.float64).reshape(3, 4).requires_grad_()
        y = T.nn.functional.gumbel_softmax(x, tau, hard, dim=dim)
        (y * T.arange(12).reshape(3, 4)).sum().backward()
        return y, x.grad, T.rand(2)

    same(program)


def test_gumbel_softmax_draws_each_category_as_often_as_its_probability_says():
    gpunn.manual_seed(0)
    logits = gpunn.tensor([0.1, 0.2, 0.7]).log().expand(20000, 3)
    counts = F.gumbel_softmax(logits, hard=True).mean(0)
    np.testing.assert_allclose(counts.numpy(), [0.1, 0.2, 0.7], atol=0.02)


def test_what_gumbel_softmax_refuses():
    refused(lambda T: T.nn.functional.gumbel_softmax(T.ones(2).long()),
            "floating point but you specified")  # fmt: skip
    with pytest.warns(UserWarning, match="`eps` parameter is deprecated and has no effect"):
        F.gumbel_softmax(gpunn.ones(2), eps=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        F.gumbel_softmax(gpunn.ones(2))


def test_on_a_gpu(emulated):
    on_both(lambda x: F.softmin(x, 2), [x], dtypes=("float32",))
    y = F.gumbel_softmax(gpunn.zeros(50, 4, device="cuda"), hard=True)
    assert (y.sum(1) == 1).all() and (y.sum(0) > 0).all()
