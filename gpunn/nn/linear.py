"""Linear layers: y = x W^T + b, and the bilinear form."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn import native
from gpunn.amp.casts import AUTOCAST, autocasts, casts
from gpunn.autograd.graph import mode, result, vjp
from gpunn.dtypes import F32, F64
from gpunn.nn import init
from gpunn.nn.lazy import LazyModuleMixin
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter, UninitializedParameter
from gpunn.nn.shape import Identity as Identity  # PyTorch has it in this file
from gpunn.ops._operands import no_array
from gpunn.ops._rows import write_out
from gpunn.ops.create import empty
from gpunn.ops.linalg import _proper, matmul, matmul_array
from gpunn.ops.reduce import sum_array
from gpunn.tensor import Tensor

_NATIVE_SIZE = 1 << 16  # elements from which on several threads add


def linear(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None
) -> Tensor:
    """input @ weight.T + bias.

    Shapes: input (..., in), weight (out, in) or (in,), bias (out) or (): (..., out).
    RuntimeError where the lengths differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.linear.html

    >>> F.linear(gpunn.ones(1, 2), gpunn.ones(3, 2), gpunn.zeros(3))
    tensor([[2., 2., 2.]])
    """
    if AUTOCAST and out is None:
        input, weight, bias = casts("linear", input, weight, bias)
    try:
        x, w = input.array, weight.array
        b = None if bias is None else bias.array
    except AttributeError as error:
        raise (no_array(error, "linear") or error) from None
    d = x.dtype
    if (
        w.ndim != 2 or x.ndim == 0 or w.dtype is not d or weight.device is not input.device
        or (b is not None and (b.ndim != 1 or b.dtype is not d))
        or (bias is not None and bias.device is not weight.device)
    ):  # fmt: skip
        if b is not None and w.dtype is not d and w.ndim == 2 and x.ndim > 0:
            raise RuntimeError(
                f"mat1 and mat2 must have the same dtype, but got {_proper(input)} and "
                f"{_proper(weight)} (linear: input and weight)"
            )
        made = matmul(input, weight.T if w.ndim == 2 else weight)
        made = made if bias is None else made + bias
        return made if out is None else write_out(out, made, "linear")
    try:
        y = x @ w.T if x.ndim < 3 and (d is F32 or d is F64) else matmul_array(x, w.T)
        if b is not None and not (y.size >= _NATIVE_SIZE and native.add_to_rows(y, b)):
            y += b
    except ValueError:
        raise _linear_error(x, w, b) from None
    if out is not None:
        return write_out(out, result(y, input, _linear_vjp, (input, weight, bias)), "linear")
    if not mode.grad:
        return result(y, input)
    needs_x, needs_w = input._requires_grad, weight._requires_grad
    saved = (x if needs_w else None, w if needs_x else None, None if b is None else True)
    return result(y, input, _linear_vjp, (input, weight, bias), saved)


def _linear_error(x: Any, w: Any, b: Any) -> RuntimeError:
    if x.shape[-1] == w.shape[1]:
        return RuntimeError(
            f"linear: bias {list(b.shape)} does not fit weight {list(w.shape)}: the size of tensor "
            f"a ({w.shape[0]}) must match the size of tensor b ({b.shape[0]})"
        )
    rows = int(np.prod(x.shape[:-1]))
    return RuntimeError(
        f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x.shape[-1]} and "
        f"{w.shape[1]}x{w.shape[0]}): linear: weight {w.shape} expects {w.shape[1]} features, "
        f"x {x.shape} has {x.shape[-1]}"
    )


@vjp((0, 1, None), name="AddmmBackward0")
def _linear_vjp(g: Any, x: Any, w: Any, biased: Any) -> Any:
    product = matmul if isinstance(g, Tensor) else matmul_array
    gx = None if w is None else product(g, w)
    gw = gb = None
    if x is not None or biased:
        rows = g if g.ndim == 2 else g.reshape((-1, g.shape[-1]))
        if x is not None:
            x = x if x.ndim == 2 else x.reshape((-1, x.shape[-1]))
            gw = product(rows.swapaxes(0, 1), x)
        if biased:
            gb = rows.sum(axis=0) if isinstance(g, Tensor) else _column_sums(rows)
    return gx, gw, gb


def _column_sums(x: Any) -> Any:
    many = type(x) is np.ndarray and x.size >= _NATIVE_SIZE
    y = native.column_sums(x) if many else None
    return sum_array(x, 0) if y is None else y


@autocasts("bilinear")
def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1^T A x2 + b for each output.

    Shapes: input1 (..., in1), input2 (..., in2), weight (out, in1, in2), bias (out): (..., out).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.bilinear.html

    >>> F.bilinear(gpunn.ones(1, 2), gpunn.ones(1, 3), gpunn.ones(1, 2, 3))
    tensor([[6.]])
    """
    if input1.shape[:-1] != input2.shape[:-1]:
        raise RuntimeError(
            f"bilinear(): input batch dimensions do not match: got {list(input1.shape)} and "
            f"{list(input2.shape)}"
        )
    for i, x in ((1, input1), (2, input2)):
        if x.shape[-1] != weight.shape[i]:
            raise RuntimeError(
                f"bilinear(): input{i} size does not match weight size: got {x.shape[-1]} but "
                f"expected {weight.shape[i]}"
            )
    out, n1, n2 = weight.shape
    rows1, rows2 = input1.reshape(-1, n1), input2.reshape(-1, n2)
    left = (rows1 @ weight.permute(1, 0, 2).reshape(n1, out * n2)).reshape(-1, out, n2)
    y = (left @ rows2.unsqueeze(-1)).reshape(*input1.shape[:-1], out)
    return y if bias is None else y + bias


