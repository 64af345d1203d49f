"""Cross entropy and negative log-likelihood of classes.

Class indices take a fused path, on the CPU those without weights: the gradient needs no
log-softmax in memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import native
from gpunn.amp.casts import AUTOCAST, autocasts, casts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import cross_entropy as kernels
from gpunn.dtypes import F32
from gpunn.nn.reduction import WeightedLoss, check_batch, pick_reduction, reduced
from gpunn.nn.softmax import log_softmax, softmax
from gpunn.ops._operands import check_tensors, proper
from gpunn.ops._rows import half, same_device
from gpunn.tensor import Tensor, wrap


def _flat_classes(x: Any) -> Any:
    """(N, C, d...) as rows (N * d, C)."""
    if x.ndim == 2:
        return x
    xp = ns(x)
    return xp.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def _not_indices(target: Tensor, name: str) -> RuntimeError:
    return RuntimeError(
        f"expected target dtype to be Long or Byte, but got {proper(target.dtype)} ({name}: class "
        "indices must be integers, as target.long() gives)"
    )


def _check_targets(input: Tensor, target: Tensor, weight: Tensor | None, name: str) -> None:
    x, t = input.array, target.array
    same_device(name, (input, target, weight))
    if t.dtype.kind not in "iu":
        raise _not_indices(target, name)
    if x.ndim < 1:
        raise ValueError(f"Expected 1 or more dimensions (got {x.ndim})")
    if x.ndim > 1:
        check_batch(x.shape[0], t)
    wanted = x.shape[:1] + x.shape[2:] if x.ndim > 1 else ()
    if t.ndim > 1 and x.ndim < 3:
        raise RuntimeError(
            f"0D or 1D target tensor expected, multi-target not supported ({name}: input is "
            f"{list(x.shape)}, target {list(t.shape)} must be {list(wanted)})"
        )
    if t.shape != wanted:
        raise RuntimeError(f"Expected target size {list(wanted)}, got {list(t.shape)}")
    if weight is not None and weight.dtype is not input.dtype:
        raise RuntimeError(
            f"expected scalar type {proper(input.dtype)} but found {proper(weight.dtype)} "
            f"({name}: weight)"
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


@autocasts("nll_loss")
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
    check_tensors("nll_loss_nd", input, target)
    _check_targets(input, target, weight, "nll_loss")
    if type(input.array) is not np.ndarray:
        made = _on_gpu(
            kernels.nll_loss_forward, _gpu_nll_vjp, input, target, weight, ignore_index, reduction
        )
        if made is not None:
            return made
    return _nll_in_arrays(input, target, weight, ignore_index, reduction)


def _nll_in_arrays(
    input: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor:
    """`nll_loss` in array operations; on a GPU it waits, to look for targets out of range."""
    x, t = input.array, target.array
    xp = ns(x)
    rows, targets, kept = _rows(x, t, ignore_index)
    wide = F32 if half(x.dtype) else x.dtype
    factor = xp.where(kept, 1 if weight is None else weight.array[targets], 0).astype(wide)
    losses = -rows[xp.arange(rows.shape[0]), targets].astype(wide) * factor
    losses = xp.where(kept, losses, wide.type(0))
    if reduction == "mean":
        total = factor.sum()
        y, share = losses.sum() / total, xp.where(kept, factor / total, wide.type(0))
    elif reduction == "sum":
        y, share = losses.sum(), factor
    else:
        y, share = losses.reshape(t.shape), factor
    y = np.asarray(y).astype(x.dtype) if type(x) is np.ndarray else y.astype(x.dtype)
    saved = (x.shape, targets, share.astype(x.dtype), kept, reduction, x.dtype)
    return result(y, input, _nll_vjp, (input,), saved)


# --- on a GPU -----------------------------------------------------------------------------


def _on_gpu(
    forward: Any, rule: Any, input: Tensor, target: Tensor, weight: Tensor | None,
    ignore_index: int, reduction: str, *smoothing: float,
) -> Tensor | None:  # fmt: skip
    """The loss through a fused kernel; None where there is none for the dtype or the shape."""
    x, w = input.array, None if weight is None else weight.array
    found = forward(x, target.array, w, ignore_index, reduction, *smoothing)
    if found is None:
        return None
    y, call = found
    given = (target, weight, ignore_index, reduction, *smoothing)
    return result(y, input, rule, (input,), (x, call, given))


def _composed_nll(x: Tensor, call: Any, given: Any) -> Tensor:
    return _nll_in_arrays(x, *given)


@vjp((0, None, None), composed=_composed_nll, name="NllLossBackward0")
def _gpu_nll_vjp(g: Any, x: Any, call: Any, given: Any) -> Any:
    return kernels.nll_loss_backward(g, x, call)


def _composed_cross_entropy(x: Tensor, call: Any, given: Any) -> Tensor:
    axis = 1 if x.array.ndim > 1 else 0
    target, weight, ignore_index, reduction, smoothing = given
    if smoothing:
        return _smoothed(x, target, weight, ignore_index, reduction, smoothing, axis)
    return _nll_in_arrays(log_softmax(x, axis), target, weight, ignore_index, reduction)


@vjp((0, None, None), composed=_composed_cross_entropy, name="NllLossBackward0")
def _gpu_cross_entropy_vjp(g: Any, x: Any, call: Any, given: Any) -> Any:
    return kernels.cross_entropy_backward(g, x, call)


# --- cross entropy ------------------------------------------------------------------------


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
    check_tensors("cross_entropy_loss", input, target)
    if not 0.0 <= label_smoothing <= 1.0:
        raise RuntimeError(
            f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}"
        )
    if AUTOCAST:
        input, target, weight = casts("cross_entropy", input, target, weight)
    axis = 1 if input.array.ndim > 1 else 0
    soft = target.array.shape == input.array.shape and target.dtype.is_floating_point
    if soft and input.array.ndim and ignore_index >= 0:
        raise RuntimeError("ignore_index is not supported for floating point target")
    if target.array.dtype.kind not in "iu" or target.array.shape == input.array.shape:
        return _soft_cross_entropy(input, target, weight, reduction, label_smoothing, axis)
    if type(input.array) is not np.ndarray:
        _check_targets(input, target, weight, "cross_entropy")
        made = _on_gpu(
            kernels.cross_entropy_forward, _gpu_cross_entropy_vjp, input, target, weight,
            ignore_index, reduction, label_smoothing,
        )  # fmt: skip
        if made is not None:
            return made
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
        y, share = losses.sum() / count, share / (count or 1)
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
        if input.array.ndim > 1:
            check_batch(input.array.shape[0], target.array)
        if target.array.ndim < input.array.ndim:
            raise _not_indices(target, "cross_entropy")
        raise RuntimeError(
            f"Expected target of shape {list(input.array.shape)} for class probabilities, got "
            f"{list(target.array.shape)} (cross_entropy)"
        )
    if not target.dtype.is_floating_point:
        raise RuntimeError(
            "Expected floating point type for target with class probabilities, got "
            f"{proper(target.dtype)}"
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


# --- modules ------------------------------------------------------------------------------


class NLLLoss(WeightedLoss):
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


class CrossEntropyLoss(WeightedLoss):
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
