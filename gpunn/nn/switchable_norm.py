"""Switchable normalisation: a learned mixture of instance, layer and batch normalisation.

Source: Luo, Ren, Peng, Zhang and Li 2018, Differentiable Learning-to-Normalize via Switchable
Normalization (ICLR 2019), https://arxiv.org/abs/1806.10779.
"""

from __future__ import annotations

from typing import Any

from gpunn import autograd
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import results, vjp
from gpunn.dtypes import F32
from gpunn.nn.module import Module
from gpunn.nn.norm import statistics
from gpunn.nn.parameter import Parameter
from gpunn.nn.row_norm import check_types
from gpunn.nn.softmax import softmax
from gpunn.ops._rows import cast, half
from gpunn.ops.create import ones, tensor, zeros
from gpunn.tensor import Tensor

Moments = tuple[Any, Any]


@vjp((0, -1), name="MomentsBackward")
def _moments_vjp(gs: Any, x: Any, mean: Any) -> Any:
    """mean: 1 / n for each value; variance: 2 (x - mean) / n."""
    g_mean, g_variance = gs
    gx: Any = 0
    if g_variance is not None:
        gx = (x - mean) * (g_variance * (2 / x.shape[2]))
    if g_mean is not None:
        gx = gx + ns(x).broadcast_to(g_mean * (1 / x.shape[2]), x.shape)
    return gx


def _moments(x: Tensor) -> Moments:
    """Mean and variance over the last dimension of (N, C, places), kept with length 1."""
    array = x.array
    shape = (*array.shape[:2], 1)
    arrays = [a.reshape(shape) for a in statistics(array.reshape(1, -1, array.shape[2]))]
    mean, variance = results(arrays, x, _moments_vjp, (x,), (array, arrays[0]))
    return mean, variance


def _pooled(mean: Any, variance: Any, dim: int) -> Moments:
    """Mean and variance of the union of equal parts along `dim`: without cancellation."""
    average = mean.mean(dim, keepdim=True)
    apart = mean - average
    return average, (variance + apart * apart).mean(dim, keepdim=True)


class _SwitchableNorm(Module):
    """What SwitchableNorm1d, SwitchableNorm2d and SwitchableNorm3d share."""

    __constants__ = ["num_features", "eps", "momentum", "using_bn", "using_moving_average"]
    dims: tuple[int, ...]
    weight: Any
    bias: Any
    mean_weight: Any
    var_weight: Any
    running_mean: Any
    running_var: Any
    num_batches_tracked: Any

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, using_bn: bool = True,
        using_moving_average: bool = True, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.using_bn, self.using_moving_average = using_bn, using_moving_average
        make = {"device": device, "dtype": dtype}
        self.weight = Parameter(ones(num_features, **make))
        self.bias = Parameter(zeros(num_features, **make))
        kinds = 3 if using_bn else 2
        self.mean_weight = Parameter(ones(kinds, **make))
        self.var_weight = Parameter(ones(kinds, **make))
        self.register_buffer("running_mean", zeros(num_features, **make) if using_bn else None)
        self.register_buffer("running_var", ones(num_features, **make) if using_bn else None)
        counted = using_bn and not using_moving_average
        self.register_buffer("num_batches_tracked", tensor(0, device=device) if counted else None)

    def reset_parameters(self) -> None:
        """Weights 1, biases 0, an even mixture, running mean 0 and variance 1."""
        for t in (self.weight, self.mean_weight, self.var_weight):
            t.data.fill_(1)
        self.bias.data.zero_()
        if self.using_bn:
            self.running_mean.zero_()
            self.running_var.fill_(1)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.zero_()

    def forward(self, input: Tensor) -> Tensor:
        self._check(input)
        if input.array.size == 0:
            return input.clone()  # type: ignore[attr-defined]
        x = self._wide(input)
        kinds = self._kinds(x)
        mean_weight, var_weight = (
            softmax(cast(w, x.array.dtype)[-len(kinds) :], 0)
            for w in (self.mean_weight, self.var_weight)
        )
        mean: Any = 0
        variance: Any = 0
        for i, (m, v) in enumerate(kinds):
            mean = mean + mean_weight[i] * m
            variance = variance + var_weight[i] * v
        shape = (1, -1, 1)
        scale = (variance + self.eps).rsqrt() * self.weight.reshape(shape)
        y = (x - mean) * scale + self.bias.reshape(shape)
        return cast(y.reshape(input.shape), input.array.dtype)

    def _check(self, input: Tensor) -> None:
        if input.ndim not in self.dims:
            wanted = " or ".join(f"{d}D" for d in self.dims)
            raise ValueError(f"expected {wanted} input (got {input.ndim}D input)")
        if input.shape[1] != self.num_features:
            raise ValueError(
                f"expected input's size at dim=1 to match num_features ({self.num_features}), but "
                f"got: {input.shape[1]}."
            )
        params = {"weight": self.weight, "bias": self.bias, "mean_weight": self.mean_weight,
                  "var_weight": self.var_weight}  # fmt: skip
        check_types("switchable_norm", input, params)

    def _wide(self, input: Any) -> Any:
        """The input as (N, C, places), in float32 at least."""
        x = cast(input, F32) if half(input.array.dtype) else input
        return x.reshape(x.shape[0], x.shape[1], -1)

    def _kinds(self, x: Any) -> list[Moments]:
        """Means and variances that broadcast against x: instance, layer and batch.

        One value has no statistics of its own: an (N, C) input mixes the last two alone.
        """
        mean, variance = _moments(x)
        kinds = [(mean, variance)] if x.shape[2] > 1 else []
        kinds.append(_pooled(mean, variance, 1))
        if self.using_bn:
            if self.training:
                kinds.append(_pooled(mean, variance, 0))
                self._keep(*kinds[-1])
            else:
                kinds.append((self.running_mean.reshape(1, -1, 1),
                              self.running_var.reshape(1, -1, 1)))  # fmt: skip
        return kinds

    def _keep(self, mean: Any, variance: Any) -> None:
        """Moves the running statistics: by `momentum`, or to the plain average of all batches."""
        with autograd.no_grad():
            share: Any = self.momentum
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                share = 1.0 / self.num_batches_tracked.to(self.running_mean.dtype)
            for kept, new in ((self.running_mean, mean), (self.running_var, variance)):
                kept.add_((new.detach().reshape(-1) - kept) * share)

    def extra_repr(self) -> str:
        return (f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
                f"using_bn={self.using_bn}, "
                f"using_moving_average={self.using_moving_average}")  # fmt: skip


