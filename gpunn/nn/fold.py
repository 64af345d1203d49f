"""Unfold and fold: the windows of an image as columns, and columns added up to an image.

The same linear map and its transpose, so that each is the other's gradient, of any order. Columns
are added in the order of the window's places: the result has the same bits every time.
"""

from __future__ import annotations

import math
from typing import Any

from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32
from gpunn.nn.columns import Geometry, Ints, uncolumns, windows
from gpunn.nn.module import Module
from gpunn.ops._rows import half, not_a_tensor, proper
from gpunn.tensor import Tensor

# --- arrays -------------------------------------------------------------------------------


def _unfold_array(x: Any, geo: Geometry) -> Any:
    """(N, C, H, W) as (N, C * taps, places)."""
    taps, places = math.prod(geo.kernel), math.prod(geo.out)
    seen = windows(x, geo)
    cols = ns(x).empty(seen.shape, x.dtype)
    cols[...] = seen
    return cols.reshape(x.shape[0], x.shape[1] * taps, places)


def _fold_array(cols: Any, geo: Geometry) -> Any:
    """(N, C * taps, places) as (N, C, H, W)."""
    channels = cols.shape[1] // math.prod(geo.kernel)
    if half(cols.dtype):
        return uncolumns(cols.astype(F32), channels, geo).astype(cols.dtype)
    return ns(cols).ascontiguousarray(uncolumns(cols, channels, geo))


# --- recorded -----------------------------------------------------------------------------


@vjp((None,), name="Im2ColBackward0")
def _unfold_vjp(g: Any, geo: Geometry) -> Any:
    return _fold(g, geo) if isinstance(g, Tensor) else _fold_array(g, geo)


@vjp((None,), name="Col2ImBackward0")
def _fold_vjp(g: Any, geo: Geometry) -> Any:
    return _unfold(g, geo) if isinstance(g, Tensor) else _unfold_array(g, geo)


def _unfold(x: Tensor, geo: Geometry) -> Tensor:
    return result(_unfold_array(x.array, geo), x, _unfold_vjp, (x,), (geo,))


def _fold(cols: Tensor, geo: Geometry) -> Tensor:
    return result(_fold_array(cols.array, geo), cols, _fold_vjp, (cols,), (geo,))


# --- functions ----------------------------------------------------------------------------


def _pair(value: Any, name: str, what: str, position: int) -> Ints:
    """A number for each dimension, as PyTorch's im2col and col2im insist on them."""
    values = tuple(value) if hasattr(value, "__iter__") and type(value) is not str else (value,) * 2
    for at, v in enumerate(values):
        if type(v) is bool or not hasattr(v, "__index__"):
            raise TypeError(
                f"{name}(): argument '{what}' (position {position}) must be tuple of ints, but "
                f"found element of type {type(v).__name__} at pos {at}"
            )
    if len(values) != 2:
        raise RuntimeError(f"It is expected {what} equals to 2, but got size {len(values)}")
    return tuple(map(int, values))


def _steps(name: str, rows: dict[str, Any], first: int) -> list[Ints]:
    """kernel_size, dilation, padding and stride, checked."""
    found = [_pair(v, name, k, first + i) for i, (k, v) in enumerate(rows.items())]
    for (what, _), pair in zip(rows.items(), found, strict=True):
        if what == "padding":
            if min(pair) < 0:
                raise RuntimeError(f"padding should be non-negative, but got {pair} ({name})")
        elif min(pair) <= 0:
            label = what.replace("_", " ")
            raise RuntimeError(f"{label} should be greater than zero, but got {pair} ({name})")
    return found


def _check_input(name: str, x: Tensor, dims: int) -> None:
    """A tensor of `dims` dimensions, or one more for the batch; only the batch may be empty."""
    if not isinstance(x, Tensor):
        raise not_a_tensor(name, x)
    shape = x.array.shape
    if len(shape) not in (dims, dims + 1) or 0 in shape[len(shape) - dims :]:
        empty = "possibly 0 batch size and other non-zero dimensions for input"
        raise RuntimeError(
            f"Expected {dims}D or {dims + 1}D (batch mode) tensor with {empty}, but got: "
            f"{list(shape)} ({name})"
        )
    if x.array.dtype.kind in "iu":
        raise NotImplementedError(f"\"{name}_out_cpu\" not implemented for '{proper(x.dtype)}'")


