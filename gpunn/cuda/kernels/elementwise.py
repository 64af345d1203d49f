"""Activations through kernels/elementwise.cu, alone and fused with the bias before them.

Each returns None where the kernels do not serve the dtype.
"""

from __future__ import annotations

import math
from typing import Any

from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, Source

FUNCTIONS = ("none", "relu", "silu", "gelu", "gelu_tanh")
_NUMBER = {name: number for number, name in enumerate(FUNCTIONS)}
_source = Source("elementwise", T=FLOATS, FUNCTION=tuple(range(len(FUNCTIONS))))


def unary(name: str, x: Any, out: Any = None) -> Any:
    """f(x) for the f of this name in FUNCTIONS, into `out` (contiguous, like x; x too) if given."""
    return _run(name, "unary_forward", (x,), (), out)


def unary_grad(name: str, x: Any, dy: Any) -> Any:
    """dy * f'(x) for the f of this name in FUNCTIONS; x and dy of one shape."""
    return _run(name, "unary_backward", (x, dy), (), None)


def bias_unary(name: str, x: Any, bias: Any, axis: int = -1, out: Any = None) -> Any:
    """f(x + bias), bias (channels,) along an axis of x: what follows a product or a convolution.

    One pass where adding and then f take two. `out` may be x itself.
    """
    return _run(name, "bias_forward", (x,), (bias, axis), out)


def bias_unary_grad(name: str, x: Any, bias: Any, dy: Any, axis: int = -1) -> Any:
    """The gradient of bias_unary's x; that of its bias is the sum of it over the other axes."""
    return _run(name, "bias_backward", (x, dy), (bias, axis), None)


def _run(name: str, kernel: str, arrays: tuple[Any, ...], biased: tuple[Any, ...], out: Any) -> Any:
    first = arrays[0]
    d = first.dtype
    if any(a.dtype != d for a in (*arrays, *biased[:1])) or not _source.serves(T=d):
        return None
    x, *rest = (launch.contiguous(a) for a in arrays)
    y = launch.empty_like(x) if out is None else out
    if x.size:
        sizes: tuple[int, ...] = ()
        if biased:
            bias, axis = biased
            axis %= x.ndim
            sizes = (bias.shape[0], math.prod(x.shape[axis + 1 :]))
            rest.insert(0, launch.contiguous(bias))
        grid = launch.blocks(x.size, 256 * (16 // x.itemsize))
        run = _source.get(kernel, T=d, FUNCTION=_NUMBER[name])
        run(grid, 256, (x, *rest, y, x.size, *sizes))
    return y
