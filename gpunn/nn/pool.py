"""Max and average pooling in 1, 2 and 3 dimensions.

On a GPU by kernels/pool.cu, on the CPU by kernels/pool.cpp. Without it, both run over the taps of
the window: one strided slice of the input for each place in it, so no window is ever copied out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpunn import native
from gpunn.amp.casts import AUTOCAST, casts_one
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import pool as kernels
from gpunn.dtypes import F32
from gpunn.nn.module import Module
from gpunn.nn.windows import Ints, Windows, check_input
from gpunn.ops._rows import half, write_out
from gpunn.ops.index import add_at, put
from gpunn.tensor import Tensor, wrap

# --- max ----------------------------------------------------------------------------------


def _max_taps(x: Any, w: Windows) -> tuple[Any, Any]:
    """(maxima, number of the tap that gave each): the first of equals, the last NaN."""
    xp = ns(x)
    low = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    padded = w.padded(x, low)
    best = taps = None
    for number, tap in enumerate(w.taps()):
        candidate = padded[w.place(tap)]
        if best is None:
            best = candidate.copy()
            taps = xp.zeros(best.shape, np.int32 if math.prod(w.kernel) > 32767 else np.int16)
            continue
        better = candidate > best
        if x.dtype.kind == "f":
            better |= candidate != candidate
        xp.copyto(best, candidate, where=better)
        xp.copyto(taps, number, where=better)
    return best, _first_inside(taps, w, xp)


def _first_inside(taps: Any, w: Windows, xp: Any) -> Any:
    """A window of -inf alone reports its first tap inside the input, not one in the padding."""
    if not any(w.padding):
        return taps
    numbers = np.arange(math.prod(w.kernel)).reshape(w.kernel)
    first: Any = 0
    for axis, (m, s, p, d) in enumerate(zip(w.out, w.stride, w.padding, w.dilation, strict=True)):
        start = np.arange(m) * s - p
        skipped = np.maximum(-(start // d), 0)
        step = numbers.strides[axis] // numbers.itemsize
        first = first + (skipped * step).reshape((-1,) + (1,) * (len(w.out) - 1 - axis))
    inside = xp.asarray(np.broadcast_to(first, w.out).astype(taps.dtype))
    return xp.where(taps == 0, inside, taps)


def _flat_indices(taps: Any, w: Windows) -> Any:
    """The place of each maximum in its flattened plane; int64."""
    xp = ns(taps)
    rest, flat = taps.astype(np.int64), 0
    coordinates = []
    for k in reversed(w.kernel):
        coordinates.append(rest % k)
        rest = rest // k
    for axis, tap in enumerate(reversed(coordinates)):
        shape = (-1,) + (1,) * (len(w.out) - 1 - axis)
        start = xp.arange(w.out[axis]).reshape(shape) * w.stride[axis] - w.padding[axis]
        flat = flat * w.size[axis] + start + tap * w.dilation[axis]
    return flat


def _maxima(x: Any, w: Windows, places: bool) -> tuple[Any, Any]:
    """(maxima, the place of each in its flattened plane), or its tap, a uint8, where a GPU's
    kernel gives that for less memory and `places` are not asked for."""
    if type(x) is not np.ndarray:
        both = kernels.max_pool_forward(
            x, w.kernel, w.stride, w.padding, w.dilation, w.out, places
        )
        if both is not None:
            return both
    wide = x.astype(F32) if half(x.dtype) else x
    if type(x) is np.ndarray and wide.dtype.kind == "f":
        found = native.max_pool_forward(wide, w.kernel, w.stride, w.padding, w.dilation, w.out)
        if found is not None:
            return found[0].astype(x.dtype, copy=False), found[1]
    y, taps = _max_taps(wide, w)
    return y.astype(x.dtype, copy=False), _flat_indices(taps, w)


@vjp((None, None), name="MaxPool2DWithIndicesBackward0")
def _max_pool_vjp(g: Any, winners: Any, w: Windows) -> Any:
    if not isinstance(g, Tensor) and type(g) is not np.ndarray:
        found = kernels.max_pool_backward(
            g, winners, w.size, w.kernel, w.stride, w.padding, w.dilation
        )
        if found is not None:
            return found
    taps = winners.dtype == np.uint8
    return at_places_vjp(g, _flat_indices(winners, w) if taps else winners, w.size)


def at_places_vjp(g: Any, places: Any, size: Ints) -> Any:
    """Each gradient goes to the entry that was the maximum; what several windows chose adds up."""
    if type(g) is np.ndarray:
        found = native.max_pool_backward(g, places, size)
        if found is not None:
            return found
    lead, out = tuple(g.shape[: -len(size)]), g.shape[-len(size) :]
    rows, count = math.prod(lead), math.prod(out)
    key = (ns(places).arange(rows)[:, None], places.reshape(rows, count))
    if isinstance(g, Tensor):
        zeros = g.new_zeros((rows, math.prod(size)))  # type: ignore[attr-defined]
        return put(zeros, key, g.reshape(rows, count), True).reshape(*lead, *size)  # type: ignore[operator]
    whole = ns(g).zeros((rows, math.prod(size)), g.dtype)
    add_at(whole, key, g.reshape(rows, count))
    return whole.reshape((*lead, *size))


def _max_pool(
    name: str, dims: int, input: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    x = input.array
    check_input(name, x, dims)
    if x.dtype.kind in "bc":
        raise RuntimeError(f"\"{name}\" not implemented for '{input.dtype}'")
    w = Windows(name, x.shape[-dims:], kernel, stride, padding, dilation, ceil_mode)
    y, winners = _maxima(x, w, return_indices)
    made = result(y, input, _max_pool_vjp, (input,), (winners, w))
    return (made, wrap(winners, input.device)) if return_indices else made


_MAX_DOC = """The maximum of each window of {dims} dimension(s).

    Shapes: input (N, C, {axes}) or (C, {axes}); the result has
    (n + 2 padding - dilation (k - 1) - 1) // stride + 1 entries a dimension (`ceil_mode` rounds
    up). With `return_indices`, also the place of each maximum in its flattened plane, int64.
    Padding is at most half the window and never wins; the stride is the window unless given.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.{name}.html

    >>> F.{name}(gpunn.ones({ones}), 2).shape
    torch.Size([{gives}])
    """
_AVERAGE_DOC = """The mean of each window of {dims} dimension(s).

    Shapes: input (N, C, {axes}) or (C, {axes}); sizes as in max pooling. `count_include_pad`
    counts the zeros of the padding.{override}
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.{name}.html

    >>> F.{name}(gpunn.ones({ones}), 2).shape
    torch.Size([{gives}])
    """


def _describe(function: Any, doc: str, name: str, dims: int) -> Any:
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc.format(
        name=name, dims=dims, axes=("L", "H, W", "D, H, W")[dims - 1],
        ones=", ".join(["1", "1", *["4"] * dims]), gives=", ".join(["1", "1", *["2"] * dims]),
        override="" if dims == 1 else " `divisor_override` divides by itself instead.",
    )  # fmt: skip
    return function


def _make_max(dims: int) -> Any:
    name = f"max_pool{dims}d"

    def max_pool(
        input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        ceil_mode: bool = False, return_indices: bool = False,
    ) -> Any:  # fmt: skip
        if AUTOCAST and not return_indices:
            input = casts_one(name, input)
        return _max_pool(name, dims, input, kernel_size, stride, padding, dilation, ceil_mode,
                         return_indices)  # fmt: skip

    return _describe(max_pool, _MAX_DOC, name, dims)


max_pool1d, max_pool2d, max_pool3d = (_make_max(d) for d in (1, 2, 3))

# --- average ------------------------------------------------------------------------------


def _window_sums(x: Any, w: Windows) -> Any:
    """The sum of each window, of arrays or Tensors."""
    total = None
    for tap in w.taps():
        part = x[w.place(tap)]
        total = part if total is None else total + part
    return total


def _divisor(w: Windows, include_pad: bool, override: int | None, dtype: Any, xp: Any) -> Any:
    """What the sum of each window is divided by."""
    if override is not None:
        return override
    return xp.asarray(w.counts(include_pad), dtype=dtype if dtype.kind == "f" else None)


def _averages(x: Any, w: Windows, include_pad: bool, override: int | None) -> Any:
    geometry = (w.kernel, w.stride, w.padding, w.out, include_pad, override)
    if type(x) is not np.ndarray:
        y = kernels.avg_pool_forward(x, *geometry)
        if y is not None:
            return y
    wide = x.astype(F32) if half(x.dtype) else x
    if type(x) is np.ndarray and wide.dtype.kind == "f":
        y = native.avg_pool_forward(wide, *geometry)
        if y is not None:
            return y.astype(x.dtype, copy=False)
    y = _window_sums(w.padded(wide, 0), w)
    y = y / _divisor(w, include_pad, override, wide.dtype, ns(x))
    if x.dtype.kind in "iu":
        y = ns(x).trunc(y)  # as in C: towards zero
    return y.astype(x.dtype, copy=False)


@vjp((None, None, None), name="AvgPool2DBackward0")
def _average_vjp(g: Any, w: Windows, include_pad: bool, override: int | None) -> Any:
    """Each entry gets its share of every window that it is in."""
    tensors = isinstance(g, Tensor)
    if not tensors:
        geometry = (w.size, w.kernel, w.stride, w.padding, include_pad, override)
        if type(g) is not np.ndarray:
            found = kernels.avg_pool_backward(g, *geometry)
        else:
            found = None if half(g.dtype) else native.avg_pool_backward(g, *geometry)
        if found is not None:
            return found
    raw = g.array if tensors else g
    divisor = _divisor(w, include_pad, override, raw.dtype, ns(raw))
    shape = w.padded_shape(tuple(g.shape[: -len(w.size)]))
    if tensors:
        share = g / (wrap(divisor, g.device) if override is None else divisor)
        whole = g.new_zeros(shape)
        for tap in w.taps():
            whole = put(whole, w.place(tap), share, True)
        return w.unpadded(whole)
    share = (g / divisor).astype(g.dtype, copy=False)
    whole = ns(g).zeros(shape, g.dtype)
    for tap in w.taps():
        whole[w.place(tap)] += share
    return w.unpadded(whole)


def _avg_pool(
    name: str, dims: int, input: Tensor, kernel: Any, stride: Any, padding: Any, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    x = input.array
    check_input(name, x, dims)
    if divisor_override == 0:
        raise RuntimeError("divisor must be not zero")
    w = Windows(name, x.shape[-dims:], kernel, stride, padding, 1, ceil_mode)
    y = _averages(x, w, count_include_pad, divisor_override)
    saved = (w, count_include_pad, divisor_override)
    made = result(y, input, _average_vjp, (input,), saved)
    return made if out is None else write_out(out, made, name)


def _make_average(dims: int) -> Any:
    name = f"avg_pool{dims}d"

    def avg_pool1d(
        input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
    ) -> Tensor:  # fmt: skip
        return _avg_pool(name, dims, input, kernel_size, stride, padding, ceil_mode,
                         count_include_pad, None)  # fmt: skip

    def avg_pool(
        input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
        ceil_mode: bool = False, count_include_pad: bool = True,
        divisor_override: int | None = None, *, out: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        if AUTOCAST and out is None:
            input = casts_one(name, input)
        return _avg_pool(name, dims, input, kernel_size, stride, padding, ceil_mode,
                         count_include_pad, divisor_override, out)  # fmt: skip

    return _describe(avg_pool1d if dims == 1 else avg_pool, _AVERAGE_DOC, name, dims)


avg_pool1d, avg_pool2d, avg_pool3d = (_make_average(d) for d in (1, 2, 3))

# --- modules ------------------------------------------------------------------------------


class _MaxPool(Module):
    """What MaxPool1d, MaxPool2d and MaxPool3d share."""

    __constants__ = ["kernel_size", "stride", "padding", "dilation", "return_indices", "ceil_mode"]

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def _arguments(self) -> tuple[Any, ...]:
        return (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
                self.return_indices)  # fmt: skip

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")  # fmt: skip


class MaxPool1d(_MaxPool):
    """The maximum of each window: see `nn.functional.max_pool1d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool1d.html

    >>> nn.MaxPool1d(2)(gpunn.arange(4.0).reshape(1, 4))
    tensor([[1., 3.]])
    """

    def forward(self, input: Tensor) -> Any:
        return max_pool1d(input, *self._arguments())


class MaxPool2d(_MaxPool):
    """The maximum of each window: see `nn.functional.max_pool2d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html

    >>> nn.MaxPool2d(2)(gpunn.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[3.]]]])
    """

    def forward(self, input: Tensor) -> Any:
        return max_pool2d(input, *self._arguments())


class MaxPool3d(_MaxPool):
    """The maximum of each window: see `nn.functional.max_pool3d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool3d.html

    >>> nn.MaxPool3d(2)(gpunn.arange(8.0).reshape(1, 2, 2, 2))
    tensor([[[[7.]]]])
    """

    def forward(self, input: Tensor) -> Any:
        return max_pool3d(input, *self._arguments())


class _AvgPool(Module):
    """What AvgPool1d, AvgPool2d and AvgPool3d share."""

    __constants__ = ["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad",
                     "divisor_override"]  # fmt: skip

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def _arguments(self) -> tuple[Any, ...]:
        return (self.kernel_size, self.stride, self.padding, self.ceil_mode,
                self.count_include_pad, self.divisor_override)  # fmt: skip

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool1d(_AvgPool):
    """The mean of each window: see `nn.functional.avg_pool1d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool1d.html

    >>> nn.AvgPool1d(2)(gpunn.arange(4.0).reshape(1, 4))
    tensor([[0.5000, 2.5000]])
    """

    __constants__ = ["kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"]

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):  # fmt: skip
        stride = kernel_size if stride is None else stride
        super().__init__(_single(kernel_size), _single(stride), _single(padding), ceil_mode,
                         count_include_pad)  # fmt: skip
        del self.divisor_override

    def forward(self, input: Tensor) -> Tensor:
        return avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                          self.count_include_pad)  # fmt: skip


def _single(value: Any) -> Ints:
    return tuple(value) if isinstance(value, Iterable) else (value,)


class AvgPool2d(_AvgPool):
    """The mean of each window: see `nn.functional.avg_pool2d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html

    >>> nn.AvgPool2d(2)(gpunn.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[1.5000]]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return avg_pool2d(input, *self._arguments())


class AvgPool3d(_AvgPool):
    """The mean of each window: see `nn.functional.avg_pool3d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool3d.html

    >>> nn.AvgPool3d(2)(gpunn.arange(8.0).reshape(1, 2, 2, 2))
    tensor([[[[3.5000]]]])
    """

    def forward(self, input: Tensor) -> Tensor:
        return avg_pool3d(input, *self._arguments())
