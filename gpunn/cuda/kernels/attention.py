"""Attention through kernels/attention.cu and attention_backward.cu.

Query, key and value come with any leading dimensions that broadcast to the batch shape of `call`
(gpunn.nn.attention.Call); the kernels see (batch, heads, rows, width) with each head of key and value
shared by `call.group` heads of the query. Masks are passed with the strides 0 of what they repeat.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.autograd.graph import unbroadcast
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, Source

HEADS = (64, 128, 256)  # sizes of a head that the kernels are compiled for
_forward = Source("attention", T=FLOATS, HEAD=HEADS)
_backward = Source("attention_backward", T=FLOATS, HEAD=HEADS)

# `Problem` of attention.cuh.
_PROBLEM = np.dtype(
    [(name, "i8") for name in ("heads", "heads_of_a_batch", "group")]
    + [(name, "i8") for name in ("mask_batch", "mask_head", "mask_row", "mask_column")]
    + [(name, "u8") for name in ("seed", "counter", "bound")]
    + [("scale", "f8"), ("upscale", "f8")]
    + [(name, "i4") for name in ("rows", "columns", "width", "value_width", "causal", "drops")]
)


def threshold(keep: float) -> int:
    """The number that a random 32-bit word must be below for its weight to be kept."""
    return min(round(keep * 2**32), 2**32)


def attention_forward(q: Any, k: Any, v: Any, mask: Any, drop: Any, call: Any) -> Any:
    """(out, sums): the attention, and the log-sum-exp of each row for the backward pass.

    `mask`: None, bool or floating; `drop`: None or (seed, counter) of the dropout. None where the
    kernels do not serve the dtype or the size of a head.
    """
    if not _serves(q, v):
        return None
    shape = (*call.batch, q.shape[-2], v.shape[-1])
    setup = _Setup(q, k, v, mask, drop, call)
    out = launch.empty(shape, q.dtype)
    sums = launch.empty(shape[:-1], setup.acc)
    if out.size:
        setup.launch(_forward, "attention_forward", setup.row_tiles, *setup.inputs, out, sums)
    return out, sums


def attention_backward(
    dout: Any, q: Any, k: Any, v: Any, out: Any, sums: Any, mask: Any, drop: Any, call: Any,
    needs: tuple[bool, ...],
) -> tuple[Any, Any, Any]:  # fmt: skip
    """The gradients of query, key and value of `attention_forward`, None where not needed."""
    setup = _Setup(q, k, v, mask, drop, call)
    dout, rows = launch.contiguous(dout), math.prod(out.shape[:-1])
    delta = launch.empty(sums.shape, sums.dtype)
    dq, dk, dv = (
        launch.empty(x.shape, x.dtype) if needed and dout.size else launch.zeros(x.shape, x.dtype)
        for x, needed in zip(setup.qkv, needs, strict=True)
    )
    if dout.size:
        setup.kernel(_backward, "attention_delta")(
            launch.blocks(rows, 8), 256, (out, dout, delta, rows, out.shape[-1])
        )
        known = (*setup.inputs, dout, sums, delta)
        if needs[0]:
            setup.launch(_backward, "attention_query_grad", setup.row_tiles, *known, dq)
        if needs[1] or needs[2]:
            grads = (dk if needs[1] else None, dv if needs[2] else None)
            setup.launch(
                _backward, "attention_key_value_grad", setup.column_tiles, *known, *grads
            )
    return tuple(  # type: ignore[return-value]
        unbroadcast(g, x.shape) if needed else None
        for g, x, needed in zip((dq, dk, dv), (q, k, v), needs, strict=True)
    )


def _serves(q: Any, v: Any) -> bool:
    return q.dtype in FLOATS and 0 < q.shape[-1] <= HEADS[-1] and 0 < v.shape[-1] <= HEADS[-1]


class _Setup:
    """The arrays, sizes and launch shape of one attention."""

    def __init__(self, q: Any, k: Any, v: Any, mask: Any, drop: Any, call: Any):
        shared = (*call.batch[:-1], call.batch[-1] // call.group) if call.batch else ()
        self.qkv = _spread(q, call.batch), _spread(k, shared), _spread(v, shared)
        q, k, v = self.qkv
        self.dtype = q.dtype
        self.acc = np.dtype(np.float64 if q.dtype == np.float64 else np.float32)
        self.head = next(n for n in HEADS if n >= max(q.shape[-1], v.shape[-1]))
        problem = np.zeros((), _PROBLEM)
        problem["heads"] = heads = math.prod(call.batch)
        problem["heads_of_a_batch"] = call.batch[-1] if call.batch else 1
        problem["group"], problem["scale"], problem["causal"] = call.group, call.scale, call.causal
        problem["rows"], problem["width"] = q.shape[-2:]
        problem["columns"], problem["value_width"] = v.shape[-2:]
        problem["upscale"] = 1.0
        if drop is not None:
            problem["drops"], problem["bound"] = 1, threshold(call.keep)
            problem["upscale"] = 1 / call.keep if call.keep else 0.0
            problem["seed"], problem["counter"] = drop
        mask = self._mask(mask, problem, (*call.batch, q.shape[-2], k.shape[-2]))
        self.inputs = (*self.qkv, *mask)
        self.problem = problem
        tile = 32 if self.acc == np.float64 else 64
        self.row_tiles = heads * -(-q.shape[-2] // tile)
        self.column_tiles = heads // call.group * -(-k.shape[-2] // tile)

    def _mask(self, mask: Any, problem: Any, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """(allow, bias), of which one or none is an array; its strides go into the problem."""
        if mask is None:
            return None, None
        lead = (1,) * (len(shape) - mask.ndim) + mask.shape[:-2]
        if mask.ndim < 2:
            mask = mask.reshape((1,) * (2 - mask.ndim) + mask.shape)
            lead = (1,) * (len(shape) - 2)
        outer = lead[:-1]  # the batches: all of them or one, else the mask is repeated
        if any(n != 1 for n in outer) and outer != shape[:-3]:
            outer = shape[:-3]
            mask = _spread(mask.reshape(lead + mask.shape[-2:]), (*outer, lead[-1]))
        sizes = (math.prod(outer), lead[-1] if lead else 1, *mask.shape[-2:])
        steps = [math.prod(sizes[i + 1 :]) if n > 1 else 0 for i, n in enumerate(sizes)]
        for name, step in zip(("batch", "head", "row", "column"), steps, strict=True):
            problem[f"mask_{name}"] = step
        if mask.dtype == np.bool_:
            return launch.contiguous(mask).view(np.uint8), None
        return None, launch.contiguous(mask.astype(self.acc, copy=False))

    def kernel(self, source: Source, name: str) -> Any:
        return source.get(name, T=self.dtype, HEAD=self.head)

    def launch(self, source: Source, name: str, tiles: int, *arrays: Any) -> None:
        self.kernel(source, name)(launch.blocks(tiles, 1), 256, (*arrays, self.problem))


def _spread(x: Any, lead: tuple[int, ...]) -> Any:
    """x with the leading dimensions `lead`, contiguous; copied only where it must be."""
    shape = lead + x.shape[-2:]
    if x.shape != shape:
        wide = launch.empty(shape, x.dtype)
        wide[...] = x
        x = wide
    return launch.contiguous(x)
