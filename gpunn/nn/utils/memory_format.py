"""The memory order of convolution weights.

Source: https://docs.pytorch.org/docs/stable/nn.html#utilities
"""

from __future__ import annotations

from typing import Any, TypeVar

from gpunn import autograd
from gpunn.layout import memory_format as MemoryFormat  # noqa: N812
from gpunn.nn.conv_modules import Conv2d, Conv3d
from gpunn.nn.conv_transpose import ConvTranspose2d, ConvTranspose3d
from gpunn.nn.module import Module

__all__ = ["convert_conv2d_weight_memory_format", "convert_conv3d_weight_memory_format"]

M = TypeVar("M", bound=Module)


def convert_conv2d_weight_memory_format(module: M, memory_format: MemoryFormat) -> M:
    """Lays out the weights of all 2d convolutions, also transposed ones, in a memory order.

    Their values and shapes stay. Returns the module.
    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.convert_conv2d_weight_memory_format.html

    >>> model = nn.Sequential(nn.Conv2d(8, 4, 3))
    >>> model = nn.utils.convert_conv2d_weight_memory_format(model, gpunn.channels_last)
    >>> model[0].weight.is_contiguous(memory_format=gpunn.channels_last)
    True
    """
    return _convert(module, memory_format, (Conv2d, ConvTranspose2d))


def convert_conv3d_weight_memory_format(module: M, memory_format: MemoryFormat) -> M:
    """Lays out the weights of all 3d convolutions, also transposed ones, in a memory order.

    Source:
    https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.convert_conv3d_weight_memory_format.html

    >>> model = nn.Conv3d(8, 4, 3)
    >>> _ = nn.utils.convert_conv3d_weight_memory_format(model, gpunn.channels_last_3d)
    >>> model.weight.is_contiguous(memory_format=gpunn.channels_last_3d)
    True
    """
    return _convert(module, memory_format, (Conv3d, ConvTranspose3d))


def _convert(module: M, memory_format: MemoryFormat, kinds: tuple[type, ...]) -> M:
    for found in module.modules():
        if isinstance(found, kinds):
            weight: Any = found.weight  # type: ignore[attr-defined]
            weight.data = weight.detach().clone(memory_format=memory_format)
            autograd.touch(weight)
    return module
