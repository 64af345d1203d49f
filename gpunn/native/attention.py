"""Scaled dot-product attention through kernels/attention.cpp: forward, gradients, dropout's mask.

Query, key and value come with any leading dimensions that broadcast to the batch shape of `call`
(gpunn.nn.attention.Call); the C++ code sees (batch, heads, rows, width), with the strides that the
arrays have. Each function returns None where the library has no answer: NumPy's turn.
"""

from __future__ import annotations

import ctypes
import math
from functools import lru_cache
from typing import Any

import numpy as np

from gpunn.autograd.graph import unbroadcast
from gpunn.dtypes import F32
from gpunn.native.loader import address, contiguous, function, optional

MARK = 64  # rows of a head from one kept state of the random stream to the next
STATE = 625  # numbers of a state

_FORWARD, _BACKWARD = "pppppp" + "ddi" + "pp", "pppppp" + "ddi" + "pp" + "pppp"


def attention_forward(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, mask: np.ndarray | None,
    drop: np.ndarray | None, call: Any,
) -> tuple[np.ndarray, np.ndarray] | None:  # fmt: skip
    """(out, stats): the attention; and for each row its greatest score and, by the sum of
    exp(score - greatest), one: (2, ..., rows), zeros where it may attend to nothing.

    `mask`: None, bool or floating; `drop`: None, the bools of the weights that dropout keeps, or
    the uint32 marks (gpunn.nn.attention_dropout) that they can be drawn from. The result lies in
    memory as q does: heads before rows, or rows before heads.
    """
    run = function("attention_forward", _FORWARD, _computed(q.dtype))
    if run is None:
        return None
    setup = _Setup(q, k, v, mask, drop, call)
    if setup.mask_kind is None:
        return None
    q4, dtype = setup.qkv[0], q.dtype
    rows = q.shape[-2]
    out = _empty((*q4.shape[:3], v.shape[-1]), q4, len(call.batch) < 3)
    stats = np.empty((2, *call.batch, rows), q4.dtype)
    if out.size:
        setup.call(run, out, stats)
    return out.reshape(*call.batch, *out.shape[2:]).astype(dtype, copy=False), stats


def attention_backward(
    dout: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, out: np.ndarray,
    stats: np.ndarray, mask: np.ndarray | None, drop: np.ndarray | None, call: Any,
    needs: tuple[bool, ...] = (True, True, True),
) -> tuple[np.ndarray | None, ...] | None:  # fmt: skip
    """The gradients of query, key and value of `attention_forward`, None where not needed."""
    run = function("attention_backward", _BACKWARD, _computed(q.dtype))
    if run is None:
        return None
    setup = _Setup(q, k, v, mask, drop, call)
    if setup.mask_kind is None:
        return None
    grads = [
        _empty(x.shape, x, len(call.batch) < 3) if needed else None
        for x, needed in zip(setup.qkv, needs, strict=True)
    ]
    if out.size:
        setup.call(run, _four(out, call.batch), contiguous(stats), _four(dout, call.batch), *grads)
    else:
        for grad in grads:
            if grad is not None:
                grad.fill(0)
    return tuple(
        None if g is None else unbroadcast(g.reshape(lead + g.shape[2:]), x.shape)
        .astype(x.dtype, copy=False)
        for g, x, lead in zip(grads, (q, k, v), setup.leads, strict=True)
    )  # fmt: skip


