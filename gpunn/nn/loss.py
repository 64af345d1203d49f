"""Losses: cross entropy, negative log-likelihood, squared and binary errors.

`reduction` is "mean", "sum" or "none" everywhere; PyTorch's deprecated `size_average` and
`reduce` are translated. Losses of unequal shapes raise where PyTorch silently broadcasts only if
PyTorch raises, too; where PyTorch warns (MSE), this warns.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np


from gpunn import native
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.nn.module import Module
from gpunn.nn.softmax import log_softmax, softmax
from gpunn.ops._rows import half, same_device
from gpunn.ops.shape import broadcast_tensors
from gpunn.ops.transcend import exp
from gpunn.tensor import Tensor, wrap

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


# --- negative log-likelihood, cross entropy -----------------------------------------------


def _flat_classes(x: Any) -> Any:
    """(N, C, d...) as rows (N * d, C)."""
    if x.ndim == 2:
        return x
    xp = ns(x)
    return xp.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def _check_targets(input: Tensor, target: Tensor, weight: Tensor | None, name: str) -> None:
    x, t = input.array, target.array
    same_device(name, (input, target, weight))
    if t.dtype.kind not in "iu":
        raise RuntimeError(
            f"expected scalar type Long but found {target.dtype.name.capitalize()} ({name}: class "
            "indices must be integers)"
        )
    if x.ndim < 1:
        raise ValueError(f"Expected 1 or more dimensions (got {x.ndim})")
    if x.ndim > 1 and t.shape[:1] != x.shape[:1]:
        got = t.shape[0] if t.ndim else 1
        raise ValueError(
            f"Expected input batch_size ({x.shape[0]}) to match target batch_size ({got})."
        )
    wanted = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    if t.shape != wanted:
        raise RuntimeError(f"Expected target size {list(wanted)}, got {list(t.shape)}")
    if weight is not None and weight.dtype is not input.dtype:
        raise RuntimeError(
            f"expected scalar type {input.dtype.name.capitalize()} but found "
            f"{weight.dtype.name.capitalize()} ({name}: weight)"
        )
    classes = x.shape[1] if x.ndim > 1 else x.shape[0]
    if weight is not None and weight.array.shape != (classes,):
        raise RuntimeError(
            f"weight tensor should be defined either for all {classes} classes or no classes but "
            f"got weight tensor of shape: {list(weight.array.shape)}"
        )


def _rows(x: Any, t: Any, ignore_index: int) -> tuple[Any, Any, Any]:
    """(rows, targets, kept): logits as (n, C), targets flat, and which count."""
    rows = _flat_classes(x if x.ndim > 1 else x.reshape(1, -1))
    flat = t.reshape(-1)
    kept = flat != ignore_index
    classes = rows.shape[1]
    bad = kept & ((flat < 0) | (flat >= classes))
    if bad.any():
        at = int(bad.argmax())
        raise IndexError(f"Target {int(flat[at])} is out of bounds. ({classes} classes, element "
                         f"{at})")  # fmt: skip
    return rows, ns(x).where(kept, flat, 0), kept


@vjp((None,) * 6, name="NllLossBackward0")
def _nll_vjp(
    g: Any, shape: Any, targets: Any, share: Any, kept: Any, reduction: str, dt: Any
) -> Any:
    """-share at each target: the loss is linear in the log-probabilities."""
    from gpunn.ops.index import put
    classes = shape[1] if len(shape) > 1 else shape[0]
    xp = ns(targets)
    n = targets.size
    values = -share
    if isinstance(g, Tensor):
        spread = g.reshape(-1) * wrap(values, g.device)  # type: ignore[operator]
        rows = put(g.new_zeros((n, classes)), (xp.arange(n), targets), spread, False)  # type: ignore[attr-defined]
    else:
        rows = xp.zeros((n, classes), dt)
        rows[xp.arange(n), targets] = g.reshape(-1) * values
    if len(shape) <= 2:
        return rows.reshape(tuple(shape))
    rows = rows.reshape((shape[0], *shape[2:], classes))
    return rows.movedim(-1, 1) if isinstance(rows, Tensor) else xp.moveaxis(rows, -1, 1)  # type: ignore[attr-defined]


def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-input[target]: the negative log-likelihood of class indices.

    Shapes: input (N, C, ...) or (C,) log-probabilities, target (N, ...) or () int64.
    `weight` (C,) weighs classes (the mean divides by the sum of weights); `ignore_index` counts
    nowhere. IndexError for a target outside the classes.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.nll_loss.html

    >>> F.nll_loss(gpunn.tensor([[-1.0, -2.0]]), gpunn.tensor([1]))
    tensor(2.)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    _check_targets(input, target, weight, "nll_loss")
    x, t = input.array, target.array
    xp = ns(x)
    rows, targets, kept = _rows(x, t, ignore_index)
    wide = F32 if half(x.dtype) else x.dtype
    factor = xp.where(kept, 1 if weight is None else weight.array[targets], 0).astype(wide)
    losses = -rows[xp.arange(rows.shape[0]), targets].astype(wide) * factor
    losses = xp.where(kept, losses, wide.type(0))
    if reduction == "mean":
        total = factor.sum()
        y, share = losses.sum() / total, factor / total
    elif reduction == "sum":
        y, share = losses.sum(), factor
    else:
        y, share = losses.reshape(t.shape), factor
    y = np.asarray(y).astype(x.dtype) if type(x) is np.ndarray else y.astype(x.dtype)
    saved = (x.shape, targets, share.astype(x.dtype), kept, reduction, x.dtype)
    return result(y, input, _nll_vjp, (input,), saved)


@vjp((0, None, None, None), name="NllLossBackward0")
def _cross_entropy_vjp(g: Any, x: Any, targets: Any, share: Any, log_sum: Any) -> Any:
    """(softmax(x) - one_hot(target)) * share * g, in one array."""
    if isinstance(g, Tensor):
        return _cross_entropy_second(g, x, targets, share)
    xp = ns(x)
    rows = _flat_classes(x if x.ndim > 1 else x.reshape(1, -1))
    factor = g.reshape(-1) * share if g.ndim else share * g
    out = _class_gradients(rows, targets, log_sum, factor)
    if x.ndim <= 2:
        return out.reshape(x.shape)
    return xp.moveaxis(out.reshape((x.shape[0], *x.shape[2:], x.shape[1])), -1, 1)


def _class_losses(rows: Any, targets: Any) -> tuple[Any, Any]:
    """(the loss of each row (n,), the log-sum-exp of each row (n, 1))."""
    if type(rows) is np.ndarray:
        both = native.cross_entropy_forward(rows, targets.astype(np.int64, copy=False))
        if both is not None:
            return both[0], both[1].reshape(-1, 1)
    xp = ns(rows)
    top = rows.max(axis=1, keepdims=True) if rows.size else rows[:, :1]
    log_sum = xp.log(xp.exp(rows - top).sum(axis=1, keepdims=True)) + top
    return log_sum[:, 0] - rows[xp.arange(len(rows)), targets], log_sum


def _class_gradients(rows: Any, targets: Any, log_sum: Any, factor: Any) -> Any:
    """(softmax(rows) - one_hot(targets)) * factor, in one array."""
    if type(rows) is np.ndarray:
        found = native.cross_entropy_backward(
            rows, targets.astype(np.int64, copy=False), log_sum[:, 0], factor
        )
        if found is not None:
            return found
    xp = ns(rows)
    out = rows - log_sum
    xp.exp(out, out=out)
    out *= factor[:, None]
    out[xp.arange(targets.size), targets] -= factor
    return out


def _cross_entropy_second(g: Tensor, x: Tensor, targets: Any, share: Any) -> Tensor:
    """The same in recorded operations."""
    xp = x.device.xp
    rows = x.reshape(1, -1) if x.array.ndim == 1 else x  # type: ignore[operator]
    if x.array.ndim > 2:
        rows = x.movedim(1, -1).reshape(-1, x.array.shape[1])  # type: ignore[attr-defined]
    hot = xp.zeros(rows.array.shape, x.array.dtype)
    hot[xp.arange(targets.size), targets] = 1
    factor = g.reshape(-1) * wrap(share, x.device)  # type: ignore[operator]
    out = (softmax(rows, 1) - wrap(hot, x.device)) * factor.unsqueeze(1)  # type: ignore[operator]
    if x.array.ndim <= 2:
        return out.reshape(x.array.shape)
    shape = x.array.shape
    return out.reshape(shape[0], *shape[2:], shape[1]).movedim(-1, 1)


def cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """The cross entropy of logits with class indices, or with class probabilities.

    Shapes: input (N, C, ...) or (C,) logits; target (N, ...) or () int64, or input's shape and
    floating. `weight` (C,), `ignore_index` and `label_smoothing` as in PyTorch.
    IndexError for a target outside the classes.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.cross_entropy.html

    >>> F.cross_entropy(gpunn.zeros(1, 2), gpunn.tensor([0]))
    tensor(0.6931)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(
            f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}"
        )
    axis = 1 if input.array.ndim > 1 else 0
    soft = target.array.shape == input.array.shape and target.dtype.is_floating_point
    if soft and input.array.ndim and ignore_index >= 0:
        raise RuntimeError("ignore_index is not supported for floating point target")
    if target.array.dtype.kind not in "iu" or target.array.shape == input.array.shape:
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing, axis)
    if label_smoothing:
        return _smoothed(input, target, weight, ignore_index, reduction, label_smoothing, axis)
    if weight is not None or half(input.array.dtype) or input.array.dtype.kind != "f":
        return nll_loss(
            log_softmax(input, axis), target, weight, None, ignore_index, None, reduction
        )
    return _fused_cross_entropy(input, target, ignore_index, reduction, axis)


