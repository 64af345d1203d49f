"""Errors of numbers and binary cross entropy against their definitions."""

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


def reduce(reduction):
    return {"mean": np.mean, "sum": np.sum, "none": lambda x: x}[reduction]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "loss, each",
    [
        (F.l1_loss, abs),
        (F.smooth_l1_loss, lambda d: np.where(abs(d) < 1, d**2 / 2, abs(d) - 0.5)),
        (F.huber_loss, lambda d: np.where(abs(d) < 1, d**2 / 2, abs(d) - 0.5)),
    ],
)
def test_other_errors(loss, each, reduction):
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    check(lambda a, b: loss(a, b, reduction=reduction), [a, b],
          lambda a, b: reduce(reduction)(each(a - b)), rtol=5e-2)  # fmt: skip


def test_where_an_error_turns_from_squared_to_absolute():
    def turned(a, b):
        d = abs(a - b)
        return np.where(d < 0.3, d**2 / 2, 0.3 * (d - 0.15)).mean()

    a, b = rng.normal(size=(4, 3)), rng.normal(size=(4, 3))
    check(lambda a, b: F.huber_loss(a, b, delta=0.3), [a, b], turned, rtol=5e-2)
    check(lambda a, b: F.smooth_l1_loss(a, b, beta=0.3), [a, b],
          lambda a, b: turned(a, b) / 0.3, rtol=5e-2)  # fmt: skip
    assert F.smooth_l1_loss(gpunn.zeros(1), gpunn.ones(1), beta=0).item() == 1


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.huber_loss])
def test_weights(loss):
    a, b, w = rng.normal(size=(4, 3)), rng.normal(size=(4, 3)), rng.random((4, 3))
    each = loss(gpunn.tensor(a), gpunn.tensor(b), reduction="none").numpy()
    total = w.size if loss is F.huber_loss else w.sum()
    for reduction, of in (("mean", (each * w).sum() / total), ("sum", (each * w).sum()),
                          ("none", each * w)):  # fmt: skip
        check(lambda a, b, w, how=reduction: loss(a, b, weight=w, reduction=how), [a, b, w],
              lambda *_, of=of: of, dtypes=["float64"])  # fmt: skip
    with pytest.raises(ValueError, match="Weights and input must have the same size"):
        loss(gpunn.ones(2), gpunn.ones(2), weight=gpunn.ones(1))


@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.smooth_l1_loss, F.huber_loss])
def test_unequal_shapes_warn_and_broadcast(loss):
    with pytest.warns(UserWarning, match=r"size \(torch.Size\(\[3\]\)\) that is different"):
        made = loss(gpunn.zeros(3, 1), gpunn.ones(3), reduction="none")
    assert made.shape == (3, 3)


@pytest.mark.parametrize("loss", [F.mse_loss, F.smooth_l1_loss, F.huber_loss])
def test_integers_are_refused(loss):
    with pytest.raises(NotImplementedError, match="_cpu\" not implemented for 'Long'"):
        loss(gpunn.ones(2).long(), gpunn.ones(2).long())


def test_modules():
    a, b = gpunn.tensor([1.0, 1.0]), gpunn.tensor([1.5, 4.0])
    assert nn.L1Loss()(a, b).item() == 1.75
    assert nn.SmoothL1Loss(beta=2.0, reduction="sum")(a, b).item() == 2.0625
    assert nn.HuberLoss(delta=2.0, reduction="none")(a, b).tolist() == [0.125, 4]
    assert repr(nn.HuberLoss()) == "HuberLoss()"
    with pytest.raises(TypeError, match="delta must be a float or int, got: <class 'str'>"):
        nn.HuberLoss(delta="1")


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
        (lambda: F.smooth_l1_loss(gpunn.ones(1), gpunn.ones(1), beta=-1.0), RuntimeError,
         "does not support negative values for beta"),
        (lambda: F.huber_loss(gpunn.ones(1), gpunn.ones(1), delta=0.0), RuntimeError,
         "does not support non-positive values for delta"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_a_gpu_is_not_waited_for(emulated):
    p = gpunn.tensor([0.5, 2.0], device=emulated)
    made = F.binary_cross_entropy(p, gpunn.ones(2, device=emulated), reduction="none")
    assert made[0].item() == pytest.approx(np.log(2)) and made[1].isnan()
