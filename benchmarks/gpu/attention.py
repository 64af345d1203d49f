"""Attention: heads of 64 and 128, 1,024 to 8,192 tokens, against PyTorch's fused kernels.

PyTorch picks its own (FlashAttention for 16 bits, the memory-efficient one for float32); a few
cases compare with its plain composition ("math"). FLOPs: 4 rows columns width a head forward and 10
backward, half of that when causal; the tensor cores' peak is the limit for 16 bits.
"""

from __future__ import annotations

import contextlib
from typing import Any

from benchmarks.gpu.harness import Case, backward_of, draw

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_TOKENS = 16_384  # in all sequences of a batch together


def _attention(T: Any, causal: bool, math: bool) -> Any:
    """scaled_dot_product_attention; with `math` PyTorch must take its plain composition."""

    def call(q: Any, k: Any, v: Any) -> Any:
        with contextlib.ExitStack() as stack:
            if math:
                from importlib import import_module

                backends = import_module(f"{T.__name__}.nn.attention")
                stack.enter_context(backends.sdpa_kernel(backends.SDPBackend.MATH))
            return T.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return call


def _pair(
    shape: tuple[int, ...], dtype: str, causal: bool, math: bool = False
) -> list[Case]:
    """Forward and backward of one (batch, heads, tokens, size of a head)."""
    batch, heads, tokens, width = shape
    size = batch * heads * tokens * width * _BYTES[dtype]
    work = batch * heads * tokens * tokens * width * (0.5 if causal else 1)
    label = f"attention {'x'.join(map(str, shape))}, {dtype}"
    label += ", causal" * causal + ", PyTorch's math" * math

    def inputs(T: Any) -> list[Any]:
        return [draw(T, shape, dtype, seed) for seed in range(3)]

    def forward(T: Any) -> Any:
        f, (q, k, v) = _attention(T, causal, math), inputs(T)
        return lambda: f(q, k, v)

    def backward(T: Any) -> Any:
        return backward_of(T, _attention(T, causal, math), *inputs(T))

    return [
        Case(label, forward, moved_bytes=4 * size, flops=4 * work, dtype=dtype),
        Case(f"{label} back", backward, moved_bytes=8 * size, flops=10 * work, dtype=dtype),
    ]


def cases(tiny: bool = False) -> list[Case]:
    """Both sizes of heads at each length, with as many sequences as make _TOKENS tokens."""
    if tiny:
        shapes = [(1, 2, 70, 64), (1, 1, 40, 128)]
    else:
        shapes = [
            (_TOKENS // tokens, 2048 // width, tokens, width)
            for width in (64, 128) for tokens in (1024, 2048, 4096, 8192)
        ]  # fmt: skip
    found = []
    for shape in shapes:
        for dtype in ("float16", "bfloat16", "float32"):
            for causal in (False, True):
                if dtype == "float16" or shape[2] < 8192:
                    found += _pair(shape, dtype, causal)
    for shape in shapes[::4]:  # the scores of longer ones do not fit into memory
        found += _pair(shape, "float16", False, math=True)
    return found
