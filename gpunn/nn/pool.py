"""Max and average pooling in 1, 2 and 3 dimensions.

Both run over the taps of the window: one strided slice of the input for each place in it, so no
window is ever copied out.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import numpy as np

from gpunn import native
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.nn.module import Module
from gpunn.ops._rows import half, write_out
from gpunn.ops.index import add_at, put
from gpunn.tensor import Tensor, wrap

Ints = tuple[int, ...]


class Windows:
    """The geometry of one pooling: where each tap of the window lies in the padded input."""

    __slots__ = ("size", "kernel", "stride", "padding", "dilation", "out")

    def __init__(
        self, name: str, size: Ints, kernel: Any, stride: Any, padding: Any, dilation: Any,
        ceil_mode: bool,
    ):  # fmt: skip
        d = len(size)
        self.size = size
        self.kernel = _spread(kernel, d, name, "kernel_size")
        self.stride = self.kernel if stride is None or stride == [] or stride == () else _spread(
            stride, d, name, "stride"
        )  # fmt: skip
        self.padding = _spread(padding, d, name, "padding")
        self.dilation = _spread(dilation, d, name, "dilation")
        self._check(name)
        self.out = tuple(
            _length(*row, ceil_mode)
            for row in zip(size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        )
        if any(n < 1 for n in self.out):
            raise RuntimeError(
                f"{name}: input of spatial size {size} with kernel {self.kernel} gives an output "
                f"size of {self.out}: Output size is too small"
            )

    def _check(self, name: str) -> None:
        if any(k <= 0 for k in self.kernel):
            raise RuntimeError(f"{name}: kernel size should be greater than zero, but got "
                               f"{self.kernel}")  # fmt: skip
        if any(s <= 0 for s in self.stride):
            raise RuntimeError(f"{name}: stride should not be zero, but got {self.stride}")
        if any(d <= 0 for d in self.dilation):
            raise RuntimeError(f"{name}: dilation should be greater than zero, but got "
                               f"{self.dilation}")  # fmt: skip
        for k, p, d in zip(self.kernel, self.padding, self.dilation, strict=True):
            if p < 0 or p > ((k - 1) * d + 1) // 2:
                raise RuntimeError(
                    "pad should be at most half of effective kernel size, but got pad="
                    f"{p}, kernel_size={k} and dilation={d} ({name})"
                )

    def taps(self) -> Any:
        return product(*map(range, self.kernel))

    def place(self, tap: Ints) -> tuple[Any, ...]:
        """The slices of the padded input that this tap of all windows reads."""
        return (..., *(
            slice(t * d, t * d + s * (n - 1) + 1, s)
            for t, d, s, n in zip(tap, self.dilation, self.stride, self.out, strict=True)
        ))  # fmt: skip

    def edges(self) -> list[tuple[int, int]]:
        """How far the windows reach beyond the input, before and behind, by dimension."""
        pairs = []
        for i, n in enumerate(self.size):
            reach = (self.out[i] - 1) * self.stride[i] + (self.kernel[i] - 1) * self.dilation[i] + 1
            pairs.append((self.padding[i], max(reach - n - self.padding[i], 0)))
        return pairs

    def padded(self, x: Any, value: Any) -> Any:
        """x with what the windows reach beyond its edges."""
        pairs = self.edges()
        if not any(a or b for a, b in pairs):
            return x
        lead = [(0, 0)] * (x.ndim - len(self.size))
        return ns(x).pad(x, lead + pairs, constant_values=value)

    def padded_shape(self, lead: Ints) -> Ints:
        """The shape of a padded array whose first dimensions are `lead`."""
        return lead + tuple(a + n + b for n, (a, b) in zip(self.size, self.edges(), strict=True))

    def unpadded(self, x: Any) -> Any:
        """The part of a padded array that is the input."""
        return x[(..., *(slice(p, p + n) for p, n in zip(self.padding, self.size, strict=True)))]

    def counts(self, include_pad: bool) -> Any:
        """How many entries each window averages over."""
        total: Any = 1
        for axis, (n, k, s, p, m) in enumerate(
            zip(self.size, self.kernel, self.stride, self.padding, self.out, strict=True)
        ):
            start = np.arange(m) * s - p
            end = np.minimum(start + k, n + p)
            if not include_pad:
                start, end = np.maximum(start, 0), np.minimum(end, n)
            total = total * (end - start).reshape((-1,) + (1,) * (len(self.size) - 1 - axis))
        return total


def _length(n: int, k: int, s: int, p: int, d: int, ceil_mode: bool) -> int:
    span = n + 2 * p - d * (k - 1) - 1
    if not ceil_mode:
        return span // s + 1
    m = -(-span // s) + 1
    return m - 1 if (m - 1) * s >= n + p else m  # no window starts in the padding behind


def _spread(value: Any, dims: int, name: str, what: str) -> Ints:
    if isinstance(value, (int, np.integer)):
        return (int(value),) * dims
    values = tuple(int(v) for v in value)
    if len(values) == 1:
        return values * dims
    if len(values) != dims:
        raise RuntimeError(
            f"{name}: {what} must either be a single int, or a tuple of {dims} ints, got {values}"
        )
    return values


def _check_input(name: str, x: Any, dims: int) -> None:
    if x.ndim not in (dims + 1, dims + 2) or 0 in x.shape[-dims - 1 :]:
        raise RuntimeError(
            f"{name}(): Expected {dims + 1}D or {dims + 2}D (batch mode) tensor with optional 0 "
            f"dim batch size for input, but got: {list(x.shape)}"
        )


# --- max ----------------------------------------------------------------------------------


def _max_taps(x: Any, w: Windows) -> tuple[Any, Any]:
    """(maxima, number of the tap that gave each): the first of equal ones; NaN wins."""
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
            better |= (candidate != candidate) & (best == best)
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


def _maxima(x: Any, w: Windows) -> tuple[Any, Any]:
    """(maxima, the place of each in its flattened plane)."""
    if type(x) is np.ndarray and x.dtype.kind == "f":
        both = native.max_pool_forward(x, w.kernel, w.stride, w.padding, w.dilation, w.out)
        if both is not None:
            return both  # type: ignore[return-value]
    y, taps = _max_taps(x, w)
    return y, _flat_indices(taps, w)


@vjp((None, None), name="MaxPool2DWithIndicesBackward0")
def _max_pool_vjp(g: Any, places: Any, w: Windows) -> Any:
    """Each gradient goes to the entry that was the maximum; what several windows chose adds up."""
    if type(g) is np.ndarray:
        found = native.max_pool_backward(g, places, w.size)
        if found is not None:
            return found
    lead = tuple(g.shape[: -len(w.size)])
    rows, count = math.prod(lead), math.prod(w.out)
    key = (ns(places).arange(rows)[:, None], places.reshape(rows, count))
    if isinstance(g, Tensor):
        zeros = g.new_zeros((rows, math.prod(w.size)))  # type: ignore[attr-defined]
        return put(zeros, key, g.reshape(rows, count), True).reshape(*lead, *w.size)  # type: ignore[operator]
    whole = ns(g).zeros((rows, math.prod(w.size)), g.dtype)
    add_at(whole, key, g.reshape(rows, count))
    return whole.reshape((*lead, *w.size))


def _max_pool(
    name: str, dims: int, input: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any,
    ceil_mode: bool, return_indices: bool,
) -> Any:  # fmt: skip
    x = input.array
    _check_input(name, x, dims)
    if x.dtype.kind in "bc":
        raise RuntimeError(f"\"{name}\" not implemented for '{input.dtype}'")
    w = Windows(name, x.shape[-dims:], kernel, stride, padding, dilation, ceil_mode)
    y, places = _maxima(x.astype(F32) if half(x.dtype) else x, w)
    made = result(y.astype(x.dtype, copy=False), input, _max_pool_vjp, (input,), (places, w))
    return (made, wrap(places, input.device)) if return_indices else made


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
    if type(x) is np.ndarray and x.dtype.kind == "f":
        y = native.avg_pool_forward(
            x, w.kernel, w.stride, w.padding, w.out, include_pad, override
        )
        if y is not None:
            return y
    y = _window_sums(w.padded(x, 0), w) / _divisor(w, include_pad, override, x.dtype, ns(x))
    return ns(x).trunc(y).astype(x.dtype) if x.dtype.kind in "iu" else y  # as in C: towards zero


@vjp((None, None, None), name="AvgPool2DBackward0")
def _average_vjp(g: Any, w: Windows, include_pad: bool, override: int | None) -> Any:
    """Each entry gets its share of every window that it is in."""
    tensors = isinstance(g, Tensor)
    if type(g) is np.ndarray and (not half(g.dtype)):
        found = native.avg_pool_backward(
            g, w.size, w.kernel, w.stride, w.padding, include_pad, override
        )
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
    _check_input(name, x, dims)
    if divisor_override == 0:
        raise RuntimeError("divisor must be not zero")
    w = Windows(name, x.shape[-dims:], kernel, stride, padding, 1, ceil_mode)
    y = _averages(x.astype(F32) if half(x.dtype) else x, w, count_include_pad, divisor_override)
    saved = (w, count_include_pad, divisor_override)
    made = result(y.astype(x.dtype, copy=False), input, _average_vjp, (input,), saved)
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
        return _avg_pool(name, dims, input, kernel_size, stride, padding, ceil_mode,
                         count_include_pad, divisor_override, out)  # fmt: skip

    return _describe(avg_pool1d if dims == 1 else avg_pool, _AVERAGE_DOC, name, dims)


avg_pool1d, avg_pool2d, avg_pool3d = (_make_average(d) for d in (1, 2, 3))

# --- modules ------------------------------------------------------------------------------


class MaxPool2d(Module):
    """The maximum of each window: see `nn.functional.max_pool2d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxPool2d.html

    >>> nn.MaxPool2d(2)(gpunn.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[3.]]]])
    """

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

    def forward(self, input: Tensor) -> Any:
        return max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation,
                          self.ceil_mode, self.return_indices)  # fmt: skip

    def extra_repr(self) -> str:
        return (f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
                f"dilation={self.dilation}, ceil_mode={self.ceil_mode}")  # fmt: skip


class AvgPool2d(Module):
    """The mean of each window: see `nn.functional.avg_pool2d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AvgPool2d.html

    >>> nn.AvgPool2d(2)(gpunn.arange(4.0).reshape(1, 1, 2, 2))
    tensor([[[[1.5000]]]])
    """

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

    def forward(self, input: Tensor) -> Tensor:
        return avg_pool2d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                          self.count_include_pad, self.divisor_override)  # fmt: skip

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
