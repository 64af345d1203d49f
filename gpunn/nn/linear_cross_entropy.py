"""The cross entropy of a linear layer's logits, which are never all in memory.

With `options` the rows of the input go through the layer a chunk at a time; each chunk's logits
give its losses, and become its gradients at once where the loss is one number.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import needs, result, vjp
from gpunn.dtypes import F32
from gpunn.nn.cross_entropy import _class_gradients, _class_losses, cross_entropy
from gpunn.nn.linear import Linear, linear
from gpunn.nn.reduction import REDUCTIONS, WeightedLoss, check_batch
from gpunn.ops._rows import half, same_device
from gpunn.ops.bounds import bounded
from gpunn.ops.linalg import matmul_array
from gpunn.tensor import Tensor

# --- options ------------------------------------------------------------------------------

_LOGITS = 1 << 22  # in a chunk, at the least: fewer, and adding up the weight's gradient costs more


@dataclasses.dataclass(slots=True, frozen=True)
class LinearCrossEntropyOptions:
    """How `linear_cross_entropy` cuts its input into chunks of rows.

    `batch_chunk_size`: rows in a chunk. `chunking_method`: "aspect_ratio" makes a chunk's logits
    about as large as the input, "aspect_ratio:N" N times smaller; "auto" picks one, with 4 million
    logits or more. Sums are in float32 for 16-bit floats, and gradients stay for further backward
    passes: `acc_policy`, `acc_dtype` and `allow_retain_graph`, by which PyTorch saves memory or
    time, are checked and change nothing. ValueError for values that PyTorch does not know.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LinearCrossEntropyOptions.html

    >>> nn.LinearCrossEntropyOptions(batch_chunk_size=64).batch_chunk_size
    64
    """

    allow_retain_graph: bool = False
    batch_chunk_size: int | None = None
    chunking_method: str | None = "auto"
    acc_policy: str = "auto"
    acc_dtype: Any = None

    def __post_init__(self) -> None:
        size, method = self.batch_chunk_size, self.chunking_method
        if self.acc_policy not in ("auto", "accurate", "balanced", "compact"):
            raise ValueError(f"invalid acc_policy: {self.acc_policy!r}")
        if method not in (None, "auto"):
            name, colon, factor = method.partition(":")  # type: ignore[union-attr]
            factor = factor if colon else "1"
            if name != "aspect_ratio" or not factor.isdigit() or int(factor) < 1:
                raise ValueError(f"invalid chunking_method: {method!r}")
        if size is not None and not (isinstance(size, int) and size > 0):
            raise ValueError(f"batch_chunk_size must be positive int or None, got {size!r}")
        known = (None, dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64)
        if self.acc_dtype not in known:
            raise ValueError(
                "acc_dtype must be one of {None, torch.float16, torch.bfloat16, torch.float32, "
                f"torch.float64}}, got {self.acc_dtype!r}. Pass acc_dtype=None to let the op pick "
                "automatically."
            )

    def rows(self, count: int, features: int, classes: int, low: bool) -> int:
        """Rows in a chunk, of `count`; `low` says that they are 16-bit floats."""
        given, method, least = self.batch_chunk_size, self.chunking_method, 1
        if method == "auto":
            method = None if given is not None else "aspect_ratio" if low else "aspect_ratio:2"
            least = _LOGITS // classes
        if method is None:
            return max(1, min(given or count, count))
        target = -(-count // -(-classes // features))
        size = (1 << (target - 1).bit_length()) // int(method.partition(":")[2] or 1)
        size = max(1, min(max(size, least), count))
        if given is not None and given != size:
            raise ValueError(
                f"batch_chunk_size (={given}) and chunking_method ('{method}') give different "
                f"chunk sizes ({given} vs {size}); pass only one."
            )
        return size


# --- the chunks ---------------------------------------------------------------------------


@dataclasses.dataclass
class _Call:
    """One call: the targets, what each row's loss counts, rows in a chunk, the plain arguments."""

    at: Any
    share: Any
    size: int
    plain: dict[str, Any]


def _chunks(
    x: Any, w: Any, b: Any, call: _Call, factor: Any, wanted: tuple[bool, ...]
) -> tuple[Any, list[Any]]:
    """(the loss of each row, the gradients of sum(factor * losses) that are wanted)."""
    xp, narrow = ns(x), x.dtype
    wide = F32 if half(narrow) else narrow
    if type(x) is np.ndarray and half(narrow):  # NumPy multiplies in float32: once for all chunks
        x, w = x.astype(F32), w.astype(F32)
    losses = xp.empty(len(x), wide)
    grads: list[Any] = [
        xp.zeros(a.shape, wide) if want else None for a, want in zip((x, w, b), wanted, strict=True)
    ]
    for i in range(0, len(x), call.size):
        part = slice(i, i + call.size)
        rows, at = x[part], call.at[part]
        z = matmul_array(rows, w.T).astype(wide, copy=False)
        if b is not None:
            z += b
        losses[part], log_sum = _class_losses(z, at)
        if not any(wanted):
            continue
        z = _class_gradients(z, at, log_sum, factor[part])
        slope = z.astype(x.dtype, copy=False)
        if wanted[0]:
            grads[0][part] = matmul_array(slope, w)
        if wanted[1]:
            grads[1] += matmul_array(slope.T, rows)
        if wanted[2]:
            grads[2] += z.sum(axis=0)
    return losses, [None if g is None else g.astype(narrow, copy=False) for g in grads]


