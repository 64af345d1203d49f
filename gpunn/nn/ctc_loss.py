"""Connectionist temporal classification: label sequences without an alignment in time.

Forward and backward variables in logarithms, one step in time after another for the whole batch.
Source: Graves et al. 2006, https://www.cs.toronto.edu/~graves/icml_2006.pdf
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.nn.reduction import Loss, pick_reduction, reduced, unsupported
from gpunn.ops._rows import not_implemented, same_device
from gpunn.ops.accumulate import add_at
from gpunn.ops.bounds import bounded
from gpunn.ops.choose import where
from gpunn.tensor import Tensor, wrap

# --- arguments ----------------------------------------------------------------------------


def _lengths(name: str, given: Any, batch: int, most: int | None) -> np.ndarray:
    """The lengths of a batch, on the host; a device's tensor is waited for, as in PyTorch."""
    if isinstance(given, Tensor):
        if given.array.dtype.kind not in "iu":
            raise RuntimeError(f"{name} must be integral")
        given = given.cpu().array.reshape(-1)  # type: ignore[attr-defined]
    elif not isinstance(given, (tuple, list)):
        raise TypeError(
            f"ctc_loss(): argument '{name}' must be a Tensor or a tuple of ints, not "
            f"{type(given).__name__}"
        )
    lengths = np.asarray(given, np.int64)
    if lengths.shape != (batch,):
        raise RuntimeError(f"{name} must be of size batch_size")
    for wrong, how, limit in ((lengths < 0, "least", 0), (lengths > (most or 0), "most", most)):
        if limit is not None and wrong.any():
            raise RuntimeError(
                f"Expected {name} to have value at {how} {limit}, but got value "
                f"{int(lengths[wrong][0])} (while checking arguments for ctc_loss)"
            )
    return lengths


def _padded(targets: Any, lengths: np.ndarray) -> Any:
    """The labels as (N, S), from that or from one row after another; what is past a length is
    any label."""
    xp, n, longest = ns(targets), len(lengths), int(lengths.max(initial=0))
    if targets.ndim == 2:
        if targets.shape[0] != n:
            size, wanted, axis = targets.shape[0], str(n), 0
        elif targets.shape[1] < longest:
            size, wanted, axis = targets.shape[1], f"at least {longest}", 1
        else:
            return targets[:, :longest]
    elif targets.ndim != 1:
        raise RuntimeError(
            f"Expected 1 to 2 dimensions, but got {targets.ndim}-dimensional tensor for argument "
            "#2 'targets' (while checking arguments for ctc_loss)"
        )
    elif targets.shape[0] == lengths.sum():
        first = np.cumsum(lengths) - lengths
        at = np.minimum(first[:, None] + np.arange(longest), max(targets.shape[0] - 1, 0))
        return targets[xp.asarray(at)] if longest else targets.reshape(n, 0)
    else:
        size, wanted, axis = targets.shape[0], str(int(lengths.sum())), 0
    raise RuntimeError(
        f"Expected tensor to have size {wanted} at dimension {axis}, but got size {size} for "
        "argument #2 'targets' (while checking arguments for ctc_loss)"
    )


# --- the recursion ------------------------------------------------------------------------


def _path(targets: Any, lengths: np.ndarray, blank: int, classes: int) -> Any:
    """blank, label, blank, ..., label, blank: (N, 2 S + 1)."""
    labels = _padded(targets, lengths).astype(np.int64)
    xp = ns(labels)
    named = xp.asarray(np.arange(labels.shape[1]) < lengths[:, None])
    labels = bounded(
        "ctc_loss", xp.where(named, labels, blank), classes,
        lambda bad: IndexError(f"ctc_loss: target {bad} is out of bounds. ({classes} classes)"),
    )  # fmt: skip
    out = xp.full((len(lengths), 2 * labels.shape[1] + 1), blank, np.int64)
    out[:, 1::2] = labels
    return out


