"""Activations of straight pieces: ReLU6, LeakyReLU, PReLU, RReLU, Hardtanh, shrinkage, Threshold.

Where two pieces meet, the gradient is the one that PyTorch takes there. Pieces are put together by
products with masks: NumPy's `where` takes several times as long.
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

from gpunn import draw
from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import result, vjp
from gpunn.draw import need
from gpunn.dtypes import F16, F32, finfo, of
from gpunn.generator import pick
from gpunn.nn import init
from gpunn.nn._pointwise import Activation, pointwise
from gpunn.nn.parameter import Parameter
from gpunn.ops._rows import binary, half, inplace, not_a_tensor, proper
from gpunn.ops.create import empty
from gpunn.tensor import Tensor, wrap

_row = functools.partial(pointwise, home=__name__)


# --- bounded: hardtanh, relu6, hardsigmoid, hardswish ------------------------------------------


def _clamp(x: Any, xp: Any, low: float, high: float) -> Any:
    if x.dtype.kind in "iu":
        low, high = int(low), int(high)
    return xp.minimum(xp.maximum(x, low), high)


def _inside(g: Any, x: Any, xp: Any, low: float, high: float) -> Any:
    return g * ((x > low) & (x < high))


def _check_bounds(x: Any, low: float, high: float) -> None:
    kind = x.dtype.kind
    if low > high:
        raise ValueError(f"min_val cannot be greater than max_val (hardtanh got {low} and {high})")
    if kind == "b":
        raise RuntimeError("Bool inputs not supported for hardtanh")
    if kind == "c":
        raise NotImplementedError("clamp is not supported for complex types (hardtanh)")
    if kind == "u" and low < 0:
        raise RuntimeError("cannot do hardtanh on an unsigned type with negative limits")


_hardtanh_row = functools.partial(
    _row, integers=True, check=_check_bounds, node_name="HardtanhBackward0"
)
hardtanh, hardtanh_, _ = _hardtanh_row(
    "hardtanh", "",
    lambda x, xp, min_val=-1.0, max_val=1.0: _clamp(x, xp, min_val, max_val), _inside,
    summary="min(max(x, min_val), max_val). ValueError for min_val > max_val.",
    shows="tensor([-1.,  1.])", kernel=lambda low, high: ("hardtanh", low, high),
)  # fmt: skip
relu6, _, _ = _hardtanh_row(
    "relu6", "", lambda x, xp: _clamp(x, xp, 0, 6), lambda g, x, xp: _inside(g, x, xp, 0, 6),
    check=lambda x: _check_bounds(x, 0, 6), summary="min(max(x, 0), 6).",
    shows="tensor([0., 2.])", kernel=lambda: ("hardtanh", 0.0, 6.0),
    paper="Krizhevsky, \"Convolutional Deep Belief Networks on CIFAR-10\" (2010)",
)  # fmt: skip


class Hardtanh(Activation, function=hardtanh):
    """min(max(x, min_val), max_val). AssertionError unless min_val < max_val.

    It calls `nn.functional.hardtanh`. `min_value` and `max_value` are old names.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Hardtanh.html

    >>> nn.Hardtanh()(gpunn.tensor([-1.5, 0.5, 2.]))
    tensor([-1.0000,  0.5000,  1.0000])
    """

    def __init__(
        self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False,
        min_value: float | None = None, max_value: float | None = None,
    ):  # fmt: skip
        super().__init__()
        for old, value in (("min_value", min_value), ("max_value", max_value)):
            if value is not None:
                warnings.warn(
                    f"keyword argument `{old}` is deprecated and renamed to `{old[:-2]}`",
                    FutureWarning,
                    stacklevel=2,
                )
        self.min_val = min_val if min_value is None else min_value
        self.max_val = max_val if max_value is None else max_value
        self.inplace = inplace
        if self.max_val <= self.min_val:
            raise AssertionError(
                f"max_val ({self.max_val}) must be greater than min_val ({self.min_val})"
            )


class ReLU6(Hardtanh):
    """min(max(x, 0), 6): `Hardtanh(0, 6)`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU6.html

    >>> nn.ReLU6()(gpunn.tensor([-1., 2., 7.]))
    tensor([0., 2., 6.])
    """

    def __init__(self, inplace: bool = False):
        super().__init__(0.0, 6.0, inplace)

    def extra_repr(self) -> str:
        return "inplace=True" if self.inplace else ""


hardsigmoid, _, Hardsigmoid = _row(
    "hardsigmoid", "Hardsigmoid", lambda x, xp: _clamp(x + 3, xp, 0, 6) / 6,
    lambda g, x, xp: _inside(g / 6, x, xp, -3, 3),
    summary="min(max(x + 3, 0), 6) / 6, nearly the logistic function.", words="",
    shows="tensor([0.3333, 0.8333])", kernel=lambda: ("hardsigmoid",),
)  # fmt: skip
hardswish, _, Hardswish = _row(
    "hardswish", "Hardswish", lambda x, xp: x * (_clamp(x + 3, xp, 0, 6) / 6),
    lambda g, x, xp: g * (x >= 3) + _inside(g, x, xp, -3, 3) * (xp.clip(x, -3, 3) / 3 + 0.5),
    summary="x hardsigmoid(x), nearly SiLU.", words="", shows="tensor([-0.3333,  1.6667])",
    paper="Howard et al., \"Searching for MobileNetV3\" (2019)", kernel=lambda: ("hardswish",),
)  # fmt: skip


# --- shrinkage and threshold -------------------------------------------------------------------


def _check_lambda(x: Any, lambd: float) -> None:
    need(x.dtype.kind in "fV", "softshrink_check", x.dtype)
    top = finfo(of(x.dtype)).max
    if not 0 <= lambd <= top:
        raise RuntimeError(
            f"lambda must be in range [0, {top:g}] for input dtype {proper(of(x.dtype))}, but "
            f"found {lambd:g}"
        )


def _outside(g: Any, x: Any, xp: Any, lambd: float) -> Any:
    return g * (abs(x) > lambd)


hardshrink, _, Hardshrink = _row(
    "hardshrink", "Hardshrink", lambda x, xp, lambd=0.5: x * (abs(x) > lambd), _outside,
    summary="x where abs(x) > lambd, else 0.", shows="tensor([-1.,  2.])", words="{lambd}",
    in_place=False, out=True, kernel=lambda lambd: ("hardshrink", lambd),
)  # fmt: skip
softshrink, _, Softshrink = _row(
    "softshrink", "Softshrink", lambda x, xp, lambd=0.5: x - _clamp(x, xp, -lambd, lambd), _outside,
    summary="x moved towards 0 by lambd, which is 0 where it gets there. RuntimeError for "
    "lambd < 0.", shows="tensor([-0.5000,  1.5000])", words="{lambd}", check=_check_lambda,
    in_place=False, out=True, kernel=lambda lambd: ("softshrink", lambd),
)  # fmt: skip


def _replace(x: Any, xp: Any, threshold: float, value: float) -> Any:
    if x.dtype.kind in "iu":
        threshold, value = int(threshold), int(value)
    below = (x <= threshold).astype(x.dtype)
    return xp.maximum(x, threshold) * (1 - below) + below * value


threshold, threshold_, Threshold = _row(
    "threshold", "Threshold", _replace,
    lambda g, x, xp, threshold, value: g * ~(x <= threshold),
    summary="x where x > threshold, else value.", args="0.5, 20.", shows="tensor([20.,  2.])",
    integers=True, kernel=lambda threshold, value: ("threshold", threshold, value),
)  # fmt: skip


# --- leaks: leaky_relu, prelu, rrelu -----------------------------------------------------------


def _leak(x: Any, xp: Any, slope: Any) -> Any:
    return xp.maximum(x, 0) + xp.minimum(x, 0) * slope


def _leak_rule(g: Any, x: Any, xp: Any, slope: Any) -> Any:
    positive = x > 0
    return g * positive + g * ~positive * slope


leaky_relu, leaky_relu_, LeakyReLU = _row(
    "leaky_relu", "LeakyReLU", lambda x, xp, negative_slope=0.01: _leak(x, xp, negative_slope),
    _leak_rule, summary="x where positive, else negative_slope x.",
    shows="tensor([-0.0100,  2.0000])",
    paper="Maas, Hannun and Ng, \"Rectifier nonlinearities improve neural network acoustic "
    "models\" (2013)", node_name="LeakyReluBackward0",
    kernel=lambda slope: ("leaky_relu", slope),
)  # fmt: skip

_prelu_kernel = binary(
    "prelu", lambda x, w, xp: _leak(x, xp, w),
    lambda g, x, w: (_leak_rule(g, x, None, w), g * ~(x > 0) * x), "a b",
    refuses="biuc", node_name="PreluKernelBackward0",
)  # fmt: skip


@autocasts("prelu")
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where positive, else weight x, with a weight for each channel or one for all.

    Shapes: input (batch, channels, ...) or (n), weight (channels) or (1); the result has the
    input's. dtypes: floating, the same for both. RuntimeError for what does not fit.
    Sources: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.prelu.html;
    He, Zhang, Ren and Sun, "Delving deep into rectifiers" (2015)

    >>> F.prelu(gpunn.tensor([[-1., -1., 2.]]), gpunn.tensor([0.5, 0.25, 0.125]))
    tensor([[-0.5000, -0.2500,  2.0000]])
    """
    for i, (name, value) in enumerate((("input", input), ("weight", weight))):
        if not isinstance(value, Tensor):
            raise not_a_tensor("prelu", value, name, i + 1)
    x, w = input.array, weight.array
    if x.dtype != w.dtype:
        raise RuntimeError(
            f"prelu: Type promoting not supported. Got {proper(input.dtype)} and "
            f"{proper(weight.dtype)}"
        )
    if w.size != 1:
        if not x.ndim:
            raise RuntimeError("Not allow zero-dim input tensor. (prelu: give it one weight)")
        channels = x.shape[1] if x.ndim > 1 else 1
        if channels != w.size:
            raise RuntimeError(
                "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{w.size} and channel size = {channels}. (prelu)"
            )
    if w.ndim > 1:
        raise RuntimeError(
            f"prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = {w.ndim}"
        )
    need(x.dtype.kind in "fV", "prelu_cpu", x.dtype)
    shape = [1] * x.ndim
    if x.ndim > 1:
        shape[1] = w.size
    return _prelu_kernel(input, weight if w.ndim == x.ndim else weight.reshape(shape))


