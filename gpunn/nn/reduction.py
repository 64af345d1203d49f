"""What losses share: the `reduction` argument, its deprecated forms, and the base modules."""

from __future__ import annotations

import warnings
from typing import Any

from gpunn.nn.module import Module
from gpunn.tensor import Tensor

REDUCTIONS = ("none", "mean", "sum")


def legacy_reduction(size_average: bool | None, reduce: bool | None) -> str:
    """The `reduction` that the deprecated arguments stand for, with PyTorch's warning."""
    average = size_average is None or size_average
    kept = reduce is None or reduce
    name = ("mean" if average else "sum") if kept else "none"
    warnings.warn(
        "size_average and reduce args will be deprecated, please use "
        f"reduction='{name}' instead.",
        stacklevel=3,
    )
    return name


def pick_reduction(reduction: str, size_average: Any, reduce: Any) -> str:
    """The reduction in force; ValueError for an unknown one."""
    if size_average is not None or reduce is not None:
        return legacy_reduction(size_average, reduce)
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def reduced(x: Tensor, reduction: str) -> Tensor:
    """x, its mean or its sum."""
    if reduction == "none":
        return x
    return x.mean() if reduction == "mean" else x.sum()  # type: ignore[attr-defined]


class Loss(Module):
    reduction: str

    def __init__(self, size_average: Any = None, reduce: Any = None, reduction: str = "mean"):
        super().__init__()
        if size_average is not None or reduce is not None:
            reduction = legacy_reduction(size_average, reduce)
        self.reduction = reduction


class WeightedLoss(Loss):
    def __init__(
        self, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
        reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.weight: Tensor | None
