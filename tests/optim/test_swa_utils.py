"""Averaged models, their batch statistics and SWALR against PyTorch."""

import numpy as np
import pytest

import gpunn
from gpunn import nn
from gpunn.optim import swa_utils

from .conftest import to_numpy
from .lr_scheduler.conftest import close, optimizer_of, rates, step


class Scales:
    """A model of both libraries: a float32 weight, a float64 weight and an integer buffer."""

    def __init__(self, library):
        self.package = library
        model = library.nn.Module()
        model.w = library.nn.Parameter(library.zeros(3, 2))
        model.v = library.nn.Parameter(library.zeros(2, dtype=library.float64))
        model.register_buffer("seen", library.tensor([0, 0]))
        model.register_buffer("mean", library.zeros(2))
        self.model = model

    def set(self, k):
        rng = np.random.default_rng(k)
        with self.package.no_grad():
            self.model.w.copy_(self.package.tensor(rng.standard_normal((3, 2)).tolist()))
            self.model.v.copy_(self.package.tensor(rng.standard_normal(2).tolist()))
            self.model.seen.copy_(self.package.tensor([k, 8 * k]))
            self.model.mean.copy_(self.package.tensor([float(k), 1.0]))


def averages(library, updates=4, **functions):
    scales = Scales(library)
    utils = library.optim.swa_utils
    made = {name: make(utils) for name, make in functions.items() if name != "use_buffers"}
    model = utils.AveragedModel(
        scales.model, use_buffers=functions.get("use_buffers", False), **made
    )
    for k in range(1, updates + 1):
        scales.set(k)
        model.update_parameters(scales.model)
    return {k: to_numpy(v) for k, v in model.state_dict().items()}


@pytest.mark.parametrize(
    "functions",
    [
        {},
        {"use_buffers": True},
        {"avg_fn": lambda u: u.get_ema_avg_fn(0.75)},
        {"avg_fn": lambda u: u.get_swa_avg_fn()},
        {"multi_avg_fn": lambda u: u.get_ema_multi_avg_fn(0.75)},
        {"multi_avg_fn": lambda u: u.get_ema_multi_avg_fn(0.75), "use_buffers": True},
        {"multi_avg_fn": lambda u: u.get_swa_multi_avg_fn()},
        {"avg_fn": lambda u: lambda a, c, n: a + c * n},
    ],
)
def test_averages_equal_pytorchs(functions):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    mine, theirs = averages(gpunn, **functions), averages(torch, **functions)
    assert list(mine) == list(theirs)
    for key in mine:
        np.testing.assert_allclose(mine[key], theirs[key], rtol=1e-6, atol=1e-7, err_msg=key)


def test_the_average_is_a_model_of_its_own():
    model = nn.Linear(2, 1)
    averaged = swa_utils.AveragedModel(model, device="cpu:1")
    averaged.update_parameters(model)
    assert averaged.module.weight.device is gpunn.device("cpu:1")
    x = gpunn.ones(1, 2)
    assert averaged(x.to("cpu:1")).tolist() == model(x).tolist()
    with gpunn.no_grad():
        model.weight.fill_(7.0)
    assert averaged.module.weight.tolist() != model.weight.tolist()


def test_half_precision_averages_are_computed_in_float32():
    average = gpunn.tensor([1.0], dtype=gpunn.bfloat16)
    for _ in range(3):
        current = gpunn.tensor([2.0], dtype=gpunn.bfloat16)
        swa_utils.get_ema_multi_avg_fn(0.5)([average], [current], 1)
    assert average.tolist() == [1.875]


def test_errors():
    for make in (swa_utils.get_ema_avg_fn, swa_utils.get_ema_multi_avg_fn):
        with pytest.raises(ValueError, match="Invalid decay value 1.5 provided"):
            make(1.5)
    f = swa_utils.get_swa_avg_fn()
    with pytest.raises(AssertionError, match="Only one of avg_fn and multi_avg_fn should be"):
        swa_utils.AveragedModel(nn.Identity(), avg_fn=f, multi_avg_fn=f)
    for kwargs, message in [
        ({"anneal_strategy": "x"}, "anneal_strategy must be one of 'cos' or 'linear'"),
        ({"anneal_epochs": -1}, "anneal_epochs must be equal or greater than 0, got -1"),
        ({"swa_lr": [0.1]}, "swa_lr must have the same length as optimizer.param_groups"),
    ]:
        with pytest.raises(ValueError, match=message):
            swa_utils.SWALR(optimizer_of(gpunn), **{"swa_lr": 0.1, **kwargs})


@pytest.mark.parametrize("batch", ["tensor", "list", "tuple"])
def test_batch_statistics_equal_pytorchs(batch):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    data = np.random.default_rng(0).standard_normal((3, 4, 2)).astype(np.float32)
    found = []
    for library in (gpunn, torch):
        model = library.nn.Sequential(
            library.nn.BatchNorm1d(2, momentum=0.3), library.nn.BatchNorm1d(2, momentum=0.5)
        )
        model.eval()
        wrapped = [library.tensor(x) for x in data]
        if batch != "tensor":
            wrapped = [{"list": list, "tuple": tuple}[batch]((x, 1)) for x in wrapped]
        library.optim.swa_utils.update_bn(wrapped, model, device="cpu")
        assert [m.momentum for m in model] == [0.3, 0.5] and not model.training
        found.append({k: to_numpy(v) for k, v in model.state_dict().items()})
    for key in found[0]:
        np.testing.assert_allclose(found[0][key], found[1][key], rtol=1e-5, atol=1e-6)


def test_a_model_without_batch_norm_is_left_alone():
    model = nn.Identity()
    swa_utils.update_bn(iter([]), model)
    assert model.training


@pytest.mark.parametrize(
    "kwargs",
    [
        {"swa_lr": 0.05},
        {"swa_lr": [0.05, 1.0], "anneal_strategy": "linear", "anneal_epochs": 4},
        {"swa_lr": 0.05, "anneal_epochs": 0},
    ],
    ids=str,
)
def test_swalr_equals_pytorchs(kwargs):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    pairs = []
    for library in (gpunn, torch):
        optimizer = optimizer_of(library)
        pairs.append((optimizer, library.optim.swa_utils.SWALR(optimizer, **kwargs)))
    for _ in range(15):
        close(*[rates(o) for o, _ in pairs])
        close(*[s.state_dict() for _, s in pairs])
        for o, s in pairs:
            step(o, s)
    loaded = swa_utils.SWALR(optimizer_of(gpunn), 0.5)
    loaded.load_state_dict(pairs[1][1].state_dict())
    assert loaded.state_dict() == pairs[0][1].state_dict()
