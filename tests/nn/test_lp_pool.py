"""Power-average pooling: against its definition, and against PyTorch."""

import numpy as np
import pytest
from both import refused, same
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)


def norms(x, p, k, step):
    """The p-norm of every window of k entries, by the definition."""
    found = np.lib.stride_tricks.sliding_window_view(x, k, -1)[..., ::step, :]
    return (found**p).sum(-1) ** (1 / p)


@pytest.mark.parametrize("p, k, stride", [(1, 2, None), (2, 3, 1), (3.5, 2, 3)])
def test_one_dimension(p, k, stride):
    check(lambda x: F.lp_pool1d(x, p, k, stride), [rng.uniform(0.3, 1.5, size=(2, 3, 9))],
          lambda x: norms(x, p, k, stride or k), rtol=4e-2)  # fmt: skip


@pytest.mark.parametrize("p", [1.0, 2.0, 4.0, float("inf"), -float("inf")])
@pytest.mark.parametrize("dims, kernel, stride, ceil", [
    (1, 3, 2, True), (2, (2, 3), None, False), (2, 3, 2, True), (3, (1, 2, 2), (1, 2, 1), False),
])  # fmt: skip
def test_like_pytorch(dims, kernel, stride, ceil, p):
    x = rng.normal(size=(1, 2, 5, 6, 7)[: dims + 2])

    def program(T):
        leaf = T.from_numpy(x.copy()).requires_grad_()
        y = getattr(T.nn.functional, f"lp_pool{dims}d")(leaf, p, kernel, stride, ceil)
        return [y, T.autograd.grad((y * y).sum(), leaf)[0]]

    same(program)


def test_errors_are_pytorchs():
    refused(lambda T: T.nn.functional.lp_pool2d(T.ones(1, 4, 4), 2, [2]),
            r"not enough values to unpack \(expected 2, got 1\)")  # fmt: skip
    refused(lambda T: T.nn.functional.lp_pool2d(T.ones(1, 4, 4), 2, (2, 2, 2)), "too many values")
    refused(lambda T: T.nn.functional.lp_pool2d(T.ones(1, 4, 4), 0, 2), "division")


def test_modules_take_their_functions_arguments():
    x = gpunn.rand(1, 2, 6, 6, 6)
    assert gpunn.equal(nn.LPPool1d(2, 3, 1, True)(x[0, 0]), F.lp_pool1d(x[0, 0], 2, 3, 1, True))
    assert gpunn.equal(nn.LPPool2d(2, (2, 3))(x[0]), F.lp_pool2d(x[0], 2, (2, 3)))
    assert gpunn.equal(nn.LPPool3d(1, 2)(x), F.lp_pool3d(x, 1, 2))
    assert repr(nn.LPPool1d(2, 3)) == (
        "LPPool1d(norm_type=2, kernel_size=3, stride=None, ceil_mode=False)"
    )
