"""The hook form of spectral norm, as in PyTorch."""

import copy

import pytest

from gpunn import nn


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dim", [None, 1, 2])
def test_value_state_and_gradients(near_torch, training, dim):
    def scenario(lib):
        layer = lib.nn.utils.spectral_norm(lib.nn.Conv2d(2, 3, 3), "weight", 2, dim=dim)
        layer.train(training)
        x = lib.randn(1, 2, 4, 4)
        (layer(x).sum() - layer(x).square().sum()).backward()
        state = layer.state_dict()
        metadata = {key: dict(value) for key, value in state._metadata.items()}
        return layer.weight, state, metadata, layer.weight_orig.grad, repr(layer)

    near_torch(scenario)


def test_transposed_convolutions_take_the_second_dimension(near_torch):
    def scenario(lib):
        return lib.nn.utils.spectral_norm(lib.nn.ConvTranspose2d(3, 2, 2)).state_dict()

    assert near_torch(scenario)["weight_u"].shape == (2,)


def test_removal(near_torch):
    def scenario(lib):
        layer = lib.nn.utils.spectral_norm(lib.nn.Linear(3, 2))
        layer(lib.ones(3))
        lib.nn.utils.remove_spectral_norm(layer)
        again = lib.nn.utils.spectral_norm(layer)
        return layer.state_dict(), len(again._state_dict_hooks)

    near_torch(scenario)


def test_removal_takes_its_hooks_along():
    layer = nn.utils.spectral_norm(nn.Linear(3, 2))
    nn.utils.remove_spectral_norm(layer)
    hooks = layer._forward_pre_hooks, layer._state_dict_hooks, layer._load_state_dict_pre_hooks
    assert not any(hooks)


def test_loads_a_state_from_before_version_1(near_torch):
    def scenario(lib):
        layer = lib.nn.utils.spectral_norm(lib.nn.Linear(3, 5))
        for _ in range(3):
            layer(lib.randn(2, 3))
        state = layer.state_dict()
        layer.eval()
        x = lib.randn(2, 3)
        expected = layer(x)
        old = copy.copy(state)
        old["weight"] = layer.weight.detach().clone()
        del old["weight_v"], old._metadata[""]["spectral_norm"]
        other = lib.nn.utils.spectral_norm(lib.nn.Linear(3, 5)).eval()
        other.load_state_dict(old)
        return expected, other(x), other.weight_v

    near_torch(scenario)


def test_loads_a_state_without_metadata_and_reports_missing_keys(near_torch, message):
    def scenario(lib):
        layer = lib.nn.utils.spectral_norm(lib.nn.Linear(3, 5))
        plain = dict(layer.state_dict())
        loaded = str(layer.load_state_dict(plain))
        del plain["weight_u"]
        return loaded, message(layer.load_state_dict, plain)

    near_torch(scenario)


def test_errors(near_torch, message):
    def scenario(lib):
        tool, layer = lib.nn.utils, lib.nn.utils.spectral_norm(lib.nn.Linear(3, 2))
        empty = lib.nn.Linear(2, 2, bias=False)
        return (
            message(tool.spectral_norm, layer), message(tool.spectral_norm, empty, "bias"),
            message(tool.spectral_norm, lib.nn.LazyLinear(2)),
            message(tool.spectral_norm, empty, n_power_iterations=0),
            message(tool.remove_spectral_norm, empty),
        )  # fmt: skip

    near_torch(scenario)
