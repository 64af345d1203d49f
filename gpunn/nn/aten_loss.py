"""The losses as `torch.kl_div` and others have them, beside `nn.functional`.

`reduction` is a number, 0 for "none", 1 for "mean" and 2 for "sum", and nothing warns.
"""

from __future__ import annotations

from typing import Any

from gpunn.nn import likelihood_loss as likelihoods
from gpunn.nn import loss as losses
from gpunn.nn import margin_loss as margins
from gpunn.nn import triplet as triplets
from gpunn.nn.ctc_loss import ctc_loss as ctc_loss
from gpunn.tensor import Tensor

__all__ = [
    "binary_cross_entropy_with_logits", "cosine_embedding_loss", "ctc_loss",
    "hinge_embedding_loss", "kl_div", "margin_ranking_loss", "poisson_nll_loss",
    "triplet_margin_loss",
]  # fmt: skip


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, pos_weight: Tensor | None = None,
    reduction: Any = 1,
) -> Tensor:  # fmt: skip
    """`nn.functional.binary_cross_entropy_with_logits`.

    >>> gpunn.binary_cross_entropy_with_logits(gpunn.tensor([0.0]), gpunn.tensor([1.0]))
    tensor(0.6931)
    """
    return losses.binary_cross_entropy_with_logits(
        input, target, weight, reduction=reduction, pos_weight=pos_weight
    )


def cosine_embedding_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: Any = 1
) -> Tensor:
    """`nn.functional.cosine_embedding_loss`.

    >>> a, b = gpunn.tensor([[1.0, 0.0]]), gpunn.tensor([[0.0, 1.0]])
    >>> gpunn.cosine_embedding_loss(a, b, gpunn.tensor([1]))
    tensor(1.)
    """
    return margins.cosine_embedding_loss(input1, input2, target, margin, reduction=reduction)


def hinge_embedding_loss(
    input: Tensor, target: Tensor, margin: float = 1.0, reduction: Any = 1
) -> Tensor:
    """`nn.functional.hinge_embedding_loss`.

    >>> gpunn.hinge_embedding_loss(gpunn.tensor([0.25]), gpunn.tensor([-1]))
    tensor(0.7500)
    """
    return margins.hinge_embedding_loss(input, target, margin, reduction=reduction)


def kl_div(
    input: Tensor, target: Tensor, reduction: Any = 1, *, log_target: bool = False
) -> Tensor:
    """`nn.functional.kl_div`.

    >>> gpunn.kl_div(gpunn.tensor([0.5, 0.5]).log(), gpunn.tensor([1.0, 0.0]), 2)
    tensor(0.6931)
    """
    return likelihoods.kl_div(input, target, reduction=reduction, log_target=log_target)


def margin_ranking_loss(
    input1: Tensor, input2: Tensor, target: Tensor, margin: float = 0.0, reduction: Any = 1
) -> Tensor:
    """`nn.functional.margin_ranking_loss`.

    >>> gpunn.margin_ranking_loss(gpunn.tensor([1.0]), gpunn.tensor([3.0]), gpunn.tensor([1.0]))
    tensor(2.)
    """
    return margins.margin_ranking_loss(input1, input2, target, margin, reduction=reduction)


def poisson_nll_loss(
    input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: Any
) -> Tensor:
    """`nn.functional.poisson_nll_loss`.

    >>> gpunn.poisson_nll_loss(gpunn.tensor([0.0]), gpunn.tensor([2.0]), True, False, 1e-8, 1)
    tensor(1.)
    """
    return likelihoods.poisson_nll_loss(
        input, target, log_input, full, eps=eps, reduction=reduction
    )


def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0,
    eps: float = 1e-6, swap: bool = False, reduction: Any = 1,
) -> Tensor:  # fmt: skip
    """`nn.functional.triplet_margin_loss`.

    >>> a, p, n = gpunn.tensor([[0.0]]), gpunn.tensor([[2.0]]), gpunn.tensor([[1.0]])
    >>> gpunn.triplet_margin_loss(a, p, n)
    tensor(2.)
    """
    return triplets.triplet_margin_loss(
        anchor, positive, negative, margin, p, eps, swap, reduction=reduction
    )
