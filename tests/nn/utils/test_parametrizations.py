"""Weight norm, spectral norm and orthogonal matrices as parametrizations, as in PyTorch."""

import warnings
from importlib import import_module

import emulated
import numpy as np
import pytest

import gpunn
from gpunn import nn
from gpunn.nn.utils import parametrizations


def tools(lib):
    return import_module(f"{lib.__name__}.nn.utils.parametrizations")


def P(lib):
    return import_module(f"{lib.__name__}.nn.utils.parametrize")


@pytest.mark.parametrize("dim", [0, 1, -1, -2, 2, None])
@pytest.mark.parametrize("make", ["Linear(3, 4)", "Conv1d(2, 3, 5)"])
def test_weight_norm(near_torch, message, make, dim):
    def scenario(lib):
        layer = eval(f"nn.{make}", {"nn": lib.nn})
        weight = layer.weight.detach().clone()

        def run():
            tools(lib).weight_norm(layer, dim=dim)

        error = message(run)
        if error:
            return error[0]
        x = lib.randn(2, layer.weight.shape[1], *([7] if layer.weight.dim() == 3 else []))
        layer(x).square().sum().backward()
        lists = layer.parametrizations.weight
        return (
            layer.weight, weight, layer.state_dict(), repr(layer), lists.original0.grad,
            lists.original1.grad,
        )  # fmt: skip

    near_torch(scenario)


def test_weight_norm_loads_the_older_form(near_torch):
    def scenario(lib):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            old = lib.nn.utils.weight_norm(lib.nn.Linear(3, 2))
        new = tools(lib).weight_norm(lib.nn.Linear(3, 2))
        return str(new.load_state_dict(old.state_dict())), new.weight, old.weight

    near_torch(scenario)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dim", [None, 1, -1])
def test_spectral_norm(near_torch, training, dim):
    def scenario(lib):
        layer = lib.nn.Conv2d(2, 3, 3)
        tools(lib).spectral_norm(layer, n_power_iterations=2, dim=dim)
        layer.train(training)
        out = layer(lib.ones(1, 2, 4, 4)).sum() - layer(lib.ones(1, 2, 4, 4)).square().sum()
        out.backward()
        original = layer.parametrizations.weight.original
        return layer.weight, layer.state_dict(), repr(layer), original.grad

    near_torch(scenario)


def test_spectral_norm_of_a_vector_and_removal(near_torch):
    def scenario(lib):
        layer = lib.nn.Linear(3, 2)
        tools(lib).spectral_norm(layer, "bias")
        tools(lib).spectral_norm(layer).eval()
        both = layer.weight, layer.bias, list(layer.state_dict())
        P(lib).remove_parametrizations(layer, "weight")
        return both, layer.weight, repr(layer)

    near_torch(scenario)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_spectral_norm_takes_the_second_dimension_of_transposed_convolutions(near_torch, dims):
    def scenario(lib):
        layer = tools(lib).spectral_norm(getattr(lib.nn, f"ConvTranspose{dims}d")(3, 2, 2))
        return layer.weight, layer.state_dict()

    assert near_torch(scenario)[1]["parametrizations.weight.0._u"].shape == (2,)


def test_errors_of_spectral_norm(near_torch, message):
    def scenario(lib):
        norm, layer = tools(lib).spectral_norm, lib.nn.Linear(3, 2)
        return (
            message(norm, layer, "none"), message(norm, layer, dim=2),
            message(norm, layer, n_power_iterations=0),
        )  # fmt: skip

    near_torch(scenario)


MAPS = ["matrix_exp", "cayley", "householder", None]


