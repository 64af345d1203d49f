"""Draws of integers from a generator, as raw arrays: coins, counts, orders and choices.

As in `draw.py`: shape, NumPy dtype and generator in, array out. On the CPU all are PyTorch's bit
for bit, except that `geometric` and `multinomial` without replacement take a logarithm, whose
rounding may in rare cases decide otherwise.
Source: https://docs.pytorch.org/docs/stable/torch.html#random-sampling
"""

from __future__ import annotations

import functools
import math
import operator
import warnings
from typing import Any

import numpy as np

from gpunn import native
from gpunn.device import CPU, Device
from gpunn.draw import (
    FLOATS,
    LARGEST,
    Shape,
    draw_flat,
    exponential,
    need,
    scalar_name,
    unit,
    words64,
)
from gpunn.dtypes import BF16, F16, F32, F64
from gpunn.generator import Generator, pick

_U32 = 0xFFFFFFFF
_MANY = 1 << 12  # coins from which on the compiled code is quicker


def geometric(
    shape: Shape,
    dtype: np.dtype,
    generator: Generator | None = None,
    p: float = 0.5,
    *,
    device: Device = CPU,
) -> Any:
    """The number of trials, each successful with probability 0 < p < 1, up to the first success.

    >>> bool((gpunn.draw_integers.geometric((3,), np.int64, p=0.5) >= 1).all())
    True
    """
    dtype = np.dtype(dtype)
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p:g}")
    need(dtype.kind not in "bc" and _is_torch_number(dtype), "geometric_cpu", dtype)

    def make(g: Generator, n: int) -> Any:
        with np.errstate(divide="ignore"):
            return np.ceil(np.log(unit(g, n, True)) / math.log1p(-p))

    return draw_flat(generator, device, shape, dtype, make)


def _is_torch_number(dtype: np.dtype) -> bool:
    """Whether PyTorch's kernels for all numbers take it: they lack the wide unsigned ones."""
    return not (dtype.kind == "u" and dtype.itemsize > 1)


def bernoulli(
    shape: Shape,
    dtype: np.dtype,
    generator: Generator | None = None,
    p: Any = 0.5,
    *,
    device: Device = CPU,
) -> Any:
    """1 with probability `p`, or else 0: a number, or an array that broadcasts to `shape`.

    A number and a float64 array compare with 53 random bits, a narrower array with 24. On a GPU a
    number compares with 32, word i of the stream deciding element i.
    RuntimeError for a `p` outside of [0, 1], NotImplementedError for a dtype without it.

    >>> gpunn.draw_integers.bernoulli((3,), np.int64, p=1.0).tolist()
    [1, 1, 1]
    """
    dtype = np.dtype(dtype)
    known = dtype.kind != "c" and _is_torch_number(dtype)
    if not hasattr(p, "dtype"):
        if not 0 <= p <= 1:
            raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p:g}")
        need(known, "bernoulli_scalar_cpu_", dtype)
        found = _many_coins(pick(generator, device), shape, p)
        if found is not None:
            return found.astype(dtype, copy=False)

        def coins(g: Generator, n: int) -> Any:
            if g.is_philox:
                return g.words(n) < np.uint64(math.ceil(math.ldexp(p, 32)))
            bits = words64(g, n) & np.uint64((1 << 53) - 1)
            return bits < np.uint64(math.ceil(math.ldexp(p, 53)))

        return draw_flat(generator, device, shape, dtype, coins)
    need(known, "bernoulli_tensor_cpu_self_", dtype)
    need(p.dtype in FLOATS, "bernoulli_tensor_cpu_p_", p.dtype)
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise RuntimeError(
            "Expected p_in >= 0 && p_in <= 1 to be true, but got false: bernoulli takes "
            "probabilities in [0, 1]"
        )
    wide = p.dtype == F64
    if not wide:
        p = p.astype(F32)
    numbers = draw_flat(
        generator, device, shape, F64 if wide else F32, lambda g, n: unit(g, n, wide)
    )
    return (numbers < p).astype(dtype)


def _many_coins(generator: Generator, shape: Shape, p: float) -> np.ndarray | None:
    """Many bools at once, by the compiled code; None where it has no answer."""
    if generator.is_philox or math.prod(shape) < _MANY:
        return None
    with generator.lock:
        state = generator.stream.state()
        found = native.coins(state, shape, math.ceil(math.ldexp(p, 53)))
        if found is not None:
            generator.stream.resume(state)
    return found


