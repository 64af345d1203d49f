"""Activations: ReLU, GELU, SiLU, Tanh, Sigmoid."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn import native
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import elementwise as kernels
from gpunn.draw import need
from gpunn.dtypes import F32
from gpunn.nn.module import Module
from gpunn.ops._rows import conjugate, half, inplace, not_a_tensor, on, unary, write_out
from gpunn.ops.transcend import sigmoid as sigmoid
from gpunn.ops.transcend import tanh as tanh
from gpunn.special.erf import erf
from gpunn.tensor import Tensor

_MANY = 1 << 15  # elements from which on several threads beat NumPy's one


def _relu_array(x: Any, xp: Any) -> Any:
    many = type(x) is np.ndarray and x.size >= _MANY
    y = native.pointwise("threshold", (0.0, 0.0), x) if many else None
    return xp.maximum(x, x.dtype.type(0)) if y is None else y


def _relu_rule(g: Any, y: Any) -> Any:
    gx = None
    if type(g) is np.ndarray:
        if g.size >= _MANY:
            gx = native.pointwise_grad("threshold", (0.0, 0.0), y, g)
    elif not isinstance(g, Tensor):
        gx = kernels.unary_grad("relu", y, g)
    return g * (y > 0) if gx is None else gx


_relu = unary(
    "relu", _relu_array, _relu_rule, -1,
    kernel=functools.partial(kernels.unary, "relu"), summary="max(x, 0); NaN stays NaN.",
    example="gpunn.relu(gpunn.tensor([-1., 2.]))\ntensor([0., 2.])",
)  # fmt: skip
relu_ = inplace(_relu, "relu")
Tensor.relu, Tensor.relu_ = _relu, relu_  # type: ignore[attr-defined]


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0); NaN stays NaN.

    Shapes: any; the result has the same. dtypes: real.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.relu.html

    >>> F.relu(gpunn.tensor([-1., 2.]))
    tensor([0., 2.])
    """
    return relu_(input) if inplace else _relu(input)


# --- GELU and SiLU ------------------------------------------------------------------------
# Each is written once for arrays and Tensors, f and its slope; above a size the compiled code of
# kernels/elementwise.cpp or .cu does the same in one pass.

NATIVE_SIZE = 1024  # elements from which on one call of it is quicker than NumPy's several
_ROOT_HALF = math.sqrt(0.5)
_ROOT_2_PI = math.sqrt(2 / math.pi)


def _silu_plain(x: Any) -> Any:
    return x * on(sigmoid, x)


def _silu_slope(x: Any) -> Any:
    s = on(sigmoid, x)
    return s * (1 + x * (1 - s))


def _gelu_plain(x: Any) -> Any:
    return x * (0.5 * (1 + on(erf, x * _ROOT_HALF)))


def _gelu_slope(x: Any) -> Any:
    bell = ns(x).exp(x * x * -0.5) * (0.5 * _ROOT_2_PI)
    return 0.5 * (1 + on(erf, x * _ROOT_HALF)) + x * bell


def _gelu_tanh_plain(x: Any) -> Any:
    # (1 + tanh(u)) / 2 is sigmoid(2 u), which stays right where it is small
    return x * on(sigmoid, 2 * _ROOT_2_PI * (x + 0.044715 * (x * x * x)))


def _gelu_tanh_slope(x: Any) -> Any:
    s = on(sigmoid, 2 * _ROOT_2_PI * (x + 0.044715 * (x * x * x)))
    return s + x * s * (1 - s) * (2 * _ROOT_2_PI * (1 + 3 * 0.044715 * (x * x)))


def _value(name: str, plain: Callable[[Any], Any], x: Any) -> Any:
    """f of a raw array by whatever is quickest there."""
    if type(x) is not np.ndarray:
        y = kernels.unary(name, x)
        return plain(x) if y is None else y
    if half(x.dtype):
        return np.asarray(_value(name, plain, x.astype(F32))).astype(x.dtype)
    y = native.unary(name, x) if x.size >= NATIVE_SIZE else None
    return plain(x) if y is None else y


def _gradient(name: str, slope: Callable[[Any], Any], x: Any, g: Any) -> Any:
    """g f'(x) of raw arrays."""
    if type(x) is not np.ndarray:
        gx = kernels.unary_grad(name, x, g)
        return g * conjugate(slope(x)) if gx is None else gx
    if half(x.dtype):
        wide = _gradient(name, slope, x.astype(F32), g.astype(F32))
        return np.asarray(wide).astype(x.dtype)
    gx = native.unary_grad(name, x, g) if x.size >= NATIVE_SIZE else None
    return g * conjugate(slope(x)) if gx is None else gx


