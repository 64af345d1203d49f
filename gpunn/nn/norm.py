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
from gpunn.cuda.kernels import batch_norm as kernels
from gpunn.dtypes import F32
from gpunn.nn import init
from gpunn.nn.lazy import LazyModuleMixin
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter, UninitializedBuffer, UninitializedParameter
from gpunn.nn.row_norm import check_channels, check_types
from gpunn.ops._rows import cast, half
from gpunn.ops.create import empty, ones, tensor, zeros
from gpunn.tensor import Tensor, wrap


def _by_channel(v: Any, ndim: int) -> Any:
    """A vector of channels (C,) so that it broadcasts against (N, C, ...)."""
    return v.reshape((1, -1) + (1,) * (ndim - 2))


def _axes(ndim: int) -> tuple[int, ...]:
    return (0, *range(2, ndim))


def _wide(dtype: Any) -> Any:
    """The dtype of statistics: float32 for 16 bits."""
    return F32 if half(dtype) else dtype


def _to(a: Any, dtype: Any) -> Any:
    return None if a is None else a.astype(dtype, copy=False)


def statistics(x: Any) -> tuple[Any, Any]:
    """The mean and the biased variance of each channel of a raw array, in float32 at least."""
    if type(x) is not np.ndarray:
        both = kernels.batch_norm_stats(x)
        if both is not None:
            return both
    x = _to(x, _wide(x.dtype))
    if type(x) is np.ndarray:
        both = native.batch_norm_stats(x)
        if both is not None:
            return both
    axes = _axes(x.ndim)
    mean = x.mean(axis=axes)
    centred = x - _by_channel(mean, x.ndim)
    return mean, (centred * centred).mean(axis=axes)


def scaled(x: Any, scale: Any, shift: Any) -> Any:
    """x * scale + shift by channel, in x's dtype; scale and shift are wide."""
    y, wide = None, _to(x, scale.dtype) if type(x) is np.ndarray else x
    if type(x) is np.ndarray:
        y = native.batch_norm_apply(wide, scale, shift)
    else:
        y = kernels.batch_norm_apply(x, scale, shift)
    if y is None:
        y = _to(x, scale.dtype) * _by_channel(scale, x.ndim) + _by_channel(shift, x.ndim)
    return _to(y, x.dtype)


def _composed(
    x: Tensor, weight: Any, bias: Any, mean: Any, rstd: Any, training: bool, eps: float
) -> Tensor:
    """The same in plain operations."""
    ndim, dtype = x.array.ndim, x.array.dtype
    x = cast(x, _wide(dtype))
    if training:
        average = x.mean(_axes(ndim), keepdim=True)
        centred = x - average
        y = centred * ((centred * centred).mean(_axes(ndim), keepdim=True) + eps).rsqrt()
    else:
        y = (x - wrap(_by_channel(mean, ndim), x.device)) * wrap(_by_channel(rstd, ndim), x.device)
    if weight is not None:
        y = y * _by_channel(weight, ndim)
    return cast(y if bias is None else y + _by_channel(bias, ndim), dtype)


@vjp((0, 1, 2, None, None, None, None), composed=_composed, masked=True,
     name="NativeBatchNormBackward0")  # fmt: skip
def _batch_norm_vjp(
    g: Any, x: Any, weight: Any, bias: Any, mean: Any, rstd: Any, training: bool, eps: float,
    needs: Any,
) -> Any:  # fmt: skip
    gs = _gradients(g, x, weight, bias, mean, rstd, training, tuple(needs))
    likes = (x, weight, bias)
    return tuple(None if a is None else _to(a, b.dtype) for a, b in zip(gs, likes, strict=True))


