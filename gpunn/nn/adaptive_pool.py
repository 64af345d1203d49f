"""Adaptive pooling: as many windows as are asked for, spread evenly over the input.

Window i of m over n entries is [floor(i n / m), ceil((i + 1) n / m)). Sums and maxima over boxes
of such windows are taken one axis after the other. What entry j belongs to is found by the same
formula with n and m exchanged, so the gradient of a sum of windows is a sum of windows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import native
from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import pool as kernels
from gpunn.dtypes import F32
from gpunn.nn.module import Module
from gpunn.nn.pool import at_places_vjp
from gpunn.nn.windows import Ints
from gpunn.ops._rows import half, proper
from gpunn.tensor import Tensor, wrap


def _bounds(n: int, m: int) -> tuple[Any, Any]:
    """Where each of m windows over n entries starts and ends."""
    places = np.arange(m + 1) * n
    return places[:-1] // max(m, 1), -(-places[1:] // max(m, 1))


def _windows(name: str, input: Tensor, output_size: Any, dims: int) -> Ints:
    """The spatial size of the result, after the checks that all of these functions share."""
    shape, average = list(input.array.shape), "avg" in name
    if dims == 1 and input.ndim not in (2, 3):
        raise RuntimeError(
            f"Expected 2 to 3 dimensions, but got {input.ndim}-dimensional tensor for argument #1 "
            f"'self' (while checking arguments for {name})"
        )
    out = _sizes(name, output_size, shape, dims)
    if input.ndim not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"{name}(): Expected {dims + 1}D or {dims + 2}D tensor, but got"
            f"{'' if average else ':'} {shape}"
        )
    for i in range(len(shape) - dims if average and dims < 3 else 1, len(shape)):
        if shape[i] == 0:
            raise RuntimeError(
                f"{name}(): Expected input to have non-zero size for non-batch dimensions, but "
                f"input has sizes {shape} with dimension {i} being empty"
            )
    if any(n < 0 for n in out):
        raise RuntimeError(
            f"{name}: elements of output_size must be greater than or equal to 0 but received "
            f"{{{', '.join(map(str, out))}}}" if average else
            f"Trying to create tensor with negative dimension {min(out)}: "
            f"{[*shape[:-dims], *out]} ({name})"
        )  # fmt: skip
    if input.array.dtype.kind not in "fV" or input.is_complex():  # type: ignore[attr-defined]
        told = f"{name}_cpu" if dims == 3 else name.replace("1d", "2d")
        raise NotImplementedError(f"\"{told}\" not implemented for '{proper(input.dtype)}'")
    return out


def _sizes(name: str, output_size: Any, shape: list[int], dims: int) -> Ints:
    """output_size as `dims` numbers; None, in 2 and 3 dimensions, is the input's."""
    if isinstance(output_size, (int, np.integer)):
        return (int(output_size),) * dims
    if dims > 1:
        if len(shape) <= len(output_size):
            raise ValueError(
                f"Input dimension should be at least {len(output_size) + 1}: {name} got an input "
                f"of shape {shape} and output_size {output_size}"
            )
        known = shape[-len(output_size) :] if output_size else []
        output_size = [k if v is None else v for v, k in zip(output_size, known, strict=True)]
    elif output_size is None:
        raise TypeError(f"{name}(): argument 'output_size' (position 2) must be tuple of ints, "
                        "not NoneType")  # fmt: skip
    for i, v in enumerate(output_size):
        if not isinstance(v, (int, np.integer)):
            raise TypeError(
                f"{name}(): argument 'output_size' (position 2) must be tuple of ints, but found "
                f"element of type {type(v).__name__} at pos {i}"
            )
    if len(output_size) != dims:
        raise RuntimeError(
            f"{name}() argument 'output_size' should contain one int (got {len(output_size)})"
            if dims == 1 else
            f"{name}: output_size must be {dims}, got {len(output_size)} numbers"
            if "avg" in name else
            f"{name}(): internal error: output_size.size() must be {dims}"
        )  # fmt: skip
    return tuple(int(v) for v in output_size)


