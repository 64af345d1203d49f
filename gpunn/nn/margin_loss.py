"""Losses with a margin: nothing is paid for what is on the right side by more than that."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import needs, result, vjp
from gpunn.nn.loss import _bce_logits_vjp
from gpunn.nn.reduction import (
    Loss,
    WeightedLoss,
    in_dtype_of,
    pick_reduction,
    reduced,
    unsupported,
)
from gpunn.ops._rows import proper, same_device, several
from gpunn.ops.bounds import bounded
from gpunn.ops.choose import where
from gpunn.tensor import Tensor, wrap

# --- of pairs and of signs ----------------------------------------------------------------


@autocasts("margin_ranking_loss")
def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """max(-t (input1 - input2) + margin, 0): input1 should be larger where t is 1, less at -1.

    Shapes: three that broadcast, of as many dimensions; RuntimeError otherwise.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.margin_ranking_loss.html

    >>> F.margin_ranking_loss(gpunn.tensor([1.0]), gpunn.tensor([3.0]), gpunn.tensor([1.0]))
    tensor(2.)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    if not input1.ndim == input2.ndim == target.ndim:
        raise RuntimeError(
            "margin_ranking_loss : All input tensors should have same dimension but got sizes: "
            f"input1: {input1.shape}, input2: {input2.shape}, target: {target.shape} "
        )
    return reduced((-target * (input1 - input2) + float(margin)).clamp_min(0), reduction)


