"""Draws of real numbers from a generator, as raw arrays.

They are what `gpunn.rand`, `Tensor.uniform_`, `nn.init` and others are made of: shape, NumPy
dtype and generator in, array out. Without a generator they take the default one of `device`.

On the CPU they take PyTorch's way from the words of its stream, so the same seed gives the same
numbers: uniform ones bit for bit (a float64 with bounds other than 0 and 1 may differ in its last
bit), the others up to the rounding of the logarithm, sine or cosine in them, a few units in the
last place. Generators that count (those of CUDA devices) give numbers of their own.
Source: https://docs.pytorch.org/docs/stable/torch.html#random-sampling
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

from gpunn.device import CPU, Device
from gpunn.dtypes import BF16, F16, F32, F64
from gpunn.generator import Generator, pick

Shape = tuple[int, ...]

_PIECE = 1 << 15  # numbers drawn at a time on the CPU, so that the steps stay in the cache


def unit(generator: Generator, n: int, wide: bool) -> Any:
    """n uniform numbers in [0, 1): float64 of 53 bits if `wide`, or else float32 of 24."""
    if not wide:
        words = generator.words(n)
        words &= np.uint32(0xFFFFFF)
        numbers = words.astype(F32)
        numbers *= np.float32(2.0**-24)
        return numbers
    words = words64(generator, n)
    words &= np.uint64((1 << 53) - 1)
    numbers = words.astype(F64)
    numbers *= 2.0**-53
    return numbers


def words64(generator: Generator, n: int) -> Any:
    """n 64-bit words, each of two 32-bit words, the high one first."""
    words = generator.words(2 * n)
    wide = words[0::2].astype(np.uint64)
    wide <<= np.uint64(32)
    wide |= words[1::2]
    return wide


def draw_flat(
    generator: Generator | None,
    device: Device,
    shape: Shape,
    dtype: np.dtype,
    make: Callable[[Generator, int], Any],
) -> Any:
    """An array of `shape` whose elements are, in their order, those of `make(generator, n)`."""
    generator = pick(generator, device)
    n = math.prod(shape)
    with generator.lock:
        if n <= _PIECE or generator.is_philox:
            return _cast(make(generator, n), dtype).reshape(shape)
        out = np.empty(n, dtype)
        for i in range(0, n, _PIECE):
            out[i : i + _PIECE] = _cast(make(generator, min(_PIECE, n - i)), dtype)
    return out.reshape(shape)


def _cast(values: Any, dtype: np.dtype) -> Any:
    """The values as `dtype`; to 16 bits by way of float32, as PyTorch rounds."""
    if values.dtype == dtype:
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype.itemsize == 2 and values.dtype == F64 and dtype.kind not in "iu":
            values = values.astype(F32)
        return values.astype(dtype)


LARGEST = {d: float(ml_dtypes.finfo(d).max) for d in (F32, F64, F16, BF16)}
FLOATS = frozenset(LARGEST)
_SCALAR_NAMES = {
    "bool": "Bool", "uint8": "Byte", "int8": "Char", "int16": "Short", "int32": "Int",
    "int64": "Long", "float16": "Half", "float32": "Float", "float64": "Double",
    "complex64": "ComplexFloat", "complex128": "ComplexDouble", "bfloat16": "BFloat16",
    "uint16": "UInt16", "uint32": "UInt32", "uint64": "UInt64",
}  # fmt: skip


def scalar_name(dtype: np.dtype) -> str:
    return _SCALAR_NAMES[np.dtype(dtype).name]


def need(condition: bool, kernel: str, dtype: np.dtype) -> None:
    """NotImplementedError, worded as PyTorch's, unless `condition`."""
    if not condition:
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{scalar_name(dtype)}'")


def _as_complex(draw: Callable[..., Any], shape: Shape, dtype: np.dtype, *args: Any) -> Any:
    """A complex array: real and imaginary parts drawn in turn."""
    real = F32 if dtype.itemsize == 8 else F64
    return draw((*shape, 2), real, *args).view(dtype).reshape(shape)


