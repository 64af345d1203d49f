"""Batch normalisation against its definition."""

import numpy as np
import pytest
from both import refused, same
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import native, nn

rng = np.random.default_rng(0)


@pytest.fixture(params=["native", "numpy"], autouse=True)
def path(request, monkeypatch):
    """Both ways to the same numbers."""
    if request.param == "numpy":
        for name in ("batch_norm_stats", "batch_norm_apply", "batch_norm_backward"):
            monkeypatch.setattr(native, name, lambda *a, **k: None)


def normal(x, w, b, mean=None, variance=None):
    axes = (0, *range(2, x.ndim))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean = x.mean(axes) if mean is None else mean
    variance = x.var(axes) if variance is None else variance
    unit = (x - mean.reshape(shape)) / np.sqrt(variance.reshape(shape) + 1e-5)
    return unit * w.reshape(shape) + b.reshape(shape)


@pytest.mark.parametrize("shape", [(6, 3), (4, 3, 5), (2, 3, 4, 5), (2, 3, 2, 3, 2)])
def test_training_and_evaluation(shape):
    arrays = [rng.normal(size=shape) * 2 + 1, rng.normal(size=3), rng.normal(size=3)]
    check(lambda x, w, b: F.batch_norm(x, None, None, w, b, True), arrays, normal, rtol=8e-2)
    mean, variance = rng.normal(size=3), rng.random(3) + 0.5
    check(
        lambda x, w, b: F.batch_norm(
            x, gpunn.tensor(mean).to(x.dtype), gpunn.tensor(variance).to(x.dtype), w, b),
        arrays, lambda x, w, b: normal(x, w, b, mean, variance), rtol=8e-2,
    )  # fmt: skip


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics(momentum):
    layer = nn.BatchNorm1d(2, momentum=momentum)
    a, b = rng.normal(size=(5, 2)), rng.normal(size=(5, 2)) + 3
    for x in (a, b):
        layer(gpunn.tensor(x, dtype=gpunn.float32))
    if momentum is None:
        wanted = (a.var(0, ddof=1) + b.var(0, ddof=1)) / 2
    else:
        wanted = (0.9 + 0.1 * a.var(0, ddof=1)) * 0.9 + 0.1 * b.var(0, ddof=1)
    np.testing.assert_allclose(layer.running_var.numpy(), wanted, rtol=1e-5)
    assert layer.num_batches_tracked.item() == 2
    before = layer.running_mean.tolist()
    layer.eval()(gpunn.randn(3, 2))
    assert layer.running_mean.tolist() == before
    layer.reset_parameters()
    assert layer.running_mean.tolist() == [0, 0] and layer.num_batches_tracked.item() == 0


def test_without_running_statistics_the_batch_is_used_always():
    layer = nn.BatchNorm2d(2, track_running_stats=False, affine=False).eval()
    y = layer(gpunn.randn(4, 2, 3, 3) * 5 + 2)
    assert abs(y.mean().item()) < 1e-5 and not layer.state_dict()


def test_errors():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm1d(2)(gpunn.zeros(1, 2))
    with pytest.raises(ValueError, match=r"expected 4D input \(got 3D input\)"):
        nn.BatchNorm2d(2)(gpunn.zeros(2, 2, 2))
    with pytest.raises(RuntimeError, match="running_mean should contain 3 elements not 2"):
        nn.BatchNorm1d(2)(gpunn.zeros(4, 3))


def test_state_dict_keys():
    assert list(nn.BatchNorm1d(2).state_dict()) == [
        "weight", "bias", "running_mean", "running_var", "num_batches_tracked",
    ]  # fmt: skip


SHAPES = {1: (4, 3, 5), 2: (4, 3, 2, 2), 3: (2, 3, 2, 2, 2)}


def values(T, shape):
    return ((T.arange(float(np.prod(shape))) * 7) % 11 - 4).reshape(shape)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("options", [
    {}, {"affine": False}, {"track_running_stats": False}, {"bias": False, "momentum": None},
])  # fmt: skip
@pytest.mark.parametrize("lazy", ["", "Lazy"])
def test_modules(dims, options, lazy):
    def program(T):
        cls = getattr(T.nn, f"{lazy}BatchNorm{dims}d")
        m = cls(**options) if lazy else cls(3, **options)
        before = repr(m), sorted(m.state_dict())
        y = m(values(T, SHAPES[dims]))
        state = [(k, v) for k, v in m.state_dict().items()]
        return before, repr(m), type(m).__name__, y, state, m.eval()(values(T, SHAPES[dims]))

    same(program)


def test_lazy_states_load():
    made, fresh = nn.BatchNorm1d(3), nn.LazyBatchNorm1d()
    made(gpunn.randn(4, 3))
    fresh.load_state_dict(made.state_dict())
    assert fresh.running_mean.tolist() == made.running_mean.tolist()
    assert fresh(gpunn.randn(4, 3)).shape == (4, 3) and type(fresh) is nn.BatchNorm1d


@pytest.mark.parametrize("x, w, running, match", [
    ("float32", "float64", None, "expect parameter to have scalar type of Float"),
    ("float64", "float32", None, "all inputs must share same datatype"),
    ("float16", "float32", "float16", "scalar type"),
    ("float32", None, "float16", "expect parameter to have scalar type of Float"),
])  # fmt: skip
def test_dtypes_that_do_not_mix(x, w, running, match):
    def program(T):
        made = [None if d is None else T.ones(3, dtype=getattr(T, d)) for d in (running, w)]
        T.nn.functional.batch_norm(T.ones(4, 3, dtype=getattr(T, x)), made[0], made[0], made[1],
                                   training=True)  # fmt: skip

    refused(program, match)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_float32_parameters_of_half_inputs(dtype):
    def program(T):
        m = T.nn.BatchNorm1d(3)
        x = values(T, (4, 3, 5)).to(getattr(T, dtype)).requires_grad_()
        y = m(x)
        (y.float() ** 2).sum().backward()
        return [str(t.dtype) for t in (y, x.grad, m.weight.grad)], m.running_var, m.bias.grad > 1

    same(program)


@pytest.mark.parametrize("shape", [(0, 3, 4), (2, 3, 0), (0, 3)])
def test_empty(shape):
    def program(T):
        m = T.nn.BatchNorm1d(3)
        x = T.ones(*shape, requires_grad=True)
        y = T.nn.functional.batch_norm(x, m.running_mean, m.running_var, m.weight, m.bias, True)
        y.sum().backward()
        return y, x.grad, m.weight.grad, m.running_var

    same(program)


def test_errors_are_pytorchs():
    def f(**options):
        return lambda T: T.nn.functional.batch_norm(T.ones(2, 3), None, None, **options)

    refused(f(training=True, eps=0.0), "batch_norm eps must be positive during training")
    refused(f(eps=-1.0), "batch_norm eps must be non-negative, but got -1.0")
    refused(f(), "running_mean must be defined in evaluation mode")
    refused(lambda T: T.nn.functional.batch_norm(T.ones(2, 3).long(), None, None, training=True),
            "not implemented for 'Long'")  # fmt: skip
    tracked = lambda T: (T.ones(3, requires_grad=True), T.ones(3))  # noqa: E731
    refused(lambda T: T.nn.functional.batch_norm(T.ones(2, 3), *tracked(T)), "not differentiable w")
