"""The gradients of convolutions as functions: PyTorch's `torch.nn.grad`."""

from __future__ import annotations

from typing import Any

from gpunn.nn.columns import Geometry
from gpunn.nn.conv import conv_input_grad, conv_weight_grad
from gpunn.nn.conv_arguments import check_channels, check_dims, check_steps, check_types, spread
from gpunn.tensor import Tensor

_INPUT_DOC = """The gradient of conv{dims}d with respect to its input, of shape `input_size`.

    Shapes and errors are those of `nn.functional.conv{dims}d`; `grad_output` has its result's shape
    (RuntimeError where it has another). It can be differentiated in turn.
    Source: https://docs.pytorch.org/docs/stable/nn.functional.html

    >>> nn.grad.conv{dims}d_input({size}, gpunn.ones({weight}), gpunn.ones({out})).shape
    torch.Size([{shape}])
    """
_WEIGHT_DOC = """The gradient of conv{dims}d with respect to its weight, of shape `weight_size`.

    Shapes and errors are those of `nn.functional.conv{dims}d`; `grad_output` has its result's shape
    (RuntimeError where it has another). It can be differentiated in turn.
    Source: https://docs.pytorch.org/docs/stable/nn.functional.html

    >>> nn.grad.conv{dims}d_weight(gpunn.ones{size}, ({weight}), gpunn.ones({out})).shape
    torch.Size([{weight}])
    """


def _geometry(
    name: str, dims: int, x: Tensor, w: Tensor, g: Tensor, stride: Any, padding: Any, dilation: Any,
    groups: int,
) -> Geometry:  # fmt: skip
    """The checked sizes; the absent one of x and w is an empty view that only has the shape."""
    check_dims(name, x, w, dims, groups)
    steps, dilations = spread(stride, dims, "stride"), spread(dilation, dims, "dilation")
    before = spread(padding, dims, "padding")
    check_steps(name, steps, before, dilations)
    check_channels(name, x, w, None, dims, groups, False)
    check_types(name, g, x, None)
    check_types(name, g, w, None)
    size, kernel = x.array.shape[-dims:], w.array.shape[2:]
    geo = Geometry(size, kernel, steps, before, before, dilations, groups)
    wanted, got = (x.array.shape[0], w.array.shape[0], *geo.out), g.array.shape
    if got != wanted:
        raise RuntimeError(
            f"{name}: expected grad_output of shape {list(wanted)}, the result of conv{dims}d, "
            f"got {list(got)}"
        )
    return geo


def _shaped(size: Any, like: Tensor) -> Tensor:
    """A tensor of that shape that takes the memory of one number."""
    return like.detach().new_zeros(()).expand(*size)  # type: ignore[attr-defined]


def _describe(function: Any, name: str, doc: str, dims: int) -> Any:
    size, kernel, out = ["4"] * dims, ["3"] * dims, ["2"] * dims
    shape = ", ".join(["1", "1", *size])
    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc.format(
        dims=dims, size=f"({shape})", shape=shape, weight=", ".join(["1", "1", *kernel]),
        out=", ".join(["1", "1", *out]),
    )  # fmt: skip
    return function


def _make_input(dims: int) -> Any:
    name = f"conv{dims}d_input"

    def conv_input(
        input_size: Any, weight: Tensor, grad_output: Tensor, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        x = _shaped(input_size, grad_output)
        geo = _geometry(name, dims, x, weight, grad_output, stride, padding, dilation, groups)
        return conv_input_grad(grad_output, weight, geo)

    return _describe(conv_input, name, _INPUT_DOC, dims)


def _make_weight(dims: int) -> Any:
    name = f"conv{dims}d_weight"

    def conv_weight(
        input: Tensor, weight_size: Any, grad_output: Tensor, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1,
    ) -> Tensor:  # fmt: skip
        w = _shaped(weight_size, grad_output)
        geo = _geometry(name, dims, input, w, grad_output, stride, padding, dilation, groups)
        return conv_weight_grad(input, grad_output, geo)

    return _describe(conv_weight, name, _WEIGHT_DOC, dims)


conv1d_input, conv2d_input, conv3d_input = (_make_input(d) for d in (1, 2, 3))
conv1d_weight, conv2d_weight, conv3d_weight = (_make_weight(d) for d in (1, 2, 3))
