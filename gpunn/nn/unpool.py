"""Unpooling: values put back where max pooling found them, zeros elsewhere.

The gradient picks from the same places. On a GPU by kernels/pool.cu.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import pool as kernels
from gpunn.nn.module import Module
from gpunn.nn.pool import at_places_vjp
from gpunn.nn.windows import Ints
from gpunn.ops._rows import proper, same_device
from gpunn.tensor import Tensor


def _spread(value: Any, dims: int) -> Ints:
    return tuple(value) if isinstance(value, Iterable) else (value,) * dims


def _output_size(x: Any, kernel: Ints, stride: Ints, padding: Ints, wanted: Any) -> Ints:
    """The spatial size of the result: the one asked for, if pooling can have come from it."""
    dims = len(kernel)
    size = tuple(
        (n - 1) * s + k - 2 * p
        for n, k, s, p in zip(x.shape[-dims:], kernel, stride, padding, strict=True)
    )
    if wanted is not None:
        if len(wanted) == dims + 2:
            wanted = wanted[2:]
        if len(wanted) != dims:
            raise ValueError(
                f"output_size should be a sequence containing {dims} or {dims + 2} elements, but "
                f"it has a length of '{len(wanted)}'"
            )
        for d, (n, s) in enumerate(zip(size, stride, strict=True)):
            if not n - s < wanted[d] < n + s:
                raise ValueError(
                    f'invalid output_size "{wanted}" (dim {d} must be between {n - s} and {n + s})'
                )
        size = tuple(int(n) for n in wanted)
    for d, n in enumerate(size):
        if n < 0:
            raise ValueError(
                "max_unpooling: output_size must contain non-negative spatial dimensions, but got "
                f"output_size[{d}]={n}"
            )
    return size


def _check(input: Tensor, indices: Tensor, dims: int) -> None:
    same_device(f"max_unpool{dims}d", (input, indices))
    shape, places = input.array.shape, indices.array
    if places.dtype != np.int64:
        raise RuntimeError(
            f"elements in indices should be type int64 but got: {proper(indices.dtype)} "
            f"(max_unpool{dims}d)"
        )
    if len(shape) not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"Input to max_unpooling{dims}d should be a {dims + 1}d or {dims + 2}d Tensor, but got "
            f"a tensor with {len(shape)} dimensions."
        )
    if places.shape != shape:
        raise RuntimeError(
            f"Expected shape of indices to be same as that of the input tensor ({list(shape)}) but "
            f"got indices tensor with shape: {list(places.shape)}"
        )
    for i in range(1, len(shape)):
        if shape[i] == 0:
            raise RuntimeError(
                f"max_unpooling{dims}d_forward_out_cpu(): Expected input to have non-zero size for "
                f"non-batch dimensions, but got {list(shape)} with dimension {i} being empty."
            )
    if input.array.dtype.kind not in "fV":
        raise NotImplementedError(
            f"\"max_unpool{dims}d\" not implemented for '{proper(input.dtype)}'"
        )


def _put(x: Any, places: Any, size: Ints) -> Any:
    """x at its places in planes of zeros; raw arrays."""
    name = f"max_unpool{len(size)}d"
    if type(x) is not np.ndarray:
        y = kernels.unpool_forward(x, places, size, name)
        if y is not None:
            return y
    lead, total, xp = x.shape[: x.ndim - len(size)], math.prod(size), ns(x)
    flat = places.reshape(math.prod(lead), -1)
    outside = flat[(flat < 0) | (flat >= total)]
    if outside.size:
        raise RuntimeError(
            f"Found an invalid max index: {int(outside[0])} (output volumes are of size "
            f"{'x'.join(map(str, size))}) ({name})"
        )
    y = xp.zeros((len(flat), total), x.dtype)
    y[xp.arange(len(flat))[:, None], flat] = x.reshape(flat.shape)
    return y.reshape((*lead, *size))


def _pick(x: Any, places: Any, dims: int) -> Any:
    """The entries of x's planes at the places; raw arrays."""
    if type(x) is not np.ndarray:
        y = kernels.pick_places(x, places, dims)
        if y is not None:
            return y
    rows = math.prod(x.shape[: x.ndim - dims])
    at = places.reshape(rows, -1)
    return x.reshape(rows, -1)[ns(x).arange(rows)[:, None], at].reshape(places.shape)


@vjp((None, None), name="MaxUnpool2DBackward0")
def _unpool_vjp(g: Any, places: Any, size: Ints) -> Any:
    if not isinstance(g, Tensor):
        return _pick(g, places, len(size))
    picked = _pick(g.array, places, len(size))
    return result(picked, g, _pick_vjp, (g,), (places, size))


