"""kernels/conv*.cu: the convolutions of ResNet-50, and depthwise ones, in all three products.

A batch of 32 images of 224 x 224. Forward, input gradient and weight gradient apart, against
PyTorch, which uses cuDNN, without its search for the quickest algorithm unless
GPUNN_BENCH_SEARCH=1, which sets `backends.cudnn.benchmark` in both packages.
"""

from __future__ import annotations

import os
from typing import Any

from benchmarks.gpu.harness import Case, backward_of, draw

BATCH = 32
# channels, size, channels of the result, kernel, stride, groups
RESNET50 = {
    "stem 7x7/2": (3, 224, 64, 7, 2, 1),
    "56 1x1 64-64": (64, 56, 64, 1, 1, 1),
    "56 3x3 64": (64, 56, 64, 3, 1, 1),
    "56 1x1 64-256": (64, 56, 256, 1, 1, 1),
    "56 1x1 256-64": (256, 56, 64, 1, 1, 1),
    "56 1x1/2 256-512": (256, 56, 512, 1, 2, 1),
    "56 3x3/2 128": (128, 56, 128, 3, 2, 1),
    "28 1x1 128-512": (128, 28, 512, 1, 1, 1),
    "28 3x3 128": (128, 28, 128, 3, 1, 1),
    "28 1x1/2 512-1024": (512, 28, 1024, 1, 2, 1),
    "14 1x1 256-1024": (256, 14, 1024, 1, 1, 1),
    "14 3x3 256": (256, 14, 256, 3, 1, 1),
    "14 1x1 1024-256": (1024, 14, 256, 1, 1, 1),
    "7 1x1 512-2048": (512, 7, 2048, 1, 1, 1),
    "7 3x3 512": (512, 7, 512, 3, 1, 1),
}
DEPTHWISE = {
    "112 depthwise 3x3": (64, 112, 64, 3, 1, 64),
    "56 depthwise 3x3/2": (128, 56, 128, 3, 2, 128),
    "14 depthwise 5x5": (512, 14, 512, 5, 1, 512),
}
BYTES = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
PRODUCTS = ("forward", "dx", "dw")


def build(shape: tuple[int, ...], dtype: str, product: str, batch: int) -> Any:
    """Makes the tensors and the call of one product."""
    channels, size, out, kernel, stride, groups = shape

    def make(T: Any) -> Any:
        if os.environ.get("GPUNN_BENCH_SEARCH") == "1":
            T.backends.cudnn.benchmark = True
        per = channels // groups
        x = draw(T, (batch, channels, size, size), dtype)
        w = draw(T, (out, per, kernel, kernel), dtype, 1, (per * kernel * kernel) ** -0.5)

        def conv(x: Any, w: Any) -> Any:
            return T.nn.functional.conv2d(x, w, None, stride, kernel // 2, 1, groups)

        if product == "forward":
            return lambda: conv(x, w)
        if product == "dx":
            return backward_of(T, lambda x: conv(x, w), x)
        return backward_of(T, lambda w: conv(x, w), w)

    return make


def case(name: str, shape: tuple[int, ...], dtype: str, product: str, batch: int) -> Case:
    """A row: each array moved once, a multiplication and an addition for each tap and channel."""
    channels, size, out, kernel, stride, groups = shape
    made = (size - 1) // stride + 1
    weights = out * channels // groups * kernel * kernel
    numbers = batch * (channels * size * size + out * made * made) + weights
    flops = 2 * batch * made * made * weights
    return Case(f"{name} {product} {dtype}", build(shape, dtype, product, batch),
                numbers * BYTES[dtype], flops, dtype)  # fmt: skip


def cases(tiny: bool = False) -> list[Case]:
    """ResNet-50's shapes in each precision, depthwise ones in two."""
    if tiny:
        shapes = {"3x3/2": (3, 7, 4, 3, 2, 1), "1x1": (8, 4, 9, 1, 1, 1),
                  "depthwise": (4, 6, 4, 3, 1, 4)}  # fmt: skip
        return [case(n, s, d, p, 2) for n, s in shapes.items() for d in ("float32", "float16")
                for p in PRODUCTS]  # fmt: skip
    rows = [(n, s, d) for d in ("float16", "tf32", "float32") for n, s in RESNET50.items()]
    rows += [(n, s, d) for d in ("float16", "float32") for n, s in DEPTHWISE.items()]
    return [case(n, s, d, p, BATCH) for n, s, d in rows for p in PRODUCTS]