def _composed(x: Tensor, w: Tensor, b: Tensor | None, grads: Any, call: _Call) -> Tensor:
    return cross_entropy(linear(x, w, b), **call.plain)


@vjp((0, 1, 2, None, None), composed=_composed, masked=True, name="LinearCrossEntropyBackward0")
def _chunked_vjp(
    g: Any, x: Any, w: Any, b: Any, grads: Any, call: _Call, needs: tuple[bool, ...]
) -> Any:
    if grads is None:  # a loss for each row: what it counts is known only now
        grads = _chunks(x, w, b, call, call.share * g.astype(call.share.dtype), needs)[1]
        return tuple(grads)
    return tuple(None if a is None else a * g for a in grads)


def _chunked(
    input: Tensor, linear_weight: Tensor, bias: Tensor | None, target: Tensor,
    weight: Tensor | None, size: int, ignore_index: int, reduction: str,
) -> Tensor:  # fmt: skip
    """The loss of rows (N, in) with class indices (N,)."""
    x, t, classes = input.array, target.array, linear_weight.array.shape[0]
    check_batch(len(x), t)
    if t.ndim > 1:
        raise RuntimeError(f"Expected target size {[len(x)]}, got {list(t.shape)}")
    xp = ns(x)
    kept = t != ignore_index
    at = bounded(
        "linear_cross_entropy", xp.where(kept, t, 0), classes,
        lambda bad: IndexError(f"Target {bad} is out of bounds. ({classes} classes)"),
    )  # fmt: skip
    wide = F32 if half(x.dtype) else x.dtype
    share = kept.astype(wide) if weight is None else xp.where(
        kept, weight.array[at].astype(wide), wide.type(0)
    )  # fmt: skip
    if reduction == "mean":
        share = xp.where(kept, share / share.sum(), wide.type(0))
    plain = {
        "target": target, "weight": weight, "ignore_index": ignore_index, "reduction": reduction
    }  # fmt: skip
    call = _Call(at, share, size, plain)
    parents = (input, linear_weight, bias)
    arrays = (x, linear_weight.array, None if bias is None else bias.array)
    wanted = tuple(needs(p) and reduction != "none" for p in parents)
    losses, grads = _chunks(*arrays, call, share, wanted)
    losses = xp.where(kept, losses * share, wide.type(0))
    if reduction != "none":
        losses = losses.sum()
        if reduction == "mean":  # NaN where nothing counts
            losses = xp.where(kept.any(), losses, wide.type(np.nan))
    y = xp.asarray(losses).astype(x.dtype)
    saved = (*arrays, None if reduction == "none" else grads, call)
    return result(y, input, _chunked_vjp, parents, saved)


# --- the loss -----------------------------------------------------------------------------


def _check(x: Any, w: Any, b: Any) -> None:
    """RuntimeErrors for shapes (in,) or (N, in), (C, ..., in), (C, ...) that do not fit."""
    if not 1 <= len(x) <= 2:
        raise RuntimeError(f"expected input with dimensionality 1 or 2, got {len(x)}")
    if len(w) < 2:
        raise RuntimeError(
            f"expected linear_weight with dimensionality at least 2, got {len(w)}"
        )
    if x[-1] != w[-1]:
        raise RuntimeError(
            "expected equal input and linear_weight last dimensions (in_features), "
            f"got {x[-1]} and {w[-1]}, respectively"
        )
    if b is not None and b != w[:-1]:
        raise RuntimeError(f"expected linear_bias shape {w[:-1]}, got {b}")
    if len(w) > 2 and len(x) == 1:
        raise RuntimeError(
            f"K-dimensional loss defined by linear_weight shape {w} requires batched input, "
            f"(N, {x[-1]}), got unbatched input with shape {x}"
        )


