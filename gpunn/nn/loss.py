"""Losses of numbers: squared, absolute, smooth and Huber's error, binary cross entropy.

`reduction` is "mean", "sum" or "none" everywhere; PyTorch's deprecated `size_average` and
`reduce` are translated. Inputs of unequal shapes raise where PyTorch raises, and warn where it
warns (the errors of numbers, which broadcast).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.amp.casts import AUTOCAST, autocasts, casts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.nn.reduction import (
    Loss,
    WeightedLoss,
    in_dtype_of,
    pick_reduction,
    reduced,
    unsupported,
    warn_of_sizes,
    weighted,
)
from gpunn.ops._operands import check_tensors
from gpunn.ops._rows import half, same_device, several
from gpunn.ops.shape import broadcast_tensors
from gpunn.ops.transcend import exp
from gpunn.tensor import Tensor

# --- squared error ------------------------------------------------------------------------


@vjp((0, 1, None, None), name="MseLossBackward0")
def _mse_vjp(g: Any, x: Any, t: Any, scale: float, both: bool) -> Any:
    gx = (x - t) * (g * scale)
    return gx, (-gx if both else None)


def mse_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(input - target) ** 2, its mean or its sum.

    Shapes: both alike; others broadcast, with a warning, as in PyTorch.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.mse_loss.html

    >>> F.mse_loss(gpunn.tensor([1.0]), gpunn.tensor([3.0]))
    tensor(4.)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    check_tensors("mse_loss", input, target)
    if AUTOCAST:
        input, target, weight = casts("mse_loss", input, target, weight)
    x, t = input.array, target.array
    warn_of_sizes(input, target)
    if (
        x.shape != t.shape or x.dtype is not t.dtype or weight is not None or x.dtype.kind != "f"
        or half(x.dtype) or input.device is not target.device
    ):  # fmt: skip
        return _plain_mse(input, target, reduction, weight)
    d = x - t
    if reduction == "none":
        y, scale = d * d, 2.0
    else:
        flat = d.reshape(-1)
        y = flat @ flat
        scale = 2.0
        if reduction == "mean":
            y, scale = y / x.dtype.type(x.size), 2.0 / x.size if x.size else float("nan")
    saved = (x, t, scale, target._requires_grad)
    return result(y, input, _mse_vjp, (input, target), saved)


def _plain_mse(input: Tensor, target: Tensor, reduction: str, weight: Tensor | None) -> Tensor:
    same_device("mse_loss", (input, target))
    a, b = broadcast_tensors(input, target)
    losses = (a - b) ** 2  # type: ignore[operator]
    if weight is not None:
        return weighted(losses, weight, reduction, input)
    _refuse_others("mse", input, target)
    return reduced(losses, reduction)


# --- absolute, smooth and Huber's error ---------------------------------------------------


@autocasts("l1_loss")
def l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """|input - target|, its mean (by `weight` if given) or its sum.

    Shapes: both alike, and `weight`; others broadcast, with a warning, as in PyTorch.
    dtypes: floating and complex. ValueError for a weight of another shape.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.l1_loss.html

    >>> F.l1_loss(gpunn.tensor([1.0]), gpunn.tensor([3.0]))
    tensor(2.)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    check_tensors("l1_loss", input, target)
    warn_of_sizes(input, target)
    losses = (input - target).abs()  # type: ignore[operator]
    if weight is None:
        return reduced(losses, reduction)
    return weighted(losses, weight, reduction, input)


def _huber(a: Any, b: Any, delta: float, xp: Any) -> Any:
    size = abs(a - b)
    low = xp.minimum(size, delta)
    return (size - 0.5 * low) * low


@vjp((0, 1, None), masked=True, name="SmoothL1LossBackward0")
def _smooth_vjp(g: Any, a: Any, b: Any, beta: float, needs: tuple[bool, ...]) -> Any:
    gx = g * ns(a).clip((a - b) / beta, -1.0, 1.0)
    return gx, -gx if needs[1] else None


def _refuse_others(name: str, *tensors: Tensor) -> None:
    """PyTorch's error for integers and complex numbers."""
    if all(t.array.dtype.kind in "biu" for t in tensors):
        raise unsupported(f"{name}_cpu", tensors[0])
    for t in tensors:
        if t.array.dtype.kind == "c":
            raise unsupported(f"{name}_cpu", t)


