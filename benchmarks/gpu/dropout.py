"""Dropout: x read, y written, no mask in memory.

The two packages draw different masks, so no results are compared here: the kernel's tests do that.
"""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.harness import Case, draw

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}


def _pair(n: int, dtype: str) -> list[Case]:
    """Forward and backward of n elements."""

    def forward(T: Any) -> Any:
        x = draw(T, (n,), dtype)

        def run() -> None:
            T.nn.functional.dropout(x, 0.1)

        return run

    def backward(T: Any) -> Any:
        x = draw(T, (n,), dtype).requires_grad_()
        y, dy = T.nn.functional.dropout(x, 0.1), draw(T, (n,), dtype, 1)

        def run() -> None:
            T.autograd.grad(y, x, dy, retain_graph=True)

        return run

    moved = 2 * n * _BYTES[dtype]
    return [
        Case(f"dropout {n}, {dtype}", forward, moved_bytes=moved, dtype=dtype),
        Case(f"dropout {n}, {dtype} back", backward, moved_bytes=moved, dtype=dtype),
    ]


def cases(tiny: bool = False) -> list[Case]:
    """A small and a large array in both precisions."""
    sizes = (100,) if tiny else (1 << 20, 1 << 27)
    return [case for dtype in ("float32", "bfloat16") for n in sizes for case in _pair(n, dtype)]