def _fused_cross_entropy(
    input: Tensor, target: Tensor, ignore_index: int, reduction: str, axis: int
) -> Tensor:
    """Class indices without weights: the gradient needs no log-softmax in memory."""
    _check_targets(input, target, None, "cross_entropy")
    x, t = input.array, target.array
    xp = ns(x)
    rows, targets, kept = _rows(x, t, ignore_index)
    n = rows.shape[0]
    losses, log_sum = _class_losses(rows, targets)
    whole = bool(kept.all())
    if not whole:
        losses = xp.where(kept, losses, x.dtype.type(0))
    share = kept.astype(x.dtype)
    if reduction == "mean":
        count = x.dtype.type(n if whole else int(kept.sum()))
        y, share = losses.sum() / count, share / count
    elif reduction == "sum":
        y = losses.sum()
    else:
        y = losses.reshape(t.shape)
    saved = (x, targets, share, log_sum)
    made = result(y, input, _cross_entropy_vjp, (input,), saved)
    return made


def _soft_cross_entropy(
    input: Tensor, target: Tensor, weight: Any, reduction: str, smoothing: float, axis: int
) -> Tensor:
    if target.array.shape != input.array.shape:
        raise RuntimeError(
            f"Expected target of shape {list(input.array.shape)} for class probabilities, got "
            f"{list(target.array.shape)} (cross_entropy)"
        )
    if not target.dtype.is_floating_point:
        raise RuntimeError(
            "Expected floating point type for target with class probabilities, got "
            f"{target.dtype.name.capitalize()}"
        )
    classes = input.array.shape[axis]
    if smoothing:
        target = target * (1 - smoothing) + smoothing / classes  # type: ignore[operator]
    losses = -(log_softmax(input, axis) * target)  # type: ignore[operator]
    if weight is not None:
        shape = [1] * input.array.ndim
        shape[axis] = classes
        losses = losses * weight.reshape(shape)
    losses = losses.sum(axis)
    if reduction == "mean":
        n = input.array.size // classes if classes else 0
        return losses.sum() / (n if input.array.ndim > 1 else 1)
    return reduced(losses, reduction)