@pytest.mark.parametrize("orthogonal_map", MAPS)
@pytest.mark.parametrize("shape", [(4, 4), (5, 3), (3, 5), (2, 4, 3)])
def test_orthogonal(near_torch, orthogonal_map, shape):
    def scenario(lib):
        layer = lib.nn.Module()
        layer.weight = lib.nn.Parameter(lib.randn(*shape, dtype=lib.float64))
        tools(lib).orthogonal(layer, orthogonal_map=orthogonal_map)
        (layer.weight * lib.randn(*shape, dtype=lib.float64)).sum().backward()
        original = layer.parametrizations.weight.original
        square = shape[-1] == shape[-2]
        found = [repr(layer), [[k, list(v.shape)] for k, v in layer.state_dict().items()]]
        if square:  # elsewhere the base is completed by random vectors, whose bits differ
            found += [layer.weight, original, original.grad]
        return found

    near_torch(scenario)
    gpunn.manual_seed(0)
    layer = nn.Module()
    layer.weight = nn.Parameter(gpunn.randn(*shape, dtype=gpunn.float64))
    parametrizations.orthogonal(layer, orthogonal_map=orthogonal_map)
    optimizer = gpunn.optim.SGD(layer.parameters(), lr=0.1)
    target, losses = gpunn.randn(*shape, dtype=gpunn.float64), []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (layer.weight - target).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    q = layer.weight.detach().numpy()
    q = q if shape[-2] >= shape[-1] else np.swapaxes(q, -1, -2)
    one = np.broadcast_to(np.eye(q.shape[-1]), (*q.shape[:-2], q.shape[-1], q.shape[-1]))
    np.testing.assert_allclose(np.swapaxes(q, -1, -2) @ q, one, atol=1e-10)
    assert losses[-1] < losses[0]


def test_orthogonal_without_base(near_torch, message):
    def scenario(lib):
        found = []
        for orthogonal_map in MAPS[:3]:
            for shape in ((3, 3), (4, 2), (2, 4)):
                layer = lib.nn.Module()
                layer.weight = lib.nn.Parameter(lib.randn(*shape, dtype=lib.float64))
                tools(lib).orthogonal(
                    layer, orthogonal_map=orthogonal_map, use_trivialization=False
                )
                layer.weight.square().sum().backward()
                found += [layer.weight, layer.parametrizations.weight.original.grad]
                found.append(message(setattr, layer, "weight", layer.weight.detach()))
        return found

    near_torch(scenario)


def test_orthogonal_keeps_what_is_orthogonal(near_torch):
    def scenario(lib):
        layer = tools(lib).orthogonal(lib.nn.Linear(3, 3))
        layer.weight = lib.eye(3)
        return layer.weight, layer.parametrizations.weight.original

    near_torch(scenario)


def test_unitary(near_torch):
    def scenario(lib):
        layer = lib.nn.Module()
        layer.weight = lib.nn.Parameter(lib.randn(3, 3, dtype=lib.complex128))
        return tools(lib).orthogonal(layer).weight

    near_torch(scenario)


def test_errors_of_orthogonal(near_torch, message):
    def scenario(lib):
        orthogonal, layer = tools(lib).orthogonal, lib.nn.Linear(3, 2)
        layer.z = lib.nn.Parameter(lib.ones(2, 2, dtype=lib.complex64))
        made = orthogonal(lib.nn.Linear(3, 2))
        return (
            message(orthogonal, layer, "none"), message(orthogonal, layer, "bias"),
            message(orthogonal, layer, orthogonal_map="qr"),
            message(orthogonal, layer, "z", orthogonal_map="householder"),
            message(setattr, made, "weight", lib.ones(3, 3)),
        )  # fmt: skip

    near_torch(scenario)


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
def test_lazy_parameters_have_no_shape(near_torch, message, kind):
    def scenario(lib):
        return message(getattr(tools(lib), kind), lib.nn.LazyLinear(2))[0]

    near_torch(scenario)


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm", "orthogonal"])
def test_on_an_emulated_gpu(kind):
    with emulated.device():
        here = nn.Linear(4, 4)
        there = nn.Linear(4, 4).cuda()
        there.load_state_dict(here.state_dict())
        for layer in (here, there):
            layer.eval()
            getattr(parametrizations, kind)(layer)
        if kind == "spectral_norm":  # whose vectors are drawn
            there.load_state_dict(here.state_dict())
        for layer in (here, there):
            layer(gpunn.ones(2, 4, device=layer.bias.device)).square().sum().backward()
        assert there.weight.is_cuda
        np.testing.assert_allclose(
            there.weight.detach().cpu().numpy(), here.weight.detach().numpy(), atol=1e-6
        )
        for one, other in zip(here.parameters(), there.parameters(), strict=True):
            np.testing.assert_allclose(other.grad.cpu().numpy(), one.grad.numpy(), atol=1e-5)
