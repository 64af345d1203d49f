"""Convolution in 1, 2 and 3 dimensions.

Three raw products carry everything: the convolution, its input gradient (the transposed
convolution) and its weight gradient. Each is linear in both of its operands and the gradient of
each is made of the other two, so derivatives of any order come for free. On the CPU they run in
the C++ library, on a GPU in kernels/conv*.cu; where these have no answer, as array operations
through columns (im2col, columns.py).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn import native
from gpunn.autograd.graph import needs, result, vjp
from gpunn.cuda.kernels import conv as kernels
from gpunn.dtypes import F32
from gpunn.nn import init
from gpunn.nn.columns import (
    Geometry,
    Ints,
    conv_columns,
    input_grad_columns,
    weight_grad_columns,
)  # fmt: skip
from gpunn.nn.lazy import LazyModuleMixin
from gpunn.nn.module import Module
from gpunn.nn.pad import pad
from gpunn.nn.parameter import Parameter, UninitializedParameter
from gpunn.ops._rows import half, same_device
from gpunn.ops.create import empty
from gpunn.tensor import Tensor

# --- the three raw products ---------------------------------------------------------------


def conv_array(x: Any, w: Any, b: Any, geo: Geometry) -> Any:
    """The convolution of raw arrays x (N, C, *size) and w (O, C / groups, *kernel)."""
    if type(x) is not np.ndarray:
        y = kernels.conv_forward(
            x, w, b, geo.stride, geo.before, geo.dilation, geo.groups, geo.out
        )
        if y is not None:
            return y
    if half(x.dtype):
        y = conv_array(x.astype(F32), w.astype(F32), None if b is None else b.astype(F32), geo)
        return y.astype(x.dtype)
    if type(x) is np.ndarray and x.dtype.kind == "f":
        y = native.conv_forward(
            x, w, b, geo.stride, geo.before, geo.dilation, geo.groups, geo.out
        )
        if y is not None:
            return y
    y = conv_columns(x, w, geo)
    if b is not None:
        y += b.reshape((-1,) + (1,) * len(geo.size))
    return y


def input_grad_array(g: Any, w: Any, geo: Geometry) -> Any:
    """The gradient of x: the transposed convolution of g with w."""
    if type(g) is not np.ndarray:
        x = kernels.conv_input_grad(
            g, w, geo.size, geo.stride, geo.before, geo.dilation, geo.groups
        )
        if x is not None:
            return x
    if half(g.dtype):
        return input_grad_array(g.astype(F32), w.astype(F32), geo).astype(g.dtype)
    if type(g) is np.ndarray and g.dtype.kind == "f":
        x = native.conv_input_grad(
            g, w, geo.size, geo.stride, geo.before, geo.dilation, geo.groups
        )
        if x is not None:
            return x
    return input_grad_columns(g, w, geo)


def weight_grad_array(x: Any, g: Any, geo: Geometry) -> Any:
    """The gradient of w: x correlated with g."""
    if type(x) is not np.ndarray:
        w = kernels.conv_weight_grad(
            x, g, geo.kernel, geo.stride, geo.before, geo.dilation, geo.groups
        )
        if w is not None:
            return w
    if half(x.dtype):
        return weight_grad_array(x.astype(F32), g.astype(F32), geo).astype(x.dtype)
    if type(x) is np.ndarray and x.dtype.kind == "f":
        both = native.conv_weight_grad(
            x, g, geo.kernel, geo.stride, geo.before, geo.dilation, geo.groups
        )
        if both is not None:
            return both[0]
    return weight_grad_columns(x, g, geo)


# --- recorded -----------------------------------------------------------------------------



@vjp((0, 1, None, None), masked=True, name="ConvolutionBackward0")
def _conv_vjp(g: Any, x: Any, w: Any, geo: Geometry, biased: bool, needs: Any) -> Any:
    if isinstance(g, Tensor):
        gx = conv_input_grad(g, w.conj(), geo) if needs[0] else None
        gw = conv_weight_grad(x.conj(), g, geo) if needs[1] else None
    else:
        gx = input_grad_array(g, w.conj(), geo) if needs[0] else None
        gw = weight_grad_array(x.conj(), g, geo) if needs[1] else None
    gb = g.sum(axis=(0, *range(2, g.ndim))) if biased and needs[2] else None
    return gx, gw, gb


@vjp((0, 1, None), masked=True, name="ConvolutionBackward0")
def _input_grad_vjp(g: Any, y: Any, w: Any, geo: Geometry, needs: Any) -> Any:
    if isinstance(g, Tensor):
        gy = convolution(g, w.conj(), None, geo) if needs[0] else None
        return gy, conv_weight_grad(g, y.conj(), geo) if needs[1] else None
    gy = conv_array(g, w.conj(), None, geo) if needs[0] else None
    return gy, weight_grad_array(g, y.conj(), geo) if needs[1] else None


@vjp((0, 1, None), masked=True, name="ConvolutionBackward0")
def _weight_grad_vjp(g: Any, x: Any, y: Any, geo: Geometry, needs: Any) -> Any:
    if isinstance(g, Tensor):
        gx = conv_input_grad(y.conj(), g, geo) if needs[0] else None
        return gx, convolution(x.conj(), g, None, geo) if needs[1] else None
    gx = input_grad_array(y.conj(), g, geo) if needs[0] else None
    return gx, conv_array(x.conj(), g, None, geo) if needs[1] else None


def convolution(x: Tensor, w: Tensor, b: Tensor | None, geo: Geometry) -> Tensor:
    """The recorded convolution."""
    y = conv_array(x.array, w.array, None if b is None else b.array, geo)
    saved = (x.array if needs(w) else None, w.array if needs(x) else None, geo, b is not None)
    return result(y, x, _conv_vjp, (x, w, b), saved)


def conv_input_grad(y: Tensor, w: Tensor, geo: Geometry) -> Tensor:
    """The recorded transposed convolution."""
    x = input_grad_array(y.array, w.array, geo)
    saved = (y.array if needs(w) else None, w.array if needs(y) else None, geo)
    return result(x, y, _input_grad_vjp, (y, w), saved)


def conv_weight_grad(x: Tensor, y: Tensor, geo: Geometry) -> Tensor:
    """The recorded correlation of x with y."""
    w = weight_grad_array(x.array, y.array, geo)
    saved = (x.array if needs(y) else None, y.array if needs(x) else None, geo)
    return result(w, x, _weight_grad_vjp, (x, y), saved)


# --- functions ----------------------------------------------------------------------------


def spread(value: Any, dims: int, name: str) -> Ints:
    """An int, or a sequence of ints, as one int for each spatial dimension."""
    if isinstance(value, (int, np.integer)):
        return (int(value),) * dims
    values = tuple(int(v) for v in value)
    if len(values) == 1:
        return values * dims
    if len(values) != dims:
        raise RuntimeError(
            f"expected {name} to be a single integer value or a list of {dims} values to match the "
            f"convolution dimensions, but got {name}={list(values)}"
        )
    return values


def _pads(padding: Any, kernel: Ints, stride: Ints, dilation: Ints, dims: int) -> Any:
    """(before, after) for a padding argument: numbers, "valid" or "same"."""
    if isinstance(padding, str):
        if padding == "valid":
            return (0,) * dims, (0,) * dims
        if padding != "same":
            raise RuntimeError(
                f"Invalid padding string: '{padding}', should be one of 'valid', 'same'"
            )
        if any(s != 1 for s in stride):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        total = tuple(d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    both = spread(padding, dims, "padding")
    return both, both


def _check(name: str, x: Tensor, w: Tensor, b: Tensor | None, dims: int, groups: int) -> None:
    xs, ws = x.array.shape, w.array.shape
    if len(ws) != dims + 2:
        raise RuntimeError(
            f"{name}: expected weight to be {dims + 2}-dimensional, but got {len(ws)}-dimensional "
            f"weight of size {list(ws)}"
        )
    if len(xs) not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {name}, but got "
            f"input of size: {list(xs)}"
        )
    if groups <= 0:
        raise RuntimeError("non-positive groups is not supported")
    channels = xs[-dims - 1]
    if channels != ws[1] * groups:
        raise RuntimeError(
            f"Given groups={groups}, weight of size {list(ws)}, expected input{list(xs)} to have "
            f"{ws[1] * groups} channels, but got {channels} channels instead"
        )
    if ws[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size {list(ws)} instead"
        )
    if b is not None and b.array.shape != (ws[0],):
        raise RuntimeError(
            f"Given weight of size {list(ws)}, expected bias to be 1-dimensional with {ws[0]} "
            f"elements, but got bias of size {list(b.array.shape)} instead"
        )
    for t, what in ((w, "weight"), (b, "bias")):
        if t is not None and t.array.dtype != x.array.dtype:
            raise RuntimeError(
                f"Input type ({x.dtype.name}) and {what} type ({t.dtype.name}) should be the same"
            )
    same_device(name, (x, w, b))


def _check_sizes(geo: Geometry, name: str) -> None:
    if any(d <= 0 for d in geo.dilation):
        raise RuntimeError("dilation should be greater than zero")
    if any(p < 0 for p in geo.before):
        raise RuntimeError("negative padding is not supported")
    padded = [n + a + b for n, a, b in zip(geo.size, geo.before, geo.after, strict=True)]
    reach = [d * (k - 1) + 1 for d, k in zip(geo.dilation, geo.kernel, strict=True)]
    if any(p < r for p, r in zip(padded, reach, strict=True)):
        raise RuntimeError(
            f"Calculated padded input size per channel: ({' x '.join(map(str, padded))}). Kernel "
            f"size: ({' x '.join(map(str, reach))}). Kernel size can't be greater than actual "
            f"input size ({name})"
        )


def _conv(
    name: str, dims: int, x: Tensor, w: Tensor, b: Tensor | None, stride: Any, padding: Any,
    dilation: Any, groups: int,
) -> Tensor:  # fmt: skip
    _check(name, x, w, b, dims, groups)
    kernel = w.array.shape[2:]
    strides, dilations = spread(stride, dims, "stride"), spread(dilation, dims, "dilation")
    if any(s <= 0 for s in strides):
        raise RuntimeError(f"non-positive stride is not supported, got {strides} ({name})")
    before, after = _pads(padding, kernel, strides, dilations, dims)
    geo = Geometry(x.array.shape[-dims:], kernel, strides, before, after, dilations, groups)
    _check_sizes(geo, name)
    if x.array.ndim == dims + 1:
        return convolution(x.unsqueeze(0), w, b, geo).squeeze(0)  # type: ignore[attr-defined]
    return convolution(x, w, b, geo)


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The 1-dimensional convolution (cross-correlation) of channels.

    Shapes: input (N, C, L) or (C, L), weight (O, C / groups, k), bias (O): (N, O, L') with
    L' = (L + 2 padding - dilation (k - 1) - 1) // stride + 1. padding: ints, "valid" or "same".
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv1d.html

    >>> F.conv1d(gpunn.ones(1, 1, 4), gpunn.ones(1, 1, 3))
    tensor([[[3., 3.]]])
    """
    return _conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The 2-dimensional convolution (cross-correlation) of channels.

    Shapes: input (N, C, H, W) or (C, H, W), weight (O, C / groups, kh, kw), bias (O):
    (N, O, H', W'). padding: ints, "valid" or "same".
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv2d.html

    >>> F.conv2d(gpunn.ones(1, 1, 3, 3), gpunn.ones(1, 1, 3, 3))
    tensor([[[[9.]]]])
    """
    return _conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The 3-dimensional convolution (cross-correlation) of channels.

    Shapes: input (N, C, D, H, W) or (C, D, H, W), weight (O, C / groups, kd, kh, kw), bias (O):
    (N, O, D', H', W'). padding: ints, "valid" or "same".
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv3d.html

    >>> F.conv3d(gpunn.ones(1, 1, 2, 2, 2), gpunn.ones(1, 1, 2, 2, 2))
    tensor([[[[[8.]]]]])
    """
    return _conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


