"""Initial values of parameters, filled in place and drawn as PyTorch draws them.

Source: https://docs.pytorch.org/docs/stable/nn.init.html
"""

from __future__ import annotations

import contextlib
import functools
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from gpunn import autograd
from gpunn.tensor import Tensor

__all__ = [
    "calculate_gain", "constant", "constant_", "dirac", "dirac_", "eye", "eye_", "kaiming_normal",
    "kaiming_normal_", "kaiming_uniform", "kaiming_uniform_", "normal", "normal_", "ones_",
    "orthogonal", "orthogonal_", "sparse", "sparse_", "trunc_normal_", "uniform", "uniform_",
    "xavier_normal", "xavier_normal_", "xavier_uniform", "xavier_uniform_", "zeros_",
]  # fmt: skip

_LINEAR = {
    "linear", "sigmoid", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d",
}  # fmt: skip


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity wants its layer's standard deviation raised.

    1 for linear, convolutions and sigmoid, 5/3 for tanh, sqrt(2) for relu, 3/4 for selu,
    sqrt(2 / (1 + param**2)) for leaky_relu with slope `param`, 0.01 by default. Raises ValueError
    for others.
    Source: https://docs.pytorch.org/docs/stable/nn.init.html#torch.nn.init.calculate_gain

    >>> nn.init.calculate_gain("tanh")
    1.6666666666666667
    """
    if nonlinearity in _LINEAR:
        return 1
    if nonlinearity == "tanh":
        return 5.0 / 3
    if nonlinearity == "relu":
        return math.sqrt(2.0)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity == "selu":
        return 3.0 / 4
    raise ValueError(f"Unsupported nonlinearity {nonlinearity}")


_local = threading.local()


@contextlib.contextmanager
def skipped() -> Iterator[None]:
    """Inside, the functions that fill a tensor return it as it is, in this thread.

    >>> with nn.init.skipped():
    ...     nn.init.constant_(gpunn.zeros(2), 5.0)
    tensor([0., 0.])
    """
    before = getattr(_local, "skips", False)
    _local.skips = True
    try:
        yield
    finally:
        _local.skips = before


def _in_place(fill: Callable[..., Any]) -> Callable[..., Any]:
    """Runs without recording gradients, which a parameter's in-place change may not do."""

    @functools.wraps(fill)
    def run(*args: Any, **kwargs: Any) -> Any:
        if getattr(_local, "skips", False):
            return args[0] if args else kwargs["tensor"]
        with autograd.no_grad():
            return fill(*args, **kwargs)

    return run


@_in_place
def uniform_(tensor: Any, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Fills a tensor with draws from the uniform distribution on [a, b) and returns it.

    >>> 0 <= nn.init.uniform_(gpunn.empty(2, 3)).min().item() < 1
    True
    """
    return tensor.uniform_(a, b, generator=generator)


@_in_place
def normal_(tensor: Any, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Fills a tensor with draws from the normal distribution and returns it.

    >>> nn.init.normal_(gpunn.empty(2, 3), mean=5.0, std=0.0).tolist()[0]
    [5.0, 5.0, 5.0]
    """
    return tensor.normal_(mean, std, generator=generator)


@_in_place
def trunc_normal_(
    tensor: Any, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Any = None,
) -> Tensor:  # fmt: skip
    """Fills a tensor with draws from the normal distribution cut off at [a, b] and returns it.

    Warns where the mean lies more than 2 std outside [a, b].

    >>> nn.init.trunc_normal_(gpunn.empty(100)).abs().max().item() <= 2
    True
    """
    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of "
            "values may be incorrect.",
            stacklevel=3,
        )
    inside = _normal_cdf((b - mean) / std) - _normal_cdf((a - mean) / std)
    fill = _redraw_normal if inside > 0.3 else _reject_uniform
    return fill(tensor, mean, std, a, b, generator)


def _normal_cdf(x: float) -> float:
    return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0


def _redraw_normal(
    tensor: Any, mean: float, std: float, a: float, b: float, generator: Any
) -> Tensor:
    """Draws all again until each element was inside once: the quick way where most are."""
    low, high = tensor.new_tensor(a).item(), tensor.new_tensor(b).item()
    drawn = tensor.normal_(mean, std, generator=generator)
    while (outside := (drawn < low) | (drawn > high)).any():
        again = drawn.new_empty(drawn.shape).normal_(mean, std, generator=generator)
        drawn = again.where(outside, drawn)
    return tensor if drawn is tensor else tensor.copy_(drawn)


