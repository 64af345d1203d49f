"""Transposed convolution: the gradient of a convolution's input, as an operation of its own.

PyTorch's weight of a transposed convolution, (C, O / groups, *kernel), is that of the convolution
which would lead from its output back to its input. So `conv.py` has both it and its derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunn.amp.casts import AUTOCAST, casts
from gpunn.nn.columns import Geometry, Ints
from gpunn.nn.conv import conv, conv_input_grad
from gpunn.nn.conv_arguments import check_channels, check_dims, check_steps, check_types, spread
from gpunn.nn.conv_modules import _ConvNd, _LazyConvXdMixin, repeated
from gpunn.ops._rows import not_a_tensor, proper
from gpunn.tensor import Tensor

# --- functions ----------------------------------------------------------------------------


def _check_output_padding(name: str, extra: Ints, stride: Ints, dilation: Ints) -> None:
    if min(extra) < 0:
        raise RuntimeError(f"negative output_padding is not supported, got {extra} ({name})")
    if any(e >= s and e >= d for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise RuntimeError(
            "output padding must be smaller than either stride or dilation, but got "
            f"output_padding: {extra} stride: {stride} dilation: {dilation} ({name})"
        )


def _smallest(
    size: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints
) -> tuple[int, ...]:
    """The size of the result without output_padding."""
    return tuple(
        (n - 1) * s - 2 * p + d * (k - 1) + 1
        for n, k, s, p, d in zip(size, kernel, stride, padding, dilation, strict=True)
    )


def _transposed(
    name: str, dims: int, x: Tensor, w: Tensor, b: Tensor | None, stride: Any, padding: Any,
    output_padding: Any, groups: int, dilation: Any,
) -> Tensor:  # fmt: skip
    check_dims(name, x, w, dims, groups)
    strides, dilations = spread(stride, dims, "stride"), spread(dilation, dims, "dilation")
    around, extra = spread(padding, dims, "padding"), spread(output_padding, dims, "output_padding")
    check_steps(name, strides, around, dilations)
    check_channels(name, x, w, b, dims, groups, True)
    _check_output_padding(name, extra, strides, dilations)
    kernel, places = w.array.shape[2:], x.array.shape[-dims:]
    least = _smallest(places, kernel, strides, around, dilations)
    size = tuple(n + e for n, e in zip(least, extra, strict=True))
    if min(size) < 1:
        raise RuntimeError(
            f"Given input size per channel: ({' x '.join(map(str, places))}). Calculated output "
            f"size per channel: ({' x '.join(map(str, size))}). Output size is too small ({name})"
        )
    if w.array.shape[1] == 0:
        raise RuntimeError(f"non-empty weight tensor expected, but got: {list(w.array.shape)}")
    if AUTOCAST:
        x, w, b = casts(name, x, w, b)
    check_types(name, x, w, b)
    if x.array.dtype.kind in "iu" and x.array.dtype.itemsize < 8:
        raise NotImplementedError(f"\"{name}\" not implemented for '{proper(x.dtype)}'")
    geo = Geometry(size, kernel, strides, around, around, dilations, groups, places)
    if x.array.ndim == dims + 1:
        return conv_input_grad(x.unsqueeze(0), w, geo, b).squeeze(0)  # type: ignore[attr-defined]
    return conv_input_grad(x, w, geo, b)


def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The 1-dimensional transposed convolution: conv1d's gradient of its input.

    Shapes: input (N, C, L) or (C, L), weight (C, O / groups, k), bias (O):
    (N, O, L') with L' = (L - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1.
    Each entry of the input adds its multiple of the kernel to the output, `stride` apart.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose1d.html

    >>> F.conv_transpose1d(gpunn.ones(1, 1, 2), gpunn.ones(1, 1, 2), stride=2)
    tensor([[[1., 1., 1., 1.]]])
    """
    return _transposed("conv_transpose1d", 1, input, weight, bias, stride, padding,
                       output_padding, groups, dilation)  # fmt: skip


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The 2-dimensional transposed convolution: conv2d's gradient of its input.

    Shapes: input (N, C, H, W) or (C, H, W), weight (C, O / groups, kh, kw), bias (O):
    (N, O, H', W') with each size n
    becomes (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1.
    Each entry of the input adds its multiple of the kernel to the output, `stride` apart.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose2d.html

    >>> F.conv_transpose2d(gpunn.ones(1, 1, 2, 2), gpunn.ones(1, 1, 2, 2))
    tensor([[[[1., 2., 1.],
              [2., 4., 2.],
              [1., 2., 1.]]]])
    """
    return _transposed("conv_transpose2d", 2, input, weight, bias, stride, padding,
                       output_padding, groups, dilation)  # fmt: skip


def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Tensor:  # fmt: skip
    """The 3-dimensional transposed convolution: conv3d's gradient of its input.

    Shapes: input (N, C, D, H, W) or (C, D, H, W), weight (C, O / groups, kd, kh, kw), bias (O):
    (N, O, D', H', W') with each size n
    becomes (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1.
    Each entry of the input adds its multiple of the kernel to the output, `stride` apart.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv_transpose3d.html

    >>> F.conv_transpose3d(gpunn.ones(1, 2, 4, 4, 4), gpunn.ones(2, 3, 2, 2, 2), stride=2).shape
    torch.Size([1, 3, 8, 8, 8])
    """
    return _transposed("conv_transpose3d", 3, input, weight, bias, stride, padding,
                       output_padding, groups, dilation)  # fmt: skip


def convolution(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transposed: bool,
    output_padding: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    """Convolution or transposed convolution in as many dimensions as the weight has.

    Shapes: input (N, C, *size), weight (O, C / groups, *kernel), or (C, O / groups, *kernel) where
    `transposed`; sizes as `nn.functional.conv2d` and `nn.functional.conv_transpose2d` have them.
    `output_padding` is that of the transposed one. Errors: those of the two; TypeError where an
    int stands for a sequence.
    Source: https://docs.pytorch.org/docs/stable/torch.compiler_ir.html

    >>> x, w = gpunn.ones(1, 1, 4), gpunn.ones(1, 1, 3)
    >>> gpunn.convolution(x, w, None, [1], [0], [1], False, [0], 1)
    tensor([[[3., 3.]]])
    """
    for at, (tensor, what) in enumerate(((input, "input"), (weight, "weight")), 1):
        if not isinstance(tensor, Tensor):
            raise not_a_tensor("convolution", tensor, what, at)
    named = {4: ("stride", stride), 5: ("padding", padding), 6: ("dilation", dilation),
             8: ("output_padding", output_padding)}  # fmt: skip
    for position, (what, value) in named.items():
        if isinstance(value, (int, str)):
            raise TypeError(
                f"convolution(): argument '{what}' (position {position}) must be tuple of ints, "
                f"not {type(value).__name__}"
            )
    dims = weight.array.ndim - 2
    if dims < 1:
        raise RuntimeError("weight should have at least three dimensions")
    if input.array.ndim != dims + 2:
        raise RuntimeError(
            f"Expected {dims + 2}-dimensional input for {dims + 2}-dimensional weight "
            f"{list(weight.shape)}, but got {input.array.ndim}-dimensional input of size "
            f"{list(input.shape)} instead"
        )
    if transposed:
        return _transposed("convolution", dims, input, weight, bias, stride, padding,
                           output_padding, groups, dilation)  # fmt: skip
    return conv("convolution", dims, input, weight, bias, stride, padding, dilation, groups)


# --- modules ------------------------------------------------------------------------------


class _ConvTransposeNd(_ConvNd):
    """What ConvTranspose1d, ConvTranspose2d and ConvTranspose3d share."""

    dims: int
    padding: Ints

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        if padding_mode != "zeros":
            raise ValueError(
                f'Only "zeros" padding mode is supported for {type(self).__name__}, got '
                f"{padding_mode!r}"
            )
        d = self.dims
        super().__init__(
            in_channels, out_channels, repeated(kernel_size, d), repeated(stride, d),
            repeated(padding, d), repeated(dilation, d), True, repeated(output_padding, d), groups,
            bias, padding_mode, device, dtype,
        )  # fmt: skip

    def _output_padding(self, input: Tensor, output_size: Any) -> Ints:
        """What must be added to reach `output_size`, with or without batch and channels."""
        if output_size is None:
            return self.output_padding
        lead = 2 if input.ndim == self.dims + 2 else 1
        sizes = list(output_size)
        if len(sizes) == lead + self.dims:
            sizes = sizes[lead:]
        if len(sizes) != self.dims:
            raise ValueError(
                f"ConvTranspose{self.dims}D: for {input.ndim}D input, output_size must have "
                f"{self.dims} or {lead + self.dims} elements (got {len(sizes)})"
            )
        least = _smallest(
            input.shape[lead:], self.kernel_size, self.stride, self.padding, self.dilation
        )
        most = [n + s - 1 for n, s in zip(least, self.stride, strict=True)]
        if any(not a <= n <= b for a, n, b in zip(least, sizes, most, strict=True)):
            raise ValueError(
                f"requested an output size of {sizes}, but valid sizes range from {list(least)} "
                f"to {most} (for an input of {input.shape[lead:]})"
            )
        return tuple(n - a for n, a in zip(sizes, least, strict=True))

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        return _transposed(
            f"conv_transpose{self.dims}d", self.dims, input, self.weight, self.bias, self.stride,
            self.padding, self._output_padding(input, output_size), self.groups, self.dilation,
        )  # fmt: skip


class _LazyConvTranspose(_LazyConvXdMixin, _ConvTransposeNd):
    """What LazyConvTranspose1d, LazyConvTranspose2d and LazyConvTranspose3d share."""

    def __init__(
        self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__(0, 0, kernel_size, stride, padding, output_padding, groups, False,
                         dilation, padding_mode, device, dtype)  # fmt: skip
        self._wait_for_input(out_channels, bias, device, dtype)


class ConvTranspose1d(_ConvTransposeNd):
    """A 1-dimensional transposed convolution: see `nn.functional.conv_transpose1d`.

    Shapes: (N, C, L) or (C, L). Parameters: weight (in, out / groups, k) and
    bias (out), uniform in +-1/sqrt(out / groups * k).
    `forward(input, output_size=None)`: of the `stride` sizes that a convolution would bring to the
    input's, `output_size` picks one.
    Errors: ValueError for another padding_mode than zeros and for an output_size out of reach.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose1d.html

    >>> up = nn.ConvTranspose1d(3, 8, 3, stride=2, padding=1)
    >>> up(gpunn.zeros(2, 3, 6), output_size=(12,)).shape
    torch.Size([2, 8, 12])
    """

    dims = 1


class ConvTranspose2d(_ConvTransposeNd):
    """A 2-dimensional transposed convolution: see `nn.functional.conv_transpose2d`.

    Shapes: (N, C, H, W) or (C, H, W). Parameters: weight (in, out / groups, kh, kw) and
    bias (out), uniform in +-1/sqrt(out / groups * kh * kw).
    `forward(input, output_size=None)`: of the `stride` sizes that a convolution would bring to the
    input's, `output_size` picks one.
    Errors: ValueError for another padding_mode than zeros and for an output_size out of reach.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose2d.html

    >>> up = nn.ConvTranspose2d(3, 8, 3, stride=2, padding=1)
    >>> up(gpunn.zeros(2, 3, 6, 6), output_size=(12, 12)).shape
    torch.Size([2, 8, 12, 12])
    """

    dims = 2


class ConvTranspose3d(_ConvTransposeNd):
    """A 3-dimensional transposed convolution: see `nn.functional.conv_transpose3d`.

    Shapes: (N, C, D, H, W) or (C, D, H, W). Parameters: weight (in, out / groups, kd, kh, kw) and
    bias (out), uniform in +-1/sqrt(out / groups * kd * kh * kw).
    `forward(input, output_size=None)`: of the `stride` sizes that a convolution would bring to the
    input's, `output_size` picks one.
    Errors: ValueError for another padding_mode than zeros and for an output_size out of reach.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ConvTranspose3d.html

    >>> up = nn.ConvTranspose3d(3, 8, 3, stride=2, padding=1)
    >>> up(gpunn.zeros(2, 3, 4, 4, 4), output_size=(8, 8, 8)).shape
    torch.Size([2, 8, 8, 8, 8])
    """

    dims = 3


class LazyConvTranspose1d(_LazyConvTranspose):
    """A ConvTranspose1d that takes `in_channels` from its first input.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyConvTranspose1d.html

    >>> nn.LazyConvTranspose1d(8, 3)(gpunn.zeros(2, 5, 6)).shape
    torch.Size([2, 8, 8])
    """

    dims = 1
    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyConvTranspose):
    """A ConvTranspose2d that takes `in_channels` from its first input.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyConvTranspose2d.html

    >>> nn.LazyConvTranspose2d(8, 3)(gpunn.zeros(2, 5, 6, 6)).shape
    torch.Size([2, 8, 8, 8])
    """

    dims = 2
    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyConvTranspose):
    """A ConvTranspose3d that takes `in_channels` from its first input.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LazyConvTranspose3d.html

    >>> nn.LazyConvTranspose3d(8, 3)(gpunn.zeros(2, 5, 4, 4, 4)).shape
    torch.Size([2, 8, 6, 6, 6])
    """

    dims = 3
    cls_to_become = ConvTranspose3d
