"""Layer and RMS norm of rows of 256 to 16,384; group and batch norm of ResNet's shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from benchmarks.gpu.harness import Case, backward_of, draw

_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}
_ROWS = [(131_072, 256), (49_152, 768), (32_768, 1024), (16_384, 4096), (8192, 8192),
         (4096, 16_384)]  # fmt: skip
_IMAGES = [(64, 64, 112, 112), (64, 256, 56, 56), (64, 512, 28, 28), (64, 1024, 14, 14),
           (64, 2048, 7, 7)]  # fmt: skip


def _pair(name: str, shape: tuple[int, ...], weights: int, dtype: str, call: Any) -> list[Case]:
    """Forward and backward, with weight and bias; each array counts once."""
    size = _BYTES[dtype] * math.prod(shape)
    label = f"{name} {'x'.join(map(str, shape))}"

    def tensors(T: Any) -> tuple[Any, ...]:
        made = draw(T, shape, dtype), draw(T, (weights,), dtype, seed=1)
        return made if name == "rms_norm" else (*made, draw(T, (weights,), dtype, seed=2))

    def forward(T: Any) -> Callable[[], Any]:
        given = tensors(T)
        return lambda: call(T, *given)

    def backward(T: Any) -> Callable[[], Any]:
        return backward_of(T, lambda *given: call(T, *given), *tensors(T))

    return [
        Case(label, forward, moved_bytes=2 * size, dtype=dtype),
        Case(f"{label} back", backward, moved_bytes=3 * size, dtype=dtype),
    ]


def _layer(T: Any, x: Any, w: Any, b: Any) -> Any:
    return T.nn.functional.layer_norm(x, (x.shape[-1],), w, b)


def _rms(T: Any, x: Any, w: Any) -> Any:
    return T.nn.functional.rms_norm(x, (x.shape[-1],), w)


def _group(T: Any, x: Any, w: Any, b: Any) -> Any:
    return T.nn.functional.group_norm(x, x.shape[1] // 2 if x.shape[1] < 64 else 32, w, b)


def _batch(T: Any, x: Any, w: Any, b: Any) -> Any:
    return T.nn.functional.batch_norm(x, None, None, w, b, True)


def _evaluated(T: Any, x: Any, w: Any, b: Any) -> Any:
    mean, variance = b.detach(), w.detach() ** 2 + 0.5
    return T.nn.functional.batch_norm(x, mean, variance, w, b)


def cases(tiny: bool = False) -> list[Case]:
    """Rows in half and single precision; images in both; a batch of vectors."""
    rows = [(5, 33), (2, 1100)] if tiny else _ROWS
    images = [(2, 4, 3, 3), (2, 4, 4, 8)] if tiny else _IMAGES
    vectors = (9, 6) if tiny else (16_384, 4096)
    found = []
    for dtype in ("float32", "bfloat16"):
        for shape in rows:
            found += _pair("layer_norm", shape, shape[1], dtype, _layer)
            found += _pair("rms_norm", shape, shape[1], dtype, _rms)
        for shape in images:
            found += _pair("group_norm", shape, shape[1], dtype, _group)
            found += _pair("batch_norm", shape, shape[1], dtype, _batch)
        found += _pair("batch_norm", vectors, vectors[1], dtype, _batch)
    return found + _pair("batch_norm eval", images[0], images[0][1], "float32", _evaluated)