@vjp((None, None), name="MaxUnpool2DBackwardBackward0")
def _pick_vjp(g: Any, places: Any, size: Ints) -> Any:
    return at_places_vjp(g, places, size)  # adds up where one place is named twice


def _max_unpool(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any,
    dims: int,
) -> Tensor:  # fmt: skip
    kernel = _spread(kernel_size, dims)
    steps = kernel if stride is None else _spread(stride, dims)
    size = _output_size(input.array, kernel, steps, _spread(padding, dims), output_size)
    if dims == 1:
        made = _unpool(input.unsqueeze(-1), indices.unsqueeze(-1), (*size, 1))  # type: ignore[attr-defined]
        return made.squeeze(-1)  # type: ignore[attr-defined]
    if dims == 3 and min(steps) <= 0:
        raise RuntimeError(
            f"strides should be greater than zero, but got stride: {list(steps)} (max_unpool3d)"
        )
    return _unpool(input, indices, size)


def _unpool(input: Tensor, indices: Tensor, size: Ints) -> Tensor:
    _check(input, indices, len(size))
    places = indices.array
    return result(_put(input.array, places, size), input, _unpool_vjp, (input,), (places, size))


_DOC = """The inverse of `max_pool{dims}d`: the values at their `indices`, zeros elsewhere.

    Shapes: input and indices, int64, (N, C, {axes}) or (C, {axes}), as `max_pool{dims}d` with
    `return_indices` gives them; each length n becomes (n - 1) stride + kernel - 2 padding, or as
    `output_size` says, where pooling maps several sizes to one. dtypes: floating.
    RuntimeError for an index outside the result, ValueError for a size pooling cannot come from.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.max_unpool{dims}d.html

    >>> y, indices = F.max_pool{dims}d(gpunn.ones({ones}), 2, return_indices=True)
    >>> F.max_unpool{dims}d(y, indices, 2).shape
    torch.Size([{ones}])
    """


def _make(dims: int) -> Any:
    def max_unpool(
        input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0,
        output_size: Any = None,
    ) -> Tensor:  # fmt: skip
        return _max_unpool(input, indices, kernel_size, stride, padding, output_size, dims)

    max_unpool.__name__ = max_unpool.__qualname__ = f"max_unpool{dims}d"
    max_unpool.__doc__ = _DOC.format(
        dims=dims, axes=("L", "H, W", "D, H, W")[dims - 1], ones=", ".join("11" + "4" * dims)
    )
    return autocasts(f"max_unpool{max(dims, 2)}d")(max_unpool)  # PyTorch's 1-d one is its 2-d one


max_unpool1d, max_unpool2d, max_unpool3d = (_make(d) for d in (1, 2, 3))


class _MaxUnpool(Module):
    """What MaxUnpool1d, MaxUnpool2d and MaxUnpool3d share."""

    dims: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0):
        super().__init__()
        self.kernel_size = _spread(kernel_size, self.dims)
        self.stride = _spread(kernel_size if stride is None else stride, self.dims)
        self.padding = _spread(padding, self.dims)

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        return _max_unpool(
            input, indices, self.kernel_size, self.stride, self.padding, output_size, self.dims
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """The inverse of `MaxPool1d`: see `nn.functional.max_unpool1d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool1d.html

    >>> y, indices = nn.MaxPool1d(2, return_indices=True)(gpunn.arange(4.0).reshape(1, 4))
    >>> nn.MaxUnpool1d(2)(y, indices)
    tensor([[0., 1., 0., 3.]])
    """

    dims = 1


class MaxUnpool2d(_MaxUnpool):
    """The inverse of `MaxPool2d`: see `nn.functional.max_unpool2d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool2d.html

    >>> y, indices = nn.MaxPool2d(2, return_indices=True)(gpunn.arange(4.0).reshape(1, 2, 2))
    >>> nn.MaxUnpool2d(2)(y, indices)
    tensor([[[0., 0.],
             [0., 3.]]])
    """

    dims = 2


class MaxUnpool3d(_MaxUnpool):
    """The inverse of `MaxPool3d`: see `nn.functional.max_unpool3d`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.MaxUnpool3d.html

    >>> y, indices = nn.MaxPool3d(2, return_indices=True)(gpunn.ones(1, 4, 4, 4))
    >>> nn.MaxUnpool3d(2)(y, indices).sum()
    tensor(8.)
    """

    dims = 3
