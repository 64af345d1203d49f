"""Group normalisation as PyTorch's; the numbers are tested in test_row_norm.py."""

import pytest
from both import refused, same

import gpunn
from gpunn import nn


@pytest.mark.parametrize("options", [{}, {"affine": False}, {"bias": False}, {"eps": 1e-2}])
def test_module(options):
    def program(T):
        m = T.nn.GroupNorm(2, 6, **options).double()
        x = ((T.arange(48, dtype=T.float64) * 7) % 11).reshape(2, 6, 4).requires_grad_()
        y = m(x)
        (y * x.detach()).sum().backward()
        state = [(k, v.tolist()) for k, v in m.state_dict().items()]
        return repr(m), state, y, x.grad, [p.grad for p in m.parameters()]

    same(program)


@pytest.mark.parametrize("shape, groups, weight, bias, match", [
    ((6,), 2, None, None, "Expected at least 2 dimensions for input tensor but received 1"),
    ((4, 6), 4, None, None, "Expected number of channels in input to be divisible by num_groups"),
    ((4, 6), 2, (5,), None, "Expected weight to be a vector of size equal to the number of chann"),
    ((4, 6), 2, (6, 1), None, r"got weight of shape \[6, 1\] and input of shape \[4, 6\]"),
    ((4, 6), 2, None, (5,), "Expected bias to be a vector of size equal to the number of channels"),
    ((4, 6), 0, None, None, "by zero"),
    ((4, 6), -1, None, None, "Expected num groups to be greater than 0, got -1"),
    ((1, 6), 6, None, None, r"Expected more than 1 value per channel when training, got input si"),
])  # fmt: skip
def test_errors(shape, groups, weight, bias, match):
    def program(T):
        w, b = (None if s is None else T.ones(s) for s in (weight, bias))
        T.nn.functional.group_norm(T.ones(shape), groups, w, b)

    refused(program, match)


def test_other_errors():
    refused(lambda T: T.nn.functional.group_norm(T.ones(2, 4).long(), 2), "for 'Long'")
    refused(lambda T: T.nn.GroupNorm(4, 6), r"num_channels \(6\) must be divisible by num_groups")
    refused(lambda T: T.nn.functional.group_norm(T.ones(2, 4), 2, T.ones(4).half()), "mixed dtype")


@pytest.mark.parametrize("shape", [(0, 6, 3), (2, 6, 0), (0, 6)])
def test_empty(shape):
    def program(T):
        x, w = T.ones(*shape, requires_grad=True), T.ones(6, requires_grad=True)
        y = T.nn.functional.group_norm(x, 2, w, w)
        y.sum().backward()
        return y, x.grad, w.grad.nan_to_num()  # PyTorch's are NaN for planes without values

    same(program)


def test_reset_parameters():
    m = nn.GroupNorm(1, 2)
    m.weight.data.zero_(), m.bias.data.fill_(3)
    m.reset_parameters()
    assert m.weight.tolist() == [1, 1] and m.bias.tolist() == [0, 0]
    assert m(gpunn.randn(2, 2, 4)).mean().abs().item() < 1e-6
