"""Padding: constant values, reflection, replication, wrap-around."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
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
    ndim = x.array.ndim
    if ndim not in (dims + 1, dims + 2):
        raise NotImplementedError(
            "Only 2D, 3D, 4D, 5D padding with non-constant padding are supported for now: padding "
            f"{list(pad)} in mode '{mode}' needs {dims + 1} or {dims + 2} dimensions, the input "
            f"has {ndim}"
        )
    for i in range(dims):
        n, before, after = x.array.shape[-1 - i], pad[2 * i], pad[2 * i + 1]
        if mode == "reflect" and (before >= n or after >= n):
            raise RuntimeError(
                "Argument #4: Padding size should be less than the corresponding input dimension, "
                f"but got: padding ({before}, {after}) at dimension {ndim - 1 - i} of input "
                f"{list(x.array.shape)}"
            )
        if mode == "circular" and (before > n or after > n):
            raise RuntimeError(
                f"Padding value causes wrapping around more than once: padding ({before}, {after}) "
                f"at dimension {ndim - 1 - i} of input {list(x.array.shape)}"
            )
        if n + before + after < 1:
            raise RuntimeError(
                f"The input size {n}, plus negative padding {before} and {after} resulted in a "
                "negative output size, which is invalid."
            )


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """The tensor with entries added in front of and behind its last dimensions.

    `pad` lists (before, after) from the last dimension backwards; negative numbers cut off.
    mode: constant (filled with `value`), reflect, replicate or circular.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.pad.html

    >>> F.pad(gpunn.tensor([1, 2, 3]), (1, 1))
    tensor([0, 1, 2, 3, 0])
    """
    counts = [int(p) for p in pad]
    if len(counts) % 2:
        raise RuntimeError(f"Padding length must be divisible by 2, got {counts}")
    dims, shape = len(counts) // 2, input.array.shape
    if dims > len(shape):
        raise RuntimeError(
            f"Padding length should be less than or equal to two times the input dimension but got "
            f"padding length {len(counts)} and input of dimension {len(shape)}"
        )
    if mode == "constant":
        pairs = [(0, 0)] * (len(shape) - dims) + [
            (counts[2 * i], counts[2 * i + 1]) for i in reversed(range(dims))
        ]
        for d, (n, (a, b)) in enumerate(zip(shape, pairs, strict=True)):
            if n + a + b < 0:
                raise RuntimeError(
                    f"The input size {n}, plus negative padding {a} and {b} resulted in a negative "
                    f"output size, which is invalid. Check dimension {d} of your input."
                )
        return _constant(input, pairs, value or 0)
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    if value is not None and value != 0:
        raise ValueError(f'Padding mode "{mode}" doesn\'t take in value argument')
    _check_mode(mode, input, counts, dims)
    out = input
    for i in range(dims):
        before, after = counts[2 * i], counts[2 * i + 1]
        axis = len(shape) - 1 - i
        if before or after:
            places = _source(mode, shape[axis], before, after, input.device.xp)
            out = getitem_raw(out, (slice(None),) * axis + (places,))
    return out.clone() if out is input else out  # type: ignore[attr-defined]




_pad = pad  # the function, where an argument has its name


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """`F.pad` with a constant, under its name in `torch`.

    >>> gpunn.constant_pad_nd(gpunn.tensor([1]), (1, 0), 7)
    tensor([7, 1])
    """
    return _pad(input, pad, "constant", value)