# --- modules ------------------------------------------------------------------------------


class _Conv(Module):
    """What Conv1d, Conv2d and Conv3d share."""

    __constants__ = ["stride", "padding", "dilation", "groups", "padding_mode", "in_channels",
                     "out_channels", "kernel_size"]  # fmt: skip
    dims: int
    bias: Parameter | None

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self._check(in_channels, out_channels, groups, padding, padding_mode, stride)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = _tuple(kernel_size, self.dims)
        self.stride = _tuple(stride, self.dims)
        self.padding = padding if isinstance(padding, str) else _tuple(padding, self.dims)
        self.dilation = _tuple(dilation, self.dims)
        self.transposed, self.output_padding = False, (0,) * self.dims
        self.groups, self.padding_mode = groups, padding_mode
        self._reversed_padding_repeated_twice = self._wide_padding()
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    @staticmethod
    def _check(
        channels: int, out: int, groups: int, padding: Any, mode: str, stride: Any
    ) -> None:
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if channels % groups:
            raise ValueError("in_channels must be divisible by groups")
        if out % groups:
            raise ValueError("out_channels must be divisible by groups")
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(
                    f"Invalid padding string {padding!r}, should be one of {{'valid', 'same'}}"
                )
            steps = (stride,) if isinstance(stride, int) else tuple(stride)
            if padding == "same" and any(s != 1 for s in steps):
                raise ValueError("padding='same' is not supported for strided convolutions")
        if mode not in ("zeros", "reflect", "replicate", "circular"):
            raise ValueError(
                "padding_mode must be one of {'zeros', 'reflect', 'replicate', 'circular'}, but "
                f"got padding_mode='{mode}'"
            )

    def _wide_padding(self) -> list[int]:
        """The padding as `F.pad` takes it, for the modes that are not zeros."""
        before, after = _pads(self.padding, self.kernel_size, (1,) * self.dims, self.dilation,
                              self.dims)  # fmt: skip
        return [n for a, b in zip(reversed(before), reversed(after), strict=True) for n in (a, b)]

    def reset_parameters(self) -> None:
        """Draws new weights."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = self.weight[0].numel()
            if fan_in != 0:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            input = pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return _conv(f"conv{self.dims}d", self.dims, input, self.weight, self.bias, self.stride,
                     padding, self.dilation, self.groups)  # fmt: skip

    def extra_repr(self) -> str:
        text = (f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
                f"stride={self.stride}")  # fmt: skip
        if self.padding != (0,) * self.dims:
            text += f", padding={self.padding}"
        if self.dilation != (1,) * self.dims:
            text += f", dilation={self.dilation}"
        if self.groups != 1:
            text += f", groups={self.groups}"
        if self.bias is None:
            text += ", bias=False"
        if self.padding_mode != "zeros":
            text += f", padding_mode={self.padding_mode}"
        return text


def _tuple(value: Any, dims: int) -> Ints:
    return (value,) * dims if isinstance(value, int) else tuple(value)


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


class _LazyConv(LazyModuleMixin, _Conv):
    """A convolution that takes `in_channels` from its first input."""

    def __init__(
        self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__(0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode,
                         device, dtype)  # fmt: skip
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_channels = out_channels
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draws new weights once the shape is known."""
        if not self.has_uninitialized_params() and self.in_channels != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor, *args: Any, **kwargs: Any) -> None:
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
            raise ValueError("in_channels must be divisible by groups")
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight.materialize(shape)
        if self.bias is not None:
            self.bias.materialize((self.out_channels,))
        self.reset_parameters()


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