def _smoothed(
    input: Tensor, target: Tensor, weight: Any, ignore_index: int, reduction: str,
    smoothing: float, axis: int,
) -> Tensor:  # fmt: skip
    """(1 - s) * loss of the target + s / C * loss of every class."""
    logs = log_softmax(input, axis)
    loss = nll_loss(logs, target, weight, None, ignore_index, None, reduction)
    classes = input.array.shape[axis]
    if weight is not None:
        shape = [1] * input.array.ndim
        shape[axis] = classes
        spread = -(logs * weight.reshape(shape)).sum(axis)  # type: ignore[operator]
    else:
        spread = -logs.sum(axis)  # type: ignore[attr-defined]
    mask = wrap(target.array == ignore_index, input.device)
    spread = spread.masked_fill(mask, 0.0)
    if reduction == "mean":
        kept = ~mask.array
        if weight is None:
            count: Any = int(kept.sum())
        else:
            safe = ns(target.array).where(kept, target.array, 0)
            count = float((weight.array[safe] * kept).sum())
        spread = spread.sum() / count if count else spread.sum() * float("nan")
    else:
        spread = reduced(spread, reduction)
    return loss * (1 - smoothing) + spread * (smoothing / classes)  # type: ignore[operator]


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
    x, t = input.array, target.array
    if x.shape != t.shape:
        warnings.warn(
            f"Using a target size ({target.shape}) that is different to the input size "
            f"({input.shape}). This will likely lead to incorrect results due to broadcasting. "
            "Please ensure they have the same size.",
            stacklevel=2,
        )
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
    if weight is None:
        return reduced(losses, reduction)
    if weight.array.shape != losses.array.shape:
        raise ValueError("Weights and input must have the same size.")
    losses = losses * weight
    if reduction == "mean":
        return losses.sum() / weight.sum()  # type: ignore[attr-defined]
    return reduced(losses, reduction)