def _reject_uniform(
    tensor: Any, mean: float, std: float, a: float, b: float, generator: Any
) -> Tensor:
    """Draws uniformly on [a, b] and accepts as the density says: for cuts in the tail."""
    peak = -0.5 * ((max(a, min(mean, b)) - mean) / std) ** 2

    def rejected(candidates: Any) -> Any:
        log_density = ((candidates - mean) / std) ** 2 * -0.5 - peak
        return tensor.new_empty(tensor.shape).uniform_(generator=generator).log() > log_density

    drawn = tensor.uniform_(a, b, generator=generator)
    pending = rejected(drawn)
    while pending.any():
        again = tensor.new_empty(tensor.shape).uniform_(a, b, generator=generator)
        drawn = again.where(pending, drawn)
        pending = pending & rejected(again)
    return tensor if drawn is tensor else tensor.copy_(drawn)


@_in_place
def constant_(tensor: Any, val: float) -> Tensor:
    """Fills a tensor with a value and returns it.

    >>> nn.init.constant_(gpunn.empty(2), 0.5)
    tensor([0.5000, 0.5000])
    """
    return tensor.fill_(val)


def ones_(tensor: Any) -> Tensor:
    """Fills a tensor with 1 and returns it.

    >>> nn.init.ones_(gpunn.empty(2))
    tensor([1., 1.])
    """
    return constant_(tensor, 1.0)


@_in_place
def zeros_(tensor: Any) -> Tensor:
    """Fills a tensor with 0 and returns it.

    >>> nn.init.zeros_(gpunn.empty(2))
    tensor([0., 0.])
    """
    return tensor.zero_()


@_in_place
def eye_(tensor: Any) -> Tensor:
    """Makes a matrix the identity, as far as it goes, and returns it.

    Raises ValueError for what is not 2-dimensional.

    >>> nn.init.eye_(gpunn.empty(2, 3))
    tensor([[1., 0., 0.],
            [0., 1., 0.]])
    """
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    tensor.zero_()
    places = list(range(min(tensor.shape)))
    tensor[places, places] = 1
    return tensor


