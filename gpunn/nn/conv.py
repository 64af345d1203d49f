"""Convolution in 1, 2 and 3 dimensions.

Three raw products carry everything: the convolution, its input gradient (the transposed
convolution) and its weight gradient. Each is linear in both of its operands and the gradient of
each is made of the other two, so derivatives of any order come for free. On the CPU they run in
the C++ library, on a GPU in kernels/conv*.cu; where these have no answer, as array operations
through columns (im2col, columns.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import native
from gpunn.amp.casts import AUTOCAST, autocasts, casts
from gpunn.autograd.graph import needs, result, vjp
from gpunn.cuda.kernels import conv as kernels
from gpunn.dtypes import F32
from gpunn.nn.columns import Geometry, conv_columns, input_grad_columns, weight_grad_columns
from gpunn.nn.conv_arguments import (
    check_channels,
    check_dims,
    check_steps,
    check_types,
    pads,
    spread,
)
from gpunn.ops._rows import half
from gpunn.ops.reduce import sum_array
from gpunn.tensor import Tensor

# --- the three raw products ---------------------------------------------------------------


def conv_array(x: Any, w: Any, b: Any, geo: Geometry) -> Any:
    """The convolution of raw arrays x (N, C, *size) and w (O, C / groups, *kernel)."""
    if type(x) is not np.ndarray:
        y = kernels.conv_forward(x, w, b, geo.stride, geo.before, geo.dilation, geo.groups, geo.out)
        if y is not None:
            return y
    if half(x.dtype):
        return conv_array(x.astype(F32), w.astype(F32), _wide(b), geo).astype(x.dtype)
    if type(x) is np.ndarray and x.dtype.kind == "f":
        y = native.conv_forward(x, w, b, geo.stride, geo.before, geo.dilation, geo.groups, geo.out)
        if y is not None:
            return y
    return _add_bias(conv_columns(x, w, geo), b)


def _wide(b: Any) -> Any:
    return None if b is None else b.astype(F32)


def _add_bias(y: Any, b: Any) -> Any:
    if b is not None:
        y += b.reshape((-1,) + (1,) * (y.ndim - 2))
    return y


def input_grad_array(g: Any, w: Any, geo: Geometry, b: Any = None) -> Any:
    """The gradient of x: the transposed convolution of g with w, plus b (C) or None."""
    if type(g) is not np.ndarray:
        x = kernels.conv_input_grad(
            g, w, geo.size, geo.stride, geo.before, geo.dilation, geo.groups, b
        )
        if x is not None:
            return x
    if half(g.dtype):
        x = input_grad_array(g.astype(F32), w.astype(F32), geo, _wide(b))
        return x.astype(g.dtype)
    if type(g) is np.ndarray and g.dtype.kind == "f":
        x = native.conv_input_grad(
            g, w, geo.size, geo.stride, geo.before, geo.dilation, geo.groups, b
        )
        if x is not None:
            return x
    return _add_bias(input_grad_columns(g, w, geo), b)


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


def _bias_grad(g: Any) -> Any:
    axes = (0, *range(2, g.ndim))
    return g.sum(axis=axes) if isinstance(g, Tensor) else sum_array(g, axes)


@vjp((0, 1, None, None), masked=True, name="ConvolutionBackward0")
def _conv_vjp(g: Any, x: Any, w: Any, geo: Geometry, biased: bool, needs: Any) -> Any:
    if isinstance(g, Tensor):
        gx = conv_input_grad(g, w.conj(), geo) if needs[0] else None
        gw = conv_weight_grad(x.conj(), g, geo) if needs[1] else None
    else:
        gx = input_grad_array(g, w.conj(), geo) if needs[0] else None
        gw = weight_grad_array(x.conj(), g, geo) if needs[1] else None
    gb = _bias_grad(g) if biased and needs[2] else None
    return gx, gw, gb


@vjp((0, 1, None, None), masked=True, name="ConvolutionBackward0")
def _input_grad_vjp(g: Any, y: Any, w: Any, geo: Geometry, biased: bool, needs: Any) -> Any:
    if isinstance(g, Tensor):
        gy = conv_forward(g, w.conj(), None, geo) if needs[0] else None
        gw = conv_weight_grad(g, y.conj(), geo) if needs[1] else None
    else:
        gy = conv_array(g, w.conj(), None, geo) if needs[0] else None
        gw = weight_grad_array(g, y.conj(), geo) if needs[1] else None
    gb = _bias_grad(g) if biased and needs[2] else None
    return gy, gw, gb


@vjp((0, 1, None), masked=True, name="ConvolutionBackward0")
def _weight_grad_vjp(g: Any, x: Any, y: Any, geo: Geometry, needs: Any) -> Any:
    if isinstance(g, Tensor):
        gx = conv_input_grad(y.conj(), g, geo) if needs[0] else None
        return gx, conv_forward(x.conj(), g, None, geo) if needs[1] else None
    gx = input_grad_array(y.conj(), g, geo) if needs[0] else None
    return gx, conv_array(x.conj(), g, None, geo) if needs[1] else None


def conv_forward(x: Tensor, w: Tensor, b: Tensor | None, geo: Geometry) -> Tensor:
    """The recorded convolution."""
    y = conv_array(x.array, w.array, None if b is None else b.array, geo)
    saved = (x.array if needs(w) else None, w.array if needs(x) else None, geo, b is not None)
    return result(y, x, _conv_vjp, (x, w, b), saved)


def conv_input_grad(y: Tensor, w: Tensor, geo: Geometry, b: Tensor | None = None) -> Tensor:
    """The recorded transposed convolution."""
    x = input_grad_array(y.array, w.array, geo, None if b is None else b.array)
    saved = (y.array if needs(w) else None, w.array if needs(y) else None, geo, b is not None)
    return result(x, y, _input_grad_vjp, (y, w, b), saved)


def conv_weight_grad(x: Tensor, y: Tensor, geo: Geometry) -> Tensor:
    """The recorded correlation of x with y."""
    w = weight_grad_array(x.array, y.array, geo)
    saved = (x.array if needs(y) else None, y.array if needs(x) else None, geo)
    return result(w, x, _weight_grad_vjp, (x, y), saved)


# --- functions ----------------------------------------------------------------------------


def _check_sizes(name: str, geo: Geometry) -> None:
    if min(geo.out) > 0:
        return
    padded = [n + a + b for n, a, b in zip(geo.size, geo.before, geo.after, strict=True)]
    reach = [d * (k - 1) + 1 for d, k in zip(geo.dilation, geo.kernel, strict=True)]
    raise RuntimeError(
        f"Calculated padded input size per channel: ({' x '.join(map(str, padded))}). Kernel "
        f"size: ({' x '.join(map(str, reach))}). Kernel size can't be greater than actual "
        f"input size ({name})"
    )


def conv(
    name: str, dims: int, x: Tensor, w: Tensor, b: Tensor | None, stride: Any, padding: Any,
    dilation: Any, groups: int,
) -> Tensor:  # fmt: skip
    """The convolution in any number of dimensions: checks, then the recorded product."""
    check_dims(name, x, w, dims, groups)
    kernel = w.array.shape[2:]
    strides, dilations = spread(stride, dims, "stride"), spread(dilation, dims, "dilation")
    before, after = pads(padding, kernel, strides, dilations)
    check_steps(name, strides, before, dilations)
    check_channels(name, x, w, b, dims, groups, False)
    geo = Geometry(x.array.shape[-dims:], kernel, strides, before, after, dilations, groups)
    _check_sizes(name, geo)
    if AUTOCAST:
        x, w, b = casts(name, x, w, b)
    check_types(name, x, w, b)
    if x.array.ndim == dims + 1:
        return conv_forward(x.unsqueeze(0), w, b, geo).squeeze(0)  # type: ignore[attr-defined]
    return conv_forward(x, w, b, geo)


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
    return conv("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


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
    return conv("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


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
    return conv("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


@autocasts("conv_tbc")
def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """The 1-dimensional convolution of sequences whose channels come last.

    Shapes: input (T, N, C), weight (k, C, O), bias (O): (T + 2 pad - k + 1, N, O).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_tbc.html

    >>> F.conv_tbc(gpunn.ones(4, 1, 1), gpunn.ones(3, 1, 2), gpunn.zeros(2)).shape
    torch.Size([2, 1, 2])
    """
    xs, ws = input.array.shape, weight.array.shape
    if len(xs) != 3:
        raise RuntimeError(f"Input must have 3 dims: time, batch, in_channel; got {list(xs)}")
    if len(ws) != 3:
        raise RuntimeError(
            f"Weight tensor must have 3 dims: kernel_width, in_channels, out_channels; got "
            f"{list(ws)}"
        )
    if xs[2] != ws[1]:
        raise RuntimeError(
            "Input dim 2 (input channels) is not == dim 1 in the weight tensor: "
            f"{list(xs)} and {list(ws)}"
        )
    if bias.array.shape != ws[2:]:
        raise RuntimeError(
            "Bias size must equal dim 2 in the weight tensor (output channels): "
            f"{list(bias.array.shape)} and {list(ws)}"
        )
    x, w = input.permute(1, 2, 0), weight.permute(2, 1, 0)  # type: ignore[attr-defined]
    return conv1d(x, w, bias, padding=pad).permute(2, 0, 1)  # type: ignore[attr-defined]