def _activation(
    name: str, plain: Callable[[Any], Any], slope: Callable[[Any], Any], node_name: str
) -> Callable[[Tensor], Tensor]:
    """The function of Tensors, with its gradient and that of the gradient."""

    @vjp((0,), name=node_name)
    def rule(g: Any, x: Any) -> Any:
        return g * conjugate(slope(x)) if isinstance(g, Tensor) else _gradient(name, slope, x, g)

    def apply(input: Tensor) -> Tensor:
        x = input.array
        return result(_value(name, plain, x), input, rule, (input,), (x,))

    return apply


_silu = _activation("silu", _silu_plain, _silu_slope, "SiluBackward0")
_silu_ = inplace(_silu, "silu")
_gelus = {
    "none": _activation("gelu", _gelu_plain, _gelu_slope, "GeluBackward0"),
    "tanh": _activation("gelu_tanh", _gelu_tanh_plain, _gelu_tanh_slope, "GeluBackward0"),
}


def gelu(input: Tensor, *, approximate: str = "none", out: Tensor | None = None) -> Tensor:
    """x times the normal distribution function of x, exactly or ("tanh") nearly.

    Shapes: any; the result has the same. dtypes: floating, NotImplementedError for others;
    RuntimeError for another `approximate`.
    Sources: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.gelu.html;
    Hendrycks and Gimpel, "Gaussian Error Linear Units" (2016)

    >>> F.gelu(gpunn.tensor([-1., 2.]))
    tensor([-0.1587,  1.9545])
    """
    if not isinstance(input, Tensor):
        raise not_a_tensor("gelu", input)
    f = _gelus.get(approximate)
    if f is None:
        raise RuntimeError(
            f"approximate argument must be either none or tanh. (gelu got {approximate!r})"
        )
    need(input.array.dtype.kind in "fV", "GeluKernelImpl", input.array.dtype)
    return f(input) if out is None else write_out(out, f(input), "gelu")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x times the logistic function of x, also called swish.

    Shapes: any; the result has the same. dtypes: floating and complex, NotImplementedError for
    others.
    Sources: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.silu.html;
    Elfwing, Uchibe and Doya, "Sigmoid-weighted linear units" (2018)

    >>> F.silu(gpunn.tensor([-1., 2.]))
    tensor([-0.2689,  1.7616])
    """
    if not isinstance(input, Tensor):
        raise not_a_tensor("silu", input)
    need(input.array.dtype.kind in "fVc", "silu_cpu", input.array.dtype)
    return _silu_(input) if inplace else _silu(input)


class GELU(Module):
    """x times the normal distribution function of x: see `nn.functional.gelu`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GELU.html

    >>> nn.GELU()(gpunn.zeros(1))
    tensor([0.])
    """

    __constants__ = ["approximate"]
    approximate: str

    def __init__(self, approximate: str = "none"):
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        return gelu(input, approximate=self.approximate)

    def extra_repr(self) -> str:
        return f"approximate={self.approximate!r}"


class _InPlace(Module):
    """What SiLU and ReLU share."""

    __constants__ = ["inplace"]
    inplace: bool

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


class SiLU(_InPlace):
    """x times the logistic function of x: see `nn.functional.silu`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SiLU.html

    >>> nn.SiLU()(gpunn.zeros(1))
    tensor([0.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return silu(input, self.inplace)


class ReLU(_InPlace):
    """max(x, 0), in place on request.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html

    >>> nn.ReLU()(gpunn.tensor([-1., 2.]))
    tensor([0., 2.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return relu(input, self.inplace)


class Tanh(Module):
    """The hyperbolic tangent.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html

    >>> nn.Tanh()(gpunn.zeros(1))
    tensor([0.])
    """

    def forward(self, input: Tensor) -> Tensor:
        return tanh(input)


class Sigmoid(Module):
    """The logistic function 1 / (1 + e ** -x).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html

    >>> nn.Sigmoid()(gpunn.zeros(1))
    tensor([0.5000])
    """

    def forward(self, input: Tensor) -> Tensor:
        return sigmoid(input)
