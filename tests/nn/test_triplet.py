"""Losses of triplets against their definition."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)
TRIPLET = [rng.normal(size=(6, 3)) for _ in range(3)]


def reference(distance, margin, swap, reduce):
    def loss(a, p, n):
        far = np.minimum(distance(a, n), distance(p, n)) if swap else distance(a, n)
        return reduce(np.maximum(margin + distance(a, p) - far, 0))

    return loss


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("p", [1.0, 2.0])
def test_norms(reduction, swap, p):
    reduce = {"mean": np.mean, "sum": np.sum, "none": lambda x: x}[reduction]
    module = nn.TripletMarginLoss(0.4, p, swap=swap, reduction=reduction)
    norm = lambda x, y: np.linalg.norm(x - y + 1e-6, ord=p, axis=1)  # noqa: E731
    check(module, TRIPLET, reference(norm, 0.4, swap, reduce), rtol=1.5e-1)


@pytest.mark.parametrize("swap", [False, True])
def test_any_distance(swap):
    square = lambda x, y: ((x - y) ** 2).sum(-1)  # noqa: E731
    module = nn.TripletMarginWithDistanceLoss(distance_function=square, margin=2.0, swap=swap)
    check(module, TRIPLET, reference(square, 2.0, swap, np.mean), rtol=1e-1)


def test_without_a_distance_it_is_the_norm():
    tensors = [gpunn.tensor(x) for x in TRIPLET]
    assert gpunn.equal(
        F.triplet_margin_with_distance_loss(*tensors), F.triplet_margin_loss(*tensors)
    )
    assert isinstance(nn.TripletMarginWithDistanceLoss().distance_function, nn.PairwiseDistance)


@pytest.mark.parametrize("loss", [F.triplet_margin_loss, F.triplet_margin_with_distance_loss])
def test_errors_say_what_is_wrong(loss):
    a = gpunn.ones(2, 3)
    with pytest.raises(RuntimeError, match="anchor 2D, positive 1D, and negative 2D inputs"):
        loss(a, gpunn.ones(3), a)
    with pytest.raises(ValueError, match="margin must be greater than 0, got 0"):
        loss(a, a, a, margin=0)
    with pytest.raises(ValueError, match="avg is not a valid value for reduction"):
        loss(a, a, a, reduction="avg")


@pytest.mark.parametrize("kind", [nn.TripletMarginLoss, nn.TripletMarginWithDistanceLoss])
def test_a_module_needs_a_margin(kind):
    with pytest.raises(ValueError, match=f"{kind.__name__}: expected margin to be greater than 0"):
        kind(margin=0.0)