def _forward(logs: Any, path: Any) -> Any:
    """alpha[t, n, s]: the logarithm of the probability of all ways to be at s of the path at t.

    logs (T, N, S') are the log-probabilities of the labels of the path (N, S')."""
    xp = ns(logs)
    low = logs.dtype.type(-np.inf)
    skip = path[:, 2:] != path[:, :-2]  # over a blank between two labels that differ
    penalty = xp.where(skip, logs.dtype.type(0), low)
    alpha = xp.full(logs.shape, low, logs.dtype)
    alpha[0, :, :2] = logs[0, :, :2]
    for t in range(1, len(logs)):
        before, now = alpha[t - 1], alpha[t]
        now[...] = before
        now[:, 1:] = xp.logaddexp(now[:, 1:], before[:, :-1])
        now[:, 2:] = xp.logaddexp(now[:, 2:], before[:, :-2] + penalty)
        now += logs[t]
    return alpha


def _totals(alpha: Any, steps: np.ndarray, lengths: np.ndarray) -> Any:
    """-log of the probability of each target: its path ends in the last label or after it."""
    xp = ns(alpha)
    rows, last, end = (
        xp.asarray(k) for k in (np.arange(len(steps)), np.maximum(steps - 1, 0), 2 * lengths)
    )
    low = alpha.dtype.type(-np.inf)
    some = end > 0
    label = xp.where(some, alpha[last, rows, xp.maximum(end - 1, 0)], low)
    found = xp.logaddexp(alpha[last, rows, end], label)
    without_time = xp.where(some, low, alpha.dtype.type(0))
    return -xp.where(xp.asarray(steps > 0), found, without_time)


# --- the gradient -------------------------------------------------------------------------


def _backward(on_path: Any, path: Any, steps: np.ndarray, lengths: np.ndarray) -> Any:
    """beta[t, n, s]: the same from t to the end: `_forward` of each sample from end to start."""
    xp = ns(on_path)
    rows = xp.arange(len(steps))
    times, places = (
        xp.asarray(np.maximum(end[:, None] - np.arange(size), 0))
        for end, size in ((steps - 1, len(on_path)), (2 * lengths, path.shape[1]))
    )
    key = (times.T[:, :, None], rows[None, :, None], places[None])
    return _forward(on_path[key], path[rows[:, None], places])[key]


def _gradient(
    logs: Any, on_path: Any, path: Any, alpha: Any, totals: Any, steps: np.ndarray,
    lengths: np.ndarray,
) -> Any:  # fmt: skip
    """exp(logs) less the share of each class in the ways of a target; 0 past a sample's end."""
    xp, (time, n, classes) = ns(logs), logs.shape
    ways = alpha + _backward(on_path, path, steps, lengths) - on_path + totals[:, None]
    reached = xp.asarray(np.arange(path.shape[1]) <= 2 * lengths[:, None])
    share = xp.where(reached, xp.exp(ways), logs.dtype.type(0))
    spent = xp.zeros((time, n, classes), logs.dtype)
    spent += (totals * 0)[None, :, None]  # all NaN, as PyTorch, for an impossible target
    spent[:, xp.arange(n), path[:, 0]] += share[:, :, ::2].sum(axis=2)
    key = (xp.arange(time)[:, None, None], xp.arange(n)[None, :, None], path[None, :, 1::2])
    add_at(spent, key, share[:, :, 1::2])
    inside = xp.asarray(np.arange(time)[:, None] < steps)
    return xp.where(inside[:, :, None], xp.exp(logs) - spent, logs.dtype.type(0))


@vjp((0, None, None, None), name="CtcLossBackward0")
def _ctc_vjp(g: Any, logs: Any, totals: Any, kept: Any, zero_infinity: bool) -> Any:
    if isinstance(g, Tensor):
        found = _ctc_vjp(g.array, logs.array, totals, kept, zero_infinity)
        return result(found, g, not_implemented("_ctc_loss_backward"), (g, logs))
    on_path, path, alpha, steps, lengths = kept
    found = _gradient(logs, on_path, path, alpha, totals, steps, lengths) * g[:, None]
    if not zero_infinity:
        return found
    return ns(found).where((totals == np.inf)[:, None], found.dtype.type(0), found)


