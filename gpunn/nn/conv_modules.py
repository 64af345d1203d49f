"""The modules of convolution, and what they share with those of transposed convolution."""

from __future__ import annotations

import math
from typing import Any

from gpunn.nn import init
from gpunn.nn.columns import Ints
from gpunn.nn.conv import conv
from gpunn.nn.conv_arguments import pads
from gpunn.nn.lazy import LazyModuleMixin
from gpunn.nn.module import Module
from gpunn.nn.pad import pad
from gpunn.nn.parameter import Parameter, UninitializedParameter
from gpunn.ops.create import empty
from gpunn.tensor import Tensor


class _ConvNd(Module):
    """What all convolutions share: sizes, parameters and their initial values."""

    __constants__ = ["stride", "padding", "dilation", "groups", "padding_mode", "output_padding",
                     "in_channels", "out_channels", "kernel_size"]  # fmt: skip
    bias: Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Ints, stride: Ints,
        padding: Ints | str, dilation: Ints, transposed: bool, output_padding: Ints, groups: int,
        bias: bool, padding_mode: str, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        _check_module(in_channels, out_channels, groups, padding, padding_mode, stride)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.transposed, self.output_padding = dilation, transposed, output_padding
        self.groups, self.padding_mode = groups, padding_mode
        self._reversed_padding_repeated_twice = self._wide_padding()
        self.weight = Parameter(empty(self._weight_shape(), device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def _weight_shape(self) -> Ints:
        both = (self.out_channels, self.in_channels)
        first, second = both[::-1] if self.transposed else both
        return first, second // self.groups, *self.kernel_size

    def _wide_padding(self) -> list[int]:
        """The padding as `F.pad` takes it, for the modes that are not zeros."""
        before: Any = self.padding
        after: Any = self.padding
        if isinstance(self.padding, str):
            ones = (1,) * len(self.kernel_size)
            before, after = pads(self.padding, self.kernel_size, ones, self.dilation)
        return [n for a, b in zip(reversed(before), reversed(after), strict=True) for n in (a, b)]

    def reset_parameters(self) -> None:
        """Draws new weights."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = self.weight[0].numel()
            if fan_in != 0:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}")  # fmt: skip
        dims = len(self.kernel_size)
        for name, usual in (("padding", 0), ("dilation", 1), ("output_padding", 0)):
            if getattr(self, name) != (usual,) * dims:
                text += f", {name}={getattr(self, name)}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


def _check_module(
    channels: int, out: int, groups: int, padding: Any, mode: str, stride: Ints
) -> None:
    if groups <= 0:
        raise ValueError(f"groups must be a positive integer, got {groups}")
    if channels % groups:
        raise ValueError(f"in_channels must be divisible by groups, got {channels} and {groups}")
    if out % groups:
        raise ValueError(f"out_channels must be divisible by groups, got {out} and {groups}")
    if isinstance(padding, str):
        if padding not in ("same", "valid"):
            raise ValueError(
                f"Invalid padding string {padding!r}, should be one of {{'valid', 'same'}}"
            )
        if padding == "same" and any(s != 1 for s in stride):
            raise ValueError("padding='same' is not supported for strided convolutions")
    if mode not in ("zeros", "reflect", "replicate", "circular"):
        raise ValueError(
            "padding_mode must be one of {'zeros', 'reflect', 'replicate', 'circular'}, but "
            f"got padding_mode='{mode}'"
        )


def repeated(value: Any, dims: int) -> Ints:
    """A number for each dimension, or the sequence as it is."""
    return (value,) * dims if isinstance(value, int) else tuple(value)


class _Conv(_ConvNd):
    """What Conv1d, Conv2d and Conv3d share."""

    dims: int

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        d = self.dims
        super().__init__(
            in_channels, out_channels, repeated(kernel_size, d), repeated(stride, d),
            padding if isinstance(padding, str) else repeated(padding, d), repeated(dilation, d),
            False, (0,) * d, groups, bias, padding_mode, device, dtype,
        )  # fmt: skip

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with other parameters than the module's."""
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return conv(f"conv{self.dims}d", self.dims, input, weight, bias, self.stride, padding,
                    self.dilation, self.groups)  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        return self._conv_forward(input, self.weight, self.bias)


class Conv1d(_Conv):
    """A 1-dimensional convolution: see `nn.functional.conv1d`.

    Shapes: (N, C, L) or (C, L). Parameters: weight (out, in / groups, k) and bias (out), uniform
    in +-1/sqrt(in / groups * k). padding_mode: zeros, reflect, replicate, circular.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv1d.html

    >>> nn.Conv1d(3, 8, 5, padding="same")(gpunn.zeros(2, 3, 10)).shape
    torch.Size([2, 8, 10])
    """

    dims = 1


class Conv2d(_Conv):
    """A 2-dimensional convolution: see `nn.functional.conv2d`.

    Shapes: (N, C, H, W) or (C, H, W). Parameters: weight (out, in / groups, kh, kw) and bias
    (out), uniform in +-1/sqrt(in / groups * kh * kw).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv2d.html

    >>> nn.Conv2d(3, 8, 3, stride=2)(gpunn.zeros(2, 3, 9, 9)).shape
    torch.Size([2, 8, 4, 4])
    """

    dims = 2


class Conv3d(_Conv):
    """A 3-dimensional convolution: see `nn.functional.conv3d`.

    Shapes: (N, C, D, H, W) or (C, D, H, W). Parameters: weight (out, in / groups, kd, kh, kw) and
    bias (out), uniform in +-1/sqrt(in / groups * kd * kh * kw).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv3d.html

    >>> nn.Conv3d(1, 2, 3)(gpunn.zeros(1, 1, 4, 4, 4)).shape
    torch.Size([1, 2, 2, 2, 2])
    """

    dims = 3


class _LazyConvXdMixin(LazyModuleMixin):
    """What lazy convolutions share: `in_channels` is that of the first input."""

    weight: Any
    bias: Any

    def _wait_for_input(self: Any, out_channels: int, bias: bool, device: Any, dtype: Any) -> None:
        """Parameters without a shape in place of those that the module made."""
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_channels = out_channels
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self: Any) -> None:
        """Draws new weights once the shape is known."""
        if not self.has_uninitialized_params() and self.in_channels != 0:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self: Any, input: Tensor, *args: Any, **kwargs: Any) -> None:
        """Takes the shape from the first input."""
        if not self.has_uninitialized_params():
            return
        if input.ndim not in (self.dims + 1, self.dims + 2):
            raise RuntimeError(
                f"Expected {self.dims + 1}D (unbatched) or {self.dims + 2}D (batched) input to "
                f"{type(self).__name__}, but got input of size: {input.shape}"
            )
        self.in_channels = input.shape[-self.dims - 1]
        if self.in_channels % self.groups:
            raise ValueError(
                f"in_channels must be divisible by groups, got {self.in_channels} and {self.groups}"
            )
        self.weight.materialize(self._weight_shape())
        if self.bias is not None:
            self.bias.materialize((self.out_channels,))
        self.reset_parameters()


