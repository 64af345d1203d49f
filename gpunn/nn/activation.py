"""Activations: ReLU, Tanh, Sigmoid."""

from __future__ import annotations

from gpunn.nn.module import Module
from gpunn.ops._rows import inplace, unary
from gpunn.ops.transcend import sigmoid as sigmoid
from gpunn.ops.transcend import tanh as tanh
from gpunn.tensor import Tensor

_relu = unary(
    "relu", lambda x, xp: xp.maximum(x, x.dtype.type(0)), lambda g, y: g * (y > 0), -1,
    summary="max(x, 0); NaN stays NaN.",
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


class ReLU(Module):
    """max(x, 0), in place on request.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html

    >>> nn.ReLU()(gpunn.tensor([-1., 2.]))
    tensor([0., 2.])
    """

    __constants__ = ["inplace"]
    inplace: bool

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        return relu(input, self.inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


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
