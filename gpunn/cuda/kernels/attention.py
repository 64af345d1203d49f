"""Attention through kernels/attention*.cu: on the tensor cores for 16-bit values where the device
has them and the shared memory that they need, else on the ordinary cores.

Query, key and value come with any leading dimensions that broadcast to the batch shape of `call`
(gpunn.nn.attention.Call); the kernels see (batch, heads, rows, width), with each head of key and
value shared by `call.group` heads of the query. Masks have strides of 0 where they are repeated.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.autograd.graph import unbroadcast
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, Source
from gpunn.dtypes import BF16

HEADS = (64, 128, 256)  # sizes of a head that the kernels are compiled for
_forward = Source("attention", T=FLOATS, HEAD=HEADS)
_backward = Source("attention_backward", T=FLOATS, HEAD=HEADS)

# On the tensor cores, by size of a head: (STRIPS, OTHERS), a block owns 64 STRIPS rows and OTHERS
# rows pass by at a time. The first is taken whose shared memory the device has.
_FORWARD_TILES = {64: ((2, 32),), 128: ((2, 32), (2, 16)), 256: ((1, 32), (1, 16))}
_BACKWARD_TILES = {64: ((2, 16),), 128: ((1, 32), (1, 16)), 256: ((1, 16),)}
_mma_forward = Source(
    "attention_mma", T=FLOATS[:2], HEAD=HEADS, STRIPS=(1, 2), OTHERS=(16, 32, 64),
    only=lambda choice: (choice["STRIPS"], choice["OTHERS"]) in _FORWARD_TILES[choice["HEAD"]],
)  # fmt: skip
_mma_backward = Source(
    "attention_mma_backward", T=FLOATS[:2], HEAD=HEADS, STRIPS=(1, 2), OTHERS=(16, 32, 64),
    only=lambda choice: (choice["STRIPS"], choice["OTHERS"]) in _BACKWARD_TILES[choice["HEAD"]],
)  # fmt: skip

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
        setup.launch(False, "attention_forward", 1, q.shape[-2], (*setup.inputs, out, sums))
    return out, sums


def attention_backward(
    dout: Any, q: Any, k: Any, v: Any, out: Any, sums: Any, mask: Any, drop: Any, call: Any,
    needs: tuple[bool, ...],
) -> tuple[Any, Any, Any]:  # fmt: skip
    """The gradients of query, key and value of `attention_forward`, None where not needed."""
    setup = _Setup(q, k, v, mask, drop, call)
    dout, rows = launch.contiguous(dout), math.prod(out.shape[:-1])
    delta = launch.empty(sums.shape, sums.dtype)
    make = launch.empty if dout.size else launch.zeros
    dq, dk, dv = (
        make(x.shape, x.dtype) if needed else None
        for x, needed in zip(setup.qkv, needs, strict=True)
    )
    if dout.size:
        _backward.get("attention_delta", T=q.dtype, HEAD=HEADS[0])(
            launch.blocks(rows, 8), 256, (out, dout, delta, rows, out.shape[-1])
        )
        known = (*setup.inputs, dout, sums, delta)
        if needs[0]:
            setup.launch(True, "attention_query_grad", 1, q.shape[-2], (*known, dq))
        if needs[1] or needs[2]:
            name, columns = "attention_key_value_grad", k.shape[-2]
            setup.launch(True, name, call.group, columns, (*known, dk, dv))
    return tuple(  # type: ignore[return-value]
        None if g is None else unbroadcast(g, x.shape)
        for g, x in zip((dq, dk, dv), (q, k, v), strict=True)
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
        problem["heads"] = math.prod(call.batch)
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

    def launch(self, backward: bool, name: str, sharing: int, rows: int, args: Any) -> None:
        """Launches a kernel for tiles of `rows` rows of each head, or of each group of heads."""
        heads = int(self.problem["heads"]) // sharing
        strips, others, shared = self._tensor_tiles(backward)
        if not strips:
            tile = 32 if self.acc == np.float64 else 64
            kernel = (_backward if backward else _forward).get(name, T=self.dtype, HEAD=self.head)
            kernel(launch.blocks(heads * -(-rows // tile), 1), 256, (*args, self.problem))
            return
        source = _mma_backward if backward else _mma_forward
        for part, used in self._parts(name.replace("attention", "attention_mma"), args):
            kernel = source.get(part, T=self.dtype, HEAD=self.head, STRIPS=strips, OTHERS=others)
            grid = launch.blocks(heads * -(-rows // (64 * strips)), 1)
            kernel(grid, 128, (*used, self.problem), shared=shared)

    def _parts(self, name: str, args: Any) -> Any:
        """(kernel, arguments): for large heads the gradients of key and value come one by one."""
        if self.head < 256 or not name.endswith("key_value_grad"):
            return [(name, args)]
        *known, dk, dv = args
        both = ("attention_mma_key_grad", dk), ("attention_mma_value_grad", dv)
        return [(part, (*known, grad)) for part, grad in both if grad is not None]

    def _tensor_tiles(self, backward: bool) -> tuple[int, int, int]:
        """(STRIPS, OTHERS, bytes of shared memory) on the tensor cores; zeros without."""
        least = {np.dtype(np.float16): (7, 5), BF16: (8, 0)}.get(self.dtype)
        if least is None or launch.capability() < least:
            return 0, 0, 0
        own, tiles = (128, _BACKWARD_TILES) if backward else (64, _FORWARD_TILES)
        for strips, others in tiles[self.head]:
            shared = (own * strips + 4 * others) * (self.head + 8) * 2
            if shared <= launch.shared_limit():
                return strips, others, shared
        return 0, 0, 0


def _spread(x: Any, lead: tuple[int, ...]) -> Any:
    """x with the leading dimensions `lead`, contiguous; copied only where it must be."""
    shape = lead + x.shape[-2:]
    if x.shape != shape:
        wide = launch.empty(shape, x.dtype)
        wide[...] = x
        x = wide
    return launch.contiguous(x)
