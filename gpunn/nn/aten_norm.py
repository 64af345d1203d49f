"""The normalisations as `torch.layer_norm` and others have them, beside `nn.functional`.

Their arguments come in another order, and the last says whether cuDNN may be used, which has no
meaning here.
"""

from __future__ import annotations

from typing import Any

from gpunn.nn import group_norm as groups
from gpunn.nn import instance_norm as instances
from gpunn.nn import layer_norm as layers
from gpunn.nn import norm as batches
from gpunn.tensor import Tensor

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]

rms_norm = layers.rms_norm


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, cudnn_enable: bool = True,
) -> Tensor:  # fmt: skip
    """`nn.functional.layer_norm`.

    >>> gpunn.layer_norm(gpunn.tensor([[1.0, 3.0]]), (2,))
    tensor([[-1.0000,  1.0000]])
    """
    return layers.layer_norm(input, normalized_shape, weight, bias, eps)


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5, cudnn_enabled: bool = True,
) -> Tensor:  # fmt: skip
    """`nn.functional.group_norm`.

    >>> gpunn.group_norm(gpunn.tensor([[1.0, 3.0]]), 1)
    tensor([[-1.0000,  1.0000]])
    """
    return groups.group_norm(input, num_groups, weight, bias, eps)


def batch_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, training: bool, momentum: float, eps: float, cudnn_enabled: bool,
) -> Tensor:  # fmt: skip
    """`nn.functional.batch_norm`, the parameters before the running statistics.

    >>> x = gpunn.tensor([[1.0], [3.0]])
    >>> gpunn.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, True)
    tensor([[-1.0000],
            [ 1.0000]])
    """
    return batches.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps
    )


def instance_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, running_mean: Tensor | None,
    running_var: Tensor | None, use_input_stats: bool, momentum: float, eps: float,
    cudnn_enabled: bool,
) -> Tensor:  # fmt: skip
    """`nn.functional.instance_norm`, the parameters before the running statistics.

    >>> x = gpunn.tensor([[[1.0, 3.0]]])
    >>> gpunn.instance_norm(x, None, None, None, None, True, 0.1, 1e-5, True)
    tensor([[[-1.0000,  1.0000]]])
    """
    return instances.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )
