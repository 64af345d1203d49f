"""Layer normalisation and RMS normalisation: over the last dimensions of each element of a batch.

Sources: Ba, Kiros and Hinton 2016, Layer Normalization; Zhang and Sennrich 2019, Root Mean Square
Layer Normalization.
"""

from __future__ import annotations

import math
import numbers
from typing import Any

import numpy as np

from gpunn.amp.casts import AUTOCAST, autocasts, casts
from gpunn.dtypes import F32
from gpunn.nn import init
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.nn.row_norm import Plan, check_types, finfo_eps, row_norm, row_norm_rule
from gpunn.ops._rows import cast, half, not_a_tensor
from gpunn.ops.create import empty
from gpunn.tensor import Tensor

_layer_norm_vjp = row_norm_rule("NativeLayerNormBackward0")
_rms_norm_vjp = row_norm_rule("FusedRmsNormBackward0")


def _plan(
    name: str, input: Tensor, normalized_shape: Any, params: dict[str, Any], rms: bool = False
) -> Plan:
    """The rows that the last dimensions make; RuntimeError for shapes that do not fit."""
    if not isinstance(input, Tensor):
        raise not_a_tensor(name, input)
    words = f"{name}(): argument 'normalized_shape' (position 2) must be tuple of ints, "
    if isinstance(normalized_shape, (numbers.Number, str)) or normalized_shape is None:
        raise TypeError(f"{words}not {type(normalized_shape).__name__}")
    for i, size in enumerate(normalized_shape):
        if not isinstance(size, (int, np.integer)):
            raise TypeError(f"{words}but found element of type {type(size).__name__} at pos {i}")
    shape, full = tuple(normalized_shape), input.array.shape
    if not shape:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one "
            "element, but got normalized_shape = []"
        )
    for key, t in params.items():
        if t is not None and t.array.shape != shape:
            raise RuntimeError(
                f"Expected {key} to be of same shape as normalized_shape, but got {key} of shape "
                f"{list(t.array.shape)} and normalized_shape = {list(shape)}"
            )
    if full[-len(shape) :] != shape:
        star = "*" if rms else "*, "
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape "
            f"[{star}{', '.join(map(str, shape))}], but got input of size{list(full)}"
        )
    return Plan(math.prod(full[: -len(shape)]), math.prod(shape), rms=rms)


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last dimensions.

    Shapes: input (..., *normalized_shape), weight and bias normalized_shape. dtypes: floating;
    a 16-bit input takes parameters of its own dtype or of float32. RuntimeError for others.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.layer_norm.html

    >>> F.layer_norm(gpunn.tensor([[1.0, 3.0]]), (2,))
    tensor([[-1.0000,  1.0000]])
    """
    if AUTOCAST:
        input, weight, bias = casts("layer_norm", input, weight, bias)
    params = {"weight": weight, "bias": bias}
    plan = _plan("layer_norm", input, normalized_shape, params)
    check_types("LayerNormKernelImpl", input, params)
    return row_norm(input, weight, bias, eps, plan, _layer_norm_vjp)


@autocasts("rms_norm")
def rms_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / sqrt(mean of x**2 + eps) * weight over the last dimensions.

    Shapes: input (..., *normalized_shape), weight normalized_shape. dtypes: floating and complex
    (of which the mean of x * x is taken); the result has the input's. `eps` is the machine epsilon
    by default, float32's for 16-bit inputs. RuntimeError for shapes that do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.rms_norm.html

    >>> F.rms_norm(gpunn.tensor([[3.0, 4.0]]), (2,))
    tensor([[0.8485, 1.1314]])
    """
    plan = _plan("rms_norm", input, normalized_shape, {"weight": weight}, rms=True)
    x = input.array
    if x.dtype.kind == "c":
        return _complex_rms_norm(input, tuple(normalized_shape), weight, eps)
    if weight is not None and weight.array.dtype != x.dtype:
        weight = cast(weight, F32 if half(x.dtype) else x.dtype)
    check_types("rms_norm", input, {"weight": weight})
    eps = finfo_eps(x) if eps is None else eps
    return row_norm(input, weight, None, eps, plan, _rms_norm_vjp)


def _complex_rms_norm(x: Any, shape: Any, weight: Any, eps: float | None) -> Tensor:
    axes = tuple(range(-len(shape), 0))
    eps = float(np.finfo(x.array.dtype).eps) if eps is None else eps
    y = x * ((x * x).mean(axes, keepdim=True) + eps).rsqrt()
    return y if weight is None else cast(y * weight, x.array.dtype)


def _shape(normalized_shape: Any) -> tuple[int, ...]:
    if isinstance(normalized_shape, numbers.Integral):
        return (normalized_shape,)  # type: ignore[return-value]
    return tuple(normalized_shape)


class LayerNorm(Module):
    """Layer normalisation over the last dimensions: see `nn.functional.layer_norm`.

    Parameters: weight (ones) and bias (zeros) of normalized_shape, without `elementwise_affine`
    none, without `bias` the weight alone. Statistics are the input's in training and evaluation.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html

    >>> nn.LayerNorm(3)(gpunn.randn(2, 4, 3)).shape
    torch.Size([2, 4, 3])
    """

    __constants__ = ["normalized_shape", "eps", "elementwise_affine"]
    weight: Any
    bias: Any

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        for name, wanted in (("weight", elementwise_affine), ("bias", elementwise_affine and bias)):
            values = empty(self.normalized_shape, device=device, dtype=dtype) if wanted else None
            self.register_parameter(name, Parameter(values) if wanted else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights 1, biases 0."""
        if self.elementwise_affine:
            init.ones_(self.weight)
            if self.bias is not None:
                init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, "
                f"elementwise_affine={self.elementwise_affine}, "
                f"bias={self.bias is not None}")  # fmt: skip


class RMSNorm(Module):
    """RMS normalisation over the last dimensions: see `nn.functional.rms_norm`.

    Parameter: weight (ones) of normalized_shape, without `elementwise_affine` none.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RMSNorm.html

    >>> nn.RMSNorm(3)(gpunn.randn(2, 4, 3)).shape
    torch.Size([2, 4, 3])
    """

    __constants__ = ["normalized_shape", "eps", "elementwise_affine"]
    weight: Any

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.normalized_shape = _shape(normalized_shape)
        self.eps, self.elementwise_affine = eps, elementwise_affine
        values = None
        if elementwise_affine:
            values = Parameter(empty(self.normalized_shape, device=device, dtype=dtype))
        self.register_parameter("weight", values)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights 1."""
        if self.elementwise_affine:
            init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.normalized_shape}, eps={self.eps}, "
                f"elementwise_affine={self.elementwise_affine}")  # fmt: skip