Tensor.prelu, Tensor.hardshrink = prelu, hardshrink  # type: ignore[attr-defined]


class PReLU(Activation):
    """x where positive, else weight x, with a weight that is learned for each channel.

    `num_parameters` is 1 or the number of channels. It calls `nn.functional.prelu`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PReLU.html

    >>> nn.PReLU()(gpunn.tensor([-1., 2.])).tolist()
    [-0.25, 2.0]
    """

    __constants__ = ["num_parameters"]

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ):
        super().__init__()
        self.num_parameters, self.init = num_parameters, init
        self.weight = Parameter(empty(num_parameters, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        init.constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        return prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


def _rrelu(input: Tensor, lower: float, upper: float, training: bool) -> Tensor:
    if not isinstance(input, Tensor):
        raise not_a_tensor("rrelu", input)
    if not (math.isfinite(lower) and math.isfinite(upper)):
        which, value = ("upper", upper) if math.isfinite(lower) else ("lower", lower)
        raise RuntimeError(f"rrelu: {which} bound must be finite, got {value}")
    if lower > upper:
        raise RuntimeError(
            f"Lower bound should be less than or equal to the upper bound (rrelu got {lower} and "
            f"{upper})"
        )
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    x = input.array
    cpu = input.device.type == "cpu"
    need(x.dtype.kind in "fV" and not (cpu and x.dtype is F16), "rrelu_with_noise_out_cpu", x.dtype)
    slopes = _slopes(x, lower, upper, input)
    y = (x.astype(F32) * slopes).astype(x.dtype) if half(x.dtype) else x * slopes
    return result(y, input, _rrelu_vjp, (input,), (slopes,))


def _slopes(x: Any, lower: float, upper: float, like: Tensor) -> Any:
    """What each element is multiplied with: 1, and where x <= 0 a number drawn from the bounds."""
    low, xp = x <= 0, like.device.xp
    generator = pick(None, like.device)
    with generator.lock:  # a GPU draws for all elements: it need not count, so not wait
        count = low.size if generator.is_philox else int(low.sum())
        drawn = draw.unit(generator, count, wide=True) * (upper - lower) + lower
    slopes = xp.ones(x.shape, F32 if half(x.dtype) else x.dtype)
    if generator.is_philox:
        return xp.where(low, drawn.reshape(x.shape).astype(slopes.dtype), slopes)
    slopes[low] = drawn
    return slopes


@vjp((None,), name="RreluWithNoiseBackward0")
def _rrelu_vjp(g: Any, slopes: Any) -> Any:
    if isinstance(g, Tensor):
        return g * wrap(slopes.astype(g.array.dtype), g.device)
    return (g * slopes).astype(g.dtype)


_rrelu_ = inplace(_rrelu, "rrelu")


def rrelu(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False,
    inplace: bool = False,
) -> Tensor:  # fmt: skip
    """x where positive, else a x with a drawn for each element from [lower, upper).

    Without `training` a is (lower + upper) / 2. Shapes: any; the result has the same. dtypes:
    floating. RuntimeError for lower > upper. On the CPU the numbers are PyTorch's own for the
    same seed.
    Sources: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.rrelu.html;
    Xu, Wang, Chen and Li, "Empirical evaluation of rectified activations" (2015)

    >>> F.rrelu(gpunn.tensor([-1., 2.]), 0.25, 0.75)
    tensor([-0.5000,  2.0000])
    """
    return (_rrelu_ if inplace else _rrelu)(input, lower, upper, training)


def rrelu_(
    input: Tensor, lower: float = 1.0 / 8, upper: float = 1.0 / 3, training: bool = False
) -> Tensor:
    """In-place version of `rrelu`: changes this tensor and returns it.

    >>> F.rrelu_(gpunn.tensor([-1., 2.]), 0.25, 0.75)
    tensor([-0.5000,  2.0000])
    """
    return _rrelu_(input, lower, upper, training)


class RReLU(Activation, function=rrelu):
    """x where positive, else a x with a drawn for each element while the module is training.

    It calls `nn.functional.rrelu`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RReLU.html

    >>> nn.RReLU(0.25, 0.75).eval()(gpunn.tensor([-1., 2.]))
    tensor([-0.5000,  2.0000])
    """


__test__ = {
    f.__name__: f
    for f in (
        hardtanh, relu6, hardsigmoid, hardswish, hardshrink, softshrink, threshold, leaky_relu,
    )
}  # fmt: skip  (doctest looks there for the functions that the rows made)
