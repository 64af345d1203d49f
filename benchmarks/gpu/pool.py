"""kernels/pool.cu: the pooling layers of image networks, forward and backward.

Bytes: forward reads x and writes y; with a gradient to come also what won, which gpunn keeps in one
byte an entry and PyTorch in eight (only gpunn's is counted). Backward reads dy, and what won, and
writes dx.
"""

from __future__ import annotations

import math
from typing import Any

from benchmarks.gpu.harness import Case, backward_of, draw

SIZES = {"float32": 4, "float16": 2, "bfloat16": 2}

# name, function, its arguments, input, output of the spatial dimensions, bytes kept an entry
LAYERS = [
    ("max 3x3/2 ResNet stem", "max_pool2d", (3, 2, 1), (64, 64, 112, 112), (56, 56), 1),
    ("max 2x2 VGG", "max_pool2d", (2,), (64, 64, 224, 224), (112, 112), 1),
    ("max 3x3/1 Inception", "max_pool2d", (3, 1, 1), (64, 256, 28, 28), (28, 28), 1),
    ("max 2x2x2 volumes", "max_pool3d", (2,), (8, 64, 32, 56, 56), (16, 28, 28), 1),
    ("avg 2x2 DenseNet", "avg_pool2d", (2,), (64, 256, 56, 56), (28, 28), 0),
    ("avg 3x3/1 Inception", "avg_pool2d", (3, 1, 1), (64, 256, 28, 28), (28, 28), 0),
    ("avg 7x7 global", "avg_pool2d", (7,), (256, 2048, 7, 7), (1, 1), 0),
    ("adaptive avg 1x1", "adaptive_avg_pool2d", (1,), (256, 2048, 7, 7), (1, 1), 0),
    ("adaptive avg 7x7 of 16x16", "adaptive_avg_pool2d", (7,), (64, 512, 16, 16), (7, 7), 0),
    ("adaptive max 6x6 AlexNet", "adaptive_max_pool2d", (6,), (256, 256, 13, 13), (6, 6), 8),
]
TINY = {"max_pool3d": (1, 2, 8, 8, 8)}


def layer(name: str, f: str, options: Any, shape: Any, out: Any, kept: int, dtype: str) -> Any:
    """The two cases of a layer."""

    def function(T: Any) -> Any:
        return lambda x: getattr(T.nn.functional, f)(x, *options)

    def forward(T: Any) -> Any:
        x = draw(T, shape, dtype).requires_grad_(kept > 0)
        pool = function(T)
        return lambda: pool(x).detach()

    def backward(T: Any) -> Any:
        return backward_of(T, function(T), draw(T, shape, dtype))

    planes = math.prod(shape[: -len(out)])
    x, y = math.prod(shape), planes * math.prod(out)
    moved = (x + y) * SIZES[dtype] + y * kept
    return [Case(f"{name} {dtype}", forward, moved_bytes=moved, dtype=dtype),
            Case(f"{name} {dtype} back", backward, moved_bytes=moved, dtype=dtype)]  # fmt: skip


def cases(tiny: bool = False) -> list[Case]:
    found = []
    for name, f, options, shape, out, kept in LAYERS:
        if tiny:
            shape = TINY.get(f, (1, 2, 8, 8))
        for dtype in ("float32",) if tiny else ("float32", "float16", "bfloat16"):
            found += layer(name, f, options, shape, out, kept, dtype)
    return found
