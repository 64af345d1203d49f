"""The hook form of weight norm, as in PyTorch."""

import warnings

import pytest

import gpunn
from gpunn import nn


def normed(lib, layer, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lib.nn.utils.weight_norm(layer, *args, **kwargs)


@pytest.mark.parametrize("dim", [0, 1, None])
def test_value_state_and_gradients(near_torch, dim):
    def scenario(lib):
        layer = normed(lib, lib.nn.Linear(3, 4), dim=dim)
        first = layer.weight
        layer.weight_g.data.mul_(2)
        out = layer(lib.randn(2, 3))
        out.square().sum().backward()
        return (
            first, out, layer.weight, layer.state_dict(), repr(layer), layer.weight_g.grad,
            layer.weight_v.grad, layer.weight.requires_grad,
        )  # fmt: skip

    near_torch(scenario)


@pytest.mark.parametrize("pow", [1, 2])
@pytest.mark.parametrize("dim", [0, 1, 2, -1, -2])
def test_norm_except_dim(near_torch, pow, dim):
    near_torch(lambda lib: lib.norm_except_dim(lib.randn(2, 3, 4), pow, dim))


def test_removal(near_torch):
    def scenario(lib):
        layer = normed(lib, lib.nn.Conv1d(2, 3, 3))
        lib.nn.utils.remove_weight_norm(layer)
        return layer.weight, layer.state_dict(), len(layer._forward_pre_hooks)

    near_torch(scenario)


def test_errors(near_torch, message):
    def scenario(lib):
        layer = normed(lib, lib.nn.Linear(3, 4))
        plain = lib.nn.Linear(2, 2)
        return (
            message(normed, lib, layer), message(lib.nn.utils.remove_weight_norm, plain),
            message(normed, lib, lib.nn.LazyLinear(2)),
        )  # fmt: skip

    near_torch(scenario)


def test_deprecation():
    with pytest.warns(FutureWarning, match="favor of `torch.nn.utils.parametrizations.weight_norm"):
        nn.utils.weight_norm(nn.Linear(2, 2))


def test_trained_weights_follow():
    layer = normed(gpunn, nn.Linear(2, 1))
    optimizer = gpunn.optim.SGD(layer.parameters(), lr=0.1)
    before = layer.weight.detach().clone()
    layer(gpunn.ones(1, 2)).sum().backward()
    optimizer.step()
    layer(gpunn.ones(1, 2))
    assert not gpunn.equal(layer.weight, before)