def like(
    array: Any, draw: Callable[..., Any], *args: Any, dtype: Any = None, device: Device = CPU
) -> Any:
    """`draw(array.shape, dtype, *args)` with the elements in the order of the array's memory.

    That order, and the other algorithm that `normal` has for what is not contiguous, are
    PyTorch's for filling a tensor in place and for `rand_like`. `dtype` is the array's by default;
    arrays among `args` broadcast to its shape.

    >>> a = np.zeros((2, 2), np.float32, order="F")
    >>> gpunn.draw.like(a, gpunn.draw.uniform, gpunn.Generator().manual_seed(0)).round(2)
    array([[0.5 , 0.09],
           [0.77, 0.13]], dtype=float32)
    """
    order = sorted(range(array.ndim), key=lambda d: -abs(array.strides[d]))
    args = tuple(
        device.xp.broadcast_to(a, array.shape).transpose(order) if hasattr(a, "shape") else a
        for a in args
    )
    if draw is normal and not array.flags.c_contiguous:
        draw = functools.partial(normal, contiguous=False)
    shape = tuple(array.shape[d] for d in order)
    drawn = draw(shape, array.dtype if dtype is None else dtype, *args, device=device)
    return drawn.transpose(sorted(range(array.ndim), key=order.__getitem__))


def uniform(
    shape: Shape,
    dtype: np.dtype,
    generator: Generator | None = None,
    low: float = 0.0,
    high: float = 1.0,
    *,
    device: Device = CPU,
) -> Any:
    """Uniform numbers in [low, high), of a floating or complex dtype.

    NotImplementedError for another dtype, RuntimeError for bounds that are none.

    >>> gpunn.draw.uniform((2,), np.float64, gpunn.Generator(), 1, 1).tolist()
    [1.0, 1.0]
    """
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        draw = functools.partial(uniform, device=device)
        return _as_complex(draw, shape, dtype, generator, low, high)
    need(dtype in FLOATS, "check_uniform_bounds", dtype)
    plain, narrow = low == 0 and high == 1, dtype != F64
    if not plain:
        _check_bounds(dtype, low, high)
        scalar = F32.type if narrow else F64.type
        base, span = float(scalar(low)), float(scalar(high) - scalar(low))

    def make(generator: Generator, n: int) -> Any:
        numbers = unit(generator, n, wide=not narrow)
        if not plain:
            if narrow:  # in float64, to be rounded once like a fused multiply-add
                numbers = numbers.astype(F64)
            numbers *= span
            numbers += base
            numbers = _cast(numbers, F32 if narrow else F64)
        numbers = _cast(numbers, dtype)
        if not plain or dtype.itemsize == 2:  # it may have been rounded up to the bound
            numbers[numbers == dtype.type(high)] = low
        return numbers

    return draw_flat(generator, device, shape, dtype, make)


def _check_bounds(dtype: np.dtype, low: float, high: float) -> None:
    for name, value in (("from", low), ("to", high)):
        if not abs(value) <= LARGEST[dtype]:
            raise RuntimeError(f"{name} is out of bounds for {dtype.name}: {value}")
    if low > high:
        raise RuntimeError(
            f"uniform_ expects to return a [from, to) range, but found from={low:g} > to={high:g}"
        )
    if high - low > LARGEST[dtype]:
        raise RuntimeError(
            f"uniform_ expects to-from <= std::numeric_limits<{scalar_name(dtype)}>::max(), but "
            f"found to={high:g} and from={low:g} which result in to-from to exceed the limit"
        )


def normal(
    shape: Shape,
    dtype: np.dtype,
    generator: Generator | None = None,
    mean: float = 0.0,
    std: float = 1.0,
    *,
    contiguous: bool = True,
    device: Device = CPU,
) -> Any:
    """Normal numbers of a floating or complex dtype (there `std` is of real and imaginary part
    together).

    On the CPU 16 and more are Box-Muller in blocks of 8 + 8, the last 16 drawn anew where the
    count is no multiple of 16; fewer, and all of an array that is not `contiguous`, are pairs in
    float64 whose second number is kept for the next call. RuntimeError for a negative `std`,
    NotImplementedError for another dtype.

    >>> gpunn.draw.normal((3,), np.float32, std=0).tolist()
    [0.0, 0.0, 0.0]
    """
    dtype = np.dtype(dtype)
    if not std >= 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std:g}")
    if dtype.kind == "c":
        draw = functools.partial(normal, contiguous=contiguous, device=device)
        return _as_complex(draw, shape, dtype, generator, mean, std / math.sqrt(2))
    need(dtype in FLOATS, "normal_kernel_cpu", dtype)
    generator, n = pick(generator, device), math.prod(shape)
    with generator.lock:
        if generator.is_philox:
            numbers = _pairs(unit(generator, n + n % 2, dtype == F64))[:n]
        elif n >= 16 and contiguous:
            return _normal_blocks(generator, n, dtype, mean, std).reshape(shape)
        else:
            numbers = _normal_serial(generator, n)
    return _cast(_scaled(numbers, mean, std), dtype).reshape(shape)


def _scaled(numbers: Any, mean: float, std: float) -> Any:
    if std != 1 or mean != 0:
        numbers *= std
        numbers += mean
    return numbers