class SwitchableNorm1d(_SwitchableNorm):
    """Switchable normalisation of (N, C) or (N, C, L).

    y = (x - m) / sqrt(v + eps) * weight + bias, where m = sum of p_k mean_k and v = sum of q_k
    variance_k over k = instance (of each channel of each image), layer (of each image), batch (of
    each channel over the batch); p = softmax(mean_weight), q = softmax(var_weight). Variances are
    biased. Without `using_bn` there is no batch term.
    (N, C) has no statistics of an instance: there the softmax is over the last two weights.
    In evaluation the batch's statistics are the running ones: they move by `momentum` towards each
    batch's, or are the plain average of all batches without `using_moving_average`.

    Parameters: weight (ones) and bias (zeros), (C,); mean_weight and var_weight, 3 (2) ones.
    Buffers: running_mean, running_var; num_batches_tracked without `using_moving_average`. dtypes:
    floating; a 16-bit input takes parameters of its own dtype or of float32. ValueError for an
    input of another shape.
    Source: Luo et al. 2018, https://arxiv.org/abs/1806.10779, equations 2 to 5.

    >>> nn.SwitchableNorm1d(3)(gpunn.randn(4, 3, 5)).shape
    torch.Size([4, 3, 5])
    """

    dims = (2, 3)


class SwitchableNorm2d(_SwitchableNorm):
    """Switchable normalisation of (N, C, H, W).

    y = (x - m) / sqrt(v + eps) * weight + bias, where m = sum of p_k mean_k and v = sum of q_k
    variance_k over k = instance (of each channel of each image), layer (of each image), batch (of
    each channel over the batch); p = softmax(mean_weight), q = softmax(var_weight). Variances are
    biased. Without `using_bn` there is no batch term.
    In evaluation the batch's statistics are the running ones: they move by `momentum` towards each
    batch's, or are the plain average of all batches without `using_moving_average`.

    Parameters: weight (ones) and bias (zeros), (C,); mean_weight and var_weight, 3 (2) ones.
    Buffers: running_mean, running_var; num_batches_tracked without `using_moving_average`. dtypes:
    floating; a 16-bit input takes parameters of its own dtype or of float32. ValueError for an
    input of another shape.
    Source: Luo et al. 2018, https://arxiv.org/abs/1806.10779, equations 2 to 5.

    >>> nn.SwitchableNorm2d(3)(gpunn.randn(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    dims = (4,)


class SwitchableNorm3d(_SwitchableNorm):
    """Switchable normalisation of (N, C, D, H, W).

    y = (x - m) / sqrt(v + eps) * weight + bias, where m = sum of p_k mean_k and v = sum of q_k
    variance_k over k = instance (of each channel of each image), layer (of each image), batch (of
    each channel over the batch); p = softmax(mean_weight), q = softmax(var_weight). Variances are
    biased. Without `using_bn` there is no batch term.
    In evaluation the batch's statistics are the running ones: they move by `momentum` towards each
    batch's, or are the plain average of all batches without `using_moving_average`.

    Parameters: weight (ones) and bias (zeros), (C,); mean_weight and var_weight, 3 (2) ones.
    Buffers: running_mean, running_var; num_batches_tracked without `using_moving_average`. dtypes:
    floating; a 16-bit input takes parameters of its own dtype or of float32. ValueError for an
    input of another shape.
    Source: Luo et al. 2018, https://arxiv.org/abs/1806.10779, equations 2 to 5.

    >>> nn.SwitchableNorm3d(3)(gpunn.randn(2, 3, 2, 4, 4)).shape
    torch.Size([2, 3, 2, 4, 4])
    """

    dims = (5,)
