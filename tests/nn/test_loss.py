"""Squared error and binary cross entropy against their definitions."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_squared_error(reduction):
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    how = {"mean": np.mean, "sum": np.sum, "none": lambda x: x}[reduction]
    check(lambda a, b: F.mse_loss(a, b, reduction=reduction), [a, b],
          lambda a, b: how((a - b) ** 2), rtol=5e-2)  # fmt: skip


def test_squared_error_of_unequal_shapes_warns():
    with pytest.warns(UserWarning, match="different to the input size"):
        assert F.mse_loss(gpunn.zeros(3, 1), gpunn.ones(3)).item() == 1


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_binary_cross_entropy(reduction):
    p, t = rng.uniform(0.05, 0.95, (4, 3)), rng.uniform(size=(4, 3))
    how = {"mean": np.mean, "sum": np.sum, "none": lambda x: x}[reduction]

    def reference(p, t):
        return how(-(t * np.log(p) + (1 - t) * np.log(1 - p)))

    check(lambda p, t: F.binary_cross_entropy(p, t, reduction=reduction), [p, t], reference,
          rtol=6e-2)  # fmt: skip
    z = np.log(p / (1 - p))
    check(lambda z, t: F.binary_cross_entropy_with_logits(z, t, reduction=reduction), [z, t],
          lambda z, t: reference(1 / (1 + np.exp(-z)), t), rtol=6e-2)  # fmt: skip


def test_logits_far_out_stay_finite():
    z = gpunn.tensor([-1000.0, 1000.0], requires_grad=True)
    loss = F.binary_cross_entropy_with_logits(z, gpunn.tensor([1.0, 0.0]), reduction="sum")
    loss.backward()
    assert loss.item() == 2000 and z.grad.tolist() == [-1.0, 1.0]


def test_positive_weight():
    z, t = rng.normal(size=(4, 3)), (rng.random((4, 3)) > 0.5) * 1.0
    s = 1 / (1 + np.exp(-z))
    wanted = -(3 * t * np.log(s) + (1 - t) * np.log(1 - s)).mean()
    loss = nn.BCEWithLogitsLoss(pos_weight=gpunn.tensor([3.0, 3.0, 3.0]).double())
    assert abs(loss(gpunn.tensor(z), gpunn.tensor(t)).item() - wanted) < 1e-12


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.binary_cross_entropy(gpunn.zeros(3), gpunn.zeros(2)), ValueError, "target size"),
        (lambda: F.binary_cross_entropy(gpunn.tensor([2.0]), gpunn.tensor([1.0])), RuntimeError,
         "between 0 and 1"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()