@autocasts("smooth_l1_loss")
def smooth_l1_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", beta: float = 1.0,
) -> Tensor:  # fmt: skip
    """0.5 d^2 / beta for differences d below `beta`, |d| - 0.5 beta above.

    Shapes: both alike; others broadcast, with a warning, as in PyTorch. dtypes: floating.
    RuntimeError for a negative beta; `l1_loss` for 0.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.smooth_l1_loss.html
    (Girshick 2015, https://arxiv.org/abs/1504.08083)

    >>> F.smooth_l1_loss(gpunn.tensor([1.0, 1.0]), gpunn.tensor([1.5, 3.0]), reduction="none")
    tensor([0.1250, 1.5000])
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    check_tensors("smooth_l1_loss", input, target)
    warn_of_sizes(input, target)
    if beta == 0:
        return reduced((input - target).abs(), reduction)  # type: ignore[operator]
    if beta < 0:
        raise RuntimeError("smooth_l1_loss does not support negative values for beta.")
    _refuse_others("smooth_l1", input, target)
    losses = several(
        "smooth_l1_loss", (input, target), lambda a, b, xp: _huber(a, b, beta, xp) * (1 / beta),
        _smooth_vjp, (beta,),
    )  # fmt: skip
    return reduced(losses, reduction)


@vjp((0, 1, None), masked=True, name="HuberLossBackward0")
def _huber_vjp(g: Any, a: Any, b: Any, delta: float, needs: tuple[bool, ...]) -> Any:
    gx = g * ns(a).clip(a - b, -delta, delta)
    return gx, -gx if needs[1] else None


@autocasts("huber_loss")
def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0,
    weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """0.5 d^2 for differences d below `delta`, delta (|d| - 0.5 delta) above.

    Shapes: both alike, and `weight`; others broadcast, with a warning, as in PyTorch. The mean
    divides by the number of elements, weighted or not. dtypes: floating, the result has input's.
    RuntimeError for a delta that is not positive.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.huber_loss.html

    >>> F.huber_loss(gpunn.tensor([1.0, 1.0]), gpunn.tensor([1.5, 3.0]), reduction="none")
    tensor([0.1250, 1.5000])
    """
    reduction = pick_reduction(reduction, None, None)
    check_tensors("huber_loss", input, target)
    warn_of_sizes(input, target)
    if delta <= 0:
        raise RuntimeError("huber_loss does not support non-positive values for delta.")
    _refuse_others("huber", input)
    losses = several(
        "huber_loss", (input, target), lambda a, b, xp: _huber(a, b, delta, xp),
        _huber_vjp, (delta,),
    )  # fmt: skip
    losses = in_dtype_of(losses, input)
    if weight is None:
        return reduced(losses, reduction)
    return reduced(weighted(losses, weight, "none", input), reduction)


# --- binary cross entropy -----------------------------------------------------------------


@vjp((0, 1, None), name="BinaryCrossEntropyBackward0")
def _bce_vjp(g: Any, x: Any, t: Any, _: Any) -> Any:
    xp = ns(x)
    floor = xp.maximum((1 - x) * x, xp.full_like(x, 1e-12))
    logs = xp.log(1 - x) - xp.log(x)
    return g * (x - t) / floor, g * logs


@autocasts("binary_cross_entropy")
def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-(t log x + (1 - t) log(1 - x)) of probabilities x; the logarithms are at least -100.

    Shapes: both alike, ValueError otherwise. RuntimeError for x outside [0, 1]; on a GPU, which
    is not waited for, the loss is NaN then.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.binary_cross_entropy.html

    >>> F.binary_cross_entropy(gpunn.tensor([0.5]), gpunn.tensor([1.0]))
    tensor(0.6931)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    check_tensors("binary_cross_entropy", input, target)
    same_device("binary_cross_entropy", (input, target))
    if target.array.shape != input.array.shape:
        raise ValueError(
            f"Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}) is deprecated. Please ensure they have the same size."
        )
    x, t = input.array, target.array
    if x.dtype != t.dtype:
        raise RuntimeError(
            f"Found dtype {target.dtype.name.capitalize()} but expected "
            f"{input.dtype.name.capitalize()} (binary_cross_entropy)"
        )
    if type(x) is np.ndarray and not ((x >= 0) & (x <= 1)).all():
        raise RuntimeError("all elements of input should be between 0 and 1")
    xp = ns(x)
    wide = x.astype(F32) if half(x.dtype) else x
    goal = t.astype(wide.dtype)
    low = wide.dtype.type(-100)
    y = -(goal * xp.maximum(xp.log(wide), low) + (1 - goal) * xp.maximum(xp.log1p(-wide), low))
    losses = result(y.astype(x.dtype), input, _bce_vjp, (input, target), (x, t, None))
    if weight is not None:
        losses = losses * weight  # type: ignore[operator]
    return reduced(losses, reduction)


@vjp((0, 1), name="BinaryCrossEntropyWithLogitsBackward0")
def _bce_logits_vjp(g: Any, x: Any, t: Any) -> Any:
    xp = ns(x)
    s = xp.sigmoid(x) if isinstance(x, Tensor) else 1 / (1 + xp.exp(-x))
    return g * (s - t), -g * x


@autocasts("binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean", pos_weight: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """`binary_cross_entropy` of sigmoid(input), computed stably; `pos_weight` weighs positives.

    Shapes: both alike, ValueError otherwise.
    Source: https://docs.pytorch.org/docs/stable/generated/
    torch.nn.functional.binary_cross_entropy_with_logits.html

    >>> F.binary_cross_entropy_with_logits(gpunn.tensor([0.0]), gpunn.tensor([1.0]))
    tensor(0.6931)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    check_tensors("binary_cross_entropy_with_logits", input, target)
    if target.array.shape != input.array.shape:
        raise ValueError(
            f"Target size ({target.shape}) must be the same as input size ({input.shape})"
        )
    if pos_weight is not None:
        x, t = input, target
        scale = (pos_weight - 1) * t + 1  # type: ignore[operator]
        soft = exp(-x.abs()).log1p() + (-x).clamp(min=0)  # type: ignore[attr-defined, operator]
        losses = (1 - t) * x + scale * soft  # type: ignore[operator]
    elif input.array.dtype != target.array.dtype or half(input.array.dtype):
        x, t = input, target
        losses = (1 - t) * x + (exp(-x.abs()).log1p() + (-x).clamp(min=0))  # type: ignore[attr-defined, operator]
    else:
        a, b = input.array, target.array
        xp = ns(a)
        y = xp.maximum(a, a.dtype.type(0)) - a * b + xp.log1p(xp.exp(-abs(a)))
        losses = result(y, input, _bce_logits_vjp, (input, target), (a, b))
    if weight is not None:
        losses = losses * weight
    return reduced(losses, reduction)


