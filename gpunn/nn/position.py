"""Positions for attention, which sees its inputs as a set: sums of sines, and rotations.

Sources: Vaswani et al., "Attention Is All You Need" (2017), section 3.5; Su et al., "RoFormer:
Enhanced Transformer with Rotary Position Embedding" (2021). PyTorch has neither as a function.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace, result, vjp
from gpunn.dtypes import F32
from gpunn.ops._rows import half, not_a_tensor, proper
from gpunn.ops.create import empty
from gpunn.tensor import Tensor


def _angles(positions: Any, size: int, base: float, xp: Any) -> Any:
    """position * base**(-2 i / size) for i < size / 2, in float64: (..., size / 2)."""
    frequencies = base ** (-xp.arange(0, size, 2, dtype=np.float64) / size)
    return positions.astype(np.float64)[..., None] * frequencies


def sinusoidal_position_encoding(
    length: int, size: int, base: float = 10000.0, *, device: Any = None, dtype: Any = None
) -> Tensor:
    """sin(position / base**(2 i / size)) in column 2 i, the cosine in column 2 i + 1.

    To be added to embeddings (..., length, size). Shape: (length, size); of an odd size the last
    cosine is left out. dtype: floating, gpunn's default unless given.
    RuntimeError for a negative length or size, or a dtype that is not floating.
    Source: Vaswani et al., "Attention Is All You Need" (2017), section 3.5.

    >>> F.sinusoidal_position_encoding(3, 4)
    tensor([[ 0.0000,  1.0000,  0.0000,  1.0000],
            [ 0.8415,  0.5403,  0.0100,  0.9999],
            [ 0.9093, -0.4161,  0.0200,  0.9998]])
    """
    table = empty(length, size, device=device, dtype=dtype)
    xp, out = table.device.xp, table.array
    if not table.is_floating_point():  # type: ignore[attr-defined]
        raise RuntimeError(
            f"sinusoidal_position_encoding: dtype must be floating, got {table.dtype}"
        )
    angles = _angles(xp.arange(length), size, base, xp)
    out[:, 0::2] = xp.sin(angles)
    out[:, 1::2] = xp.cos(angles)[:, : size // 2]
    return table


# --- rotary -------------------------------------------------------------------------------


def _halves(x: Any, interleaved: bool) -> tuple[Any, Any]:
    """The first and the second of each pair of features, as views."""
    if interleaved:
        return x[..., 0::2], x[..., 1::2]
    middle = x.shape[-1] // 2
    return x[..., :middle], x[..., middle:]


def _turn(x: Any, cos: Any, sin: Any, interleaved: bool) -> Any:
    """Each pair of features of a raw array turned by its angle."""
    out = namespace(x).empty(x.shape, cos.dtype)
    (a, b), (first, second) = _halves(x, interleaved), _halves(out, interleaved)
    first[...] = a * cos
    first -= b * sin
    second[...] = b * cos
    second += a * sin
    return out.astype(x.dtype, copy=False)


def _rotated(x: Tensor, cos: Any, sin: Any, interleaved: bool) -> Tensor:
    turned = _turn(x.array, cos, sin, interleaved)
    return result(turned, x, _rotary_vjp, (x,), (cos, sin, interleaved))


@vjp((None, None, None), name="RotaryPositionEmbeddingBackward0")
def _rotary_vjp(g: Any, cos: Any, sin: Any, interleaved: bool) -> Any:
    return (_rotated if isinstance(g, Tensor) else _turn)(g, cos, -sin, interleaved)


def rotary_position_embedding(
    input: Tensor, positions: Tensor | None = None, base: float = 10000.0,
    interleaved: bool = False,
) -> Tensor:  # fmt: skip
    """Turns each pair of features by the angle position / base**(2 i / size), i being the pair.

    For queries and keys before attention: the product of two of them then depends on how far they
    are apart, not on where they are.
    Shapes: input (..., length, size), size even; the result has the same. `positions`: what
    broadcasts to (..., length), whole numbers or not; 0 to length - 1 unless given. dtypes:
    floating; 16-bit ones are computed in float32.
    Pairs are features i and i + size / 2 (GPT-NeoX, Llama in the transformers library); with
    `interleaved` 2 i and 2 i + 1 (RoFormer, Llama's own weights): the same up to an order of the
    features, so that weights need the one that they were trained with.
    RuntimeError for an odd size, another dtype, or positions that do not fit.
    Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding" (2021).

    >>> q, k = gpunn.ones(3, 4), gpunn.ones(5, 4)  # (length, features of a head)
    >>> q, k = F.rotary_position_embedding(q), F.rotary_position_embedding(k)
    >>> (q @ k.T)[0, 1], (q @ k.T)[2, 3]
    (tensor(3.0805), tensor(3.0805))
    """
    name = "rotary_position_embedding"
    if not isinstance(input, Tensor):
        raise not_a_tensor(name, input)
    x = input.array
    if x.dtype.kind not in "fV":
        raise RuntimeError(f"{name}: input must be floating, got {proper(input.dtype)}")
    if x.ndim < 2 or x.shape[-1] % 2:
        raise RuntimeError(
            f"{name}: input must be (..., length, size) with an even size, got {list(x.shape)}"
        )
    xp = input.device.xp
    places = xp.arange(x.shape[-2]) if positions is None else _places(input, positions)
    angles = _angles(places, x.shape[-1], base, xp)
    dtype = F32 if half(x.dtype) else x.dtype
    return _rotated(input, xp.cos(angles).astype(dtype), xp.sin(angles).astype(dtype), interleaved)


def _places(input: Tensor, positions: Any) -> Any:
    """The positions' array; RuntimeError where they do not broadcast to those of the input."""
    if not isinstance(positions, Tensor):
        raise not_a_tensor("rotary_position_embedding", positions, "positions", 2)
    if positions.device is not input.device:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but input is on "
            f"{input.device} and positions on {positions.device}. Use .to() to move one of them."
        )
    lead = input.array.shape[:-1]
    try:
        fits = np.broadcast_shapes(lead, positions.array.shape) == lead
    except ValueError:
        fits = False
    if not fits:
        raise RuntimeError(
            f"rotary_position_embedding: positions {list(positions.array.shape)} must broadcast to "
            f"{list(lead)}, the dimensions of input {list(input.array.shape)} without its last"
        )
    return positions.array
