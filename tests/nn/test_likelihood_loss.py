"""Negative log-likelihoods of numbers against their definitions."""

import contextlib
import math

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)
x, t, v = rng.normal(size=(4, 3)), rng.random((4, 3)) * 3, rng.random((4, 3)) + 0.2
REDUCE = {"mean": np.mean, "sum": np.sum, "none": lambda x: x}


@pytest.mark.parametrize("reduction", list(REDUCE))
@pytest.mark.parametrize("full", [False, True])
def test_poisson(reduction, full):
    def stirling(t):
        return full * np.where(t > 1, t * np.log(t) - t + np.log(2 * np.pi * t) / 2, 0)

    check(
        lambda x, t: F.poisson_nll_loss(x, t, full=full, reduction=reduction), [x, t],
        lambda x, t: REDUCE[reduction](np.exp(x) - t * x + stirling(t)), rtol=1e-1,
    )  # fmt: skip
    module = nn.PoissonNLLLoss(log_input=False, full=full, eps=0.1, reduction=reduction)
    check(
        module, [v, t],
        lambda v, t: REDUCE[reduction](v - t * np.log(v + 0.1) + stirling(t)), rtol=1e-1,
    )  # fmt: skip


@pytest.mark.parametrize("reduction", list(REDUCE))
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [(4, 3), (4, 1), (4,)])
def test_gauss(reduction, full, shape):
    def reference(x, t, v):
        v = v if v.ndim == 2 else v[:, None]
        return REDUCE[reduction](((x - t) ** 2 / v + np.log(v) + full * math.log(2 * np.pi)) / 2)

    check(
        nn.GaussianNLLLoss(full=full, reduction=reduction),
        [x, t, np.ascontiguousarray(v[:, : shape[-1]] if len(shape) == 2 else v[:, 0])],
        reference, rtol=8e-2,
    )  # fmt: skip


def test_small_variances_are_raised_and_keep_their_slope():
    v = gpunn.tensor([0.0, 1.0], requires_grad=True)
    loss = F.gaussian_nll_loss(gpunn.ones(2), gpunn.ones(2), v, eps=0.25, reduction="sum")
    loss.backward()
    assert abs(loss.item() - math.log(0.25) / 2) < 1e-6 and v.grad.tolist() == [2.0, 0.5]
    assert v.tolist() == [0, 1]
    assert F.gaussian_nll_loss(gpunn.ones(2), gpunn.zeros(2), 1.0).item() == 0.5


@pytest.mark.parametrize(
    "var, words",
    [
        (gpunn.ones(4), "var is of incorrect size"),
        (gpunn.ones(1, 1), "var is of incorrect size"),
        (gpunn.tensor([[1.0, 1.0, -1.0]]), "negative entry/entries"),
        (-1.0, "negative entry/entries"),
    ],
)
def test_variances_that_do_not_fit(var, words):
    with pytest.raises(ValueError, match=words):
        F.gaussian_nll_loss(gpunn.ones(2, 3), gpunn.ones(2, 3), var)


@pytest.mark.parametrize("reduction", [*REDUCE, "batchmean"])
def test_divergence(reduction):
    how = REDUCE.get(reduction, lambda x: x.sum() / len(x))
    with pytest.warns() if reduction == "mean" else contextlib.nullcontext():
        for log in (False, True):
            check(
                lambda x, t, log=log: F.kl_div(x, t, reduction=reduction, log_target=log), [x, t],
                lambda x, t, log=log: how(np.exp(t) * (t - x) if log else t * (np.log(t) - x)),
                rtol=1e-1,
            )  # fmt: skip


def test_the_mean_of_a_divergence_warns():
    with pytest.warns(UserWarning, match="aligns with the KL div math definition"):
        made = nn.KLDivLoss()(gpunn.zeros(2, 2), gpunn.ones(2, 2))
    assert made.item() == 0
    zero = gpunn.zeros(2, requires_grad=True)
    F.kl_div(gpunn.ones(2), zero, reduction="sum").backward()  # 0 log 0 is 0
    with pytest.raises(RuntimeError, match="kl_div: Integral inputs not supported"):
        F.kl_div(gpunn.ones(2), gpunn.ones(2).long(), reduction="sum")


def test_the_deprecated_name_warns():
    with pytest.warns(FutureWarning, match="`NLLLoss2d` has been deprecated"):
        loss = nn.NLLLoss2d(gpunn.ones(2), reduction="sum")
    assert isinstance(loss, nn.NLLLoss) and repr(loss) == "NLLLoss2d()"
    assert loss(gpunn.tensor([[-1.0, -2.0]]), gpunn.tensor([1])).item() == 2