@_in_place
def dirac_(tensor: Any, groups: int = 1) -> Tensor:
    """Makes the weight of a convolution one that passes its channels on, and returns it.

    (O, I, k...) with 1 to 3 kernel dimensions; each of `groups` passes on its first channels.
    Raises ValueError for other shapes, and where `groups` does not divide O.

    >>> nn.init.dirac_(gpunn.empty(2, 2, 3))[1]
    tensor([[0., 0., 0.],
            [0., 1., 0.]])
    """
    if tensor.ndim not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    outputs, inputs, *kernel = tensor.shape
    if outputs % groups != 0:
        raise ValueError("dim 0 must be divisible by groups")
    per_group = outputs // groups
    count = min(per_group, inputs)
    tensor.zero_()
    rows = [g * per_group + i for g in range(groups) for i in range(count)]
    tensor[(rows, list(range(count)) * groups, *(size // 2 for size in kernel))] = 1
    return tensor


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """How many inputs each output reads and how many outputs each input reaches."""
    if tensor.ndim < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"
        )
    outputs, inputs, *kernel = tensor.shape
    return inputs * math.prod(kernel), outputs * math.prod(kernel)


def _calculate_correct_fan(tensor: Tensor, mode: str) -> int:
    modes = ["fan_in", "fan_out"]
    if mode.lower() not in modes:
        raise ValueError(f"Mode {mode.lower()} not supported, please use one of {modes}")
    return _calculate_fan_in_and_fan_out(tensor)[modes.index(mode.lower())]


def xavier_uniform_(tensor: Any, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Fills a weight (O, I, ...) uniformly on [-a, a), a = gain * sqrt(6 / (fan_in + fan_out)).

    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks, 2010.

    >>> nn.init.xavier_uniform_(gpunn.empty(3, 3)).abs().max().item() <= 1
    True
    """
    bound = math.sqrt(3.0) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Any, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Fills a weight (O, I, ...) from N(0, std), std = gain * sqrt(2 / (fan_in + fan_out)).

    Source: Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks, 2010.

    >>> nn.init.xavier_normal_(gpunn.empty(3, 5)).shape
    torch.Size([3, 5])
    """
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def _xavier_std(tensor: Tensor, gain: float) -> float:
    return gain * math.sqrt(2.0 / float(sum(_calculate_fan_in_and_fan_out(tensor))))


def kaiming_uniform_(
    tensor: Any, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:  # fmt: skip
    """Fills a weight (O, I, ...) uniformly on [-b, b), b = gain * sqrt(3 / fan).

    `mode` says which fan: "fan_in" keeps the variance going forward, "fan_out" going backward.
    `a` is leaky_relu's slope. Warns for a tensor without elements.
    Source: He et al., Delving deep into rectifiers, 2015.

    >>> nn.init.kaiming_uniform_(gpunn.empty(3, 6), nonlinearity="relu").abs().max().item() <= 1
    True
    """
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Any, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:  # fmt: skip
    """Fills a weight (O, I, ...) from N(0, std), std = gain / sqrt(fan).

    `mode` says which fan: "fan_in" keeps the variance going forward, "fan_out" going backward.
    `a` is leaky_relu's slope. Warns for a tensor without elements.
    Source: He et al., Delving deep into rectifiers, 2015.

    >>> nn.init.kaiming_normal_(gpunn.empty(3, 5), mode="fan_out").shape
    torch.Size([3, 5])
    """
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=2)
        return tensor
    return normal_(tensor, 0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    return calculate_gain(nonlinearity, a) / math.sqrt(_calculate_correct_fan(tensor, mode))


@_in_place
def orthogonal_(tensor: Any, gain: float = 1, generator: Any = None) -> Tensor:
    """Makes the rows of a weight, its dimensions after the first joined, orthonormal, times `gain`.

    The columns where there are fewer of them. Raises ValueError for fewer than 2 dimensions.
    Source: Saxe et al., Exact solutions to the nonlinear dynamics of learning in deep linear
    neural networks, 2014.

    >>> w = nn.init.orthogonal_(gpunn.empty(2, 5))
    >>> np.allclose(w @ w.T, np.eye(2), atol=1e-6)
    True
    """
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    from gpunn import linalg

    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    drawn = tensor.new_empty((rows, columns)).normal_(0, 1, generator=generator)
    q, r = linalg.qr(drawn.t() if rows < columns else drawn)  # type: ignore[attr-defined]
    q = q * r.diagonal().sign()  # so that Q is uniform: https://arxiv.org/abs/math-ph/0609050
    q = q.t() if rows < columns else q
    return tensor.copy_(q.reshape(tensor.shape)).mul_(gain)


@_in_place
def sparse_(tensor: Any, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Fills a matrix from N(0, std), with the fraction `sparsity` of each column set to 0.

    Raises ValueError for what is not 2-dimensional.
    Source: Martens, Deep learning via Hessian-free optimization, 2010.

    >>> (nn.init.sparse_(gpunn.empty(4, 3), 0.5) == 0).sum(0).tolist()
    [2, 2, 2]
    """
    from gpunn.random import randperm

    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    tensor.normal_(0, std, generator=generator)
    for column in range(columns):
        order: Any = randperm(rows)
        tensor[order[:zeros], column] = 0
    return tensor


def _deprecated(new: Callable[..., Any]) -> Callable[..., Any]:
    """The name without the underscore, which warns."""
    name = new.__name__[:-1]

    def old(*args: Any, **kwargs: Any) -> Any:
        warnings.warn(
            f"`nn.init.{name}` is now deprecated in favor of `nn.init.{new.__name__}`.",
            FutureWarning,
            stacklevel=2,
        )
        return new(*args, **kwargs)

    old.__name__ = old.__qualname__ = name
    old.__doc__ = f"Deprecated: use `{new.__name__}`."
    return old


uniform = _deprecated(uniform_)
normal = _deprecated(normal_)
constant = _deprecated(constant_)
eye = _deprecated(eye_)
dirac = _deprecated(dirac_)
xavier_uniform = _deprecated(xavier_uniform_)
xavier_normal = _deprecated(xavier_normal_)
kaiming_uniform = _deprecated(kaiming_uniform_)
kaiming_normal = _deprecated(kaiming_normal_)
orthogonal = _deprecated(orthogonal_)
sparse = _deprecated(sparse_)
