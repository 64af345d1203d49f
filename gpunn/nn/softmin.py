"""Relatives of softmax: softmin, softmax over the channels of images, and Gumbel-softmax."""

from __future__ import annotations

import warnings
from typing import Any

from gpunn import draw
from gpunn.nn.module import Module
from gpunn.nn.softmax import _AlongDim, implicit_dim, softmax
from gpunn.ops._rows import not_a_tensor
from gpunn.tensor import Tensor, wrap


def softmin(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: Any = None
) -> Tensor:
    """e ** -x / sum(e ** -x) along `dim`: the softmax of -x.

    Shapes: any; the result has the same. dtypes: floating; `dtype` casts first. A UserWarning
    without `dim`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.softmin.html

    >>> F.softmin(gpunn.tensor([0., 0.]), dim=0)
    tensor([0.5000, 0.5000])
    """
    if dim is None:
        implicit_dim("softmin", _stacklevel - 1)
        dim = 0 if input.dim() in (0, 1, 3) else 1
    return softmax(-input, dim, dtype=dtype)


class Softmin(_AlongDim):
    """`nn.functional.softmin` along `dim`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmin.html

    >>> nn.Softmin(dim=0)(gpunn.zeros(2))
    tensor([0.5000, 0.5000])
    """

    def forward(self, input: Tensor) -> Tensor:
        return softmin(input, self.dim, _stacklevel=5)


class Softmax2d(Module):
    """Softmax over the channels, at each place of an image.

    Shapes: (batch, channels, height, width) or (channels, height, width); the result has the
    same. ValueError for another number of dimensions.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax2d.html

    >>> nn.Softmax2d()(gpunn.zeros(2, 1, 1)).flatten()
    tensor([0.5000, 0.5000])
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() not in (3, 4):
            raise ValueError(
                f"Softmax2d: expected input to be 3D or 4D, got {input.dim()}D instead"
            )
        return softmax(input, -3)


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """Softmax of (logits + noise) / tau: a draw from the categories that has a gradient.

    The noise is of Gumbel's distribution. With `hard` the result is one-hot, its gradient that
    of the soft one. Shapes: any; the result has the same. dtypes: floating, RuntimeError for
    others. On the CPU the numbers are PyTorch's own for the same seed, up to a logarithm's
    rounding.
    Sources: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.gumbel_softmax.html;
    Jang, Gu and Poole, "Categorical reparameterization with Gumbel-softmax" (2017)

    >>> F.gumbel_softmax(gpunn.tensor([0., 100.]), hard=True)
    tensor([0., 1.])
    """
    if not isinstance(logits, Tensor):
        raise not_a_tensor("gumbel_softmax", logits, "logits")
    if eps != 1e-10:
        warnings.warn("`eps` parameter is deprecated and has no effect.", stacklevel=2)
    x = logits.array
    waits = wrap(draw.exponential(x.shape, x.dtype, device=logits.device), logits.device)
    soft = softmax((logits - waits.log()) / tau, dim)
    if not hard:
        return soft
    index = soft.max(dim, keepdim=True)[1]
    chosen = logits.new_zeros(logits.shape).scatter_(dim, index, 1.0)
    return chosen - soft.detach() + soft
