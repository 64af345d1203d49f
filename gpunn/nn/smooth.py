"""Smooth activations: ELU, CELU, SELU, Mish, Softplus, LogSigmoid, Softsign, Tanhshrink."""

from __future__ import annotations

import functools
from typing import Any

from gpunn.nn._pointwise import Activation, pointwise
from gpunn.ops._rows import on
from gpunn.ops.transcend import sigmoid, tanh
from gpunn.tensor import Tensor

_row = functools.partial(pointwise, home=__name__)

#: SELU's constants: with them the outputs of many layers tend to mean 0 and variance 1.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


# --- exponential units -------------------------------------------------------------------------
# All are scale x for x > 0, else scale alpha (e ** (x / width) - 1).


def _unit(x: Any, xp: Any, alpha: float, scale: float = 1.0, width: float = 1.0) -> Any:
    below = xp.expm1(xp.minimum(x, 0) / width)  # 0 for x > 0
    return xp.maximum(x, 0) * scale + below * (scale * alpha)


def _unit_rule(
    g: Any, x: Any, xp: Any, alpha: float, scale: float = 1.0, width: float = 1.0
) -> Any:
    positive = x > 0
    below = xp.exp(xp.clip(x, None, 0) / width)
    return g * positive * scale + g * ~positive * below * (scale * alpha / width)


elu, elu_, ELU = _row(
    "elu", "ELU", lambda x, xp, alpha=1.0: _unit(x, xp, alpha), _unit_rule,
    summary="x where positive, else alpha (e ** x - 1).", shows="tensor([-0.6321,  2.0000])",
    paper="Clevert, Unterthiner and Hochreiter, \"Fast and accurate deep network learning by "
    "exponential linear units\" (2016)", kernel=lambda alpha: ("elu", alpha, 1.0, 1.0),
)  # fmt: skip
selu, selu_, SELU = _row(
    "selu", "SELU", lambda x, xp: _unit(x, xp, SELU_ALPHA, SELU_SCALE),
    lambda g, x, xp: _unit_rule(g, x, xp, SELU_ALPHA, SELU_SCALE), refusal="elu_cpu",
    summary="1.0507 elu(x, 1.6733): layers of it keep mean 0 and variance 1.",
    shows="tensor([-1.1113,  2.1014])", node_name="EluBackward0",
    paper="Klambauer, Unterthiner, Mayr and Hochreiter, \"Self-normalizing neural networks\" "
    "(2017)", kernel=lambda: ("elu", SELU_ALPHA, SELU_SCALE, 1.0),
)  # fmt: skip


def _check_celu(x: Any, alpha: float) -> None:
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")


celu, celu_, CELU = _row(
    "celu", "CELU", lambda x, xp, alpha=1.0: _unit(x, xp, alpha, 1.0, alpha),
    lambda g, x, xp, alpha: _unit_rule(g, x, xp, alpha, 1.0, alpha), refusal="elu_cpu",
    summary="x where positive, else alpha (e ** (x / alpha) - 1). RuntimeError for alpha = 0.",
    shows="tensor([-0.6321,  2.0000])", check=_check_celu,
    paper="Barron, \"Continuously differentiable exponential linear units\" (2017)",
    kernel=lambda alpha: ("elu", alpha, 1.0, alpha),
)  # fmt: skip


# --- logarithms and hyperbolic tangents --------------------------------------------------------


def _log1p_exp(x: Any, xp: Any) -> Any:
    """log(1 + e ** x), overflowing nowhere."""
    return xp.maximum(x, 0) + xp.log1p(xp.exp(-abs(x)))


softplus, _, Softplus = _row(
    "softplus", "Softplus",
    lambda x, xp, beta=1.0, threshold=20.0: xp.where(
        x * beta > threshold, x, _log1p_exp(x * beta, xp) / beta
    ),
    lambda g, x, xp, beta, threshold: xp.where(
        x * beta > threshold, g, g * on(sigmoid, x * beta)
    ),
    summary="log(1 + e ** (beta x)) / beta, and x itself where beta x > threshold.",
    shows="tensor([0.3133, 2.1269])", in_place=False, out=True,
    kernel=lambda beta, threshold: ("softplus", beta, threshold),
)  # fmt: skip
logsigmoid, _, LogSigmoid = _row(
    "logsigmoid", "LogSigmoid", lambda x, xp: -_log1p_exp(-x, xp),
    lambda g, x, xp: g * on(sigmoid, -x), refusal="log_sigmoid_cpu",
    summary="log(1 / (1 + e ** -x)), stable where that is near 0.",
    shows="tensor([-1.3133, -0.1269])", in_place=False, out=True, node_name="LogSigmoidBackward0",
    kernel=lambda: ("logsigmoid",),
)  # fmt: skip


def _mish_rule(g: Any, x: Any, xp: Any) -> Any:
    t = xp.tanh(_log1p_exp(x, xp))
    return g * (t + x * on(sigmoid, x) * (1 - t * t))


mish, _, Mish = _row(
    "mish", "Mish", lambda x, xp: x * xp.tanh(_log1p_exp(x, xp)), _mish_rule,
    summary="x tanh(log(1 + e ** x)).", shows="tensor([-0.3034,  1.9440])",
    paper="Misra, \"Mish: A self regularized non-monotonic activation function\" (2019)",
    kernel=lambda: ("mish",),
)  # fmt: skip


def softsign(input: Tensor) -> Tensor:
    """x / (1 + abs(x)).

    Shapes: any; the result has the same. dtypes: any but bool; integers give the default float.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softsign.html

    >>> F.softsign(gpunn.tensor([-1., 2.]))
    tensor([-0.5000,  0.6667])
    """
    return input / (input.abs() + 1)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x).

    Shapes: any; the result has the same. dtypes: any but bool; integers give the default float.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.tanhshrink.html

    >>> F.tanhshrink(gpunn.tensor([-1., 2.]))
    tensor([-0.2384,  1.0360])
    """
    return input - tanh(input)


class Softsign(Activation, function=softsign):
    """x / (1 + abs(x)): see `nn.functional.softsign`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softsign.html

    >>> nn.Softsign()(gpunn.tensor([-1., 2.]))
    tensor([-0.5000,  0.6667])
    """


class Tanhshrink(Activation, function=tanhshrink):
    """x - tanh(x): see `nn.functional.tanhshrink`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanhshrink.html

    >>> nn.Tanhshrink()(gpunn.tensor([-1., 2.]))
    tensor([-0.2384,  1.0360])
    """


__test__ = {f.__name__: f for f in (elu, selu, celu, softplus, logsigmoid, mish)}