@autocasts("hinge_embedding_loss")
def hinge_embedding_loss(
    input: Any, target: Any, margin: float = 1.0, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """input where t is 1, max(margin - input, 0) where t is -1.

    Shapes: both alike, or two that broadcast.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.hinge_embedding_loss.html

    >>> F.hinge_embedding_loss(gpunn.tensor([0.25, 0.25]), gpunn.tensor([1, -1]), reduction="none")
    tensor([0.2500, 0.7500])
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    far = where(target != 1, (margin - input).clamp_min(0), 0.0)
    losses: Any = far + where(target != -1, input, 0.0)
    return reduced(losses, reduction)


def _soft_plus(x: Any, xp: Any) -> Any:
    """log(1 + exp(x)) for x however large."""
    return xp.maximum(x, x.dtype.type(0)) + xp.log1p(xp.exp(-abs(x)))


@vjp((0, 1), name="SoftMarginLossBackward0")
def _soft_margin_vjp(g: Any, x: Any, t: Any) -> Any:
    slope = -g / (1 + ns(x).exp(x * t))
    return slope * t, slope * x


@autocasts("soft_margin_loss")
def soft_margin_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """log(1 + exp(-t x)) of scores x and signs t.

    Finite where exp(-t x) is not, which makes PyTorch's inf. Shapes: both alike, or two that
    broadcast. dtypes: floating, the result has input's.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.soft_margin_loss.html

    >>> F.soft_margin_loss(gpunn.tensor([0.0]), gpunn.tensor([1.0]))
    tensor(0.6931)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    if input.array.dtype.kind in "biu":
        raise RuntimeError(
            "result type Float can't be cast to the desired output type " + proper(input.dtype)
        )
    losses = several(
        "soft_margin_loss", (input, target), lambda x, t, xp: _soft_plus(-x * t, xp),
        _soft_margin_vjp,
    )  # fmt: skip
    return reduced(in_dtype_of(losses, input), reduction)


def multilabel_soft_margin_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The mean over the classes (the last dimension) of the binary cross entropy of logits.

    Shapes: (..., C), target too; `weight` broadcasts. dtypes: floating.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.multilabel_soft_margin_loss.html

    >>> F.multilabel_soft_margin_loss(gpunn.zeros(1, 2), gpunn.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """
    if size_average is not None or reduce is not None:
        reduction = pick_reduction(reduction, size_average, reduce)
    elif reduction not in ("none", "mean", "sum"):
        raise ValueError(f"{reduction} is not valid")
    if input.array.dtype.kind in "biu":
        raise unsupported("log_sigmoid_cpu", input)
    losses: Any = several(
        "multilabel_soft_margin_loss", (input, target),
        lambda x, t, xp: _soft_plus(x, xp) - x * t, _bce_logits_vjp,
    )  # fmt: skip
    if weight is not None:
        losses = losses * weight
    return reduced(losses.sum(-1) / input.array.shape[-1], reduction)


# --- of angles ----------------------------------------------------------------------------


@autocasts("cosine_embedding_loss")
def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """1 - cos where t is 1, max(cos - margin, 0) where t is -1; cos of the last dimension.

    Shapes: (N, d) twice and target (N,), or (d,) twice and target (); RuntimeError for others.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cosine_embedding_loss.html

    >>> a, b = gpunn.tensor([[1.0, 0.0]]), gpunn.tensor([[0.0, 1.0]])
    >>> F.cosine_embedding_loss(a, b, gpunn.tensor([1]))
    tensor(1.)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    if target.ndim > 1:
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    if not input1.ndim == input2.ndim == target.ndim + 1:
        raise RuntimeError(
            f"{target.ndim}D target tensor expects {target.ndim + 1}D input tensors, but found "
            f"inputs with sizes {list(input1.shape)} and {list(input2.shape)}."
        )
    one, two = ((x * x).sum(-1) + 1e-12 for x in (input1, input2))
    cos = (input1 * input2).sum(-1) / (one * two).sqrt()
    near = where(target == 1, 1 - cos, 0.0)
    losses: Any = near + where(target == -1, (cos - margin).clamp_min(0), 0.0)
    return reduced(losses, reduction)


# --- of classes ---------------------------------------------------------------------------


def _rows(name: str, input: Tensor, target: Tensor) -> Any:
    """The scores as (N, C); RuntimeErrors for what the losses of classes do not take."""
    same_device(name, (input, target))
    x, d = input.array, input.array.dtype
    if x.ndim > 2 or (x.ndim and x.shape[-1] == 0):
        raise RuntimeError(
            "Expected non-empty vector or matrix with optional 0-dim batch size, but got: "
            f"{list(x.shape)}"
        )
    if target.array.dtype.name != "int64":
        raise RuntimeError(f"expected scalar type Long but found {proper(target.dtype)}")
    if d.kind != "f" or d.itemsize == 2:
        raise unsupported(name, input)
    return input if x.ndim == 2 else input.reshape(1, -1)  # type: ignore[attr-defined]


@autocasts("multi_margin_loss")
def multi_margin_loss(
    input: Tensor, target: Tensor, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
    size_average: Any = None, reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The sum over the other classes i of max(margin - x[t] + x[i], 0)^p, divided by C.

    Shapes: x (N, C) or (C,), target (N,) or () int64, `weight` (C,). dtypes: float32, float64.
    ValueError for p other than 1 and 2, RuntimeError for a target outside the classes.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.multi_margin_loss.html

    >>> F.multi_margin_loss(gpunn.tensor([[0.0, 0.5, 2.0]]), gpunn.tensor([1]))
    tensor(1.)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    if p not in (1, 2):
        raise ValueError("only p == 1 and p == 2 supported")
    if weight is not None and weight.ndim != 1:
        raise ValueError("weight must be one-dimensional")
    x = _rows("multi_margin_loss_cpu_kernel", input, target)
    n, classes = x.array.shape
    if target.array.size != n or target.ndim > 1:
        raise RuntimeError(
            "multi_margin_loss: target tensor should be 1-D with size equal to the number of input "
            f"samples (batch size). Expected target size [{n}], but got "
            f"{list(target.array.shape)}. Input has shape {list(input.array.shape)}."
        )
    if weight is not None and weight.array.shape != (classes,):
        raise RuntimeError(
            f"inconsistent weight size, expected {classes} but got {list(weight.array.shape)}"
        )
    at = bounded(
        "multi_margin_loss", target.array.reshape(-1), classes,
        lambda _: RuntimeError("target out of range"),
    )  # fmt: skip
    picked = wrap(at, input.device)
    losses = (margin - x.gather(1, picked.unsqueeze(1)) + x).relu() ** p  # type: ignore[attr-defined]
    if weight is not None:
        losses = losses * weight.index_select(0, picked).unsqueeze(1)  # type: ignore[attr-defined]
    own = wrap(x.device.xp.arange(classes) == at[:, None], input.device)
    losses = losses.masked_fill(own, 0).sum(1) / classes
    return reduced(losses.reshape(target.array.shape), reduction)


@vjp((None, None), name="MultilabelMarginLossBackward0")
def _slope_vjp(g: Any, slope: Any, shape: Any) -> Any:
    if isinstance(g, Tensor):
        slope = wrap(slope, g.device)
    return (g.reshape((-1, 1)) * slope).reshape(shape)


def _multilabel(x: Any, at: Any, named: Any, count: int, grad: bool) -> tuple[Any, Any]:
    """(the losses of rows x, their slopes if `grad`), one of `count` labels at a time."""
    xp = ns(x)
    rows = xp.arange(len(x))
    own = xp.zeros(x.shape, dtype=bool)
    for k in range(count):  # a label may be named twice, and before a slot that counts no more
        own[rows, at[:, k]] |= named[:, k]
    losses = xp.zeros(len(x), x.dtype)
    slope = xp.zeros_like(x) if grad else None
    share = x.dtype.type(1 / x.shape[1])
    for k in range(count):
        z = 1 - x[rows, at[:, k]][:, None] + x
        paid = (z > 0) & ~own & named[:, k, None]
        losses += xp.where(paid, z, x.dtype.type(0)).sum(axis=1) * share
        if grad:
            slope += paid * share
            slope[rows, at[:, k]] -= paid.sum(axis=1) * share
    return losses, slope


@autocasts("multilabel_margin_loss")
def multilabel_margin_loss(
    input: Tensor, target: Tensor, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """The sum over labels j and other classes i of max(1 - x[j] + x[i], 0), divided by C.

    Shapes: x (N, C) or (C,), target the same, int64: each row the labels, ended by -1 if they are
    fewer than C. dtypes: float32, float64. RuntimeError for a label outside the classes.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.multilabel_margin_loss.html

    >>> F.multilabel_margin_loss(gpunn.tensor([[0.0, 0.5, 2.0]]), gpunn.tensor([[2, -1, 0]]))
    tensor(0.)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    if target.array.shape != input.array.shape and not (target.ndim < 2 and input.ndim == 0):
        raise RuntimeError(
            f"inconsistent target size: {list(target.array.shape)} for input of size: "
            f"{list(input.array.shape)}"
        )
    x = _rows("multilabel_margin_loss_forward_out_frame", input, target).array
    classes = x.shape[1]
    labels = target.array.reshape(x.shape)
    at = bounded(
        "multilabel_margin_loss", labels, classes,
        lambda _: RuntimeError("argument #2 'target' is out of range"), below=1,
    )  # fmt: skip
    named = (labels < 0).cumsum(axis=1) == 0
    on_cpu = type(x) is np.ndarray  # elsewhere the host would have to wait for the count
    count = int(named.sum(axis=1).max(initial=0)) if on_cpu else classes
    y, slope = _multilabel(x, at, named, count, needs(input))
    if input.ndim < 2:
        y = y.reshape(())
    losses = result(y, input, _slope_vjp, (input,), (slope, input.array.shape))
    return reduced(losses, reduction)


# --- modules ------------------------------------------------------------------------------


class _MarginLoss(Loss):
    """A loss with a margin, 0 without a word of it."""

    __constants__ = ["margin", "reduction"]

    def __init__(
        self, margin: float = 0.0, size_average: Any = None, reduce: Any = None,
        reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.margin = margin


class MarginRankingLoss(_MarginLoss):
    """The hinge of the difference of two scores: see `nn.functional.margin_ranking_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MarginRankingLoss.html

    >>> nn.MarginRankingLoss()(gpunn.tensor([1.0]), gpunn.tensor([3.0]), gpunn.tensor([1.0]))
    tensor(2.)
    """

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return margin_ranking_loss(
            input1, input2, target, margin=self.margin, reduction=self.reduction
        )


class HingeEmbeddingLoss(Loss):
    """A distance, or its hinge: see `nn.functional.hinge_embedding_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.HingeEmbeddingLoss.html

    >>> nn.HingeEmbeddingLoss()(gpunn.tensor([0.25]), gpunn.tensor([-1]))
    tensor(0.7500)
    """

    __constants__ = ["margin", "reduction"]

    def __init__(
        self, margin: float = 1.0, size_average: Any = None, reduce: Any = None,
        reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return hinge_embedding_loss(input, target, margin=self.margin, reduction=self.reduction)


class SoftMarginLoss(Loss):
    """The logistic loss of signs: see `nn.functional.soft_margin_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SoftMarginLoss.html

    >>> nn.SoftMarginLoss()(gpunn.tensor([0.0]), gpunn.tensor([1.0]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return soft_margin_loss(input, target, reduction=self.reduction)


class CosineEmbeddingLoss(_MarginLoss):
    """The hinge of a cosine: see `nn.functional.cosine_embedding_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CosineEmbeddingLoss.html

    >>> a, b = gpunn.tensor([[1.0, 0.0]]), gpunn.tensor([[0.0, 1.0]])
    >>> nn.CosineEmbeddingLoss()(a, b, gpunn.tensor([1]))
    tensor(1.)
    """

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return cosine_embedding_loss(
            input1, input2, target, margin=self.margin, reduction=self.reduction
        )


class MultiLabelMarginLoss(Loss):
    """The hinge of labels and other classes: see `nn.functional.multilabel_margin_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiLabelMarginLoss.html

    >>> nn.MultiLabelMarginLoss()(gpunn.tensor([[0.0, 0.5, 2.0]]), gpunn.tensor([[2, -1, 0]]))
    tensor(0.)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(WeightedLoss):
    """Binary cross entropies of classes: see `nn.functional.multilabel_soft_margin_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiLabelSoftMarginLoss.html

    >>> nn.MultiLabelSoftMarginLoss()(gpunn.zeros(1, 2), gpunn.tensor([[1.0, 0.0]]))
    tensor(0.6931)
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multilabel_soft_margin_loss(
            input, target, weight=self.weight, reduction=self.reduction
        )


class MultiMarginLoss(WeightedLoss):
    """The hinge of a class and the others: see `nn.functional.multi_margin_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MultiMarginLoss.html

    >>> nn.MultiMarginLoss()(gpunn.tensor([[0.0, 0.5, 2.0]]), gpunn.tensor([1]))
    tensor(1.)
    """

    __constants__ = ["p", "margin", "reduction"]

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Tensor | None = None,
        size_average: Any = None, reduce: Any = None, reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(weight, size_average, reduce, reduction)
        if p not in (1, 2):
            raise ValueError("only p == 1 and p == 2 supported")
        if weight is not None and weight.ndim != 1:
            raise ValueError(
                f"MultiMarginLoss: expected weight to be None or 1D tensor, got {weight.ndim}D "
                "instead"
            )
        self.p = p
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return multi_margin_loss(
            input, target, p=self.p, margin=self.margin, weight=self.weight,
            reduction=self.reduction,
        )  # fmt: skip