class Linear(Module):
    """y = x W^T + b.

    Shapes: x (..., in_features): (..., out_features). Parameters: weight (out, in) and bias
    (out), uniform in +-1/sqrt(in_features).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html

    >>> nn.Linear(20, 30)(gpunn.zeros(128, 20)).shape
    torch.Size([128, 30])
    """

    __constants__ = ["in_features", "out_features"]

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(empty(out_features, in_features, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class NonDynamicallyQuantizableLinear(Linear):
    """A Linear. PyTorch has this class, of `MultiheadAttention.out_proj`, for its quantizer.

    >>> nn.MultiheadAttention(4, 2).out_proj
    NonDynamicallyQuantizableLinear(in_features=4, out_features=4, bias=True)
    """


class LazyLinear(LazyModuleMixin, Linear):
    """A Linear that takes `in_features` from its first input.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyLinear.html

    >>> layer = nn.LazyLinear(3)
    >>> layer(gpunn.zeros(2, 5)).shape, layer.in_features
    (torch.Size([2, 3]), 5)
    """

    cls_to_become = Linear

    def __init__(
        self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ):
        super().__init__(0, 0, False)
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        self.out_features = out_features
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draws new weights once the shape is known."""
        if not self.has_uninitialized_params() and self.in_features != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Takes the shape from the first input."""
        if self.has_uninitialized_params():
            self.in_features = input.shape[-1]
            self.weight.materialize((self.out_features, self.in_features))  # type: ignore[attr-defined]
            if self.bias is not None:
                self.bias.materialize((self.out_features,))  # type: ignore[attr-defined]
            self.reset_parameters()


class Bilinear(Module):
    """y = x1^T A x2 + b.

    Shapes: x1 (..., in1_features), x2 (..., in2_features): (..., out_features). Parameters:
    weight (out, in1, in2) and bias (out), uniform in +-1/sqrt(in1_features).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Bilinear.html

    >>> nn.Bilinear(2, 3, 4)(gpunn.zeros(5, 2), gpunn.zeros(5, 3)).shape
    torch.Size([5, 4])
    """

    __constants__ = ["in1_features", "in2_features", "out_features"]

    def __init__(
        self, in1_features: int, in2_features: int, out_features: int, bias: bool = True,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        if in1_features <= 0:
            raise ValueError(f"in1_features must be > 0, but got {in1_features}")
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        self.weight = Parameter(
            empty(out_features, in1_features, in2_features, device=device, dtype=dtype)
        )
        if bias:
            self.bias = Parameter(empty(out_features, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
