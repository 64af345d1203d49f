"""Fractional max pooling: windows at steps that vary at random and give the size asked for.

Source: Graham 2014, Fractional Max-Pooling, https://arxiv.org/abs/1412.6071
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import product
from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.nn.module import Module
from gpunn.nn.pool import at_places_vjp
from gpunn.nn.windows import Ints
from gpunn.ops._rows import half, proper
from gpunn.random import rand
from gpunn.tensor import Tensor, wrap

_SIDES = {2: ("height", "width"), 3: ("time", "height", "width")}


def _starts(sample: Any, n: int, m: int, k: int) -> Any:
    """Where the m windows of k among n entries start, for each sample in [0, 1); int64.

    In the samples' own precision, as PyTorch: a rounding here moves a window.
    """
    xp, number = ns(sample), sample.dtype.type
    starts = xp.full((*sample.shape, m), n - k, np.int64)
    if m > 1:
        step = number(n - k) / number(m - 1)
        places = (xp.arange(m - 1).astype(sample.dtype) + sample[..., None]) * step
        first = (sample * step).astype(np.int64)
        starts[..., :-1] = places.astype(np.int64) - first[..., None]
    return starts


def _maxima(x: Any, samples: Any, kernel: Ints, out: Ints) -> tuple[Any, Any]:
    """(maxima, places) of x (N, C, *size): the first of equals, the last NaN."""
    dims, xp = len(out), ns(x)
    n, c, *size = x.shape
    starts = []
    for i, (length, m, k) in enumerate(zip(size, out, kernel, strict=True)):
        column = i if dims == 3 else 1 - i  # in 2 dimensions the width's sample comes first
        at = _starts(samples[:n, :, column], length, m, k)
        starts.append(at.reshape(n, c, *(m if j == i else 1 for j in range(dims))))
    flat = (x.astype(F32) if half(x.dtype) else x).reshape(n, c, math.prod(size))
    best = xp.full((n, c, *out), -np.inf, flat.dtype)
    places = _flat(starts, (0,) * dims, size) + xp.zeros(best.shape, np.int64)
    for tap in product(*map(range, kernel)):
        at = xp.broadcast_to(_flat(starts, tap, size), best.shape)
        candidate = xp.take_along_axis(flat, at.reshape(n, c, math.prod(out)), -1)
        candidate = candidate.reshape(best.shape)
        better = (candidate > best) | (candidate != candidate)
        xp.copyto(best, candidate, where=better)
        xp.copyto(places, at, where=better)
    return best.astype(x.dtype, copy=False), places


def _flat(starts: list[Any], tap: Ints, size: list[int]) -> Any:
    """The place of a tap of all windows in the flattened plane."""
    flat: Any = 0
    for start, t, n in zip(starts, tap, size, strict=True):
        flat = flat * n + (start + t)
    return flat


@vjp((None, None), name="FractionalMaxPool2DBackward0")
def _fractional_vjp(g: Any, places: Any, size: Ints) -> Any:
    return at_places_vjp(g, places, size)


def _spread(value: Any, dims: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, Iterable) else (value,) * dims


def _sizes(name: str, what: str, value: Any, dims: int) -> Ints:
    values = _spread(value, dims)
    if len(values) == 1:
        values = values * dims
    if len(values) != dims:
        raise RuntimeError(
            f"{name}: {what} must either be a single Int or tuple of"
            f"{' three' if dims == 3 else ''} Ints, got {value}"
        )
    return tuple(int(v) for v in values)


def _wanted_size(name: str, shape: Any, size: Any, ratio: Any, dims: int) -> Any:
    """output_size, or what output_ratio makes of the input's."""
    if size is None and ratio is None:
        raise ValueError(f"{name} requires specifying either an output_size or an output_ratio")
    if size is not None:
        return size
    if dims == 2 and len(ratio) > 2:
        raise ValueError(
            f"{name} requires output_ratio to either be a single Int or tuple of Ints."
        )
    ratios = _spread(ratio, dims)
    return tuple(int(shape[i - dims] * ratios[i]) for i in range(dims))


def _check(name: str, x: Any, samples: Tensor, kernel: Ints, out: Ints) -> None:
    dims, s = len(out), samples.array
    told = f"{name}_out()" if dims == 3 else f"{name}()"
    for i in range(1, x.ndim):
        if x.shape[i] == 0:
            raise RuntimeError(
                f"{told}: Expected input to have non-zero size for non-batch dimensions, but "
                f"got{list(x.shape)} with dimension {i} being empty."
            )
    for side, n, m, k in zip(_SIDES[dims], x.shape[-dims:], out, kernel, strict=True):
        if m + k - 1 > n - (dims == 3):  # PyTorch asks for one entry more in 3 dimensions
            raise RuntimeError(
                f"{told}: pool {side} {k} too large relative to input {side} {n} "
                f"(for {m} windows)"
            )
    if s.dtype != x.dtype:
        raise RuntimeError("Expect _random_samples to have the same dtype as input")
    if s.ndim != 3:
        raise RuntimeError(f"Expect _random_samples to have 3 dimensions, got {s.ndim}")
    if s.shape[0] < (1 if x.ndim == dims + 1 else x.shape[0]):
        raise RuntimeError("Expect _random_samples.size(0) no less then input batch size.")
    if s.shape[1] != x.shape[-dims - 1]:
        raise RuntimeError("Expect _random_samples.size(1) equals to input channel size.")
    if s.shape[2] != dims:
        raise RuntimeError(f"Expect _random_samples.size(2) equals to {dims}; got {s.shape[2]}.")