def _gradients(
    g: Any, x: Any, weight: Any, bias: Any, mean: Any, rstd: Any, training: bool,
    needs: tuple[bool, bool, bool],
) -> tuple[Any, Any, Any]:  # fmt: skip
    if type(x) is not np.ndarray:
        like = weight if bias is None else bias
        gs = kernels.batch_norm_backward(
            x, g, weight, mean, rstd, training, needs, None if like is None else like.dtype
        )
        if gs is not None:
            return gs
    g, x, weight = (_to(a, _wide(x.dtype)) for a in (g, x, weight))
    if type(x) is np.ndarray:
        gs = native.batch_norm_backward(x, g, weight, mean, rstd, training, needs)
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

    Shapes: input (N, C, ...), the others (C,). dtypes: floating; a 16-bit input takes the others
    in its own dtype or in float32. In training mean and (biased) variance are those of the batch,
    and the running ones move towards them by `momentum` (the variance unbiased); otherwise the
    running ones are used. ValueError for a batch of one value a channel, RuntimeError for shapes
    and dtypes that do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.batch_norm.html

    >>> F.batch_norm(gpunn.tensor([[1.0], [3.0]]), None, None, training=True)
    tensor([[-1.0000],
            [ 1.0000]])
    """
    x = input.array
    if x.size == 0:
        return _empty_batch(input, weight, bias)
    given = {"running_mean": running_mean, "running_var": running_var, "weight": weight,
             "bias": bias}  # fmt: skip
    _check_batch_norm(input, given, training, eps)
    old_mean, old_var, w, b = (None if t is None else t.array for t in given.values())
    y, mean, rstd = _forward(x, w, b, old_mean, old_var, training, momentum, eps)
    if training:
        for t in (running_mean, running_var):
            if t is not None:
                touch(t)
    if not (recorded(input) or recorded(weight) or recorded(bias)):
        return result(y, input)
    saved = (x, w, b, mean, rstd, training, eps)
    return result(y, input, _batch_norm_vjp, (input, weight, bias), saved)


def _check_batch_norm(
    input: Tensor, given: dict[str, Tensor | None], training: bool, eps: float
) -> None:
    x = input.array
    if x.ndim < 2:
        raise IndexError(
            "Dimension out of range (expected to be in range of [-1, 0], but got 1): batch_norm "
            f"takes (N, C, ...), got {list(x.shape)}"
        )
    if training and x.size // x.shape[1] <= 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {input.shape}"
        )
    if eps < 0 or (training and eps == 0):
        kind = "positive during training" if training else "non-negative"
        raise ValueError(f"batch_norm eps must be {kind}, but got {eps}")
    check_channels(
        "batch_norm", x.shape[1], given,
        lambda key, t: f"{key} should contain {x.shape[1]} elements not {t.array.size}",
    )  # fmt: skip
    check_types("batch_norm", input, given)
    for name in ("running_mean", "running_var"):
        if given[name] is None and not training:
            raise RuntimeError(f"{name} must be defined in evaluation mode: batch_norm needs both "
                               "running statistics, or training=True")  # fmt: skip
        if recorded(given[name]):
            raise RuntimeError(
                "The function 'native_batch_norm' is not differentiable with respect to argument "
                f"'{name}'. This input cannot have requires_grad True. Pass {name}.detach()"
            )


def _empty_batch(input: Tensor, weight: Any, bias: Any) -> Tensor:
    """Nothing to normalise: the running statistics stay, the parameters' gradients are 0."""
    y = input.clone()  # type: ignore[attr-defined]
    for t in (weight, bias):
        if t is not None:
            y = y * _by_channel(t, y.ndim).to(y.dtype)
    return y


def _forward(
    x: Any, w: Any, b: Any, old_mean: Any, old_var: Any, training: bool, momentum: float, eps: float
) -> tuple[Any, Any, Any]:
    """(y, mean, rstd) of raw arrays; in training the running statistics move, in place."""
    if type(x) is not np.ndarray:
        found = kernels.batch_norm_forward(x, w, b, old_mean, old_var, training, momentum, eps)
        if found is not None:
            return found
    wide = _wide(x.dtype)
    if training:
        mean, variance = statistics(x)
        move(old_mean, old_var, mean, variance, momentum, x.size // x.shape[1])
    else:
        mean, variance = old_mean.astype(wide), old_var.astype(wide)
    rstd = _to(1 / ns(x).sqrt(variance + eps), wide)
    scale = rstd if w is None else rstd * _to(w, wide)
    shift = -mean * scale
    return scaled(x, scale, shift if b is None else shift + _to(b, wide)), mean, rstd


def move(
    running_mean: Any, running_var: Any, mean: Any, variance: Any, momentum: float, count: Any
) -> None:
    """Moves the running statistics, raw arrays or None, towards those of `count` values a channel.
    """
    for old, new in ((running_mean, mean), (running_var, variance * (count / (count - 1)))):
        if old is not None:
            old[...] = _to(old, new.dtype) * (1 - momentum) + momentum * new


class _NormBase(Module):
    """Parameters and running statistics of batch and instance normalisation."""

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
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            values = Parameter(empty(num_features, **make)) if wanted else None
            self.register_parameter(name, values)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, **make) if tracked else None)
        self.register_buffer("running_var", ones(num_features, **make) if tracked else None)
        self.register_buffer("num_batches_tracked", tensor(0, device=device) if tracked else None)
        self.reset_parameters()

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
            init.ones_(self.weight)
            if self.bias is not None:
                init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim not in self.dims:
            wanted = " or ".join(f"{d}D" for d in self.dims)
            raise ValueError(f"expected {wanted} input (got {input.ndim}D input)")

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