def linear_cross_entropy(
    input: Tensor, linear_weight: Tensor, target: Tensor, *, linear_bias: Tensor | None = None,
    weight: Tensor | None = None, reduction: str = "mean", ignore_index: int | None = None,
    label_smoothing: float = 0.0, options: LinearCrossEntropyOptions | None = None,
) -> Tensor:  # fmt: skip
    """`cross_entropy(linear(input, linear_weight, linear_bias), target)`.

    With `options` the logits are made and forgotten a chunk of rows at a time, for class indices
    without label smoothing and `linear_weight` of two dimensions; others warn and take the plain
    way. Gradients of any order, and a second backward, work either way.
    Shapes: input (N, in) or (in,), linear_weight (C, ..., in), target (N, ...) or () int64 or
    probabilities (N, C, ...), `weight` (C,). RuntimeErrors for others, and for an ignore_index
    with probabilities.
    Source: https://docs.pytorch.org/docs/stable/generated/
    torch.nn.functional.linear_cross_entropy.html

    >>> options = nn.LinearCrossEntropyOptions(batch_chunk_size=1)
    >>> x, w = gpunn.ones(2, 3), gpunn.zeros(4, 3)
    >>> F.linear_cross_entropy(x, w, gpunn.tensor([0, 1]), options=options)
    tensor(1.3863)
    """
    shape, w = tuple(input.array.shape), tuple(linear_weight.array.shape)
    _check(shape, w, None if linear_bias is None else tuple(linear_bias.array.shape))
    same_device("linear_cross_entropy", (input, linear_weight, target, linear_bias, weight))
    outs = w[1:-1]
    logits_shape = (*shape[:-1], w[0], *outs)
    if target.array.shape == logits_shape and ignore_index is not None:
        raise RuntimeError("ignore_index cannot be specified when target contains probabilities")
    ignore_index = -100 if ignore_index is None else ignore_index
    if options is not None:
        if not (
            outs or reduction not in REDUCTIONS or label_smoothing or target.dtype != dtypes.int64
        ):  # fmt: skip
            rows, at = (input, target) if len(shape) == 2 else (
                input.reshape(1, -1), target.reshape(1)  # type: ignore[attr-defined]
            )  # fmt: skip
            size = options.rows(len(rows), w[-1], w[0], half(input.array.dtype))
            loss = _chunked(
                rows, linear_weight, linear_bias, at, weight, size, ignore_index, reduction
            )
            return loss.reshape(loss.array.shape[len(shape) == 1 :])  # type: ignore[attr-defined]
        warnings.warn(
            "linear_cross_entropy: ``options`` ignored; chunked path needs reduction in "
            "{'mean','sum','none'}, label_smoothing == 0, target.dtype == int64, "
            f"out_features == (). Got reduction={reduction!r}, label_smoothing={label_smoothing}, "
            f"target.dtype={target.dtype}, out_features={outs}",
            stacklevel=2,
        )
    bias: Any = linear_bias
    if outs:
        count = math.prod(w[:-1])
        linear_weight = linear_weight.reshape(count, w[-1])  # type: ignore[attr-defined]
        bias = None if bias is None else bias.reshape(count)
    logits = linear(input, linear_weight, bias).reshape(logits_shape)  # type: ignore[attr-defined]
    return cross_entropy(
        logits, target, weight, None, ignore_index, None, reduction, label_smoothing
    )


class LinearCrossEntropyLoss(WeightedLoss):
    """A linear layer and the cross entropy of its outputs: `nn.functional.linear_cross_entropy`.

    RuntimeError for a `weight` that is not (num_classes,) and for a label smoothing outside
    [0, 1].
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LinearCrossEntropyLoss.html

    >>> loss = nn.LinearCrossEntropyLoss(3, 4, options=nn.LinearCrossEntropyOptions())
    >>> loss(gpunn.ones(2, 3), gpunn.tensor([0, 1])).shape
    torch.Size([])
    """

    __constants__ = [
        "num_classes", "out_features", "reduction", "ignore_index", "label_smoothing"
    ]  # fmt: skip

    def __init__(
        self, in_features: int, num_classes: int, *, out_features: tuple[int, ...] = (),
        bias: bool = False, device: Any = None, dtype: Any = None, reduction: str = "mean",
        weight: Tensor | None = None, ignore_index: int | None = None,
        label_smoothing: float = 0.0, options: LinearCrossEntropyOptions | None = None,
    ):  # fmt: skip
        if weight is not None and tuple(weight.shape) != (num_classes,):
            raise RuntimeError(
                f"expected weight shape to be {(num_classes,)}, got {tuple(weight.shape)}"
            )
        if not 0 <= label_smoothing <= 1:
            raise RuntimeError(
                f"expected label_smoothing to be in range [0, 1], got {label_smoothing}"
            )
        super().__init__(weight, None, None, reduction)
        self.num_classes = num_classes
        self.out_features = out_features
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        count = math.prod(out_features, start=num_classes)
        self.linear = Linear(in_features, count, bias=bias, device=device, dtype=dtype)
        self.options = options

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return linear_cross_entropy(
            input, self.linear.weight.reshape(*shape, -1), target,
            linear_bias=None if bias is None else bias.reshape(shape), weight=self.weight,
            reduction=self.reduction, ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing, options=self.options,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (
            f"in_features={self.linear.in_features}, num_classes={self.num_classes}, "
            f"out_features={self.out_features}, bias={self.linear.bias is not None}, "
            f"reduction={self.reduction}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing}, options={self.options}"
        )
