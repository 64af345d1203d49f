"""Modules made without initial values."""

import pytest

import gpunn
from gpunn import nn


def test_nothing_is_drawn():
    gpunn.manual_seed(0)
    before = gpunn.get_rng_state()
    layer = nn.utils.skip_init(nn.Linear, 5, out_features=2, dtype=gpunn.float64)
    assert layer.weight.shape == (2, 5) and layer.weight.dtype is gpunn.float64
    assert type(layer) is nn.Linear and layer.weight.requires_grad
    assert gpunn.equal(before, gpunn.get_rng_state())


def test_modules_inside_are_skipped_too_and_later_ones_are_not():
    class Model(nn.Module):
        def __init__(self, device=None):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(3, 3, device=device), nn.Conv2d(1, 2, 3))
            self.ones = nn.init.ones_(gpunn.zeros(2))

    gpunn.manual_seed(0)
    model = nn.utils.skip_init(Model)
    assert model.ones.tolist() == [0.0, 0.0]
    layer = nn.Linear(3, 3)
    gpunn.manual_seed(0)
    assert gpunn.equal(layer.weight, nn.Linear(3, 3).weight)


def test_device():
    layer = nn.utils.skip_init(nn.Linear, 2, 2, device="cpu:1")
    assert str(layer.weight.device) == "cpu:1"


def test_an_error_ends_it(message):
    assert message(nn.utils.skip_init, nn.Linear, "x", 2)
    assert nn.init.ones_(gpunn.zeros(1)).tolist() == [1.0]


def test_errors(near_torch, message):
    def scenario(lib):
        class Plain(lib.nn.Module):
            def __init__(self):
                super().__init__()

        return message(lib.nn.utils.skip_init, Plain), message(lib.nn.utils.skip_init, int)[0]

    near_torch(scenario)
    with pytest.raises(RuntimeError, match="Expected a Module; got"):
        nn.utils.skip_init(dict)
