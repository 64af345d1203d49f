"""Cross-entropy of classes: 10 and 1,000 of images, vocabularies of 32,000 and 250,000, pixels.

The bytes are those of the fused way: the logits are read once forward, and read and their gradient
written once backward.
"""

from __future__ import annotations

from typing import Any

from benchmarks.gpu.harness import Case, backward_of, draw, integers

_BYTES = {"bfloat16": 2, "float32": 4}
_SHAPES = [(65_536, 10), (8192, 1000), (8192, 32_000), (2048, 250_000), (16, 21, 256, 256)]


def _three(shape: tuple[int, ...], dtype: str, **options: Any) -> list[Case]:
    """Forward, backward and both together of one shape."""
    size = _BYTES[dtype]
    for n in shape:
        size *= n
    label = ", ".join(["x".join(map(str, shape)), *options, dtype])

    def inputs(T: Any) -> tuple[Any, Any]:
        return draw(T, shape, dtype), integers(T, shape[1], (shape[0], *shape[2:]))

    def loss(T: Any, x: Any, t: Any) -> Any:
        return T.nn.functional.cross_entropy(x, t, **options)

    def forward(T: Any) -> Any:
        x, t = inputs(T)
        return lambda: loss(T, x, t)

    def backward(T: Any) -> Any:
        x, t = inputs(T)
        return backward_of(T, lambda x: loss(T, x, t), x)

    def both(T: Any) -> Any:
        x, t = inputs(T)
        x.requires_grad_()
        return lambda: T.autograd.grad(loss(T, x, t), x)

    # In 16 bits PyTorch rounds the log-probabilities, gpunn only the loss and the gradient.
    loose = 4e-2 if dtype == "bfloat16" else None
    return [
        Case(label, forward, moved_bytes=size, dtype=dtype, tolerance=loose),
        Case(f"{label} back", backward, moved_bytes=2 * size, dtype=dtype, tolerance=loose),
        Case(f"{label} both", both, moved_bytes=3 * size, dtype=dtype, tolerance=loose),
    ]


def cases(tiny: bool = False) -> list[Case]:
    """Each shape in both precisions, and label smoothing over a vocabulary."""
    shapes = [(5, 10), (3, 2100), (2, 5, 3, 4)] if tiny else _SHAPES
    found = []
    for dtype in ("float32", "bfloat16"):
        for shape in shapes:
            found += _three(shape, dtype)
    return found + _three(shapes[1] if tiny else shapes[2], "float32", label_smoothing=0.1)
