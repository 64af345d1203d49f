"""Activations of up to three parameters through kernels/pointwise.cpp; None without an answer."""

from __future__ import annotations

import numpy as np

from gpunn.native.loader import address, alike, contiguous, function

FUNCTIONS = (
    "hardtanh", "hardsigmoid", "hardswish", "hardshrink", "softshrink", "threshold", "leaky_relu",
    "elu", "softplus", "logsigmoid", "mish",
)  # fmt: skip
_NUMBER = {name: number for number, name in enumerate(FUNCTIONS)}


def pointwise(name: str, parameters: tuple[float, ...], x: np.ndarray) -> np.ndarray | None:
    """f(x) for the f of this name in FUNCTIONS; its parameters are listed in the C++ file.

    >>> y = gpunn.native.pointwise("leaky_relu", (0.1,), np.zeros(3, np.float32))
    """
    call = function("pointwise", "idddipp", x.dtype)
    if call is None:
        return None
    y, x = np.empty(x.shape, x.dtype), contiguous(x)
    call(_NUMBER[name], *_three(parameters), x.size, address(x), address(y))
    return y


def pointwise_grad(
    name: str, parameters: tuple[float, ...], x: np.ndarray, dy: np.ndarray
) -> np.ndarray | None:
    """dy * f'(x) for the f of this name in FUNCTIONS; x and dy of one shape."""
    call = function("pointwise_grad", "idddippp", x.dtype)
    if call is None or not alike(x, dy):
        return None
    dx, x, dy = np.empty(x.shape, x.dtype), contiguous(x), contiguous(dy)
    call(_NUMBER[name], *_three(parameters), x.size, address(x), address(dy), address(dx))
    return dx


def _three(parameters: tuple[float, ...]) -> tuple[float, float, float]:
    """The parameters, and 1 for those that the function has not."""
    a, b, c = (*parameters, 1.0, 1.0, 1.0)[:3]
    return a, b, c