def attention_marks(state: np.ndarray, heads: int, rows: int, columns: int) -> np.ndarray | None:
    """`state` (uint32, 625) of MT19937 moved on by a mask; the states at every MARK of its rows.

    A mask has heads * rows * columns coins of two words each; the result is (heads,
    ceil(rows / MARK), 625).
    """
    run = function("attention_marks", "piiip")
    if run is None:
        return None
    marks = np.empty((heads, -(-rows // MARK), STATE), np.uint32)
    run(address(state), heads, rows, columns, address(marks))
    return marks


def _computed(dtype: np.dtype) -> np.dtype:
    """The dtype that is computed in: float32 for 16 bits."""
    return F32 if dtype.itemsize == 2 else dtype


def _empty(shape: tuple[int, ...], like: np.ndarray, free: bool) -> np.ndarray:
    """An array (batch, heads, rows, width); in memory rows before heads where `like` is so."""
    if free and like.shape[1] > 1 and 0 < like.strides[1] < like.strides[2]:
        b, h, rows, width = shape
        return np.empty((b, rows, h, width), like.dtype).transpose(0, 2, 1, 3)
    return np.empty(shape, like.dtype)


def _four(x: np.ndarray, lead: tuple[int, ...]) -> np.ndarray:
    """x as (batch, heads, rows, width) in the dtype computed in, its last dimension dense."""
    tail = x.shape[-2:]
    if x.shape[:-2] != lead:
        x = np.broadcast_to(x, lead + tail)
    if x.ndim != 4:
        x = x.reshape(math.prod(lead[:-1]), lead[-1] if lead else 1, *tail)
    if x.dtype.itemsize == 2:
        x = x.astype(F32)
    if x.strides[3] != x.itemsize and tail[1] > 1:
        x = np.ascontiguousarray(x)
    return x


def _at(x: np.ndarray | None) -> int | None:
    """Where an array of any strides begins."""
    return None if x is None else address(x) if x.flags.c_contiguous else x.ctypes.data


@lru_cache(maxsize=4096)
def _numbers(
    sizes: tuple[int, ...], itemsize: int, steps: tuple[Any, ...], mask: Any, kinds: tuple[int, int]
) -> ctypes.Array:
    """`Problem` of kernels/attention.cpp; kept, since a model asks for the same again."""
    strides = [[0] * 3 if s is None else [n // itemsize for n in s[:3]] for s in steps]
    strides += [[0] * 3] * (8 - len(strides))
    mask_item = 1 if kinds[0] == 1 else itemsize
    strides.append([0] * 4 if mask is None else [n // mask_item for n in mask])
    return (ctypes.c_int64 * 38)(*sizes, *(n for s in strides for n in s), *kinds)


class _Setup:
    """The arrays and sizes of one attention, as kernels/attention.cpp takes them."""

    def __init__(self, q: Any, k: Any, v: Any, mask: Any, drop: Any, call: Any):
        batch = call.batch
        shared = (*batch[:-1], batch[-1] // call.group) if batch else ()
        self.leads = batch, shared, shared
        q, k, v = self.qkv = _four(q, batch), _four(k, shared), _four(v, shared)
        self.sizes = (
            *q.shape[:2], call.group, q.shape[2], k.shape[2], q.shape[3], v.shape[3], call.causal,
        )  # fmt: skip
        self.scalars = call.scale, call.keep, math.ceil(math.ldexp(call.keep, 53))
        self.mask_kind: int | None = 0
        self.mask = self._mask(mask, (*batch, q.shape[2], k.shape[2]), q.dtype)
        self.drop = None if drop is None else contiguous(drop)

    def _mask(self, mask: Any, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        """The mask as (batch, heads, rows, columns) with strides of 0 where it is repeated."""
        if mask is None:
            return None
        self.mask_kind = 1 if mask.dtype == np.bool_ else 2
        if mask.dtype != np.bool_:
            mask = mask.astype(dtype, copy=False)
        mask = mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape)
        outer, inner = mask.shape[:-3], mask.shape[-3:]
        if outer == shape[:-3] or math.prod(outer) == 1:
            mask = mask.reshape((math.prod(outer), *((1,) * (3 - len(inner))), *inner))
            return np.broadcast_to(mask, (*self.sizes[:2], *shape[-2:]))
        self.mask_kind = None  # batches of several dimensions, repeated in some: NumPy's turn
        return None

    def call(self, run: Any, out: np.ndarray, stats: np.ndarray, *grads: Any) -> None:
        """Calls forward, or backward with dout, dq, dk and dv."""
        mask, drop = self.mask, self.drop
        steps = tuple([None if x is None else x.strides for x in (*self.qkv, out, *grads)])
        kinds = self.mask_kind or 0, 0 if drop is None else 1 if drop.dtype == np.bool_ else 2
        numbers = _numbers(
            self.sizes, out.itemsize, steps, None if mask is None else mask.strides, kinds
        )
        run(
            numbers, *map(_at, self.qkv), _at(mask), optional(drop), *self.scalars, _at(out),
            address(stats), *map(_at, grads),
        )  # fmt: skip
