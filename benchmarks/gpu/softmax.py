"""Softmax and log-softmax: rows of 128 (attention) to 250,000 (vocabularies), and channels."""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.harness import Case, backward_of, draw

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_ROWS = [(400_000, 128), (64_000, 1000), (16_384, 4096), (4096, 16_000), (2048, 50_257),
         (512, 250_000)]  # fmt: skip


def _pair(name: str, shape: tuple[int, ...], axis: int, dtype: str) -> list[Case]:
    """Forward and backward of one shape."""
    size = _BYTES[dtype]
    for n in shape:
        size *= n
    label = f"{name} {'x'.join(map(str, shape))}, {dtype}"

    def call(T: Any, x: Any) -> Any:
        return getattr(T.nn.functional, name)(x, axis)

    def forward(T: Any) -> Any:
        x = draw(T, shape, dtype)
        return lambda: call(T, x)

    def backward(T: Any) -> Any:
        return backward_of(T, lambda x: call(T, x), draw(T, shape, dtype))

    return [
        Case(label, forward, moved_bytes=2 * size, dtype=dtype),
        Case(f"{label} back", backward, moved_bytes=3 * size, dtype=dtype),
    ]


def cases(tiny: bool = False) -> list[Case]:
    """Rows of each length in both precisions; classes of images along dimension 1."""
    rows = [(5, 33), (2, 1100)] if tiny else _ROWS
    channels = (2, 5, 3, 7) if tiny else (32, 21, 256, 256)
    found = []
    for dtype in ("float32", "bfloat16"):
        for shape in rows:
            found += _pair("softmax", shape, -1, dtype)
        found += _pair("softmax", channels, 1, dtype)
    return found + _pair("log_softmax", rows[-1], -1, "float32")
