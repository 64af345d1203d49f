"""Losses of triplets: an anchor should be nearer to the positive than to the negative."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunn.amp.casts import autocasts
from gpunn.nn.distance import PairwiseDistance, pairwise_distance
from gpunn.nn.reduction import Loss, pick_reduction, reduced
from gpunn.ops.choose import minimum
from gpunn.tensor import Tensor

Distance = Callable[[Any, Any], Any]


def _loss(
    triplet: tuple[Tensor, Tensor, Tensor], distance: Distance, margin: float, swap: bool,
    reduction: str,
) -> Tensor:  # fmt: skip
    """max(margin + d(a, p) - d(a, n), 0), with the nearer of d(a, n) and d(p, n) by `swap`."""
    a, p, n = triplet
    if not a.ndim == p.ndim == n.ndim:
        raise RuntimeError(
            "The anchor, positive, and negative tensors are expected to have the same number of "
            f"dimensions, but got: anchor {a.ndim}D, positive {p.ndim}D, and negative {n.ndim}D "
            "inputs"
        )
    near, far = distance(a, p), distance(a, n)
    if swap:
        far = minimum(far, distance(p, n))
    return reduced((margin + near - far).clamp_min(0), reduction)


def _check_margin(margin: float) -> None:
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")


@autocasts("triplet_margin_loss")
def triplet_margin_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2,
    eps: float = 1e-6, swap: bool = False, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(margin + d(anchor, positive) - d(anchor, negative), 0), d the `pairwise_distance`.

    `swap` takes d(positive, negative) where that is the smaller.
    Shapes: (..., d) that broadcast, of as many dimensions; RuntimeError otherwise. ValueError for
    a margin that is not positive.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.triplet_margin_loss.html
    (Balntas et al. 2016, http://www.bmva.org/bmvc/2016/papers/paper119/index.html)

    >>> a, p, n = gpunn.tensor([[0.0]]), gpunn.tensor([[2.0]]), gpunn.tensor([[1.0]])
    >>> F.triplet_margin_loss(a, p, n)
    tensor(2.)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    _check_margin(margin)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return pairwise_distance(x, y, p, eps)

    return _loss((anchor, positive, negative), distance, margin, swap, reduction)


def triplet_margin_with_distance_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, *,
    distance_function: Distance | None = None, margin: float = 1.0, swap: bool = False,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """`triplet_margin_loss` with any distance, `pairwise_distance` without one.

    Source: https://docs.pytorch.org/docs/stable/generated/
    torch.nn.functional.triplet_margin_with_distance_loss.html

    >>> a, p, n = gpunn.tensor([[0.0]]), gpunn.tensor([[2.0]]), gpunn.tensor([[1.0]])
    >>> square = lambda x, y: ((x - y) ** 2).sum(-1)
    >>> F.triplet_margin_with_distance_loss(a, p, n, distance_function=square)
    tensor(4.)
    """
    reduction = pick_reduction(reduction)
    _check_margin(margin)
    distance = distance_function or pairwise_distance
    return _loss((anchor, positive, negative), distance, margin, swap, reduction)


class TripletMarginLoss(Loss):
    """The hinge of two distances: see `nn.functional.triplet_margin_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TripletMarginLoss.html

    >>> nn.TripletMarginLoss(p=1)(gpunn.zeros(1, 2), gpunn.zeros(1, 2), gpunn.ones(1, 2) / 4)
    tensor(0.5000)
    """

    __constants__ = ["margin", "p", "eps", "swap", "reduction"]

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
        size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        if margin <= 0:
            raise ValueError(
                f"TripletMarginLoss: expected margin to be greater than 0, got {margin} instead"
            )
        self.margin = margin
        self.p = p
        self.eps = eps
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return triplet_margin_loss(
            anchor, positive, negative, margin=self.margin, p=self.p, eps=self.eps,
            swap=self.swap, reduction=self.reduction,
        )  # fmt: skip


class TripletMarginWithDistanceLoss(Loss):
    """The same with any distance: see `nn.functional.triplet_margin_with_distance_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.TripletMarginWithDistanceLoss.html

    >>> loss = nn.TripletMarginWithDistanceLoss(distance_function=nn.PairwiseDistance(p=1))
    >>> loss(gpunn.zeros(1, 2), gpunn.zeros(1, 2), gpunn.ones(1, 2) / 4)
    tensor(0.5000)
    """

    __constants__ = ["margin", "swap", "reduction"]

    def __init__(
        self, *, distance_function: Distance | None = None, margin: float = 1.0,
        swap: bool = False, reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(None, None, reduction)
        if margin <= 0:
            raise ValueError(
                "TripletMarginWithDistanceLoss: expected margin to be greater than 0, got "
                f"{margin} instead"
            )
        self.distance_function = PairwiseDistance() if distance_function is None else (
            distance_function
        )  # fmt: skip
        self.margin = margin
        self.swap = swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        return triplet_margin_with_distance_loss(
            anchor, positive, negative, distance_function=self.distance_function,
            margin=self.margin, swap=self.swap, reduction=self.reduction,
        )  # fmt: skip
