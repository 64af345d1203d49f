"""Group normalisation: over groups of channels of each image.

Source: Wu and He 2018, Group Normalization.
"""

from __future__ import annotations

import math
from typing import Any

from gpunn.amp.casts import autocasts
from gpunn.nn import init
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.nn.row_norm import Plan, check_channels, check_types, row_norm, row_norm_rule
from gpunn.ops.create import empty
from gpunn.tensor import Tensor

_group_norm_vjp = row_norm_rule("NativeGroupNormBackward0")


@autocasts("group_norm")
def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """(x - mean) / sqrt(variance + eps) * weight + bias, the statistics over a group of channels.

    Shapes: input (N, C, ...), weight and bias (C,); num_groups divides C. dtypes: floating; a
    16-bit input takes parameters of its own dtype or of float32. RuntimeError for what does not
    fit, ValueError for groups of one value.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.group_norm.html

    >>> F.group_norm(gpunn.tensor([[1.0, 3.0, 0.0, 4.0]]), 2)
    tensor([[-1.0000,  1.0000, -1.0000,  1.0000]])
    """
    shape = input.array.shape
    if len(shape) < 2:
        raise RuntimeError(
            f"Expected at least 2 dimensions for input tensor but received {len(shape)}"
        )
    size = [shape[0] * shape[1] // num_groups, num_groups, *shape[2:]]
    if size[0] * math.prod(size[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {size}"
        )
    if num_groups <= 0:
        raise RuntimeError(f"Expected num groups to be greater than 0, got {num_groups}")
    if shape[1] % num_groups:
        raise RuntimeError(
            "Expected number of channels in input to be divisible by num_groups, but got input of "
            f"shape {list(shape)} and num_groups={num_groups}"
        )
    params = {"weight": weight, "bias": bias}
    check_channels(
        "group_norm", shape[1], params,
        lambda key, t: (
            f"Expected {key} to be a vector of size equal to the number of channels in input, but "
            f"got {key} of shape {list(t.shape)} and input of shape {list(shape)}"
        ),
    )  # fmt: skip
    check_types("GroupNormKernelImpl", input, params)
    run = math.prod(shape[2:])
    plan = Plan(shape[0] * num_groups, shape[1] // num_groups * run, num_groups, run)
    return row_norm(input, weight, bias, eps, plan, _group_norm_vjp)


class GroupNorm(Module):
    """Group normalisation of (N, num_channels, ...): see `nn.functional.group_norm`.

    Parameters: weight (ones) and bias (zeros), (num_channels,); without `affine` none, without
    `bias` the weight alone. ValueError where num_groups does not divide num_channels.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GroupNorm.html

    >>> nn.GroupNorm(3, 6)(gpunn.randn(2, 6, 5, 5)).shape
    torch.Size([2, 6, 5, 5])
    """

    __constants__ = ["num_groups", "num_channels", "eps", "affine"]
    weight: Any
    bias: Any

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ):  # fmt: skip
        super().__init__()
        if num_channels % num_groups != 0:
            raise ValueError(
                f"num_channels ({num_channels}) must be divisible by num_groups ({num_groups})"
            )
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            values = empty(num_channels, device=device, dtype=dtype) if wanted else None
            self.register_parameter(name, Parameter(values) if wanted else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights 1, biases 0."""
        if self.affine:
            init.ones_(self.weight)
            if self.bias is not None:
                init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return (f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
                f"bias={self.bias is not None}")  # fmt: skip
