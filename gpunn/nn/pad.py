"""Padding: constant values, reflection, replication, wrap-around."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gpunn.amp.casts import AUTOCAST, casts_one
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.nn.module import Module
from gpunn.ops._rows import NUMBERS
from gpunn.ops.index import getitem_raw
from gpunn.tensor import Tensor


@vjp((None,), name="ConstantPadNdBackward0")
def _constant_pad_vjp(g: Any, pairs: Any) -> Any:
    if isinstance(g, Tensor):
        return _constant(g, [(-a, -b) for a, b in pairs], 0.0)
    return _pad_array(g, [(-a, -b) for a, b in pairs], 0)


def _pad_array(x: Any, pairs: Any, value: Any) -> Any:
    """x with (before, after) entries of `value` a dimension; negative counts cut off."""
    cut = tuple(
        slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pairs, strict=True)
    )
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True))
    y = ns(x).full(shape, value, x.dtype) if value else ns(x).zeros(shape, x.dtype)
    into = tuple(
        slice(max(a, 0), n - max(b, 0)) for n, (a, b) in zip(shape, pairs, strict=True)
    )
    y[into] = x[cut]
    return y


def _constant(x: Tensor, pairs: Any, value: Any) -> Tensor:
    return result(_pad_array(x.array, pairs, value), x, _constant_pad_vjp, (x,), (pairs,))


def _source(mode: str, n: int, before: int, after: int, xp: Any) -> Any:
    """Which entry of a dimension of length n each padded place shows."""
    place = xp.arange(-before, n + after)
    if mode == "circular":  # a cut-off edge does not come round again
        kept = n + min(before, 0) + min(after, 0)
        return (place + min(before, 0)) % kept - min(before, 0)
    if mode == "replicate":
        return place.clip(0, n - 1)
    period = max(2 * (n - 1), 1)
    place = abs(place) % period
    return xp.where(place >= n, period - place, place)


def _check_mode(mode: str, x: Tensor, pad: Sequence[int], dims: int) -> None:
    shape = list(x.array.shape)
    if dims not in (1, 2, 3) or len(shape) not in (dims + 1, dims + 2):
        raise NotImplementedError(
            f"Padding size {len(pad)} is not supported for {len(shape)}D input tensor. Only 2D, "
            f"3D, 4D, 5D padding with non-constant padding are supported for now: {list(pad)} in "
            f"mode '{mode}' needs an input of {dims + 1} or {dims + 2} dimensions"
        )
    if mode != "circular":
        if 0 in shape[-dims - 1 :]:
            raise RuntimeError(
                f"Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with possibly 0 batch "
                f"size and other non-zero dimensions for input, but got: {shape}"
            )
        if x.array.dtype.kind == "b":
            name = f"{'reflection' if mode == 'reflect' else 'replication'}_pad{dims}d"
            raise NotImplementedError(f"\"{name}\" not implemented for 'Bool'")
    for i in range(dims):
        _check_dimension(mode, shape, len(shape) - 1 - i, pad[2 * i], pad[2 * i + 1])


def _check_dimension(mode: str, shape: list[int], axis: int, before: int, after: int) -> None:
    n, from_end = shape[axis], len(shape) - 1 - axis
    if mode == "reflect" and (before >= n or after >= n):
        raise RuntimeError(
            f"Argument #{4 + 2 * from_end}: Padding size should be less than the corresponding "
            f"input dimension, but got: padding ({before}, {after}) at dimension {axis} of input "
            f"{shape}"
        )
    if mode == "circular" and (before > n or after > n):
        raise RuntimeError(
            f"Padding value causes wrapping around more than once: padding ({before}, {after}) at "
            f"dimension {axis} of input {shape}"
        )
    kept = n + before + after
    if mode == "circular" and min(before, after) < 0 < max(before, after):
        kept = n + min(before, after) - 1  # something must be left to go round
    if kept < (mode != "circular"):
        name = "WHD"[from_end]
        raise RuntimeError(
            f"input ({name}: {n}) is too small. Calculated output {name}: {n + before + after}"
            if mode != "circular" else
            f"Negative padding value is resulting in an empty dimension: padding ({before}, "
            f"{after}) at dimension {axis} of input {shape}"
        )  # fmt: skip


_OPERATOR = {"reflect": "reflection", "replicate": "replication"}


def _counts(pad: Any) -> list[int]:
    if not isinstance(pad, (tuple, list)):
        raise TypeError(
            "pad(): argument 'pad' (position 2) must be tuple of ints, not " + type(pad).__name__
        )
    for i, p in enumerate(pad):
        if type(p) is bool or not hasattr(p, "__index__"):
            raise TypeError(
                "pad(): argument 'pad' (position 2) must be tuple of ints, but found element of "
                f"type {type(p).__name__} at pos {i}"
            )
    if len(pad) % 2:
        raise RuntimeError(f"Padding length must be divisible by 2, got {list(pad)}")
    return [int(p) for p in pad]


def _number(value: Any) -> Any:
    """The number in a 0-dim tensor that needs no gradient; anything else as it is."""
    plain = isinstance(value, Tensor) and value.ndim == 0 and not value.requires_grad
    return value.item() if plain else value  # type: ignore[attr-defined]


def _check_dims(counts: list[int], dims: int) -> None:
    if len(counts) > 2 * dims:
        raise RuntimeError(
            f"Padding length should be less than or equal to two times the input dimension but got "
            f"padding length {len(counts)} and input of dimension {dims}"
        )


def _constant_pad(input: Tensor, counts: list[int], value: Any) -> Tensor:
    shape = input.array.shape
    dims = len(counts) // 2
    pairs = [(0, 0)] * (len(shape) - dims) + [
        (counts[2 * i], counts[2 * i + 1]) for i in reversed(range(dims))
    ]
    for d, (n, (a, b)) in enumerate(zip(shape, pairs, strict=True)):
        if n + a + b < 0 or n + min(a, 0) + min(b, 0) < 0:
            raise RuntimeError(
                f"The input size {n}, plus negative padding {a} and {b} resulted in a negative "
                f"output size, which is invalid. Check dimension {d} of your input. (narrow(): "
                "length must be non-negative.)"
            )
    return _constant(input, pairs, value)


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """The tensor with entries added in front of and behind its last dimensions.

    `pad` lists (before, after) from the last dimension backwards; negative numbers cut off.
    mode: constant (filled with `value`), of any number of dimensions and dtype; or, of the last
    1, 2 or 3 dimensions behind one or two others, reflect (not for bool), replicate (not for
    bool) or circular. RuntimeError for more padding than a mode allows, NotImplementedError for
    another number of dimensions.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pad.html

    >>> F.pad(gpunn.tensor([1, 2, 3]), (1, 1))
    tensor([0, 1, 2, 3, 0])
    """
    if not isinstance(input, Tensor):
        raise TypeError(
            f"pad(): argument 'input' (position 1) must be Tensor, not {type(input).__name__}"
        )
    counts, value = _counts(pad), _number(value)
    dims, shape = len(counts) // 2, input.array.shape
    _check_dims(counts, len(shape))
    if mode == "constant":
        if value is not None and not isinstance(value, NUMBERS) or isinstance(value, complex):
            raise TypeError(
                "pad(): argument 'value' (position 4) must be float, not " + type(value).__name__
            )
        return _constant_pad(input, counts, value or 0)
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if value is not None and value != 0:
        raise RuntimeError(f'Padding mode "{mode}" doesn\'t take in value argument')
    _check_mode(mode, input, counts, dims)
    if AUTOCAST and mode != "circular":
        input = casts_one(f"{_OPERATOR[mode]}_pad{dims}d", input)
    out = input
    for i in range(dims):
        before, after = counts[2 * i], counts[2 * i + 1]
        axis = len(shape) - 1 - i
        if before or after:
            places = _source(mode, shape[axis], before, after, input.device.xp)
            out = getitem_raw(out, (slice(None),) * axis + (places,))
    return out.clone() if out is input else out  # type: ignore[attr-defined]


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: complex = 0) -> Tensor:
    """`F.pad` with a constant, which may be complex here, under its name in `torch`.

    >>> gpunn.constant_pad_nd(gpunn.tensor([1]), (1, 0), 7)
    tensor([7, 1])
    """
    counts = _counts(pad)
    _check_dims(counts, input.array.ndim)
    return _constant_pad(input, counts, _number(value))


# --- modules ------------------------------------------------------------------------------


class _Pad(Module):
    """What the padding modules share: (before, after) from the last dimension backwards."""

    __constants__ = ["padding"]
    dims: int
    mode: str
    padding: tuple[int, ...]

    def __init__(self, padding: int | Sequence[int]):
        super().__init__()
        each = isinstance(padding, Iterable)
        self.padding = tuple(padding) if each else (padding,) * (2 * self.dims)  # type: ignore[arg-type, assignment]

    def forward(self, input: Tensor) -> Tensor:
        return pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ConstantPad(_Pad):
    """What ConstantPad1d, ConstantPad2d and ConstantPad3d share."""

    __constants__ = ["padding", "value"]

    def __init__(self, padding: int | Sequence[int], value: float):
        super().__init__(padding)
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        return pad(input, self.padding, "constant", self.value)

    def extra_repr(self) -> str:
        return f"padding={self.padding}, value={self.value}"


class _CircularPad(_Pad):
    """What CircularPad1d, CircularPad2d and CircularPad3d share."""

    mode = "circular"

    def forward(self, input: Tensor) -> Tensor:
        low = self.dims + 1
        if input.ndim not in (low, low + 1):
            raise ValueError(f"expected {low}D or {low + 1}D input (got {input.ndim}D input)")
        return super().forward(input)


class _ZeroPad(_ConstantPad):
    """What ZeroPad1d, ZeroPad2d and ZeroPad3d share."""

    def __init__(self, padding: int | Sequence[int]):
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class _ReflectionPad(_Pad):
    """What ReflectionPad1d, ReflectionPad2d and ReflectionPad3d share."""

    mode = "reflect"


class _ReplicationPad(_Pad):
    """What ReplicationPad1d, ReplicationPad2d and ReplicationPad3d share."""

    mode = "replicate"


class ConstantPad1d(_ConstantPad):
    """`value` on every side: see `nn.functional.pad`.

    Shapes: (N, C, L) or (C, L); `padding` is one number or (left, right).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConstantPad1d.html

    >>> nn.ConstantPad1d(1, 7.0)(gpunn.arange(4.0).reshape(1, 4))
    tensor([[7., 0., 1., 2., 3., 7.]])
    """

    dims = 1


class ConstantPad2d(_ConstantPad):
    """`value` on every side: see `nn.functional.pad`.

    Shapes: (N, C, H, W) or (C, H, W); `padding` is one number or (left, right, top, bottom).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConstantPad2d.html

    >>> nn.ConstantPad2d((1, 0, 1, 0), 7.0)(gpunn.arange(4.0).reshape(1, 2, 2))
    tensor([[[7., 7., 7.],
             [7., 0., 1.],
             [7., 2., 3.]]])
    """

    dims = 2


class ConstantPad3d(_ConstantPad):
    """`value` on every side: see `nn.functional.pad`.

    Shapes: (N, C, D, H, W) or (C, D, H, W); `padding` is one number or
    (left, right, top, bottom, front, back).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConstantPad3d.html

    >>> nn.ConstantPad3d((1, 0, 0, 0, 0, 0), 7.0)(gpunn.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[7., 0., 1.],
              [7., 2., 3.]]]])
    """

    dims = 3


class ZeroPad1d(_ZeroPad, ConstantPad1d):
    """Zeros on every side: see `nn.functional.pad`.

    Shapes: (N, C, L) or (C, L); `padding` is one number or (left, right).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ZeroPad1d.html

    >>> nn.ZeroPad1d(1)(gpunn.arange(4.0).reshape(1, 4))
    tensor([[0., 0., 1., 2., 3., 0.]])
    """


class ZeroPad2d(_ZeroPad, ConstantPad2d):
    """Zeros on every side: see `nn.functional.pad`.

    Shapes: (N, C, H, W) or (C, H, W); `padding` is one number or (left, right, top, bottom).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ZeroPad2d.html

    >>> nn.ZeroPad2d((1, 0, 1, 0))(gpunn.arange(4.0).reshape(1, 2, 2))
    tensor([[[0., 0., 0.],
             [0., 0., 1.],
             [0., 2., 3.]]])
    """


class ZeroPad3d(_ZeroPad, ConstantPad3d):
    """Zeros on every side: see `nn.functional.pad`.

    Shapes: (N, C, D, H, W) or (C, D, H, W); `padding` is one number or
    (left, right, top, bottom, front, back).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ZeroPad3d.html

    >>> nn.ZeroPad3d((1, 0, 0, 0, 0, 0))(gpunn.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[0., 0., 1.],
              [0., 2., 3.]]]])
    """


class ReflectionPad1d(_ReflectionPad):
    """The input mirrored at its edges, which are not repeated: see `nn.functional.pad`.

    Shapes: (N, C, L) or (C, L); `padding` is one number or (left, right).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReflectionPad1d.html

    >>> nn.ReflectionPad1d(1)(gpunn.arange(4.0).reshape(1, 4))
    tensor([[1., 0., 1., 2., 3., 2.]])
    """

    dims = 1


class ReflectionPad2d(_ReflectionPad):
    """The input mirrored at its edges, which are not repeated: see `nn.functional.pad`.

    Shapes: (N, C, H, W) or (C, H, W); `padding` is one number or (left, right, top, bottom).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReflectionPad2d.html

    >>> nn.ReflectionPad2d((1, 0, 1, 0))(gpunn.arange(4.0).reshape(1, 2, 2))
    tensor([[[3., 2., 3.],
             [1., 0., 1.],
             [3., 2., 3.]]])
    """

    dims = 2


class ReflectionPad3d(_ReflectionPad):
    """The input mirrored at its edges, which are not repeated: see `nn.functional.pad`.

    Shapes: (N, C, D, H, W) or (C, D, H, W); `padding` is one number or
    (left, right, top, bottom, front, back).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReflectionPad3d.html

    >>> nn.ReflectionPad3d((1, 0, 0, 0, 0, 0))(gpunn.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[1., 0., 1.],
              [3., 2., 3.]]]])
    """

    dims = 3


class ReplicationPad1d(_ReplicationPad):
    """The entries of the edges repeated: see `nn.functional.pad`.

    Shapes: (N, C, L) or (C, L); `padding` is one number or (left, right).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReplicationPad1d.html

    >>> nn.ReplicationPad1d(1)(gpunn.arange(4.0).reshape(1, 4))
    tensor([[0., 0., 1., 2., 3., 3.]])
    """

    dims = 1


class ReplicationPad2d(_ReplicationPad):
    """The entries of the edges repeated: see `nn.functional.pad`.

    Shapes: (N, C, H, W) or (C, H, W); `padding` is one number or (left, right, top, bottom).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReplicationPad2d.html

    >>> nn.ReplicationPad2d((1, 0, 1, 0))(gpunn.arange(4.0).reshape(1, 2, 2))
    tensor([[[0., 0., 1.],
             [0., 0., 1.],
             [2., 2., 3.]]])
    """

    dims = 2


class ReplicationPad3d(_ReplicationPad):
    """The entries of the edges repeated: see `nn.functional.pad`.

    Shapes: (N, C, D, H, W) or (C, D, H, W); `padding` is one number or
    (left, right, top, bottom, front, back).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReplicationPad3d.html

    >>> nn.ReplicationPad3d((1, 0, 0, 0, 0, 0))(gpunn.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[0., 0., 1.],
              [2., 2., 3.]]]])
    """

    dims = 3


class CircularPad1d(_CircularPad):
    """The input goes on at its other end: see `nn.functional.pad`.

    Shapes: (N, C, L) or (C, L); `padding` is one number or (left, right).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CircularPad1d.html

    >>> nn.CircularPad1d(1)(gpunn.arange(4.0).reshape(1, 4))
    tensor([[3., 0., 1., 2., 3., 0.]])
    """

    dims = 1


class CircularPad2d(_CircularPad):
    """The input goes on at its other end: see `nn.functional.pad`.

    Shapes: (N, C, H, W) or (C, H, W); `padding` is one number or (left, right, top, bottom).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CircularPad2d.html

    >>> nn.CircularPad2d((1, 0, 1, 0))(gpunn.arange(4.0).reshape(1, 2, 2))
    tensor([[[3., 2., 3.],
             [1., 0., 1.],
             [3., 2., 3.]]])
    """

    dims = 2


class CircularPad3d(_CircularPad):
    """The input goes on at its other end: see `nn.functional.pad`.

    Shapes: (N, C, D, H, W) or (C, D, H, W); `padding` is one number or
    (left, right, top, bottom, front, back).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.CircularPad3d.html

    >>> nn.CircularPad3d((1, 0, 0, 0, 0, 0))(gpunn.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[1., 0., 1.],
              [3., 2., 3.]]]])
    """

    dims = 3
