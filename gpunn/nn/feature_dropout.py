"""Dropout of whole channels, and dropout that keeps the mean and variance of SELU's outputs.

All draw from the device's default generator, one coin for each element or channel, in PyTorch's
order on the CPU. `dropout.py` has the plain one.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

from gpunn import draw_integers
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.nn.dropout import _DropoutNd, refuse_integers
from gpunn.ops._rows import half, inplace, not_a_tensor
from gpunn.tensor import Tensor, wrap

_LIMIT = -1.7580993408473766  # what SELU of large negative numbers tends to


@vjp((None,), name="MulBackward0")
def _masked_vjp(g: Any, mask: Any) -> Any:
    if isinstance(g, Tensor):
        return g * wrap(mask.astype(g.array.dtype), g.device)
    return (g * mask).astype(g.dtype, copy=False)


def _dropped(input: Tensor, p: float, channels: int | None, alpha: bool) -> Tensor:
    """Zeros with probability p, else 1 / (1 - p) times the input: `alpha` has other values.

    One coin decides for all elements that have their first `channels` indices in common.
    """
    x = input.array
    refuse_integers(input, p)
    shape = x.shape if channels is None else x.shape[:channels] + (1,) * (x.ndim - channels)
    if p == 1:
        factor, shift = input.device.xp.zeros(shape, x.dtype), None
    else:
        coins = draw_integers.bernoulli(shape, x.dtype, None, 1 - p, device=input.device)
        coins = coins.astype(F32) if half(x.dtype) else coins
        factor, shift = _affine(coins, p) if alpha else (coins / (1 - p), None)
    return scaled(input, factor, shift)


def scaled(input: Tensor, factor: Any, shift: Any = None) -> Tensor:
    """factor input + shift, of raw arrays that broadcast to the input's shape.

    >>> gpunn.nn.feature_dropout.scaled(gpunn.ones(2), np.float32([0, 2]))
    tensor([0., 2.])
    """
    x = input.array
    y = x * factor
    if shift is not None:
        y += shift
    return result(y.astype(x.dtype, copy=False), input, _masked_vjp, (input,), (factor,))


def _affine(coins: Any, p: float) -> tuple[Any, Any]:
    """Factor and summand that put `_LIMIT` for what is dropped and leave mean 0, variance 1."""
    scale = 1 / math.sqrt((_LIMIT * _LIMIT * p + 1) * (1 - p))
    return coins * scale, (1 - coins) * (_LIMIT * scale) - _LIMIT * scale * p


_dropped_ = inplace(_dropped, "dropout")


def drop(
    input: Tensor, p: float, training: bool, inplace: bool = False, channels: int | None = None,
    alpha: bool = False,
) -> Tensor:  # fmt: skip
    """What all of these do, after the checks that are their own.

    ValueError for p outside [0, 1]; the input itself where nothing is dropped.

    >>> gpunn.nn.feature_dropout.drop(gpunn.ones(2), 0.5, training=False)
    tensor([1., 1.])
    """
    if not isinstance(input, Tensor):
        raise not_a_tensor("dropout", input)
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0 or input.array.size == 0:
        return input
    if channels is not None and input.array.ndim < 2:
        raise RuntimeError(
            f"Feature dropout requires at least 2 dimensions in the input, got {input.array.ndim}"
        )
    return (_dropped_ if inplace else _dropped)(input, p, channels, alpha)


def _deprecated(name: str, ndim: int, spatial: int) -> str:
    return (
        f"{name}: Received a {ndim}-D input to {name}, which is deprecated and will result in an "
        f"error in a future release. To retain the behavior and silence this warning, please use "
        f"dropout instead. Note that {name} exists to provide channel-wise dropout on inputs with "
        f"{spatial} spatial dimensions, a channel dimension, and an optional batch dimension "
        f"(i.e. {spatial + 1}D or {spatial + 2}D inputs)."
    )


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Each channel is zero with probability p, else divided by 1 - p; untouched if not training.

    Shapes: (batch, channels, length) or (channels, length), RuntimeError for others; the result
    has the same. ValueError for p outside [0, 1]. On the CPU the mask is PyTorch's own for the
    same seed.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout1d.html

    >>> F.dropout1d(gpunn.ones(1, 2, 3), 1.0).sum()
    tensor(0.)
    """
    if input.dim() not in (2, 3):
        raise RuntimeError(
            f"dropout1d: Expected 2D or 3D input, but received a {input.dim()}D input. Note that "
            "dropout1d exists to provide channel-wise dropout on inputs with 1 spatial dimension, "
            "a channel dimension, and an optional batch dimension (i.e. 2D or 3D inputs)."
        )
    return drop(input, p, training, inplace, input.dim() - 1)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Each channel is zero with probability p, else divided by 1 - p; untouched if not training.

    Shapes: (batch, channels, height, width); the result has the same. As in PyTorch three
    dimensions are taken as (batch, channels, length), with a UserWarning; so are others, but for
    fewer than two: RuntimeError. ValueError for p outside [0, 1]. On the CPU the mask is
    PyTorch's own for the same seed.
    Sources: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout2d.html;
    Tompson et al., "Efficient object localization using convolutional networks" (2015)

    >>> F.dropout2d(gpunn.ones(1, 2, 3, 3), 1.0).sum()
    tensor(0.)
    """
    if input.dim() not in (3, 4):
        warnings.warn(_deprecated("dropout2d", input.dim(), 2), stacklevel=2)
    if input.dim() == 3:
        warnings.warn(
            "dropout2d: Received a 3D input to dropout2d and assuming that channel-wise 1D "
            "dropout behavior is desired - input is interpreted as shape (N, C, L), where C is "
            "the channel dim. This behavior will change in a future release to interpret the "
            "input as one without a batch dimension, i.e. shape (C, H, W). To maintain the 1D "
            "channel-wise dropout behavior, please switch to using dropout1d instead.",
            stacklevel=2,
        )
    return drop(input, p, training, inplace, 2)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Each channel is zero with probability p, else divided by 1 - p; untouched if not training.

    Shapes: (batch, channels, depth, height, width) or without batch; the result has the same.
    Others give a UserWarning. ValueError for p outside [0, 1]. On the CPU the mask is PyTorch's
    own for the same seed.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout3d.html

    >>> F.dropout3d(gpunn.ones(1, 2, 3, 3, 3), 1.0).sum()
    tensor(0.)
    """
    if input.dim() not in (4, 5):
        warnings.warn(_deprecated("dropout3d", input.dim(), 3), stacklevel=2)
    return drop(input, p, training, inplace, 2 if input.dim() == 5 else 1)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout after SELU: what is dropped gets SELU's lower limit; mean and variance stay.

    Shapes: any; the result has the same. ValueError for p outside [0, 1]. On the CPU the mask is
    PyTorch's own for the same seed.
    Sources: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.alpha_dropout.html;
    Klambauer, Unterthiner, Mayr and Hochreiter, "Self-normalizing neural networks" (2017)

    >>> F.alpha_dropout(gpunn.ones(3), 0.5)
    tensor([1., 1., 1.])
    """
    return drop(input, p, training, inplace, None, alpha=True)


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels.

    Shapes: (batch, channels, ...), RuntimeError for fewer dimensions; the result has the same.
    ValueError for p outside [0, 1]. On the CPU the mask is PyTorch's own for the same seed.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.feature_alpha_dropout.html

    >>> F.feature_alpha_dropout(gpunn.ones(1, 3), 0.5)
    tensor([[1., 1., 1.]])
    """
    return drop(input, p, training, inplace, 2, alpha=True)


