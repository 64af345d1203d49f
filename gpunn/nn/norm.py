"""Batch normalisation: each channel shifted and scaled to mean 0 and variance 1 over a batch.

Source: Ioffe and Szegedy 2015, Batch Normalization.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import native
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import needs as recorded
from gpunn.autograd.graph import result, touch, vjp
from gpunn.dtypes import F32
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.ops._rows import half
from gpunn.ops.create import ones, tensor, zeros
from gpunn.tensor import Tensor, wrap


def _by_channel(v: Any, ndim: int) -> Any:
    """A vector of channels (C,) so that it broadcasts against (N, C, ...)."""
    return v.reshape((1, -1) + (1,) * (ndim - 2))


def _axes(ndim: int) -> tuple[int, ...]:
    return (0, *range(2, ndim))


def _statistics(x: Any) -> tuple[Any, Any]:
    """The mean and the biased variance of each channel of a raw array."""
    if type(x) is np.ndarray:
        both = native.batch_norm_stats(x)
        if both is not None:
            return both
    axes = _axes(x.ndim)
    mean = x.mean(axis=axes)
    centred = x - _by_channel(mean, x.ndim)
    return mean, (centred * centred).mean(axis=axes)


def _apply(x: Any, scale: Any, shift: Any) -> Any:
    """x * scale + shift by channel."""
    if type(x) is np.ndarray:
        y = native.batch_norm_apply(x, scale, shift)
        if y is not None:
            return y
    return x * _by_channel(scale, x.ndim) + _by_channel(shift, x.ndim)


def _composed(
    x: Tensor, weight: Any, bias: Any, mean: Any, rstd: Any, training: bool, eps: float
) -> Tensor:
    """The same in plain operations."""
    ndim = x.array.ndim
    if training:
        average = x.mean(_axes(ndim), keepdim=True)
        centred = x - average
        y = centred * ((centred * centred).mean(_axes(ndim), keepdim=True) + eps).rsqrt()
    else:
        y = (x - wrap(_by_channel(mean, ndim), x.device)) * wrap(_by_channel(rstd, ndim), x.device)
    if weight is not None:
        y = y * _by_channel(weight, ndim)
    return y if bias is None else y + _by_channel(bias, ndim)


@vjp((0, 1, 2, None, None, None, None), composed=_composed, masked=True,
     name="NativeBatchNormBackward0")  # fmt: skip
def _batch_norm_vjp(
    g: Any, x: Any, weight: Any, bias: Any, mean: Any, rstd: Any, training: bool, eps: float,
    needs: Any,
) -> Any:  # fmt: skip
    if half(x.dtype):
        g32, x32, w32 = (None if a is None else a.astype(F32) for a in (g, x, weight))
        gs = _gradients(g32, x32, w32, mean, rstd, training, needs)
        return tuple(None if a is None else a.astype(x.dtype) for a in gs)
    return _gradients(g, x, weight, mean, rstd, training, needs)


def _gradients(
    g: Any, x: Any, weight: Any, mean: Any, rstd: Any, training: bool, needs: Any
) -> tuple[Any, Any, Any]:
    if type(x) is np.ndarray:
        gs = native.batch_norm_backward(x, g, weight, mean, rstd, training, tuple(needs))
        if gs is not None:
            return gs
    axes, n = _axes(x.ndim), x.size // x.shape[1]
    unit = (x - _by_channel(mean, x.ndim)) * _by_channel(rstd, x.ndim)
    gb, gw = g.sum(axis=axes), (g * unit).sum(axis=axes)
    gx = None
    if needs[0]:
        gx = g
        if training:
            gx = g - _by_channel(gb / n, x.ndim) - unit * _by_channel(gw / n, x.ndim)
        gx = gx * _by_channel(rstd if weight is None else rstd * weight, x.ndim)
    return gx, gw if needs[1] else None, gb if needs[2] else None


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    weight: Tensor | None = None, bias: Tensor | None = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(variance + eps) * weight + bias, by channel.

    Shapes: input (N, C, ...), the others (C,). In training mean and (biased) variance are those
    of the batch, and the running ones move towards them by `momentum` (the variance unbiased);
    otherwise the running ones are used. ValueError for a batch of one value a channel.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.batch_norm.html

    >>> F.batch_norm(gpunn.tensor([[1.0], [3.0]]), None, None, training=True)
    tensor([[-1.0000],
            [ 1.0000]])
    """
    x = input.array
    if x.size == 0:
        return input.clone()  # nothing to normalise, and the running statistics stay
    if x.ndim < 2:
        raise IndexError(
            "Dimension out of range (expected to be in range of [-1, 0], but got 1): batch_norm "
            f"takes (N, C, ...), got {list(x.shape)}"
        )
    if eps < 0 or (training and eps == 0):
        kind = "positive during training" if training else "non-negative"
        raise ValueError(f"batch_norm eps must be {kind}, but got {eps}")
    count = x.size // x.shape[1]
    if training and count <= 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {input.shape}"
        )
    for name, t in (("running_mean", running_mean), ("running_var", running_var),
                    ("weight", weight), ("bias", bias)):  # fmt: skip
        if t is not None and t.array.shape != (x.shape[1],):
            raise RuntimeError(
                f"{name} should contain {x.shape[1]} elements not {t.array.size}"
            )
    wide = x.astype(F32) if half(x.dtype) else x
    if training:
        mean, variance = _statistics(wide)
        _move(running_mean, running_var, mean, variance, momentum, count)
    else:
        if running_mean is None or running_var is None:
            raise RuntimeError("Expected running_mean and running_var to be defined when "
                               "training=False")  # fmt: skip
        mean = running_mean.array.astype(wide.dtype)
        variance = running_var.array.astype(wide.dtype)
    rstd = (1 / ns(x).sqrt(variance + eps)).astype(wide.dtype, copy=False)
    scale = rstd if weight is None else rstd * weight.array.astype(wide.dtype, copy=False)
    shift = -mean * scale
    if bias is not None:
        shift = shift + bias.array.astype(wide.dtype, copy=False)
    y = _apply(wide, scale, shift).astype(x.dtype, copy=False)
    if not (recorded(input) or recorded(weight) or recorded(bias)):
        return result(y, input)
    saved = (x, _raw(weight), _raw(bias), mean, rstd, training, eps)
    return result(y, input, _batch_norm_vjp, (input, weight, bias), saved)