class _LazyConv(_LazyConvXdMixin, _Conv):
    """What LazyConv1d, LazyConv2d and LazyConv3d share."""

    def __init__(
        self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode,
                         device, dtype)  # fmt: skip
        self._wait_for_input(out_channels, bias, device, dtype)


class LazyConv1d(_LazyConv):
    """A Conv1d that takes `in_channels` from its first input.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyConv1d.html

    >>> nn.LazyConv1d(8, 3)(gpunn.zeros(2, 5, 9)).shape
    torch.Size([2, 8, 7])
    """

    dims = 1
    cls_to_become = Conv1d


class LazyConv2d(_LazyConv):
    """A Conv2d that takes `in_channels` from its first input.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyConv2d.html

    >>> nn.LazyConv2d(8, 3)(gpunn.zeros(2, 5, 9, 9)).shape
    torch.Size([2, 8, 7, 7])
    """

    dims = 2
    cls_to_become = Conv2d


class LazyConv3d(_LazyConv):
    """A Conv3d that takes `in_channels` from its first input.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyConv3d.html

    >>> nn.LazyConv3d(8, 3)(gpunn.zeros(2, 5, 4, 4, 4)).shape
    torch.Size([2, 8, 2, 2, 2])
    """

    dims = 3
    cls_to_become = Conv3d