def unfold(
    input: Tensor, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Tensor:
    """Every window of an image as a column (im2col).

    Shapes: input (N, C, H, W) or (C, H, W); the result (N, C kh kw, L), where L is the number of
    places: the product of (n + 2 padding - dilation (k - 1) - 1) // stride + 1 over H and W.
    dtypes: floating, complex, bool. Errors: RuntimeError for sizes that leave no window.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.unfold.html

    >>> F.unfold(gpunn.arange(6.0).reshape(1, 1, 2, 3), 2)
    tensor([[[0., 1.],
             [1., 2.],
             [3., 4.],
             [4., 5.]]])
    """
    rows = {"kernel_size": kernel_size, "dilation": dilation, "padding": padding, "stride": stride}
    kernel, apart, around, step = _steps("im2col", rows, 2)
    _check_input("im2col", input, 3)
    geo = Geometry(input.array.shape[-2:], kernel, step, around, around, apart, 1)
    if min(geo.out) < 1:
        raise RuntimeError(
            f"Given input with spatial size {geo.size}, kernel_size={kernel}, dilation={apart}, "
            f"padding={around}, calculated shape of the array of sliding blocks as {geo.out}, but "
            "its components must be at least one."
        )
    if input.array.ndim == 3:
        return _unfold(input.unsqueeze(0), geo).squeeze(0)  # type: ignore[attr-defined]
    return _unfold(input, geo)


def fold(
    input: Tensor, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
    stride: Any = 1,
) -> Tensor:  # fmt: skip
    """Columns added up to an image, each to the window it stands for (col2im).

    The transpose of `unfold`, not its inverse: an entry is the sum over the windows that cover it,
    so `fold(unfold(x)) / fold(unfold(ones))` is x. Shapes: input (N, C kh kw, L) or (C kh kw, L);
    the result (N, C, *output_size). dtypes: floating, complex, bool. Errors: RuntimeError where L
    is not the number of windows.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.fold.html

    >>> F.fold(gpunn.ones(1, 4, 2), (2, 3), 2)
    tensor([[[[1., 2., 1.],
              [1., 2., 1.]]]])
    """
    size = _pair(output_size, "col2im", "output_size", 2)
    rows = {"kernel_size": kernel_size, "dilation": dilation, "padding": padding, "stride": stride}
    kernel, apart, around, step = _steps("col2im", rows, 3)
    _check_input("col2im", input, 2)
    geo = Geometry(size, kernel, step, around, around, apart, 1)
    _check_columns(input.array.shape, geo)
    if input.array.ndim == 2:
        return _fold(input.unsqueeze(0), geo).squeeze(0)  # type: ignore[attr-defined]
    return _fold(input, geo)


def _check_columns(shape: Ints, geo: Geometry) -> None:
    if shape[-2] % math.prod(geo.kernel):
        raise RuntimeError(
            "Expected size of input's dimension 1 to be divisible by the product of kernel_size, "
            f"but got input.size(1)={shape[-2]} and kernel_size={geo.kernel}."
        )
    if min(geo.out) < 1 or shape[-1] != math.prod(geo.out):
        raise RuntimeError(
            f"Given output_size={geo.size}, kernel_size={geo.kernel}, dilation={geo.dilation}, "
            f"padding={geo.before}, stride={geo.stride}, expected size of input's dimension 2 to "
            f"match the calculated number of sliding blocks {geo.out[0]} * {geo.out[1]} = "
            f"{math.prod(geo.out)}, but got input.size(2)={shape[-1]}."
        )


# --- modules ------------------------------------------------------------------------------


class Unfold(Module):
    """Every window of an image as a column: see `nn.functional.unfold`.

    Shapes: (N, C, H, W) or (C, H, W) to (N, C kh kw, L) or (C kh kw, L).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Unfold.html

    >>> nn.Unfold(3, padding=1)(gpunn.zeros(2, 3, 5, 6)).shape
    torch.Size([2, 27, 30])
    """

    __constants__ = ["kernel_size", "dilation", "padding", "stride"]

    def __init__(self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1):
        super().__init__()
        self.kernel_size, self.dilation = kernel_size, dilation
        self.padding, self.stride = padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.__constants__)


class Fold(Module):
    """Columns added up to an image: see `nn.functional.fold`.

    Shapes: (N, C kh kw, L) or (C kh kw, L) to (N, C, *output_size) or (C, *output_size).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Fold.html

    >>> nn.Fold((5, 6), 3, padding=1)(gpunn.zeros(2, 27, 30)).shape
    torch.Size([2, 3, 5, 6])
    """

    __constants__ = ["output_size", "kernel_size", "dilation", "padding", "stride"]

    def __init__(
        self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
        stride: Any = 1,
    ):  # fmt: skip
        super().__init__()
        self.output_size, self.kernel_size, self.dilation = output_size, kernel_size, dilation
        self.padding, self.stride = padding, stride

    def forward(self, input: Tensor) -> Tensor:
        return fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)}" for name in self.__constants__)
