"""Diagonals and triangles of matrices."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, view, vjp
from gpunn.ops._rows import document, inplace, refusal, write_out
from gpunn.ops.choose import only
from gpunn.ops.views import reshape
from gpunn.tensor import Tensor, method, normal_dim

# --- diagonals ----------------------------------------------------------------------------


@vjp((None, None, None))
def _diagonal_vjp(g: Any, shape: Any, offset: int, axes: tuple[int, int]) -> Any:
    if isinstance(g, Tensor):
        return diagonal_scatter(g.new_zeros(shape), g, offset, *axes)  # type: ignore[attr-defined]
    whole = ns(g).zeros(shape, g.dtype)
    _diagonal_of(whole, offset, axes)[...] = g
    return whole


def _diagonal_of(x: Any, offset: int, axes: tuple[int, int]) -> Any:
    """The diagonal as a view that may be written to."""
    y = x.diagonal(offset, *axes)
    if type(y) is np.ndarray:  # NumPy's is read-only
        y.flags.writeable = x.flags.writeable
    return y


def _pair(dim1: int, dim2: int, n: int) -> tuple[int, int]:
    axes = normal_dim(dim1, n), normal_dim(dim2, n)
    if axes[0] == axes[1]:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    return axes


@method
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of two dimensions, as a new last dimension.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.diagonal.html

    >>> gpunn.diagonal(gpunn.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    axes = _pair(dim1, dim2, input.array.ndim)
    y = _diagonal_of(input.array, offset, axes)
    return view(y, input, _diagonal_vjp, (input.array.shape, offset, axes))


@vjp((None, None))
def _diagonal_scatter_vjp(g: Any, offset: int, axes: tuple[int, int]) -> Any:
    """What was overwritten loses its gradient to src."""
    if isinstance(g, Tensor):
        part = diagonal(g, offset, *axes)
        return diagonal_scatter(g, part * 0, offset, *axes), part  # type: ignore[operator]
    part = _diagonal_of(g, offset, axes).copy()
    rest = g.copy()
    _diagonal_of(rest, offset, axes)[...] = 0
    return rest, part


@method
def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """A copy of input with `src` on a diagonal.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.diagonal_scatter.html

    >>> gpunn.diagonal_scatter(gpunn.zeros(2, 2), gpunn.ones(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    axes = _pair(dim1, dim2, input.array.ndim)
    src = src.to(input)  # type: ignore[attr-defined]
    y = input.array.copy()
    part = _diagonal_of(y, offset, axes)
    if part.shape != src.array.shape:
        raise RuntimeError(
            f"expected src to have a size equal to the slice of self. src size = "
            f"{list(src.array.shape)}, slice size = {list(part.shape)}"
        )
    part[...] = src.array
    return result(y, input, _diagonal_scatter_vjp, (input, src), (offset, axes))


@method
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with input's last dimension on a diagonal.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.diag_embed.html

    >>> gpunn.diag_embed(gpunn.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    x = input.array
    a, b = _pair(dim1, dim2, x.ndim + 1)
    if x.ndim == 0:
        raise IndexError("diag_embed: input must have at least 1 dimension")
    size = x.shape[-1] + abs(offset)
    rest = list(x.shape[:-1])
    for d in sorted((a, b)):
        rest.insert(d, size)
    y = ns(x).zeros(tuple(rest), x.dtype)
    _diagonal_of(y, offset, (a, b))[...] = x
    return result(y, input, _diag_embed_vjp, (input,), (offset, (a, b)))


@vjp((None, None))
def _diag_embed_vjp(g: Any, offset: int, axes: tuple[int, int]) -> Any:
    if isinstance(g, Tensor):
        return diagonal(g, offset, *axes)
    return g.diagonal(offset, *axes)


@method
def diag(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor:
    """A matrix with a vector on its diagonal; or the diagonal of a matrix, as a copy.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.diag.html

    >>> gpunn.diag(gpunn.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    if input.array.ndim == 1:
        made = diag_embed(input, diagonal)
    elif input.array.ndim == 2:
        made = input.diagonal(diagonal).clone()  # type: ignore[attr-defined]
    else:
        raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {input.array.ndim}D")
    return made if out is None else write_out(out, made, "diag")


@method
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with all elements of input on its diagonal.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.diagflat.html

    >>> gpunn.diagflat(gpunn.tensor([[1], [2]]))
    tensor([[1, 0],
            [0, 2]])
    """
    return diag_embed(reshape(input, input.array.size), offset)


# --- triangles ----------------------------------------------------------------------------


def _triangle(name: str, what: str, lower: bool) -> Any:
    @vjp((None,))
    def triangle_vjp(g: Any, diagonal: int) -> Any:
        return tri(g, diagonal) if isinstance(g, Tensor) else cut(g, diagonal)

    triangle_vjp.node_name = name.capitalize() + "Backward0"

    def cut(x: Any, diagonal: int) -> Any:
        m, n = x.shape[-2:]
        xp = ns(x)
        off = xp.arange(n) - xp.arange(m)[:, None]  # which diagonal each element is on
        return only(off <= diagonal if lower else off >= diagonal, x)

    def tri(input: Tensor, diagonal: int = 0, *, out: Tensor | None = None) -> Tensor:
        if input.array.ndim < 2:
            raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")
        y = cut(input.array, diagonal)
        made = result(y, input, triangle_vjp, (input,), (diagonal,))
        return made if out is None else write_out(out, made, name)

    document(tri, name, f"The {what} triangle of matrices, the rest 0; `diagonal` shifts its edge.",
             f"gpunn.{name}(gpunn.ones(2, 2)).sum()\ntensor(3.)",
             "(..., m, n)", "unchanged")  # fmt: skip
    setattr(Tensor, name + "_", inplace(tri, name))
    return method(tri)


tril = _triangle("tril", "lower", True)
triu = _triangle("triu", "upper", False)


def _triangle_indices(name: str, lower: bool) -> Any:
    def indices(
        row: int, col: int, offset: int = 0, *, dtype: Any = dtypes.int64, device: Any = None,
        layout: Any = None,
    ) -> Tensor:  # fmt: skip
        from gpunn.ops.create import tensor

        for which, n in (("row", row), ("col", col)):
            if n < 0:
                raise RuntimeError(f"{which} must be non-negative, got{n}")
        wanted = dtypes.as_dtype(dtype)
        if wanted.category != dtypes.INTEGER:
            raise refusal(name, wanted.numpy)
        find = np.tril_indices if lower else np.triu_indices
        pair = np.stack(find(row, offset, col)) if row and col else np.zeros((2, 0), np.int64)
        return tensor(pair, dtype=wanted, device=device)

    document(indices, name, "The places of a triangle of a (row, col) matrix, as two rows.",
             f"gpunn.{name}(2, 2).shape\ntorch.Size([2, 3])", "(2, count)", "int64")  # fmt: skip
    return indices


tril_indices = _triangle_indices("tril_indices", True)
triu_indices = _triangle_indices("triu_indices", False)

@method
@autocasts("trace")
def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix; integers sum to int64.

    RuntimeError for what is no matrix.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.trace.html

    >>> gpunn.trace(gpunn.tensor([[1, 2], [3, 4]]))
    tensor(5)
    """
    if input.array.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.array.ndim}")
    return diagonal(input).sum()


__all__ = [
    "diag", "diag_embed", "diagflat", "diagonal", "diagonal_scatter", "trace", "tril",
    "tril_indices", "triu", "triu_indices",
]  # fmt: skip
