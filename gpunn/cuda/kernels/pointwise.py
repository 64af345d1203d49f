"""Activations of up to three parameters through kernels/pointwise.cu, each in one pass.

Both return None where the kernels do not serve the dtype.
"""

from __future__ import annotations

from typing import Any

from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, Source
from gpunn.native.pointwise import _NUMBER, FUNCTIONS, _three

_source = Source("pointwise", T=FLOATS, FUNCTION=tuple(range(len(FUNCTIONS))))


def pointwise(name: str, parameters: tuple[float, ...], x: Any) -> Any:
    """f(x) for the f of this name in FUNCTIONS; its parameters are listed in the kernel file."""
    return _run("pointwise_forward", name, parameters, (x,))


def pointwise_grad(name: str, parameters: tuple[float, ...], x: Any, dy: Any) -> Any:
    """dy * f'(x) for the f of this name in FUNCTIONS; x and dy of one shape."""
    return _run("pointwise_backward", name, parameters, (x, dy))


def _run(kernel: str, name: str, parameters: tuple[float, ...], arrays: tuple[Any, ...]) -> Any:
    d = arrays[0].dtype
    if not _source.serves(T=d) or any(a.dtype != d for a in arrays):
        return None
    x, *rest = (launch.contiguous(a) for a in arrays)
    y = launch.empty_like(x)
    if x.size:
        grid = launch.blocks(x.size, 256 * (16 // x.itemsize))
        args = (x, *rest, y, x.size, *_three(parameters))
        _source.get(kernel, T=d, FUNCTION=_NUMBER[name])(grid, 256, args)
    return y