# --- the loss -----------------------------------------------------------------------------


@autocasts("ctc_loss")
def ctc_loss(
    log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Tensor:  # fmt: skip
    """-log of the probability that log_probs give a target, by whatever alignment in time.

    Shapes: log_probs (T, N, C) or (T, C), log-probabilities as of `log_softmax`; targets (N, S),
    or all labels in one dimension, there or on the CPU; the lengths (N,), tensors or tuples (a
    GPU's tensors are waited for, as in PyTorch). "mean" divides each loss by its target's length
    first. dtypes: float32, float64. `zero_infinity` makes impossible targets' losses and
    gradients 0.

    As in PyTorch, the gradient is that of the logits that a log-softmax made the log_probs of, and
    has no gradient itself. RuntimeError for lengths that do not fit, IndexError for a label
    outside the classes (PyTorch reads memory there).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.ctc_loss.html

    >>> x = gpunn.full((2, 1, 2), 0.5).log()
    >>> F.ctc_loss(x, gpunn.tensor([[1]]), (2,), (1,)).exp()  # 4 / 3: three of four alignments
    tensor(1.3333)
    """
    how = pick_reduction(reduction)
    if targets.device is not log_probs.device and targets.device.type == "cpu":
        targets = targets.to(log_probs.device)  # type: ignore[attr-defined]  # as for cuDNN
    same_device("ctc_loss", (log_probs, targets))
    if log_probs.ndim not in (2, 3):
        raise RuntimeError(
            f"ctc_loss: log_probs must be (T, N, C) or (T, C), got {list(log_probs.shape)}"
        )
    single = log_probs.ndim == 2
    logs = log_probs.unsqueeze(1) if single else log_probs  # type: ignore[attr-defined]
    x = logs.array
    if x.dtype.kind != "f" or x.dtype.itemsize == 2:
        raise unsupported("ctc_loss_cpu", log_probs)
    if not x.size:
        raise RuntimeError("log_probs tensor must not be empty")
    if not 0 <= blank < x.shape[2]:
        raise RuntimeError("blank must be in label range")
    steps = _lengths("input_lengths", input_lengths, x.shape[1], x.shape[0])
    lengths = _lengths("target_lengths", target_lengths, x.shape[1], None)
    path = _path(targets.array, lengths, blank, x.shape[2])
    on_path = x[:, ns(x).arange(x.shape[1])[:, None], path]
    alpha = _forward(on_path, path)
    totals = _totals(alpha, steps, lengths)
    kept = (on_path, path, alpha, steps, lengths)
    losses: Any = result(totals, logs, _ctc_vjp, (logs,), (x, totals, kept, zero_infinity))
    if zero_infinity:
        losses = where(losses == float("inf"), 0.0, losses)
    if how == "mean":
        share = logs.device.xp.asarray(np.maximum(lengths, 1).astype(x.dtype))
        return (losses / wrap(share, logs.device)).mean()
    return losses.squeeze(0) if single and how == "none" else reduced(losses, how)


class CTCLoss(Loss):
    """Sequences of labels without an alignment in time: see `nn.functional.ctc_loss`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CTCLoss.html

    >>> x = gpunn.full((2, 1, 2), 0.5).log()
    >>> nn.CTCLoss()(x, gpunn.tensor([[1]]), (2,), (1,))
    tensor(0.2877)
    """

    __constants__ = ["blank", "reduction"]

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False):
        super().__init__(reduction=reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any
    ) -> Tensor:
        return ctc_loss(
            log_probs, targets, input_lengths, target_lengths, self.blank, self.reduction,
            self.zero_infinity,
        )  # fmt: skip
