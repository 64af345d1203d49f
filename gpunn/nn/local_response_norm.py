"""Local response normalisation: each channel divided by the energy of its neighbours.

Source: Krizhevsky, Sutskever and Hinton 2012, ImageNet Classification with Deep Convolutional
Neural Networks, section 3.3.
"""

from __future__ import annotations

from typing import Any

from gpunn.nn.module import Module
from gpunn.nn.pad import pad
from gpunn.tensor import Tensor


def _window_sum(x: Any, size: int, before: int) -> Any:
    """The sum over `size` channels (dimension 1), of which `before` come before each."""
    channels = x.shape[1]
    around = [0, 0] * (x.ndim - 2) + [before, size - 1 - before]
    padded = pad(x, around)
    parts = [padded.narrow(1, i, channels) for i in range(size)]
    return sum(parts[1:], parts[0])


def local_response_norm(
    input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """x / (k + alpha * mean of x**2 over `size` channels) ** beta.

    Shapes: (N, C, ...); the window has size // 2 channels before each, zeros beyond the edges
    count. dtypes: floating, or integers for a floating result. ValueError below three dimensions,
    RuntimeError for a window without channels.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.local_response_norm.html

    >>> F.local_response_norm(gpunn.ones(1, 2, 1), 2, alpha=1.0, beta=1.0)
    tensor([[[0.6667],
             [0.5000]]])
    """
    if input.ndim < 3:
        raise ValueError(
            f"Expected 3D or higher dimensionality input (got {input.ndim} dimensions): (N, C, ...)"
        )
    if input.array.size == 0:
        return input
    if size < 1:
        raise RuntimeError(
            f"kernel size should be greater than zero, but got kH: {size} kW: 1 "
            "(local_response_norm: size)"
        )
    total: Any = _window_sum(input * input, size, size // 2)  # type: ignore[operator]
    mean = total / size if input.is_floating_point() else total // size
    return input / (mean * alpha + k) ** beta  # type: ignore[operator]


class LocalResponseNorm(Module):
    """Local response normalisation: see `nn.functional.local_response_norm`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LocalResponseNorm.html

    >>> nn.LocalResponseNorm(2)(gpunn.randn(2, 5, 4, 4)).shape
    torch.Size([2, 5, 4, 4])
    """

    __constants__ = ["size", "alpha", "beta", "k"]

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        return local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(Module):
    """Local response normalisation of (N, C, H, W) as files of Lua Torch have it.

    x / (k + alpha / size * sum of x**2) ** beta. The sum has PyTorch's window, which is not quite
    LocalResponseNorm's: int((size + 1) / 2) channels from each one on, as many up to it, and always
    the first channel. The gradient is that of this formula (PyTorch's leaves the always included
    channel out). ValueError for an input that is not 4-dimensional.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossMapLRN2d.html

    >>> nn.CrossMapLRN2d(3)(gpunn.randn(2, 5, 4, 4)).shape
    torch.Size([2, 5, 4, 4])
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1):
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4:
            raise ValueError(
                f"CrossMapLRN2d: Expected input to be 4D, got {input.ndim}D instead."
            )
        reach = int((self.size - 1) / 2 + 1)
        square: Any = input**2  # type: ignore[operator]
        total = _window_sum(square, 2 * reach - 1, reach - 1)
        late = input.shape[1] - reach  # channels whose window does not begin at the first
        if late > 0:
            first = square.narrow(1, 0, 1).expand(-1, late, -1, -1)
            total = total + pad(first, (0, 0, 0, 0, reach, 0))
        return input * (total * (self.alpha / self.size) + self.k) ** -self.beta

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