def _pairs(u: Any) -> Any:
    """Box-Muller, in place: numbers 2i and 2i + 1 from the uniform ones of the same places."""
    radius = np.sqrt(-2.0 * np.log1p(-u[1::2]))
    angle = u[0::2] * u.dtype.type(2 * math.pi)
    u[0::2] = radius * np.cos(angle)
    u[1::2] = radius * np.sin(angle)
    return u


def _normal_serial(generator: Generator, n: int) -> np.ndarray:
    """n normal float64, one at a time: the number kept back first, the next one kept back."""
    stream = generator.stream
    out = np.empty(n)
    first = 0
    if n and stream.spare is not None:
        out[0], stream.spare, first = stream.spare, None, 1
    fresh = _pairs(unit(generator, (n - first + 1) // 2 * 2, wide=True))
    out[first:] = fresh[: n - first]
    if len(fresh) > n - first:
        stream.spare = float(fresh[-1])
    return out


def _normal_blocks(
    generator: Generator, n: int, dtype: np.dtype, mean: float, std: float
) -> np.ndarray:
    """n >= 16 normal numbers by the block algorithm."""
    wide, whole = dtype == F64, n // 16 * 16
    out = np.empty(n, dtype)

    def draw(count: int) -> np.ndarray:
        return _scaled(_box_muller(unit(generator, count, wide)), mean, std)

    for i in range(0, whole, _PIECE):
        stop = min(i + _PIECE, whole)
        out[i:stop] = draw(stop - i)
    if n > whole:
        if dtype.itemsize > 2:
            generator.words((n - whole) * (2 if wide else 1))
        out[-16:] = draw(16)
    return out


def _box_muller(u: np.ndarray) -> np.ndarray:
    """In place: in each block of 16, the first 8 numbers give radii, the last 8 angles."""
    blocks = u.reshape(-1, 2, 8)
    radius = 1 - blocks[:, 0]
    np.log(radius, out=radius)
    radius *= -2
    np.sqrt(radius, out=radius)
    angle = blocks[:, 1] * u.dtype.type(2 * math.pi)
    np.multiply(radius, np.cos(angle), out=blocks[:, 0])
    np.multiply(radius, np.sin(angle), out=blocks[:, 1])
    return u


def log_normal(
    shape: Shape,
    dtype: np.dtype,
    generator: Generator | None = None,
    mean: float = 1.0,
    std: float = 2.0,
    *,
    device: Device = CPU,
) -> Any:
    """exp of normal(mean, std) numbers. RuntimeError unless std > 0.

    >>> bool((gpunn.draw.log_normal((3,), np.float32) > 0).all())
    True
    """
    dtype = np.dtype(dtype)
    if not std > 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std:g}")
    need(dtype in FLOATS, "log_normal_cpu", dtype)
    numbers = normal(shape, F64, generator, mean, std, contiguous=False, device=device)
    with np.errstate(over="ignore"):
        return _cast(np.exp(numbers), dtype)


def exponential(
    shape: Shape,
    dtype: np.dtype,
    generator: Generator | None = None,
    lambd: float = 1.0,
    *,
    device: Device = CPU,
) -> Any:
    """Numbers of the exponential distribution of rate `lambd` > 0.

    >>> bool((gpunn.draw.exponential((3,), np.float32, lambd=2.0) >= 0).all())
    True
    """
    dtype = np.dtype(dtype)
    if not lambd > 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd:g}")
    _need_continuous(dtype, "Exponential")
    return draw_flat(
        generator, device, shape, dtype, lambda g, n: (-1.0 / lambd) * np.log1p(-unit(g, n, True))
    )


def cauchy(
    shape: Shape,
    dtype: np.dtype,
    generator: Generator | None = None,
    median: float = 0.0,
    sigma: float = 1.0,
    *,
    device: Device = CPU,
) -> Any:
    """Numbers of the Cauchy distribution of width `sigma` > 0.

    >>> gpunn.draw.cauchy((3,), np.float32).shape
    (3,)
    """
    dtype = np.dtype(dtype)
    if not sigma > 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma:g}")
    _need_continuous(dtype, "Cauchy")

    def make(g: Generator, n: int) -> Any:
        return median + sigma * np.tan(math.pi * (unit(g, n, True) - 0.5))

    return draw_flat(generator, device, shape, dtype, make)


def _need_continuous(dtype: np.dtype, name: str) -> None:
    if dtype not in FLOATS:
        raise RuntimeError(
            f"{name} distribution is a continuous probability distribution. dtype must be a "
            f"floating point but you specified {scalar_name(dtype)}"
        )