def _raw(t: Tensor | None) -> Any:
    return None if t is None else t.array


def _move(
    running_mean: Any, running_var: Any, mean: Any, variance: Any, momentum: float, count: int
) -> None:
    """Moves the running statistics towards the batch's, in place."""
    for t, v in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
        if t is not None:
            t.array[...] = t.array * (1 - momentum) + (momentum * v).astype(t.array.dtype)
            touch(t)


class _BatchNorm(Module):
    """What BatchNorm1d, BatchNorm2d and BatchNorm3d share."""

    __constants__ = ["track_running_stats", "momentum", "eps", "num_features", "affine"]
    _version = 2
    dims: tuple[int, ...]
    weight: Any
    bias: Any
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, device: Any = None,
        dtype: Any = None, *, bias: bool = True,
    ):  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        make = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(ones(num_features, **make)) if affine else None)
        shift = Parameter(zeros(num_features, **make)) if affine and bias else None
        self.register_parameter("bias", shift)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, **make) if tracked else None)
        self.register_buffer("running_var", ones(num_features, **make) if tracked else None)
        self.register_buffer("num_batches_tracked", tensor(0, device=device) if tracked else None)

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batches seen."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """The running statistics as at first, weights 1, biases 0."""
        self.reset_running_stats()
        if self.affine:
            self.weight.data.fill_(1)
            if self.bias is not None:
                self.bias.data.zero_()

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self.dims:
            wanted = " or ".join(f"{d}D" for d in self.dims)
            raise ValueError(f"expected {wanted} input (got {input.ndim}D input)")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        tracked = self.track_running_stats
        factor = 0.0 if self.momentum is None else self.momentum
        if self.training and tracked and self.num_batches_tracked is not None:
            self.num_batches_tracked.array[...] += 1
            if self.momentum is None:
                factor = 1.0 / float(self.num_batches_tracked)
        by_batch = self.training or (self.running_mean is None and self.running_var is None)
        use = not self.training or tracked
        return batch_norm(
            input, self.running_mean if use else None, self.running_var if use else None,
            self.weight, self.bias, by_batch, factor, self.eps,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
                f"affine={self.affine}, bias={self.bias is not None}, "
                f"track_running_stats={self.track_running_stats}")  # fmt: skip

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any,
                              *rest: Any) -> None:  # fmt: skip
        version = local_metadata.get("version", None)
        key = prefix + "num_batches_tracked"
        if (version is None or version < 2) and self.track_running_stats and key not in state_dict:
            state_dict[key] = self.num_batches_tracked  # older files do not have it
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L): see `nn.functional.batch_norm`.

    Parameters: weight (ones) and bias (zeros), (C,). Buffers: running_mean, running_var,
    num_batches_tracked. `momentum=None` keeps the plain average.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm1d.html

    >>> nn.BatchNorm1d(3)(gpunn.randn(4, 3)).shape
    torch.Size([4, 3])
    """

    dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W): see `nn.functional.batch_norm`.

    Parameters: weight (ones) and bias (zeros), (C,). Buffers: running_mean, running_var,
    num_batches_tracked. `momentum=None` keeps the plain average.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm2d.html

    >>> nn.BatchNorm2d(3)(gpunn.randn(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    dims = (4,)


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W): see `nn.functional.batch_norm`.

    Parameters: weight (ones) and bias (zeros), (C,). Buffers: running_mean, running_var,
    num_batches_tracked. `momentum=None` keeps the plain average.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.BatchNorm3d.html

    >>> nn.BatchNorm3d(3)(gpunn.randn(2, 3, 2, 4, 4)).shape
    torch.Size([2, 3, 2, 4, 4])
    """

    dims = (5,)