class _BatchNorm(_NormBase):
    """What BatchNorm1d, BatchNorm2d and BatchNorm3d share."""

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        factor = self._count_batch()
        use = not self.training or self.track_running_stats
        return batch_norm(
            input, self.running_mean if use else None, self.running_var if use else None,
            self.weight, self.bias, self._uses_the_batch(), factor, self.eps,
        )  # fmt: skip

    def _count_batch(self) -> float:
        """Counts a batch in training; the share that it gets in the running statistics."""
        counter = self.num_batches_tracked
        if self.training and self.track_running_stats and counter is not None:
            counter.add_(1)
            if self.momentum is None:
                return 1.0 / float(counter)
        return 0.0 if self.momentum is None else self.momentum

    def _uses_the_batch(self) -> bool:
        """Whether the statistics are the batch's: in training, or where none are kept."""
        return self.training or (self.running_mean is None and self.running_var is None)


class _LazyNormBase(LazyModuleMixin, _NormBase):
    """A normalisation that takes `num_features` from its first input."""

    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ):  # fmt: skip
        super().__init__(0, eps, momentum, False, False, device, dtype, bias=False)
        self.affine, self.track_running_stats = affine, track_running_stats
        if affine:
            self.weight = UninitializedParameter(device=device, dtype=dtype)
            if bias:
                self.bias = UninitializedParameter(device=device, dtype=dtype)
        if track_running_stats:
            self.running_mean = UninitializedBuffer(device=device, dtype=dtype)
            self.running_var = UninitializedBuffer(device=device, dtype=dtype)
            self.num_batches_tracked = tensor(0, device=device)

    def reset_parameters(self) -> None:
        """The running statistics as at first, weights 1, biases 0, once the shape is known."""
        if not self.has_uninitialized_params() and self.num_features != 0:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Takes the number of channels from the first input."""
        if self.has_uninitialized_params():
            self.num_features = input.shape[1]
            for t in (self.weight, self.bias, self.running_mean, self.running_var):
                if t is not None:
                    t.materialize((self.num_features,))
            self.reset_parameters()


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


class LazyBatchNorm1d(_LazyNormBase, _BatchNorm):
    """A BatchNorm1d that takes `num_features` from its first input (N, C) or (N, C, L).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyBatchNorm1d.html

    >>> layer = nn.LazyBatchNorm1d()
    >>> _ = layer(gpunn.randn(4, 3))
    >>> layer.num_features
    3
    """

    dims = BatchNorm1d.dims
    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNormBase, _BatchNorm):
    """A BatchNorm2d that takes `num_features` from its first input (N, C, H, W).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyBatchNorm2d.html

    >>> layer = nn.LazyBatchNorm2d()
    >>> _ = layer(gpunn.randn(2, 3, 4, 4))
    >>> layer.num_features
    3
    """

    dims = BatchNorm2d.dims
    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNormBase, _BatchNorm):
    """A BatchNorm3d that takes `num_features` from its first input (N, C, D, H, W).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyBatchNorm3d.html

    >>> layer = nn.LazyBatchNorm3d()
    >>> _ = layer(gpunn.randn(2, 3, 2, 4, 4))
    >>> layer.num_features
    3
    """

    dims = BatchNorm3d.dims
    cls_to_become = BatchNorm3d
