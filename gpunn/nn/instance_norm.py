"""Instance normalisation: over each channel of each image.

Source: Ulyanov, Vedaldi and Lempitsky 2016, Instance Normalization.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from gpunn.autograd.graph import touch
from gpunn.nn.norm import _LazyNormBase, _NormBase, batch_norm, move, statistics
from gpunn.nn.row_norm import Plan, check_types, row_norm, row_norm_rule
from gpunn.tensor import Tensor

_instance_norm_vjp = row_norm_rule("InstanceNormBackward0")


def instance_norm(
    input: Tensor, running_mean: Tensor | None = None, running_var: Tensor | None = None,
    weight: Tensor | None = None, bias: Tensor | None = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(variance + eps) * weight + bias, by channel of each image.

    Shapes: input (N, C, ...), the others (C,). dtypes: floating; a 16-bit input takes the others
    in its own dtype or in float32. With `use_input_stats` mean and (biased) variance are those of
    the image's channel, and the running ones move by `momentum` towards their mean over the images
    (the variance unbiased); otherwise the running ones are used. ValueError for channels of one
    value, RuntimeError for shapes and dtypes that do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.instance_norm.html

    >>> F.instance_norm(gpunn.tensor([[[1.0, 3.0], [0.0, 4.0]]]))
    tensor([[[-1.0000,  1.0000],
             [-1.0000,  1.0000]]])
    """
    shape = input.array.shape
    if use_input_stats and math.prod(shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 spatial element when training, got input size {input.shape}"
        )
    if not use_input_stats and (running_mean is None or running_var is None):
        raise RuntimeError(
            "Expected running_mean and running_var to be defined when use_input_stats is false"
        )
    if (running_mean is None) != (running_var is None):
        raise ValueError("running_mean and running_var must either both be None or neither be None")
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    images, channels = shape[0], shape[1]
    given = {"weight": weight, "bias": bias, "running_mean": running_mean,
             "running_var": running_var}  # fmt: skip
    for key, t in given.items():
        if t is not None and t.array.shape != (channels,):
            raise RuntimeError(
                f"{key} should contain {images * channels} elements not {images * t.array.size}: "
                f"instance_norm takes one for each of the {channels} channels of {list(shape)}"
            )
    check_types("batch_norm", input, given)
    if running_mean is not None and running_var is not None and input.array.size:
        _move(input, running_mean, running_var, momentum)
    run = math.prod(shape[2:])
    plan = Plan(images * channels, run, channels, run)
    return row_norm(input, weight, bias, eps, plan, _instance_norm_vjp)


def _move(x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float) -> None:
    """The running statistics move towards the mean of the images' own."""
    images, channels = x.array.shape[:2]
    each = x.array.reshape(1, images * channels, -1)
    mean, variance = (a.reshape(images, channels).mean(axis=0) for a in statistics(each))
    move(running_mean.array, running_var.array, mean, variance, momentum, each.shape[2])
    touch(running_mean)
    touch(running_var)


class _InstanceNorm(_NormBase):
    """What InstanceNorm1d, InstanceNorm2d and InstanceNorm3d share; `dims` without batch, with."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ):  # fmt: skip
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype,
                         bias=bias)  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        place = input.ndim - self.dims[0]
        channels = input.shape[place]
        if channels != self.num_features:
            if self.affine:
                raise ValueError(
                    f"expected input's size at dim={place} to match num_features "
                    f"({self.num_features}), but got: {channels}."
                )
            warnings.warn(
                f"input's size at dim={place} does not match num_features. You can silence this "
                "warning by not passing in num_features, which is not used because affine=False",
                stacklevel=2,
            )
        if place == 0:
            return self._normalised(input.unsqueeze(0)).squeeze(0)  # type: ignore[attr-defined]
        return self._normalised(input)

    def _normalised(self, input: Tensor) -> Tensor:
        return instance_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats,
            0.0 if self.momentum is None else self.momentum, self.eps,
        )  # fmt: skip

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, strict: bool, missing_keys: Any,
        unexpected_keys: Any, error_msgs: list[str],
    ) -> None:  # fmt: skip
        keys = [prefix + name for name in ("running_mean", "running_var")]
        found = [key for key in keys if key in state_dict]
        if local_metadata.get("version") is None and not self.track_running_stats and found:
            name, names = type(self).__name__, " and ".join(f'"{key}"' for key in found)
            error_msgs.append(
                f"Unexpected running stats buffer(s) {names} for {name} with "
                "track_running_stats=False. Files saved before such modules stopped keeping "
                "running statistics by default have them: remove these keys, or make the "
                f"{name} with track_running_stats=True."
            )
            for key in found:
                state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, strict, missing_keys,
                                      unexpected_keys, error_msgs)  # fmt: skip


class InstanceNorm1d(_InstanceNorm):
    """Instance normalisation of (N, C, L) or (C, L): see `nn.functional.instance_norm`.

    Parameters with `affine`: weight (ones) and bias (zeros), (C,). Buffers with
    `track_running_stats`: running_mean, running_var, num_batches_tracked.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.InstanceNorm1d.html

    >>> nn.InstanceNorm1d(3)(gpunn.randn(2, 3, 5)).shape
    torch.Size([2, 3, 5])
    """

    dims = (2, 3)


class LazyInstanceNorm1d(_LazyNormBase, _InstanceNorm):
    """An InstanceNorm1d that takes `num_features` from its first input, dimension 1 of it.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyInstanceNorm1d.html

    >>> layer = nn.LazyInstanceNorm1d()
    >>> _ = layer(gpunn.randn(2, 3, 5))
    >>> layer.num_features
    3
    """

    dims = (2, 3)
    cls_to_become = InstanceNorm1d


class InstanceNorm2d(_InstanceNorm):
    """Instance normalisation of (N, C, H, W) or (C, H, W): see `nn.functional.instance_norm`.

    Parameters with `affine`: weight (ones) and bias (zeros), (C,). Buffers with
    `track_running_stats`: running_mean, running_var, num_batches_tracked.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.InstanceNorm2d.html

    >>> nn.InstanceNorm2d(3)(gpunn.randn(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    dims = (3, 4)


class LazyInstanceNorm2d(_LazyNormBase, _InstanceNorm):
    """An InstanceNorm2d that takes `num_features` from its first input, dimension 1 of it.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyInstanceNorm2d.html

    >>> layer = nn.LazyInstanceNorm2d()
    >>> _ = layer(gpunn.randn(2, 3, 4, 4))
    >>> layer.num_features
    3
    """

    dims = (3, 4)
    cls_to_become = InstanceNorm2d


class InstanceNorm3d(_InstanceNorm):
    """Instance normalisation of (N, C, D, H, W) or (C, D, H, W): see `nn.functional.instance_norm`.

    Parameters with `affine`: weight (ones) and bias (zeros), (C,). Buffers with
    `track_running_stats`: running_mean, running_var, num_batches_tracked.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.InstanceNorm3d.html

    >>> nn.InstanceNorm3d(3)(gpunn.randn(2, 3, 2, 4, 4)).shape
    torch.Size([2, 3, 2, 4, 4])
    """

    dims = (4, 5)


class LazyInstanceNorm3d(_LazyNormBase, _InstanceNorm):
    """An InstanceNorm3d that takes `num_features` from its first input, dimension 1 of it.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyInstanceNorm3d.html

    >>> layer = nn.LazyInstanceNorm3d()
    >>> _ = layer(gpunn.randn(2, 3, 2, 4, 4))
    >>> layer.num_features
    3
    """

    dims = (4, 5)
    cls_to_become = InstanceNorm3d