# --- binary cross entropy -----------------------------------------------------------------


@vjp((0, 1, None), name="BinaryCrossEntropyBackward0")
def _bce_vjp(g: Any, x: Any, t: Any, _: Any) -> Any:
    xp = ns(x)
    floor = xp.maximum((1 - x) * x, xp.full_like(x, 1e-12))
    logs = xp.log(1 - x) - xp.log(x)
    return g * (x - t) / floor, g * logs


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Tensor:  # fmt: skip
    """-(t log x + (1 - t) log(1 - x)) of probabilities x; the logarithms are at least -100.

    Shapes: both alike, ValueError otherwise. RuntimeError for x outside [0, 1].
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.binary_cross_entropy.html

    >>> F.binary_cross_entropy(gpunn.tensor([0.5]), gpunn.tensor([1.0]))
    tensor(0.6931)
    """
    reduction = pick_reduction(reduction, size_average, reduce)
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
    if not ((x >= 0) & (x <= 1)).all():
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


class _Loss(Module):
    reduction: str

    def __init__(self, size_average: Any = None, reduce: Any = None, reduction: str = "mean"):
        super().__init__()
        if size_average is not None or reduce is not None:
            reduction = legacy_reduction(size_average, reduce)
        self.reduction = reduction


class _WeightedLoss(_Loss):
    def __init__(
        self, weight: Tensor | None = None, size_average: Any = None, reduce: Any = None,
        reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        self.register_buffer("weight", weight)
        self.weight: Tensor | None


class NLLLoss(_WeightedLoss):
    """The negative log-likelihood of class indices: see `nn.functional.nll_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html

    >>> nn.NLLLoss()(gpunn.tensor([[-1.0, -2.0]]), gpunn.tensor([1]))
    tensor(2.)
    """

    __constants__ = ["ignore_index", "reduction"]

    def __init__(
        self, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100,
        reduce: Any = None, reduction: str = "mean",
    ):  # fmt: skip
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return nll_loss(
            input, target, weight=self.weight, ignore_index=self.ignore_index,
            reduction=self.reduction,
        )  # fmt: skip


class CrossEntropyLoss(_WeightedLoss):
    """The cross entropy of logits: see `nn.functional.cross_entropy`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html

    >>> nn.CrossEntropyLoss()(gpunn.zeros(1, 2), gpunn.tensor([0]))
    tensor(0.6931)
    """

    __constants__ = ["ignore_index", "reduction", "label_smoothing"]

    def __init__(
        self, weight: Tensor | None = None, size_average: Any = None, ignore_index: int = -100,
        reduce: Any = None, reduction: str = "mean", label_smoothing: float = 0.0,
    ):  # fmt: skip
        super().__init__(weight, size_average, reduce, reduction)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(
            input, target, weight=self.weight, ignore_index=self.ignore_index,
            reduction=self.reduction, label_smoothing=self.label_smoothing,
        )  # fmt: skip


class MSELoss(_Loss):
    """The squared error: see `nn.functional.mse_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MSELoss.html

    >>> nn.MSELoss()(gpunn.tensor([1.0]), gpunn.tensor([3.0]))
    tensor(4.)
    """

    __constants__ = ["reduction"]

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return mse_loss(input, target, reduction=self.reduction)


class BCELoss(_WeightedLoss):
    """The binary cross entropy of probabilities: see `nn.functional.binary_cross_entropy`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BCELoss.html

    >>> nn.BCELoss()(gpunn.tensor([0.5]), gpunn.tensor([1.0]))
    tensor(0.6931)
    """

    __constants__ = ["reduction"]

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return binary_cross_entropy(input, target, weight=self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(_Loss):
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


