"""Attention's forward and backward pass in NumPy, a block of scores at a time.

A block fits into the cache and two numbers of each row are kept for the backward pass, which
computes the weights again: memory is linear in the lengths. `call` is a
gpunn.nn.attention.Call.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from gpunn.autograd.graph import unbroadcast
from gpunn.dtypes import F32
from gpunn.nn.attention_dropout import MARK, Redrawn
from gpunn.ops._rows import half

_BLOCK = 1 << 18  # scores computed at a time


def attention_forward(
    q: Any, k: Any, v: Any, mask: Any, drop: Any, call: Any
) -> tuple[np.ndarray, np.ndarray]:
    """(out, stats): as gpunn.native.attention_forward.

    `mask`: None, bool or floating; `drop`: None, the bools of the weights that are kept, or a
    Redrawn.
    """
    dtype, shape = q.dtype, (*call.batch, q.shape[-2], v.shape[-1])
    q, k, v = _flat(q, call, False) * call.scale, _flat(k, call, True), _flat(v, call, True)
    masked = None if mask is None else _Mask(mask, call.batch)
    out = np.empty((len(q), q.shape[1], v.shape[2]), q.dtype)
    stats = np.empty((2, len(q), q.shape[1], 1), q.dtype)
    for heads, rows in _blocks(len(q), q.shape[1], k.shape[1]):
        weights = _scores(q, k, masked, heads, rows, call.causal)
        top = weights.max(axis=2, keepdims=True)
        dead = top == -np.inf
        np.copyto(top, 0, where=dead)
        weights -= top
        np.exp(weights, out=weights)
        total = weights.sum(axis=2, keepdims=True)
        np.copyto(total, np.inf, where=dead)
        stats[0, heads, rows] = top
        np.divide(1, total, out=stats[1, heads, rows])
        if drop is not None:
            weights *= _kept(drop, heads, rows, weights.shape[2])
        np.matmul(weights, v[heads, : weights.shape[2]], out=out[heads, rows])
        out[heads, rows] *= stats[1, heads, rows]
    if drop is not None and call.keep:
        out /= out.dtype.type(call.keep)
    return out.reshape(shape).astype(dtype, copy=False), stats.reshape(2, *shape[:-1])


def attention_backward(
    g: Any, q: Any, k: Any, v: Any, out: Any, stats: Any, mask: Any, drop: Any, call: Any
) -> tuple[Any, Any, Any]:
    """The gradients of query, key and value of `attention_forward`."""
    like = q, k, v
    q, k, v = _flat(q, call, False) * call.scale, _flat(k, call, True), _flat(v, call, True)
    g, out = _flat(g, call, False), _flat(out, call, False)
    stats = stats.reshape(2, *out.shape[:2], 1)
    masked = None if mask is None else _Mask(mask, call.batch)
    dq, dk, dv = np.empty_like(q), np.zeros_like(k), np.zeros_like(v)
    for heads, rows in _blocks(len(q), q.shape[1], k.shape[1]):
        p = _scores(q, k, masked, heads, rows, call.causal)
        p -= stats[0, heads, rows]
        np.exp(p, out=p)
        p *= stats[1, heads, rows]
        seen, gb = slice(0, p.shape[2]), g[heads, rows]
        ds = np.matmul(gb, v[heads, seen].swapaxes(1, 2))
        used = p
        if drop is not None:
            factor = _kept(drop, heads, rows, p.shape[2]) * p.dtype.type(1 / (call.keep or 1))
            used = p * factor
            ds *= factor
        dv[heads, seen] += np.matmul(used.swapaxes(1, 2), gb)
        ds -= (gb * out[heads, rows]).sum(axis=2, keepdims=True)
        ds *= p
        np.matmul(ds, k[heads, seen], out=dq[heads, rows])
        dk[heads, seen] += np.matmul(ds.swapaxes(1, 2), q[heads, rows])
    dq *= q.dtype.type(call.scale)
    return (
        _unflat(dq, like[0], call, False), _unflat(dk, like[1], call, True),
        _unflat(dv, like[2], call, True),
    )  # fmt: skip


def _flat(x: Any, call: Any, grouped: bool) -> Any:
    """(heads, rows, width) of an array in which dimensions may be missing, and heads shared."""
    tail = x.shape[-2:]
    if grouped and call.group > 1:
        lead = (*call.batch[:-1], call.batch[-1] // call.group)
        x = np.broadcast_to(np.broadcast_to(x, lead + tail)[..., None, :, :],
                            (*lead, call.group, *tail))  # fmt: skip
    else:
        x = np.broadcast_to(x, call.batch + tail)
    return x.reshape(-1, *tail).astype(F32 if half(x.dtype) else x.dtype, copy=False)


def _unflat(g: Any, like: Any, call: Any, grouped: bool) -> Any:
    """The gradient of an array from that of its `_flat` form."""
    tail = like.shape[-2:]
    if grouped and call.group > 1:
        g = g.reshape(*call.batch[:-1], -1, call.group, *tail).sum(axis=-3)
    else:
        g = g.reshape(call.batch + tail)
    return unbroadcast(g, like.shape).astype(like.dtype, copy=False)


class _Mask:
    """A mask that is read a block at a time, and never repeated over its missing dimensions."""

    def __init__(self, mask: np.ndarray, batch: tuple[int, ...]):
        mask = mask.reshape((1,) * (len(batch) + 2 - mask.ndim) + mask.shape)
        lead = mask.shape[:-2]
        self.parts = mask.reshape(-1, *mask.shape[-2:])
        index = np.arange(len(self.parts)).reshape(lead)
        self.index = np.broadcast_to(index, batch).reshape(-1)

    def put_on(self, scores: np.ndarray, heads: slice, rows: slice) -> None:
        parts = self.parts if len(self.parts) == 1 else self.parts[self.index[heads]]
        if parts.shape[1] > 1:
            parts = parts[:, rows]
        if parts.dtype == np.bool_:
            np.copyto(scores, -np.inf, where=~parts)
        else:
            scores += parts


def _blocks(heads: int, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Slices of heads, or of the rows of one head from MARK to MARK, with about _BLOCK scores."""
    together = max(1, _BLOCK // max(rows * columns, 1))
    height = rows if together > 1 else max(1, _BLOCK // max(columns, 1) // MARK) * MARK
    for i in range(0, heads, together):
        for r in range(0, rows, height):
            yield slice(i, min(i + together, heads)), slice(r, min(r + height, rows))


def _scores(q: Any, k: Any, mask: _Mask | None, heads: slice, rows: slice, causal: bool) -> Any:
    """A block of masked scores; when causal only the columns that a row can see."""
    if causal:
        k = k[:, : rows.stop]
    scores = np.matmul(q[heads, rows], k[heads].swapaxes(1, 2))
    if causal:  # row by row: quicker than a masked write
        for i in range(min(scores.shape[1], scores.shape[2] - rows.start - 1)):
            scores[:, i, rows.start + i + 1 :] = -np.inf
    if mask is not None:
        mask.put_on(scores, heads, rows)
    return scores


def _kept(drop: Any, heads: slice, rows: slice, columns: int) -> Any:
    """Dropout's mask of a block."""
    if isinstance(drop, Redrawn):
        return drop.block(heads, rows)[..., :columns]
    return drop.reshape(-1, *drop.shape[-2:])[heads, rows, :columns]
