"""kernels/optim.cu: steps of Adam, AdamW and SGD and clipping, over the parameters of whole models.

Against PyTorch's fused steps and its foreach ones. The parameters are those of ResNet-50 (161
arrays, 25.6 million numbers) and of a transformer like GPT-2 small (148 arrays, 124 million).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from benchmarks.gpu import harness
from benchmarks.gpu.harness import Case, draw

BYTES = {"float32": 4, "bfloat16": 2}


def resnet50() -> list[tuple[int, ...]]:
    """The shapes of ResNet-50's parameters."""
    shapes: list[tuple[int, ...]] = [(64, 3, 7, 7), (64,), (64,)]
    inside = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            out = 4 * width
            convs = [(width, inside, 1, 1), (width, width, 3, 3), (out, width, 1, 1)]
            if block == 0:
                convs.append((out, inside, 1, 1))
            for conv in convs:
                shapes += [conv, (conv[0],), (conv[0],)]
            inside = out
    return [*shapes, (1000, 2048), (1000,)]


def transformer() -> list[tuple[int, ...]]:
    """The shapes of the parameters of a transformer with 12 layers of 768."""
    d = 768
    layer = [(d,), (d,), (3 * d, d), (3 * d,), (d, d), (d,), (d,), (d,), (4 * d, d), (4 * d,),
             (d, 4 * d), (d,)]  # fmt: skip
    return [(50257, d), (1024, d), *itertools.chain(*[layer] * 12), (d,), (d,)]


MODELS = {"ResNet-50": resnet50, "GPT-2 small": transformer}
TINY = [(3,), (2, 5), (70, 33)]


def parameters(T: Any, shapes: list[tuple[int, ...]], dtype: str) -> list[Any]:
    """Parameters with gradients."""
    params = [draw(T, s, dtype, seed=i, scale=1e-2) for i, s in enumerate(shapes)]
    for i, p in enumerate(params):
        p.requires_grad_()
        p.grad = draw(T, p.shape, dtype, seed=1000 + i)
    return params


def step_of(name: str, shapes: list[tuple[int, ...]], dtype: str, **options: Any) -> Any:
    """Builds a step of an optimizer; its result: the first arrays, which a step changes by much."""
    how = {option: options.pop(option) for option in ("fused", "foreach") if option in options}

    def build(T: Any) -> Any:
        params = parameters(T, shapes, dtype)
        on_gpu = harness.DEVICE == "cuda"  # PyTorch's fused SGD is wrong for bfloat16 on the CPU
        ways = how if T.__name__ == "torch" and on_gpu else {}
        optimizer = getattr(T.optim, name)(params, lr=1e-2, **options, **ways)

        def step() -> Any:
            optimizer.step()
            return params[:8]

        return step

    return build


def clip_of(shapes: list[tuple[int, ...]], dtype: str, max_norm: float) -> Any:
    """Builds clipping to a norm; PyTorch's is the foreach one."""

    def build(T: Any) -> Any:
        params = parameters(T, shapes, dtype)
        return lambda: [T.nn.utils.clip_grad_norm_(params, max_norm)]

    return build


def clip_values_of(shapes: list[tuple[int, ...]], dtype: str) -> Any:
    """Builds clipping of each element."""

    def build(T: Any) -> Any:
        params = parameters(T, shapes, dtype)

        def clip() -> Any:
            T.nn.utils.clip_grad_value_(params, 0.5)
            return [p.grad for p in params[:8]]

        return clip

    return build


def cases(tiny: bool = False) -> list[Case]:
    """Steps (fused and foreach), clipping that scales and clipping that has nothing to do."""
    steps = [
        ("SGD", 3, {}), ("SGD", 5, {"momentum": 0.9, "nesterov": True}),
        ("Adam", 7, {}), ("AdamW", 7, {"weight_decay": 0.01}), ("AdamW", 9, {"amsgrad": True}),
    ]  # fmt: skip
    found = []
    for (model, make), dtype in itertools.product(MODELS.items(), BYTES):
        shapes = TINY if tiny else make()
        size = BYTES[dtype] * sum(math.prod(shape) for shape in shapes)
        for name, passes, options in steps:
            for how in ("fused", "foreach"):
                words = " ".join([name, *(key for key in options if key != "weight_decay")])
                build = step_of(name, shapes, dtype, **options, **{how: True})
                found.append(
                    Case(f"{words}, {model}, {how}", build, moved_bytes=passes * size, dtype=dtype)
                )
        for max_norm, passes in ((1e-3, 3), (1e6, 1)):
            found.append(Case(
                f"clip to {max_norm:g}, {model}", clip_of(shapes, dtype, max_norm),
                moved_bytes=passes * size, dtype=dtype,
            ))  # fmt: skip
        build = clip_values_of(shapes, dtype)
        found.append(Case(f"clip values, {model}", build, moved_bytes=2 * size, dtype=dtype))
    return found

