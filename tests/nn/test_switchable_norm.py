"""Switchable normalisation against its formula."""

import copy

import numpy as np
import pytest
from check import check

import gpunn
from gpunn import nn

rng = np.random.default_rng(0)
SHAPES = {1: (4, 3, 5), 2: (3, 2, 3, 4), 3: (2, 3, 2, 2, 2)}


def softmax(w):
    e = np.exp(w - w.max())
    return e / e.sum()


def normal(x, weight, bias, mean_weight, var_weight, running=None, eps=1e-5):
    """Equations 2 to 5 of the paper, each kind of statistics straight from x."""
    flat = x.reshape(*x.shape[:2], -1)
    over = {"instance": (2,), "layer": (1, 2), "batch": (0, 2)}
    kinds = [(flat.mean(axes, keepdims=True), flat.var(axes, keepdims=True))
             for name, axes in over.items() if name != "instance" or flat.shape[2] > 1]  # fmt: skip
    if running is not None:
        kinds[-1] = tuple(r.reshape(1, -1, 1) for r in running)
    kinds = kinds[: len(mean_weight)]
    p, q = softmax(mean_weight[-len(kinds) :]), softmax(var_weight[-len(kinds) :])
    mean = sum(a * k[0] for a, k in zip(p, kinds, strict=True))
    variance = sum(a * k[1] for a, k in zip(q, kinds, strict=True))
    unit = (flat - mean) / np.sqrt(variance + eps)
    return (unit * weight.reshape(1, -1, 1) + bias.reshape(1, -1, 1)).reshape(x.shape)


def called(module):
    """The module as a function of input and parameters."""

    def f(x, *parameters):
        m = copy.deepcopy(module).to(x.dtype)
        for (name, _), p in zip(module.named_parameters(), parameters, strict=True):
            m.__dict__[name] = p
        return m(x)

    return f


def parameters(channels, kinds):
    return [rng.normal(size=n) for n in (channels, channels, kinds, kinds)]


@pytest.mark.parametrize("dims, shape", [*SHAPES.items(), (1, (6, 3))])
def test_training(dims, shape):
    module = getattr(nn, f"SwitchableNorm{dims}d")(shape[1])
    check(called(module), [rng.normal(size=shape) + 1, *parameters(shape[1], 3)], normal, rtol=8e-2)


@pytest.mark.parametrize("dims, shape", [(2, SHAPES[2])])
def test_without_the_batch(dims, shape):
    module = nn.SwitchableNorm2d(shape[1], using_bn=False)
    assert [k for k, _ in module.named_buffers()] == []
    check(called(module), [rng.normal(size=shape), *parameters(shape[1], 2)], normal, rtol=8e-2)


def test_evaluation():
    module = nn.SwitchableNorm2d(2).double()
    module.running_mean.copy_(gpunn.tensor([0.3, -0.4]))
    module.running_var.copy_(gpunn.tensor([0.5, 2.0]))
    running = module.running_mean.numpy().copy(), module.running_var.numpy().copy()
    arrays = [rng.normal(size=SHAPES[2]), *parameters(2, 3)]
    check(called(module.eval()), arrays, lambda *a: normal(*a, running=running),
          dtypes=("float64", "float32"))  # fmt: skip
    assert module.running_mean.tolist() == running[0].tolist()


def test_gradcheck():
    module = nn.SwitchableNorm1d(2).double()
    inputs = [gpunn.from_numpy(a).requires_grad_() for a in
              (rng.normal(size=(3, 2, 2)), *parameters(2, 3))]  # fmt: skip
    assert gpunn.autograd.gradcheck(called(module), inputs)
    assert gpunn.autograd.gradgradcheck(called(module), inputs)


@pytest.mark.parametrize("moving", [True, False])
def test_running_statistics(moving):
    module = nn.SwitchableNorm2d(3, momentum=0.2, using_moving_average=moving).double()
    batches = [rng.normal(size=(4, 3, 2, 2)) + i for i in range(3)]
    mean, variance = np.zeros(3), np.ones(3)
    for i, x in enumerate(batches):
        module(gpunn.from_numpy(x))
        share = 0.2 if moving else 1 / (i + 1)
        mean = mean + share * (x.mean((0, 2, 3)) - mean)
        variance = variance + share * (x.var((0, 2, 3)) - variance)
    np.testing.assert_allclose(module.running_mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(module.running_var.numpy(), variance, rtol=1e-12)
    assert (module.num_batches_tracked is None) == moving


def test_state_repr_and_reset():
    module = nn.SwitchableNorm2d(3)
    assert list(module.state_dict()) == [
        "weight", "bias", "mean_weight", "var_weight", "running_mean", "running_var"
    ]  # fmt: skip
    assert repr(module) == (
        "SwitchableNorm2d(3, eps=1e-05, momentum=0.1, using_bn=True, using_moving_average=True)"
    )
    assert module.mean_weight.shape == (3,) and module.weight.tolist() == [1, 1, 1]
    fresh = {k: v.clone() for k, v in module.state_dict().items()}
    module(gpunn.randn(2, 3, 4, 4) + 1).square().sum().backward()
    for p in module.parameters():
        p.data.add_(p.grad)
    module.reset_parameters()
    for k, v in module.state_dict().items():
        assert v.tolist() == fresh[k].tolist(), k


def test_errors():
    with pytest.raises(ValueError, match=r"expected 4D input \(got 3D input\)"):
        nn.SwitchableNorm2d(3)(gpunn.randn(2, 3, 4))
    with pytest.raises(ValueError, match=r"match num_features \(3\), but got: 2"):
        nn.SwitchableNorm1d(3)(gpunn.randn(4, 2))
    with pytest.raises(RuntimeError, match="expect parameter to have scalar type of Float"):
        nn.SwitchableNorm1d(3).double()(gpunn.randn(4, 3))
    with pytest.raises(NotImplementedError, match="not implemented for 'Long'"):
        nn.SwitchableNorm1d(3)(gpunn.ones(4, 3, dtype=gpunn.int64))


def test_float32_parameters_of_half_inputs():
    x = gpunn.from_numpy(rng.normal(size=(4, 3, 8)))
    module = nn.SwitchableNorm1d(3)
    y = module(x.to(gpunn.bfloat16))
    assert y.dtype == gpunn.bfloat16
    wanted = normal(x.numpy(), np.ones(3), np.zeros(3), np.ones(3), np.ones(3))
    np.testing.assert_allclose(y.detach().float().numpy(), wanted, rtol=5e-2, atol=5e-2)


def test_empty():
    module = nn.SwitchableNorm1d(3)
    assert module(gpunn.ones(0, 3, 4)).shape == (0, 3, 4) and module.running_var.tolist() == [1] * 3
