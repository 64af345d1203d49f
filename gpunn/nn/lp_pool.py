"""Power-average pooling: the p-norm of each window, made of average pooling.

Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LPPool2d.html
"""

from __future__ import annotations

import math
from typing import Any

from gpunn.nn.module import Module
from gpunn.nn.pool import avg_pool1d, avg_pool2d, avg_pool3d, max_pool1d, max_pool2d, max_pool3d
from gpunn.tensor import Tensor

_POOLS: dict[int, tuple[Any, Any]] = {
    1: (max_pool1d, avg_pool1d), 2: (max_pool2d, avg_pool2d), 3: (max_pool3d, avg_pool3d),
}  # fmt: skip


def _count(kernel_size: Any, dims: int) -> Any:
    """How many entries a window has."""
    if dims == 1 or isinstance(kernel_size, int):
        return kernel_size if dims == 1 else kernel_size**dims
    if len(kernel_size) != dims:
        many = "not enough" if len(kernel_size) < dims else "too many"
        raise ValueError(
            f"{many} values to unpack (expected {dims}"
            f"{f', got {len(kernel_size)}' if many == 'not enough' else ''}): lp_pool{dims}d "
            f"takes a kernel_size of {dims} numbers, got {kernel_size}"
        )
    return math.prod(kernel_size)


def _lp_pool(
    input: Any, norm_type: float, kernel_size: Any, stride: Any, ceil_mode: bool, dims: int
) -> Tensor:
    count = _count(kernel_size, dims)
    max_pool, avg_pool = _POOLS[dims]
    if norm_type == math.inf:
        return max_pool(input.abs(), kernel_size, stride, 0, 1, ceil_mode)
    if norm_type == -math.inf:
        return -max_pool(-input.abs(), kernel_size, stride, 0, 1, ceil_mode)
    mean = avg_pool(input.pow(norm_type), kernel_size, stride, 0, ceil_mode)
    return (mean.sign() * mean.abs().relu()).mul(count).pow(1.0 / norm_type)


_DOC = """(the sum of x ** norm_type over each window) ** (1 / norm_type).

    Shapes: input (N, C, {axes}) or (C, {axes}); sizes as in average pooling. norm_type 1 gives the
    sum, infinity the greatest absolute value. Negative x need an even norm_type. dtypes: floating.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.lp_pool{dims}d.html

    >>> F.lp_pool{dims}d(gpunn.ones({ones}), 1, 2).shape
    torch.Size([{gives}])
    """


def _make(dims: int) -> Any:
    def lp_pool(
        input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None,
        ceil_mode: bool = False,
    ) -> Tensor:  # fmt: skip
        return _lp_pool(input, norm_type, kernel_size, stride, ceil_mode, dims)

    lp_pool.__name__ = lp_pool.__qualname__ = f"lp_pool{dims}d"
    lp_pool.__doc__ = _DOC.format(
        dims=dims, axes=("L", "H, W", "D, H, W")[dims - 1], ones=", ".join("11" + "4" * dims),
        gives=", ".join("11" + "2" * dims),
    )  # fmt: skip
    return lp_pool


lp_pool1d, lp_pool2d, lp_pool3d = (_make(d) for d in (1, 2, 3))


class _LPPool(Module):
    """What LPPool1d, LPPool2d and LPPool3d share."""

    __constants__ = ["norm_type", "kernel_size", "stride", "ceil_mode"]

    def __init__(
        self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ):
        super().__init__()
        self.norm_type, self.kernel_size = norm_type, kernel_size
        self.stride, self.ceil_mode = stride, ceil_mode

    def _arguments(self) -> tuple[Any, ...]:
        return float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode

    def extra_repr(self) -> str:
        return (f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}, ceil_mode={self.ceil_mode}")  # fmt: skip


class LPPool1d(_LPPool):
    """The p-norm of each window: see `nn.functional.lp_pool1d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LPPool1d.html

    >>> nn.LPPool1d(2, 2)(gpunn.tensor([[3.0, 4.0]]))
    tensor([[5.]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return lp_pool1d(input, *self._arguments())


class LPPool2d(_LPPool):
    """The p-norm of each window: see `nn.functional.lp_pool2d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LPPool2d.html

    >>> nn.LPPool2d(1.2, (3, 2), stride=(2, 1))(gpunn.ones(1, 16, 50, 32)).shape
    torch.Size([1, 16, 24, 31])
    """

    def forward(self, input: Tensor) -> Tensor:
        return lp_pool2d(input, *self._arguments())


class LPPool3d(_LPPool):
    """The p-norm of each window: see `nn.functional.lp_pool3d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LPPool3d.html

    >>> nn.LPPool3d(2, 2)(gpunn.ones(1, 4, 4, 4)).shape
    torch.Size([1, 2, 2, 2])
    """

    def forward(self, input: Tensor) -> Tensor:
        return lp_pool3d(input, *self._arguments())