def _even(x: Any, size: Ints, out: Ints) -> Ints | None:
    """The window, where x is NumPy's and all windows are of one size and do not overlap: then
    it is ordinary pooling with that stride, which the C++ code does."""
    if type(x) is not np.ndarray or x.dtype.kind != "f" or x.size == 0 or 0 in out:
        return None
    if any(n % m for n, m in zip(size, out, strict=True)):
        return None
    return tuple(n // m for n, m in zip(size, out, strict=True))


# --- average ------------------------------------------------------------------------------


def _sums(x: Any, out: Ints) -> Any:
    """The sums of x (raw) over the windows of the last dimensions."""
    wide = x.astype(F32) if half(x.dtype) else x
    lead = x.shape[: x.ndim - len(out)]
    if set(out) == {1} and x.size:
        wide = wide.reshape(*lead, -1).sum(-1).reshape(*lead, *out)
    else:
        for axis, m in enumerate(out, len(lead)):
            wide = _axis_sums(wide, axis, m)
    return wide.astype(x.dtype, copy=False)


def _axis_sums(x: Any, axis: int, m: int) -> Any:
    n, xp = x.shape[axis], ns(x)
    if n == m:
        return x
    if m == 0 or n % m == 0:
        shape = (*x.shape[:axis], m, n // max(m, 1), *x.shape[axis + 1 :])
        return xp.zeros(shape, x.dtype).sum(axis + 1) if m == 0 else x.reshape(shape).sum(axis + 1)
    if m % n == 0:
        return xp.repeat(x, m // n, axis)
    start, end = _bounds(n, m)
    if m > n:  # windows of one or two entries
        second = (end - start > 1).reshape((-1,) + (1,) * (x.ndim - axis - 1))
        last = x.take(xp.asarray(end - 1), axis)
        return x.take(xp.asarray(start), axis) + xp.where(xp.asarray(second), last, x.dtype.type(0))
    both = xp.asarray(np.stack([start, end], 1).reshape(-1)[:-1])  # [start, end), [start, ...
    return xp.add.reduceat(x, both, axis)[(slice(None),) * axis + (slice(None, None, 2),)]


@vjp((None,), name="AdaptiveSumBackward0")
def _summed_vjp(g: Any, size: Ints) -> Any:
    return _summed(g, size) if isinstance(g, Tensor) else _sums(g, size)


def _summed(x: Tensor, out: Ints) -> Tensor:
    """`_sums` of a Tensor."""
    size = x.array.shape[x.array.ndim - len(out) :]
    return result(_sums(x.array, out), x, _summed_vjp, (x,), (size,))


def _counts(size: Ints, out: Ints, like: Any) -> Any:
    """How many entries each window has; float, so that a sum of halves is divided as a float."""
    total: Any = 1
    for n, m in zip(size, out, strict=True):
        start, end = _bounds(n, m)
        total = np.multiply.outer(total, end - start)
    return ns(like).asarray(total, dtype=F32 if half(like.dtype) else like.dtype)


@vjp((None, None), name="AdaptiveAvgPool2DBackward0")
def _average_vjp(g: Any, size: Ints, out: Ints) -> Any:
    """Each entry gets its share of every window that it is in."""
    if isinstance(g, Tensor):
        return _summed(g / wrap(_counts(size, out, g.array).astype(g.array.dtype), g.device), size)
    if type(g) is not np.ndarray:
        found = kernels.adaptive_avg_backward(g, size)
        if found is not None:
            return found
    k = _even(g, size, out)
    if max(out) == 1 and g.size:
        share = (g / _counts(size, out, g)).astype(g.dtype, copy=False)
        return ns(g).broadcast_to(share, (*g.shape[: g.ndim - len(out)], *size)).copy()
    if k is not None:
        found = native.avg_pool_backward(g, size, k, k, (0,) * len(k))
        if found is not None:
            return found
    return _sums(g / _counts(size, out, g), size).astype(g.dtype, copy=False)


def _averages(x: Any, out: Ints) -> Any:
    if type(x) is not np.ndarray:
        y = kernels.adaptive_avg_forward(x, out)
        if y is not None:
            return y
    wide = x.astype(F32) if half(x.dtype) else x
    k = _even(wide, x.shape[x.ndim - len(out) :], out)
    if k is not None and max(out) > 1:
        y = native.avg_pool_forward(wide, k, k, (0,) * len(k), out)
        if y is not None:
            return y.astype(x.dtype, copy=False)
    y = _sums(wide, out) / _counts(x.shape[x.ndim - len(out) :], out, x)
    return y.astype(x.dtype, copy=False)


def _adaptive_avg(name: str, input: Tensor, output_size: Any, dims: int) -> Tensor:
    out = _windows(name, input, output_size, dims)
    x = input.array
    return result(_averages(x, out), input, _average_vjp, (input,), (x.shape[-dims:], out))


def adaptive_avg_pool1d(input: Tensor, output_size: Any) -> Tensor:
    """The means of `output_size` windows spread evenly over the last dimension.

    Shapes: input (N, C, L) or (C, L); L becomes output_size, an int. dtypes: floating.
    RuntimeError for other numbers of dimensions, or an empty one.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_avg_pool1d.html

    >>> F.adaptive_avg_pool1d(gpunn.arange(6.0).reshape(1, 6), 3)
    tensor([[0.5000, 2.5000, 4.5000]])
    """  # noqa: E501
    return _adaptive_avg("adaptive_avg_pool1d", input, output_size, 1)


def adaptive_avg_pool2d(input: Tensor, output_size: Any) -> Tensor:
    """The means of windows spread evenly over the last two dimensions.

    Shapes: input (N, C, H, W) or (C, H, W); output_size an int or (int or None, int or None),
    where None keeps the input's. dtypes: floating.
    RuntimeError for other numbers of dimensions, or an empty one.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_avg_pool2d.html

    >>> F.adaptive_avg_pool2d(gpunn.ones(1, 8, 8), (2, None)).shape
    torch.Size([1, 2, 8])
    """  # noqa: E501
    return _adaptive_avg("adaptive_avg_pool2d", input, output_size, 2)


@autocasts("adaptive_avg_pool3d")
def adaptive_avg_pool3d(input: Tensor, output_size: Any) -> Tensor:
    """The means of windows spread evenly over the last three dimensions.

    Shapes: input (N, C, D, H, W) or (C, D, H, W); output_size an int or three of int or None,
    where None keeps the input's. dtypes: floating.
    RuntimeError for other numbers of dimensions, or an empty one.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_avg_pool3d.html

    >>> F.adaptive_avg_pool3d(gpunn.ones(1, 8, 8, 8), (2, None, 1)).shape
    torch.Size([1, 2, 8, 1])
    """  # noqa: E501
    return _adaptive_avg("adaptive_avg_pool3d", input, output_size, 3)


# --- max ----------------------------------------------------------------------------------


def _axis_maxima(x: Any, places: Any, axis: int, m: int, scale: int) -> tuple[Any, Any]:
    """The greatest of each window of an axis, and its place: the first of equals, the last NaN."""
    xp = ns(x)
    start, end = _bounds(x.shape[axis], m)
    best = found = None
    for t in range(max((end - start).max(initial=1), 1)):
        at = np.minimum(start + t, end - 1)
        candidate = x.take(xp.asarray(at), axis)
        place = xp.asarray((at * scale).reshape((-1,) + (1,) * (x.ndim - axis - 1)))
        if places is not None:
            place = place + places.take(xp.asarray(at), axis)
        if best is None:
            best, found = candidate, xp.broadcast_to(place, candidate.shape).copy()
            continue
        better = (candidate > best) | (candidate != candidate)
        xp.copyto(best, candidate, where=better)
        xp.copyto(found, place, where=better)
    return best, found


def _maxima(x: Any, out: Ints) -> tuple[Any, Any]:
    """(maxima, the place of each in its flattened plane, int64)."""
    if type(x) is not np.ndarray:
        both = kernels.adaptive_max_forward(x, out)
        if both is not None:
            return both
    best, places, scale = x.astype(F32) if half(x.dtype) else x, None, 1
    k = _even(best, x.shape[x.ndim - len(out) :], out)
    if k is not None and max(out) == 1:
        lead = x.shape[: x.ndim - len(out)]
        flat = best.reshape(*lead, -1)
        places = flat.argmax(-1, keepdims=True)  # the first NaN where there are some
        y = np.take_along_axis(flat, places, -1)
        if not np.isnan(y).any():
            shape = (*lead, *out)
            return y.astype(x.dtype, copy=False).reshape(shape), places.reshape(shape)
        places = None
    elif k is not None:
        found = native.max_pool_forward(best, k, k, (0,) * len(k), (1,) * len(k), out)
        if found is not None:
            return found[0].astype(x.dtype, copy=False), found[1]
    for i in reversed(range(len(out))):
        axis = x.ndim - len(out) + i
        best, places = _axis_maxima(best, places, axis, out[i], scale)
        scale *= x.shape[axis]
    return best.astype(x.dtype, copy=False), places


@vjp((None, None), name="AdaptiveMaxPool2DBackward0")
def _max_vjp(g: Any, places: Any, size: Ints) -> Any:
    if not isinstance(g, Tensor) and type(g) is not np.ndarray:
        found = kernels.adaptive_max_backward(g, places, size)
        if found is not None:
            return found
    return at_places_vjp(g, places, size)


def _adaptive_max(
    name: str, input: Tensor, output_size: Any, dims: int
) -> tuple[Tensor, Tensor]:
    out = _windows(name, input, output_size, dims)
    x = input.array
    y, places = _maxima(x, out)
    made = result(y, input, _max_vjp, (input,), (places, x.shape[-dims:]))
    return made, wrap(places, input.device)


def adaptive_max_pool1d_both(input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """The maxima and their places, as `gpunn.adaptive_max_pool1d` gives them.

    Shapes: input (N, C, L) or (C, L); L becomes output_size. dtypes: floating; places int64.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool1d.html

    >>> gpunn.adaptive_max_pool1d(gpunn.arange(6.0).reshape(1, 6), 3)
    (tensor([[1., 3., 5.]]), tensor([[1, 3, 5]]))
    """  # noqa: E501
    return _adaptive_max("adaptive_max_pool1d", input, output_size, 1)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of `output_size` windows spread evenly over the last dimension.

    Shapes: input (N, C, L) or (C, L); L becomes output_size, an int. dtypes: floating. With
    `return_indices`, also the place of each maximum, int64.
    RuntimeError for other numbers of dimensions, or an empty one.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool1d.html

    >>> F.adaptive_max_pool1d(gpunn.arange(6.0).reshape(1, 6), 3)
    tensor([[1., 3., 5.]])
    """  # noqa: E501
    both = _adaptive_max("adaptive_max_pool1d", input, output_size, 1)
    return both if return_indices else both[0]


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of windows spread evenly over the last two dimensions.

    Shapes: input (N, C, H, W) or (C, H, W); output_size an int or (int or None, int or None),
    where None keeps the input's. dtypes: floating. With `return_indices`, also the place of each
    maximum in its flattened plane, int64.
    RuntimeError for other numbers of dimensions, or an empty one.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool2d.html

    >>> F.adaptive_max_pool2d(gpunn.ones(1, 8, 8), (2, None)).shape
    torch.Size([1, 2, 8])
    """  # noqa: E501
    both = _adaptive_max("adaptive_max_pool2d", input, output_size, 2)
    return both if return_indices else both[0]


@autocasts("adaptive_max_pool3d")
def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of windows spread evenly over the last three dimensions.

    Shapes: input (N, C, D, H, W) or (C, D, H, W); output_size an int or three of int or None,
    where None keeps the input's. dtypes: floating. With `return_indices`, also the place of each
    maximum in its flattened volume, int64.
    RuntimeError for other numbers of dimensions, or an empty one.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.adaptive_max_pool3d.html

    >>> F.adaptive_max_pool3d(gpunn.ones(1, 8, 8, 8), (2, None, 1)).shape
    torch.Size([1, 2, 8, 1])
    """  # noqa: E501
    both = _adaptive_max("adaptive_max_pool3d", input, output_size, 3)
    return both if return_indices else both[0]


# --- modules ------------------------------------------------------------------------------


class _AdaptivePool(Module):
    """What all of these modules share."""

    __constants__ = ["output_size"]

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptivePool):
    """The means of `output_size` windows: see `nn.functional.adaptive_avg_pool1d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool1d.html

    >>> nn.AdaptiveAvgPool1d(5)(gpunn.ones(1, 64, 8)).shape
    torch.Size([1, 64, 5])
    """

    def forward(self, input: Tensor) -> Tensor:
        return adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptivePool):
    """The means of evenly spread windows: see `nn.functional.adaptive_avg_pool2d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool2d.html

    >>> nn.AdaptiveAvgPool2d((5, None))(gpunn.ones(1, 64, 8, 9)).shape
    torch.Size([1, 64, 5, 9])
    """

    def forward(self, input: Tensor) -> Tensor:
        return adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(_AdaptivePool):
    """The means of evenly spread windows: see `nn.functional.adaptive_avg_pool3d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveAvgPool3d.html

    >>> nn.AdaptiveAvgPool3d(2)(gpunn.ones(1, 4, 8, 9, 10)).shape
    torch.Size([1, 4, 2, 2, 2])
    """

    def forward(self, input: Tensor) -> Tensor:
        return adaptive_avg_pool3d(input, self.output_size)


class _AdaptiveMaxPool(_AdaptivePool):
    """What the modules of maxima share."""

    __constants__ = ["output_size", "return_indices"]

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    """The maxima of `output_size` windows: see `nn.functional.adaptive_max_pool1d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool1d.html

    >>> nn.AdaptiveMaxPool1d(5)(gpunn.ones(1, 64, 8)).shape
    torch.Size([1, 64, 5])
    """

    def forward(self, input: Tensor) -> Any:
        return adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    """The maxima of evenly spread windows: see `nn.functional.adaptive_max_pool2d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool2d.html

    >>> nn.AdaptiveMaxPool2d((5, None))(gpunn.ones(1, 64, 8, 9)).shape
    torch.Size([1, 64, 5, 9])
    """

    def forward(self, input: Tensor) -> Any:
        return adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    """The maxima of evenly spread windows: see `nn.functional.adaptive_max_pool3d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.AdaptiveMaxPool3d.html

    >>> nn.AdaptiveMaxPool3d(2)(gpunn.ones(1, 4, 8, 9, 10)).shape
    torch.Size([1, 4, 2, 2, 2])
    """

    def forward(self, input: Tensor) -> Any:
        return adaptive_max_pool3d(input, self.output_size, self.return_indices)
