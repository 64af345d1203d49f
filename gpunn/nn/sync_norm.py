"""Batch normalisation over the batches of all processes of a group.

Each process sends the mean, the variance and the count of its own batch to all others, and adds
them up in the order of the ranks; in the backward pass the two sums of each channel are added up
over the processes. Without a process group this is batch normalisation.
"""

from __future__ import annotations

import sys
from typing import Any

from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import needs as recorded
from gpunn.autograd.graph import result, touch, vjp
from gpunn.nn.module import Module
from gpunn.nn.norm import (
    _BatchNorm,
    _by_channel,
    _gradients,
    _to,
    _wide,
    batch_norm,
    move,
    scaled,
    statistics,
)
from gpunn.nn.row_norm import check_channels, check_types
from gpunn.tensor import Tensor, wrap


def _distributed() -> Any:
    """`gpunn.distributed` where a process group is running, else None."""
    found = sys.modules.get("gpunn.distributed")  # not imported: nothing can be running
    return found if found is not None and found.is_initialized() else None


def _everyones(x: Any, device: Any, group: Any, world: int) -> tuple[Any, Any, Any]:
    """Mean and variance of each channel, and the count, over the arrays x of all processes."""
    xp, channels, wide = ns(x), x.shape[1], _wide(x.dtype)
    mine = xp.zeros(2 * channels + 1, wide)
    if x.size:
        mean, variance = statistics(x)
        mine[:channels], mine[channels:-1], mine[-1] = mean, variance, x.size // channels
    parts = [wrap(xp.empty_like(mine), device) for _ in range(world)]
    _distributed().all_gather(parts, wrap(mine, device), group)
    table = xp.stack([part.array for part in parts])
    means, variances, counts = table[:, :channels], table[:, channels:-1], table[:, -1:]
    total = counts.sum()
    mean = (means * counts).sum(axis=0) / total
    variance = ((variances + (means - mean) ** 2) * counts).sum(axis=0) / total
    return mean, variance, total


@vjp((None,) * 7, masked=True, name="SyncBatchNormBackward")
def _sync_vjp(
    g: Any, x: Any, weight: Any, bias: Any, mean: Any, rstd: Any, total: Any, group: Any,
    needs: Any,
) -> Any:  # fmt: skip
    if isinstance(g, Tensor):
        raise RuntimeError("SyncBatchNorm over several processes has no second derivative")
    xp, channels, wide = ns(x), x.shape[1], _wide(x.dtype)
    gw = gb = xp.zeros(channels, wide)
    if x.size:
        _, gw, gb = _gradients(g, x, weight, bias, mean, rstd, True, (False, True, True))
    gx = None
    if needs[0]:
        sums = xp.concatenate([_to(gb, wide), _to(gw, wide)])
        sent = wrap(sums, group[1])
        _distributed().all_reduce(sent, group=group[0])
        sum_g, sum_unit = sent.array[:channels] / total, sent.array[channels:] / total
        unit = (_to(x, wide) - _by_channel(mean, x.ndim)) * _by_channel(rstd, x.ndim)
        gx = _to(g, wide) - _by_channel(sum_g, x.ndim) - unit * _by_channel(sum_unit, x.ndim)
        scale = rstd if weight is None else rstd * _to(weight, wide)
        gx = _to(gx * _by_channel(scale, x.ndim), x.dtype)
    gw = _to(gw, weight.dtype) if needs[1] else None
    return gx, gw, _to(gb, bias.dtype) if needs[2] else None


def _sync_batch_norm(
    input: Tensor, running_mean: Any, running_var: Any, weight: Any, bias: Any, momentum: float,
    eps: float, group: Any, world: int,
) -> Tensor:  # fmt: skip
    """Batch normalisation in training over the inputs of all processes of `group`."""
    x = input.array
    given = {"weight": weight, "bias": bias, "running_mean": running_mean,
             "running_var": running_var}  # fmt: skip
    check_channels(
        "SyncBatchNorm", x.shape[1], given,
        lambda key, t: f"{key} should contain {x.shape[1]} elements not {t.array.size}",
    )  # fmt: skip
    check_types("batch_norm", input, given)
    w, b, old_mean, old_var = (None if t is None else t.array for t in given.values())
    mean, variance, total = _everyones(x, input.device, group, world)
    move(old_mean, old_var, mean, variance, momentum, total)
    for t in (running_mean, running_var):
        if t is not None:
            touch(t)
    wide = _wide(x.dtype)
    rstd = _to(1 / ns(x).sqrt(variance + eps), wide)
    scale = rstd if w is None else rstd * _to(w, wide)
    shift = -mean * scale if b is None else _to(b, wide) - mean * scale
    y = scaled(x, scale, shift) if x.size else x.copy()
    if not (recorded(input) or recorded(weight) or recorded(bias)):
        return result(y, input)
    saved = (x, w, b, mean, rstd, total, (group, input.device))
    return result(y, input, _sync_vjp, (input, weight, bias), saved)


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation of (N, C, ...) with the statistics of all processes' batches.

    In training, with a process group of several processes (`process_group`, or all of them), mean
    and variance are those of the batches of all, which may differ in size; otherwise it is
    `nn.functional.batch_norm`. Parameters and buffers are BatchNorm's. Unlike PyTorch's it also
    runs on the CPU. Gradients of weight and bias are the process's own: DDP averages them.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.SyncBatchNorm.html

    >>> nn.SyncBatchNorm(3)(gpunn.randn(4, 3, 2)).shape
    torch.Size([4, 3, 2])
    """

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, process_group: Any = None,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias=bias)  # fmt: skip
        self.process_group = process_group

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected at least 2D input (got {input.ndim}D input)")
        if input.shape[1] == 0:
            raise ValueError("SyncBatchNorm number of input channels should be non-zero")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        factor = self._count_batch()
        use = not self.training or self.track_running_stats
        means, variances = (self.running_mean, self.running_var) if use else (None, None)
        dist = _distributed() if self.training else None
        if dist is not None:
            group = self.process_group or dist.group.WORLD
            world = dist.get_world_size(group)
            if world > 1:
                return _sync_batch_norm(input, means, variances, self.weight, self.bias, factor,
                                        self.eps, group, world)  # fmt: skip
        return batch_norm(input, means, variances, self.weight, self.bias, self._uses_the_batch(),
                          factor, self.eps)  # fmt: skip

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """The module with SyncBatchNorm in place of every BatchNorm in it, their tensors kept.

        >>> net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
        >>> type(nn.SyncBatchNorm.convert_sync_batchnorm(net)[1]).__name__
        'SyncBatchNorm'
        """
        made = module
        if isinstance(module, _BatchNorm):
            made = cls._converted(module, process_group)
        for name, child in module.named_children():
            made.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return made

    @staticmethod
    def _converted(norm: _BatchNorm, process_group: Any) -> SyncBatchNorm:
        made = SyncBatchNorm(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats,
            process_group, bias=norm.bias is not None,
        )  # fmt: skip
        if norm.affine:
            made.weight, made.bias = norm.weight, norm.bias
        made.running_mean, made.running_var = norm.running_mean, norm.running_var
        made.num_batches_tracked = norm.num_batches_tracked
        made.training = norm.training
        return made