def _fractional(
    input: Tensor, kernel_size: Any, output_size: Any, output_ratio: Any, samples: Any, dims: int
) -> tuple[Tensor, Tensor]:
    x, name = input.array, f"fractional_max_pool{dims}d"
    wanted = _wanted_size(name, x.shape, output_size, output_ratio, dims)
    if x.ndim <= dims:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-x.ndim}, {x.ndim - 1}], but "
            f"got {-dims - 1}): {name} takes {dims + 1} or {dims + 2} dimensions"
        )
    if x.dtype.kind not in "fV":
        raise NotImplementedError(f"\"{name}\" not implemented for '{proper(input.dtype)}'")
    if samples is None:
        batch = 1 if x.ndim == dims + 1 else x.shape[0]
        samples = rand(batch, x.shape[-dims - 1], dims, dtype=input.dtype, device=input.device)
    kernel = _sizes(name, "kernel_size", kernel_size, dims)
    out = _sizes(name, "output_size", wanted, dims)
    if x.ndim > dims + 2:
        raise RuntimeError(
            f"{name}(): Expected {dims + 1}D or {dims + 2}D tensor, but got: {list(x.shape)}"
        )
    _check(name, x, samples, kernel, out)
    batched = x if x.ndim == dims + 2 else x[None]
    y, places = _maxima(batched, samples.array, kernel, out)
    if x.ndim == dims + 1:
        y, places = y[0], places[0]
    made = result(y, input, _fractional_vjp, (input,), (places, x.shape[-dims:]))
    return made, wrap(places, input.device)


_DOC = """The maxima of windows of kernel_size at random steps that give output_size of them.

    Shapes: input (N, C, {axes}) or (C, {axes}); give either output_size, an int or {dims}, or
    output_ratio, {dims} numbers in (0, 1). dtypes: floating. With `return_indices`, also the place
    of each maximum in its flattened plane, int64. One random number is drawn for each dimension of
    each plane, from the device's default generator as PyTorch does on the CPU; `_random_samples`
    (N, C, {dims}) are taken instead.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.fractional_max_pool{dims}d.html

    >>> F.fractional_max_pool{dims}d(gpunn.ones({ones}), 2, output_size=3).shape
    torch.Size([{gives}])
    """


def _make(dims: int) -> Any:
    def fractional_max_pool(
        input: Tensor, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Tensor | None = None,
    ) -> Any:  # fmt: skip
        both = _fractional(
            input, kernel_size, output_size, output_ratio, _random_samples, dims
        )
        return both if return_indices else both[0]

    name = f"fractional_max_pool{dims}d"
    fractional_max_pool.__name__ = fractional_max_pool.__qualname__ = name
    fractional_max_pool.__doc__ = _DOC.format(
        dims=dims, axes=("L", "H, W", "D, H, W")[dims - 1], ones=", ".join("11" + "7" * dims),
        gives=", ".join("11" + "3" * dims),
    )  # fmt: skip
    return autocasts(name)(fractional_max_pool)


fractional_max_pool2d, fractional_max_pool3d = (_make(d) for d in (2, 3))


class _FractionalMaxPool(Module):
    """What FractionalMaxPool2d and FractionalMaxPool3d share."""

    __constants__ = ["kernel_size", "return_indices", "output_size", "output_ratio"]
    dims: int
    _random_samples: Any

    def __init__(
        self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Any = None,
    ):  # fmt: skip
        super().__init__()
        self._check_kernel(kernel_size)
        self.kernel_size = _spread(kernel_size, self.dims)
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)
        self.output_size = None if output_size is None else _spread(output_size, self.dims)
        self.output_ratio = None if output_ratio is None else _spread(output_ratio, self.dims)
        if output_size is None and output_ratio is None:
            raise ValueError(
                f"{type(self).__name__} requires specifying either an output size, or a pooling "
                "ratio"
            )
        if output_size is not None and output_ratio is not None:
            raise ValueError("only one of output_size and output_ratio may be specified")
        ratios = (self.output_ratio or ())[: self.dims]
        if not all(0 < ratio < 1 for ratio in ratios):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")

    def _check_kernel(self, kernel_size: Any) -> None:
        """In three dimensions the window must not be empty."""
        if self.dims == 3 and min(_spread(kernel_size, 3), default=1) <= 0:
            raise ValueError(f"kernel_size must be greater than 0, but got {kernel_size}")

    def forward(self, input: Tensor) -> Any:
        both = _fractional(
            input, self.kernel_size, self.output_size, self.output_ratio, self._random_samples,
            self.dims,
        )  # fmt: skip
        return both if self.return_indices else both[0]


class FractionalMaxPool2d(_FractionalMaxPool):
    """Maxima at random steps: see `nn.functional.fractional_max_pool2d`.

    ValueError unless one of output_size and output_ratio is given.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.FractionalMaxPool2d.html

    >>> nn.FractionalMaxPool2d(3, output_ratio=(0.5, 0.5))(gpunn.ones(1, 16, 50, 32)).shape
    torch.Size([1, 16, 25, 16])
    """

    dims = 2


class FractionalMaxPool3d(_FractionalMaxPool):
    """Maxima at random steps: see `nn.functional.fractional_max_pool3d`.

    ValueError unless one of output_size and output_ratio is given.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.FractionalMaxPool3d.html

    >>> nn.FractionalMaxPool3d(2, output_size=3)(gpunn.ones(1, 4, 7, 7, 7)).shape
    torch.Size([1, 4, 3, 3, 3])
    """

    dims = 3