def randint(
    shape: Shape,
    dtype: np.dtype,
    generator: Generator | None = None,
    low: int | None = 0,
    high: int | None = None,
    *,
    device: Device = CPU,
) -> Any:
    """Integers in [low, high), as `Tensor.random_` draws them.

    `high=None` stands for all up to the largest that the dtype holds exactly; with `low=None`,
    too, all from 0 (for int64 and floating dtypes 64 bits are drawn). RuntimeError for bounds
    that are none or that the dtype cannot hold.

    >>> gpunn.draw_integers.randint((3,), np.int64, None, 7, 8).tolist()
    [7, 7, 7]
    """
    dtype = np.dtype(dtype)
    if low is None:
        need(dtype.kind != "c" and _is_torch_number(dtype), "random_kernel_cpu", dtype)
        top = _largest(dtype)
        wide = dtype in (F64, np.int64)
        make = functools.partial(_modulo, count=top + 1, base=0, wide=wide)
    elif high is None and low == -(1 << 63):
        if dtype not in (F32, F64, BF16, np.int64):
            raise RuntimeError(
                "random_full_64_bits_range_kernel_cpu handles only int64, double, float and "
                f"bfloat16, got {dtype}"
            )
        make = functools.partial(_modulo, count=1 << 64, base=0, wide=True)
    else:
        low, count = _integer_range(dtype, operator.index(low), high)
        make = functools.partial(_modulo, count=count, base=low, wide=count >= 1 << 28)
    return draw_flat(generator, device, shape, dtype, make)


def _modulo(generator: Generator, n: int, count: int, base: int, wide: bool) -> Any:
    """n int64: base + a word modulo count."""
    if wide:
        words = words64(generator, n)
        if count < 1 << 64:
            words %= np.uint64(count)
        words += np.uint64(base % (1 << 64))
        return words.view(np.int64)
    words = generator.words(n)
    words %= np.uint32(count)
    numbers = words.astype(np.int64)
    numbers += base
    return numbers


def _largest(dtype: np.dtype) -> int:
    """The largest integer n of a dtype such that it holds 0 to n exactly."""
    if dtype in FLOATS:
        return 1 << _digits(dtype)
    return 1 if dtype.kind == "b" else min(int(np.iinfo(dtype).max), (1 << 63) - 1)


def _digits(dtype: np.dtype) -> int:
    return {F16: 11, BF16: 8, F32: 24, F64: 53}[dtype]


def _integer_range(dtype: np.dtype, low: int, high: int | None) -> tuple[int, int]:
    """(low, how many) of the integers that may be drawn, checked against the dtype."""
    top = _largest(dtype) if high is None else operator.index(high) - 1
    if low > top:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={top + 1}"
        )
    if dtype in FLOATS:
        low, top = _inside(low, top, dtype)
        least, most = -LARGEST[dtype], LARGEST[dtype]
    else:
        least, most = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), _largest(dtype))
    for name, value in (("from", low), ("to - 1", top)):
        if not least <= value <= most:
            raise RuntimeError(f"{name} is out of bounds for {dtype.name}: {value}")
        if dtype in FLOATS and abs(value) > _largest(dtype):
            digits = _digits(dtype)
            warnings.warn(
                f"{name} is out of bounds [-(2^{digits}), 2^{digits}]. Due to precision "
                f"limitations {dtype.name} can support discrete uniform distribution only within "
                f"this range.",
                stacklevel=4,
            )
    return low, top - low + 1


def _inside(low: int, top: int, dtype: np.dtype) -> tuple[int, int]:
    """The bounds moved inwards to numbers that a cast to `dtype` does not move outwards."""

    def cast(value: int) -> int:
        number = float(dtype.type(value))
        return int(number) if math.isfinite(number) else int(math.copysign(1 << 63, number))

    def step(value: int) -> int:
        return 1 << max(abs(value).bit_length() - _digits(dtype), 0)

    if cast(low + 1) < low:
        low = cast(low + 1) + step(low + 1)
    if cast(top) > top:
        top = cast(top) - step(top) - 1
    return low, top


def randperm(
    n: int, dtype: np.dtype, generator: Generator | None = None, *, device: Device = CPU
) -> Any:
    """The integers 0 to n - 1 in random order. RuntimeError for n that is negative or too large.

    >>> gpunn.draw_integers.randperm(5, np.int64, gpunn.Generator().manual_seed(0)).tolist()
    [4, 0, 1, 3, 2]
    """
    dtype = np.dtype(dtype)
    if n < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    need(dtype.kind not in "bc" and _is_torch_number(dtype), "randperm", dtype)
    if dtype != BF16 and n - 1 > _largest(dtype):
        raise RuntimeError(
            f"n cannot be greater than {_largest(dtype) + 1} for {scalar_name(dtype)} type, got "
            f"{n}: value cannot be converted to type {dtype.name} without overflow"
        )
    generator = pick(generator, device)
    with generator.lock:
        if generator.is_philox:
            order = words64(generator, n).argsort()
        elif n < _U32 // 20:
            order = _shuffled(generator.words(max(n - 1, 0)), n)
        else:
            order = _inside_out(words64(generator, n))
    return order.astype(dtype, copy=False)


def _previous(slots: np.ndarray) -> np.ndarray:
    """For each i the last k < i with slots[k] == slots[i], or -1."""
    index = np.arange(len(slots))
    keys = np.sort(slots << 32 | index)
    order, slots = keys & _U32, keys >> 32
    again = slots[1:] == slots[:-1]
    found = np.full(len(index), -1)
    found[order[1:]] = np.where(again, order[:-1], -1)
    return found