class Dropout1d(_DropoutNd, function=dropout1d):
    """`nn.functional.dropout1d` while the module is training: whole channels are zero.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout1d.html

    >>> nn.Dropout1d(1.0)(gpunn.ones(1, 2, 3)).sum()
    tensor(0.)
    """


class Dropout2d(_DropoutNd, function=dropout2d):
    """`nn.functional.dropout2d` while the module is training: whole channels are zero.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout2d.html

    >>> nn.Dropout2d(1.0)(gpunn.ones(1, 2, 3, 3)).sum()
    tensor(0.)
    """


class Dropout3d(_DropoutNd, function=dropout3d):
    """`nn.functional.dropout3d` while the module is training: whole channels are zero.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout3d.html

    >>> nn.Dropout3d(1.0)(gpunn.ones(1, 2, 3, 3, 3)).sum()
    tensor(0.)
    """


class AlphaDropout(_DropoutNd):
    """`nn.functional.alpha_dropout` while the module is training.

    As in PyTorch, `inplace` is only shown: the result is always a new tensor.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AlphaDropout.html

    >>> nn.AlphaDropout().eval()(gpunn.ones(3))
    tensor([1., 1., 1.])
    """

    _drop = staticmethod(alpha_dropout)

    def forward(self, input: Tensor) -> Tensor:
        return self._drop(input, self.p, self.training)


class FeatureAlphaDropout(AlphaDropout):
    """`nn.functional.feature_alpha_dropout` while the module is training: whole channels.

    As in PyTorch, `inplace` is only shown: the result is always a new tensor.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.FeatureAlphaDropout.html

    >>> nn.FeatureAlphaDropout().eval()(gpunn.ones(1, 3))
    tensor([[1., 1., 1.]])
    """

    _drop = staticmethod(feature_alpha_dropout)