# --- modules ------------------------------------------------------------------------------


class MSELoss(Loss):
    """The squared error: see `nn.functional.mse_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html

    >>> nn.MSELoss()(gpunn.tensor([1.0]), gpunn.tensor([3.0]))
    tensor(4.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return mse_loss(input, target, reduction=self.reduction)


class L1Loss(Loss):
    """The absolute error: see `nn.functional.l1_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.L1Loss.html

    >>> nn.L1Loss()(gpunn.tensor([1.0]), gpunn.tensor([3.0]))
    tensor(2.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return l1_loss(input, target, reduction=self.reduction)


class SmoothL1Loss(Loss):
    """The absolute error, squared below `beta`: see `nn.functional.smooth_l1_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SmoothL1Loss.html

    >>> nn.SmoothL1Loss()(gpunn.tensor([1.0]), gpunn.tensor([3.0]))
    tensor(1.5000)
    """

    def __init__(
        self, size_average: Any = None, reduce: Any = None, reduction: str = "mean",
        beta: float = 1.0,
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class HuberLoss(Loss):
    """Huber's error: see `nn.functional.huber_loss`. TypeError for a `delta` that is no number.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.HuberLoss.html

    >>> nn.HuberLoss(delta=2.0)(gpunn.tensor([1.0]), gpunn.tensor([4.0]))
    tensor(4.)
    """

    __constants__ = ["reduction", "delta"]

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        if not isinstance(delta, (float, int)):
            raise TypeError(f"delta must be a float or int, got: {type(delta)}")
        super().__init__(reduction=reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return huber_loss(input, target, reduction=self.reduction, delta=self.delta)


class BCELoss(WeightedLoss):
    """The binary cross entropy of probabilities: see `nn.functional.binary_cross_entropy`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BCELoss.html

    >>> nn.BCELoss()(gpunn.tensor([0.5]), gpunn.tensor([1.0]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(Loss):
    """The binary cross entropy of logits: `nn.functional.binary_cross_entropy_with_logits`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BCEWithLogitsLoss.html

    >>> nn.BCEWithLogitsLoss()(gpunn.tensor([0.0]), gpunn.tensor([1.0]))
    tensor(0.6931)
    """

    def __init__(
        self, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
        reduction: str = "mean", pos_weight: Tensor | None = None,
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight)
        self.weight: Tensor | None
        self.pos_weight: Tensor | None

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy_with_logits(
            input, target, self.weight, pos_weight=self.pos_weight, reduction=self.reduction
        )
