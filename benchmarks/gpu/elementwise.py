"""Activations, alone and after a bias (where PyTorch takes two passes, the sum and f)."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.harness import Case, backward_of, draw

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_ACTIVATIONS = {
    "gelu": lambda T, x: T.nn.functional.gelu(x),
    "gelu_tanh": lambda T, x: T.nn.functional.gelu(x, approximate="tanh"),
    "silu": lambda T, x: T.nn.functional.silu(x),
}


def _alone(name: str, n: int, dtype: str) -> list[Case]:
    """Forward and backward of n elements."""

    def forward(T: Any) -> Any:
        x = draw(T, (n,), dtype)
        return lambda: _ACTIVATIONS[name](T, x)

    def backward(T: Any) -> Any:
        return backward_of(T, lambda x: _ACTIVATIONS[name](T, x), draw(T, (n,), dtype))

    size = n * _BYTES[dtype]
    return [
        Case(f"{name} {n}, {dtype}", forward, moved_bytes=2 * size, dtype=dtype),
        Case(f"{name} {n}, {dtype} back", backward, moved_bytes=3 * size, dtype=dtype),
    ]


def _after_bias(name: str, rows: int, n: int, dtype: str) -> Case:
    def build(T: Any) -> Any:
        x, bias = draw(T, (rows, n), dtype), draw(T, (n,), dtype, 1)
        if T.__name__ != "gpunn":
            return lambda: _ACTIVATIONS[name](T, x + bias)
        from gpunn.cuda.kernels import elementwise
        from gpunn.tensor import wrap

        return lambda: wrap(elementwise.bias_unary(name, x.array, bias.array), x.device)

    moved = 2 * rows * n * _BYTES[dtype]
    return Case(f"bias + {name} {rows}x{n}, {dtype}", build, moved_bytes=moved, dtype=dtype)


def cases(tiny: bool = False) -> list[Case]:
    """A large array in both precisions; the first half of a transformer's feed-forward layer."""
    n, (rows, width) = (100, (3, 16)) if tiny else (1 << 27, (16_384, 4096))
    found = []
    for dtype in ("float32", "bfloat16"):
        for name in _ACTIVATIONS:
            found += _alone(name, n, dtype)
        found.append(_after_bias("gelu", rows, width, dtype))
    return found
