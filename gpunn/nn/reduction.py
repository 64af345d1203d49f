"""What losses share: `reduction` and its deprecated forms, weights, warnings, base modules."""

from __future__ import annotations

import warnings
from typing import Any

from gpunn import dtypes
from gpunn.nn.module import Module
from gpunn.ops._rows import proper
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


def pick_reduction(reduction: Any, size_average: Any = None, reduce: Any = None) -> str:
    """The reduction in force, also from PyTorch's number of it; ValueError for an unknown one."""
    if size_average is not None or reduce is not None:
        return legacy_reduction(size_average, reduce)
    if reduction in (0, 1, 2):  # what functions such as `torch.kl_div` take
        return REDUCTIONS[reduction]
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")
    return reduction


def reduced(x: Tensor, reduction: str) -> Tensor:
    """x, its mean or its sum."""
    if reduction == "none":
        return x
    return x.mean() if reduction == "mean" else x.sum()  # type: ignore[attr-defined]


def weighted(losses: Any, weight: Any, reduction: str, input: Tensor) -> Tensor:
    """losses * weight, which has input's shape; the mean divides by the sum of weights."""
    if weight.array.shape != input.array.shape:
        raise ValueError("Weights and input must have the same size.")
    losses = losses * weight
    return losses.sum() / weight.sum() if reduction == "mean" else reduced(losses, reduction)


def warn_of_sizes(input: Tensor, target: Tensor) -> None:
    """PyTorch's warning where a target of another shape is going to be broadcast."""
    if input.array.shape != target.array.shape:
        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}). This will likely lead to incorrect results due to broadcasting. "
            "Please ensure they have the same size.",
            stacklevel=3,
        )


def check_batch(rows: int, target: Any) -> None:
    """ValueError where the first size of an array of targets is not the number of samples."""
    if target.shape[:1] != (rows,):
        got = target.shape[0] if target.ndim else 1
        raise ValueError(
            f"Expected input batch_size ({rows}) to match target batch_size ({got})."
        )


def in_dtype_of(losses: Any, input: Tensor) -> Tensor:
    """The losses in input's dtype; RuntimeError where that would lose what kind they are."""
    if losses.dtype is input.dtype:
        return losses
    if not dtypes.can_cast(losses.dtype, input.dtype):
        raise RuntimeError(
            f"result type {proper(losses.dtype)} can't be cast to the desired output type "
            f"{proper(input.dtype)}"
        )
    return losses.to(input.dtype)


def unsupported(name: str, x: Tensor) -> NotImplementedError:
    """PyTorch's error for the dtype of a tensor that a kernel of it does not take."""
    return NotImplementedError(f"\"{name}\" not implemented for '{proper(x.dtype)}'")


class Loss(Module):
    __constants__ = ["reduction"]
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
