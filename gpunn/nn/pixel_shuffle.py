"""Values moved between channels and places, or between groups of channels; none is changed."""

from __future__ import annotations

from typing import Any

from gpunn.autograd.graph import result, vjp
from gpunn.nn.module import Module
from gpunn.ops._rows import not_a_tensor
from gpunn.tensor import Tensor

Ints = tuple[int, ...]


def _moved(x: Any, split: Ints, order: Ints, shape: Ints) -> Any:
    """x with its dimensions split, put in another order and joined again; arrays or Tensors."""
    if isinstance(x, Tensor):
        return x.reshape(split).permute(order).reshape(shape)  # type: ignore[attr-defined]
    return x.reshape(split).transpose(order).copy().reshape(shape)


def _rearrange(x: Tensor, split: Ints, order: Ints, shape: Ints, vjp: Any) -> Tensor:
    back = tuple(order.index(i) for i in range(len(order)))
    saved = (tuple(split[i] for i in order), back, x.array.shape)
    return result(_moved(x.array, split, order, shape), x, vjp, (x,), saved)


@vjp((None, None, None), name="PixelShuffleBackward0")
def _shuffle_vjp(g: Any, split: Ints, order: Ints, shape: Ints) -> Any:
    return _moved(g, split, order, shape)


@vjp((None, None, None), name="PixelUnshuffleBackward0")
def _unshuffle_vjp(g: Any, split: Ints, order: Ints, shape: Ints) -> Any:
    return _moved(g, split, order, shape)


@vjp((None, None, None), name="ChannelShuffleBackward0")
def _channel_vjp(g: Any, split: Ints, order: Ints, shape: Ints) -> Any:
    return _moved(g, split, order, shape)


def _check(name: str, x: Any, argument: str, factor: Any) -> None:
    if not isinstance(x, Tensor):
        raise not_a_tensor(name, x)
    if type(factor) is bool or not hasattr(factor, "__index__"):
        raise TypeError(
            f"{name}(): argument '{argument}' (position 2) must be int, not {type(factor).__name__}"
        )
    if argument != "groups":
        if x.ndim < 3:
            raise RuntimeError(
                f"{name} expects input to have at least 3 dimensions, but got input with {x.ndim} "
                "dimension(s)"
            )
        if factor <= 0:
            raise RuntimeError(f"{name} expects a positive {argument}, but got {factor}")


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """Channels become places: each r x r block of the result holds r * r channels of the input.

    y[..., c, h r + i, w r + j] = x[..., c r r + i r + j, h, w], r = `upscale_factor`.
    Shapes: (*, C r r, H, W) gives (*, C, H r, W r). Any dtype.
    RuntimeError for channels that r * r does not divide.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pixel_shuffle.html

    >>> F.pixel_shuffle(gpunn.arange(4.0).reshape(4, 1, 1), 2)
    tensor([[[0., 1.],
             [2., 3.]]])
    """
    _check("pixel_shuffle", input, "upscale_factor", upscale_factor)
    r = int(upscale_factor)
    *lead, c, h, w = input.array.shape
    if c % (r * r):
        raise RuntimeError(
            "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square "
            f"of upscale_factor, but input.size(-3)={c} is not divisible by {r * r}"
        )
    n, c = len(lead), c // (r * r)
    order = (*range(n + 1), n + 3, n + 1, n + 4, n + 2)
    shape = (*lead, c, h * r, w * r)
    return _rearrange(input, (*lead, c, r, r, h, w), order, shape, _shuffle_vjp)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """Places become channels: the inverse of `pixel_shuffle`.

    y[..., c r r + i r + j, h, w] = x[..., c, h r + i, w r + j], r = `downscale_factor`.
    Shapes: (*, C, H r, W r) gives (*, C r r, H, W). Any dtype.
    RuntimeError for a height or width that r does not divide.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pixel_unshuffle.html

    >>> F.pixel_unshuffle(gpunn.arange(4.0).reshape(1, 2, 2), 2).flatten()
    tensor([0., 1., 2., 3.])
    """
    _check("pixel_unshuffle", input, "downscale_factor", downscale_factor)
    r = int(downscale_factor)
    *lead, c, h, w = input.array.shape
    for what, dim, length in (("height", -2, h), ("width", -1, w)):
        if length % r:
            raise RuntimeError(
                f"pixel_unshuffle expects {what} to be divisible by downscale_factor, but "
                f"input.size({dim})={length} is not divisible by {r}"
            )
    n, h, w = len(lead), h // r, w // r
    order = (*range(n + 1), n + 2, n + 4, n + 1, n + 3)
    shape = (*lead, c * r * r, h, w)
    return _rearrange(input, (*lead, c, h, r, w, r), order, shape, _unshuffle_vjp)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """The channels dealt out anew: the first of each group, then the second of each, ...

    y[:, i groups + g] = x[:, g (C / groups) + i].
    Shapes: (N, C, *), the result has the same. Any dtype.
    RuntimeError for channels that `groups` does not divide.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ChannelShuffle.html

    >>> F.channel_shuffle(gpunn.arange(4.0).reshape(1, 4, 1), 2).flatten()
    tensor([0., 2., 1., 3.])
    """
    return _channel_shuffle("channel_shuffle", input, groups)


def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """`channel_shuffle` under the second name that PyTorch has for it; it has a gradient here.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.channel_shuffle.html

    >>> gpunn.native_channel_shuffle(gpunn.arange(4.0).reshape(1, 4, 1), 2).flatten()
    tensor([0., 2., 1., 3.])
    """
    return _channel_shuffle("native_channel_shuffle", input, groups)


def _channel_shuffle(name: str, input: Tensor, groups: int) -> Tensor:
    _check(name, input, "groups", groups)
    shape = input.array.shape
    if len(shape) < 3:
        raise RuntimeError(
            f"channel_shuffle expects input with > 2 dims, but got input with sizes {list(shape)}"
        )
    if groups <= 0:
        raise RuntimeError(
            f"Number of groups to divide channels in must be positive. Value of groups:{groups}"
        )
    n, c, *rest = shape
    if c % groups:
        raise RuntimeError(
            f"Number of channels must be divisible by groups. Got {c} channels and {groups} groups."
        )
    order = (0, 2, 1, *range(3, len(shape) + 1))
    return _rearrange(input, (n, groups, c // groups, *rest), order, shape, _channel_vjp)


class PixelShuffle(Module):
    """Channels become places: see `nn.functional.pixel_shuffle`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PixelShuffle.html

    >>> nn.PixelShuffle(3)(gpunn.ones(1, 9, 4, 4)).shape
    torch.Size([1, 1, 12, 12])
    """

    __constants__ = ["upscale_factor"]

    def __init__(self, upscale_factor: int) -> None:
        super().__init__()
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"upscale_factor={self.upscale_factor}"


class PixelUnshuffle(Module):
    """Places become channels: see `nn.functional.pixel_unshuffle`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.PixelUnshuffle.html

    >>> nn.PixelUnshuffle(3)(gpunn.ones(1, 1, 12, 12)).shape
    torch.Size([1, 9, 4, 4])
    """

    __constants__ = ["downscale_factor"]

    def __init__(self, downscale_factor: int) -> None:
        super().__init__()
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"downscale_factor={self.downscale_factor}"


class ChannelShuffle(Module):
    """The channels dealt out anew: see `nn.functional.channel_shuffle`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ChannelShuffle.html

    >>> nn.ChannelShuffle(2)(gpunn.arange(4.0).reshape(1, 4, 1, 1)).flatten()
    tensor([0., 2., 1., 3.])
    """

    __constants__ = ["groups"]

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"
