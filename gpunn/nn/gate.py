"""GLU: one half of the channels decides how much of the other half passes."""

from __future__ import annotations

from typing import Any

from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.draw import need
from gpunn.dtypes import F32
from gpunn.nn._pointwise import Activation
from gpunn.ops._rows import half, not_a_tensor, on
from gpunn.ops.transcend import sigmoid
from gpunn.tensor import Tensor, normal_dim


def _halves(x: Any, axis: int) -> tuple[Any, Any]:
    before, middle = (slice(None),) * axis, x.shape[axis] // 2
    return x[(*before, slice(None, middle))], x[(*before, slice(middle, None))]


@vjp((0, None))
def _glu_vjp(g: Any, x: Any, axis: int) -> Any:
    wide = not isinstance(g, Tensor) and half(g.dtype)
    if wide:
        g, x, narrow = g.astype(F32), x.astype(F32), g.dtype
    a, b = _halves(x, axis)
    s = on(sigmoid, b)
    gx = ns(x).concatenate([g * s, g * a * (s * (1 - s))], axis)
    return gx.astype(narrow) if wide else gx


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """a sigmoid(b), where a and b are the halves of the input along `dim`.

    Shapes: any with an even size along `dim`; the result has half of it. dtypes: floating,
    NotImplementedError for others; RuntimeError for an odd size and for a single number.
    Sources: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.glu.html;
    Dauphin, Fan, Auli and Grangier, "Language modeling with gated convolutional networks" (2017)

    >>> F.glu(gpunn.tensor([4., 2., 0., 0.]))
    tensor([2., 1.])
    """
    if not isinstance(input, Tensor):
        raise not_a_tensor("glu", input)
    x = input.array
    if not x.ndim:
        raise RuntimeError("glu does not support scalars because halving size must be even")
    axis = normal_dim(dim, x.ndim)
    if x.shape[axis] % 2:
        raise RuntimeError(
            f"Halving dimension must be even, but dimension {axis} is size {x.shape[axis]} (glu)"
        )
    need(x.dtype.kind in "fV", "glu_cpu", x.dtype)
    a, b = _halves(x.astype(F32) if half(x.dtype) else x, axis)
    y = (a * on(sigmoid, b)).astype(x.dtype, copy=False)
    return result(y, input, _glu_vjp, (input,), (x, axis))


class GLU(Activation, function=glu):
    """a sigmoid(b), where a and b are the halves of the input along `dim`: see `nn.functional.glu`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GLU.html

    >>> nn.GLU()(gpunn.tensor([4., 2., 0., 0.]))
    tensor([2., 1.])
    """