def _roots(parents: np.ndarray) -> np.ndarray:
    """The end of each path i, parents[i], parents[parents[i]], ...: its element that is itself."""
    while True:
        further = parents[parents]
        if np.array_equal(further, parents):
            return parents
        parents = further


def _shuffled(words: np.ndarray, n: int) -> np.ndarray:
    """Fisher-Yates without a loop: for i = 0, 1, ... swap places i and i + words[i] % (n - i).

    Place i is final after swap i and gets what lies at slot[i]: what the last earlier swap k into
    that slot put there, which is what lay at place k when its turn came, and so back.
    """
    index = np.arange(n)
    slots = index.copy()
    slots[:-1] += words % np.arange(n, 1, -1, dtype=np.uint32)
    before = _previous(slots)
    last = np.full(n, -1)
    last[slots] = index  # of several the last assignment stays
    own = np.where(slots == index, before, last)  # the last swap into place i before its turn
    values = _roots(np.where(own < 0, index, own))
    return np.where(before < 0, slots, values[before])


def _inside_out(words: np.ndarray) -> np.ndarray:
    """The shuffle of huge n: for i = 0, 1, ... place i gets what lies at slot words[i] % (i + 1),
    and that slot gets i."""
    index = np.arange(len(words))
    slots = (words % (index + 1).astype(np.uint64)).astype(np.int64)
    before = _previous(slots)
    fixed = (before >= 0) | (slots == index)  # what i takes is known, or it takes i itself
    source = _roots(np.where(fixed, index, slots))
    taken = np.where(slots == index, index, before)[source]
    last = np.full(len(words), -1)
    last[slots] = index
    return np.where(last < 0, taken, last)


def multinomial(
    p: Any,
    num_samples: int,
    replacement: bool = False,
    generator: Generator | None = None,
    *,
    device: Device = CPU,
) -> Any:
    """Indices drawn with probabilities in proportion to `p`, of shape (n,) or (rows, n).

    Returns int64 (num_samples,) or (rows, num_samples). RuntimeError for weights that are
    negative, not finite or all zero, and for more samples than weights without `replacement`.

    >>> gpunn.draw_integers.multinomial(np.array([0.0, 1.0]), 3, replacement=True).tolist()
    [1, 1, 1]
    """
    _check_weights(p, num_samples, replacement)
    generator = pick(generator, device)
    if replacement and num_samples > 1:
        with generator.lock:
            rows = [_with_replacement(row, num_samples, generator) for row in _rows(p)]
        found = device.xp.stack(rows) if rows else np.empty((0, num_samples), np.int64)
        return device.xp.asarray(found).reshape(*p.shape[:-1], num_samples)
    if not bool(((p >= 0) & (p < math.inf)).all()):
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    if not bool((p.sum(-1) > 0).all()):
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    scores = p / exponential(p.shape, p.dtype, generator, device=device)
    return (-scores).argsort(axis=-1, kind="stable")[..., :num_samples]


def _rows(p: Any) -> Any:
    return p if p.ndim == 2 else p[None]


def _with_replacement(p: Any, num_samples: int, generator: Generator) -> Any:
    """By the cumulative weights of one row, in the weights' precision (float32 at least)."""
    p = p.astype(F32) if p.dtype.itemsize == 2 else p
    if not bool((p >= 0).all()):
        raise RuntimeError("invalid multinomial distribution (encountering probability entry < 0)")
    total = p.cumsum()
    if total.size and not math.isfinite(float(p.max())):
        raise RuntimeError(
            "invalid multinomial distribution (encountering probability entry = infinity or NaN)"
        )
    if not total.size or not total[-1] > 0:
        raise RuntimeError("invalid multinomial distribution (sum of probabilities <= 0)")
    total /= total[-1]
    total[-1] = 1
    marks = unit(generator, num_samples, wide=True)
    return generator.device.xp.searchsorted(total.astype(F64), marks)


def _check_weights(p: Any, num_samples: int, replacement: bool) -> None:
    if p.ndim not in (1, 2):
        raise RuntimeError(f"prob_dist must be 1 or 2 dim, got {p.ndim}")
    if p.dtype not in FLOATS:
        raise RuntimeError(
            "multinomial only supports floating-point dtypes for input, got: "
            f"{scalar_name(p.dtype)}"
        )
    if p.shape[-1] > 1 << 24:
        raise RuntimeError(f"number of categories cannot exceed 2^24, got {p.shape[-1]}")
    if num_samples <= 0:
        raise RuntimeError(f"cannot sample n_sample <= 0 samples, got {num_samples}")
    if not replacement and num_samples > p.shape[-1]:
        raise RuntimeError(
            "cannot sample n_sample > prob_dist.size(-1) samples without replacement: "
            f"{num_samples} of {p.shape[-1]}"
        )
