"""Views: operations that return the same memory under another shape.

How in-place changes reach views, and views of views, is in `strided.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import broadcast_vjp, namespace, result, view, vjp
from gpunn.ops.strided import become
from gpunn.tensor import Size, Tensor, dim_error, method, normal_dim, wrap

ndarray = np.ndarray

# --- shapes -------------------------------------------------------------------------------


def int_list(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given as one sequence or as arguments."""
    if len(sizes) == 1 and not isinstance(sizes[0], (int, np.integer)):
        only = sizes[0]
        if isinstance(only, Tensor) and only.ndim == 0:
            return (int(only.array),)
        sizes = tuple(only)
    return tuple(map(int, sizes))


def infer(shape: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The shape with its -1 filled in for `count` elements; PyTorch's errors."""
    known, free = 1, None
    for i, n in enumerate(shape):
        if n == -1:
            if free is not None:
                raise RuntimeError("only one dimension can be inferred")
            free = i
        elif n < 0:
            raise RuntimeError(f"invalid shape dimension {n} at index {i} of shape {list(shape)}")
        else:
            known *= n
    if free is None:
        if known != count:
            raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {count}")
        return shape
    if known == 0 and count == 0:
        raise RuntimeError(
            f"cannot reshape tensor of 0 elements into shape {list(shape)} because the "
            "unspecified dimension size -1 can be any value and is ambiguous"
        )
    if known == 0 or count % known:
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {count}")
    return (*shape[:free], count // known, *shape[free + 1 :])


def _reshaped(x: Any, shape: tuple[Any, ...]) -> Any:
    """The array in a shape given as one sequence or as arguments."""
    if len(shape) == 1:
        kind = type(shape[0])
        if kind is tuple or kind is Size:
            shape = shape[0]
        elif kind is not int:
            shape = int_list(shape)
    try:
        y = x.reshape(shape)
    except (ValueError, TypeError):
        return x.reshape(infer(int_list(shape), x.size))
    if y.shape != shape and min(shape) < -1:  # NumPy infers any negative size
        infer(shape, x.size)
    return y


# --- reshape and view ---------------------------------------------------------------------


@vjp((None,), name="ViewBackward0")
def _reshape_vjp(g: Any, shape: tuple[int, ...]) -> Any:
    return g.reshape(shape)


def reshape(input: Tensor, *size: Any, shape: Any = None) -> Tensor:
    """The same elements in another shape; a view where the memory allows it, else a copy.

    One size may be -1. RuntimeError where the sizes do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.reshape.html

    >>> gpunn.arange(4).reshape(2, 2)
    tensor([[0, 1],
            [2, 3]])
    """
    x = input.array
    y = _reshaped(x, size if shape is None else (shape,))
    base = y.base
    if base is x or (base is not None and base is x.base):
        return view(y, input, _reshape_vjp, (x.shape,))
    return result(y, input, _reshape_vjp, (input,), (x.shape,))


Tensor.reshape = reshape  # type: ignore[attr-defined]


@method
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`reshape` to the shape of `other`.

    >>> gpunn.arange(2).reshape_as(gpunn.zeros(2, 1)).shape
    torch.Size([2, 1])
    """
    return reshape(input, other.array.shape)


def view_(input: Tensor, *size: Any, dtype: Any = None) -> Tensor:
    """The same memory in another shape, or, given a dtype, read as another dtype.

    RuntimeError where the memory does not allow the shape: use `reshape` there.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.view.html

    >>> gpunn.arange(4).view(2, -1).shape
    torch.Size([2, 2])
    """
    if dtype is not None or (len(size) == 1 and type(size[0]) is dtypes.dtype):
        return view_dtype(input, size[0] if dtype is None else dtype)
    x = input.array
    y = _reshaped(x, size)
    base = y.base
    if base is x or (base is not None and base is x.base):
        return view(y, input, _reshape_vjp, (x.shape,))
    raise RuntimeError(
        "view size is not compatible with input tensor's size and stride (at least one dimension "
        "spans across two contiguous subspaces). Use .reshape(...) instead."
    )


view_.__name__ = "view"
Tensor.view = view_  # type: ignore[attr-defined]


def view_dtype(input: Tensor, dtype: Any) -> Tensor:
    """The same bytes read as another dtype; no gradient."""
    try:
        y = input.array.view(dtype.numpy)
    except ValueError as error:
        raise RuntimeError(f"view: cannot read {input.dtype} as {dtype}: {error}") from None
    out = wrap(y, input.device)
    out._base = input if input._base is None else input._base
    return out


@method
def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`view` in the shape of `other`.

    >>> gpunn.arange(2).view_as(gpunn.zeros(2, 1)).shape
    torch.Size([2, 1])
    """
    return view_(input, other.array.shape)


def alias(x: Tensor) -> Tensor:
    """A view of all of x."""
    return view(x.array[...], x, _reshape_vjp, (x.array.shape,))


# --- the order of dimensions --------------------------------------------------------------


@vjp((None,))
def _permute_vjp(g: Any, order: tuple[int, ...]) -> Any:
    back = sorted(range(g.ndim), key=[d % g.ndim for d in order].__getitem__)
    return permute(g, back) if isinstance(g, Tensor) else g.transpose(back)


@method
def permute(input: Tensor, *order: Any, dims: Any = None) -> Tensor:
    """A view with the dimensions in another order.

    Shapes: dims names each dimension once; RuntimeError otherwise.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.permute.html

    >>> gpunn.zeros(2, 3, 4).permute(2, 0, 1).shape
    torch.Size([4, 2, 3])
    """
    if dims is not None:
        order = (dims,)
    if len(order) == 1 and type(order[0]) is not int:
        order = int_list(order)
    try:
        y = input.array.transpose(order)
    except (ValueError, TypeError):
        y = input.array.transpose(_checked_order(order, input.array.ndim))
    return view(y, input, _permute_vjp, (order,))


def _checked_order(order: tuple[Any, ...], n: int) -> tuple[int, ...]:
    """PyTorch's error for an order that is no permutation of n dimensions."""
    if len(order) != n:
        raise RuntimeError(
            f"permute: number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {n} is not equal to "
            f"len(dims) = {len(order)}"
        )
    order = tuple(normal_dim(int(d), n) for d in order)
    if len(set(order)) != n:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    return order


@vjp((None, None))
def _transpose_vjp(g: Any, a: int, b: int) -> Any:
    return g.swapaxes(a, b)


@method
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """A view with two dimensions exchanged.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.transpose.html

    >>> gpunn.zeros(2, 3).transpose(0, 1).shape
    torch.Size([3, 2])
    """
    try:
        y = input.array.swapaxes(dim0, dim1)
    except ValueError:
        for dim in (dim0, dim1):
            normal_dim(dim, input.array.ndim)
        return alias(input)  # 0-dim
    return view(y, input, _transpose_vjp, (dim0, dim1))


def swapaxes(input: Tensor, axis0: int, axis1: int) -> Tensor:
    """`transpose` under NumPy's name.

    >>> gpunn.swapaxes(gpunn.zeros(2, 3), 0, 1).shape
    torch.Size([3, 2])
    """
    return transpose(input, axis0, axis1)


swapdims = transpose
Tensor.swapaxes, Tensor.swapdims = swapaxes, swapdims  # type: ignore[attr-defined]


@method
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and scalars as they are.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.t.html

    >>> gpunn.zeros(2, 3).t().shape
    torch.Size([3, 2])
    """
    x = input.array
    if x.ndim == 2:
        return view(x.T, input, _transpose_vjp, (0, 1))
    if x.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {x.ndim}D")
    return alias(input)


def _reversed(x: Tensor) -> Tensor:
    return view(x.array.T, x, _permute_vjp, (tuple(range(x.array.ndim))[::-1],))


def _matrix_transpose(x: Tensor, name: str = "mT") -> Tensor:
    if x.array.ndim < 2:
        raise RuntimeError(
            f"tensor.{name} is only supported on matrices or batches of matrices. Got "
            f"{x.array.ndim}-D tensor."
        )
    return transpose(x, -2, -1)


def _conjugated(x: Tensor) -> Tensor:
    return x.conj() if x.array.dtype.kind == "c" else x  # type: ignore[attr-defined]


def _hermitian(x: Tensor) -> Tensor:
    n = x.array.ndim
    if n not in (0, 2):
        raise RuntimeError(
            f"tensor.H is only supported on matrices (2-D tensors). Got {n}-D tensor."
            + (" For batches of matrices, consider using tensor.mH" if n > 2 else "")
        )
    return _conjugated(t(x))


def adjoint(input: Tensor) -> Tensor:
    """Matrices, or batches of them, transposed and conjugated.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.adjoint.html

    >>> gpunn.adjoint(gpunn.zeros(2, 3, 4)).shape
    torch.Size([2, 4, 3])
    """
    return _conjugated(_matrix_transpose(input, "adjoint()"))


method(adjoint)
for _name, _get, _doc in (
    ("T", _reversed, "All dimensions reversed."),
    ("mT", _matrix_transpose, "The last two dimensions exchanged."),
    ("H", _hermitian, "A matrix transposed and conjugated."),
    ("mH", lambda x: _conjugated(_matrix_transpose(x, "mH")), "Like H, for batches."),
):
    setattr(Tensor, _name, property(_get, doc=_doc))


# --- dimensions of length 1, and repeated ones --------------------------------------------


@method
def expand(input: Tensor, *sizes: Any, size: Any = None, implicit: bool = False) -> Tensor:
    """A view in which dimensions of length 1, and new ones in front, are repeated; -1 keeps one.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.expand.html

    >>> gpunn.tensor([[1], [2]]).expand(2, 3)
    tensor([[1, 1, 1],
            [2, 2, 2]])
    """
    x = input.array
    wanted = sizes if size is None else (size,)
    if len(wanted) == 1 and type(wanted[0]) is not int:
        wanted = int_list(wanted)
    have = x.shape
    new = len(wanted) - len(have)
    shape, strides = list(wanted), [0] * len(wanted)
    for i, n in enumerate(wanted):
        old = have[i - new] if i >= new >= 0 else None
        if n == old or (n == -1 and old is not None):
            shape[i], strides[i] = old, x.strides[i - new]
        elif new < 0 or n < 0 or old not in (None, 1):
            raise expand_error(wanted, have)
    if new < 0:
        raise expand_error(wanted, have)
    return view(_repeated(x, tuple(shape), strides), input, broadcast_vjp, (have,))


def _repeated(x: Any, shape: tuple[int, ...], strides: list[int]) -> Any:
    """x with some strides 0, writeable: what np.broadcast_to gives is not."""
    flags = x.flags
    if type(x) is not ndarray:
        return namespace(x).broadcast_to(x, shape)
    if x.size and (flags.c_contiguous or flags.f_contiguous):
        return ndarray(shape, x.dtype, x, 0, strides)
    return np.lib.stride_tricks.as_strided(x, shape, strides)


def expand_error(wanted: tuple[int, ...], have: tuple[int, ...]) -> RuntimeError:
    """PyTorch's error for a shape that cannot be expanded to another."""
    missing = len(wanted) - len(have)
    if missing < 0:
        return RuntimeError(
            f"expand(tensor of shape {list(have)}, size={list(wanted)}): the number of sizes "
            f"provided ({len(wanted)}) must be greater or equal to the number of dimensions in "
            f"the tensor ({len(have)})"
        )
    for i, n in enumerate(wanted):
        old = have[i - missing] if i >= missing else None
        if n == -1 and old is None:
            return RuntimeError(
                f"The expanded size of the tensor (-1) isn't allowed in a leading, non-existing "
                f"dimension {i}"
            )
        if n < -1 or (old is not None and old != 1 and n not in (-1, old)):
            return RuntimeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({old}) at "
                f"non-singleton dimension {i}.  Target sizes: {list(wanted)}.  Tensor sizes: "
                f"{list(have)}"
            )
    return RuntimeError(f"expand: sizes {list(wanted)} do not fit {list(have)}")


@method
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`expand` to the shape of `other`.

    >>> gpunn.ones(1).expand_as(gpunn.zeros(3))
    tensor([1., 1., 1.])
    """
    return expand(input, other.array.shape)


def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """`expand` under NumPy's name.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.broadcast_to.html

    >>> gpunn.broadcast_to(gpunn.ones(1), (3,))
    tensor([1., 1., 1.])
    """
    return expand(input, size)


Tensor.broadcast_to = broadcast_to  # type: ignore[attr-defined]


@vjp((None,))
def _squeeze_vjp(g: Any, shape: tuple[int, ...]) -> Any:
    return g.reshape(shape)


@method
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """A view without the dimensions of length 1: all of them, or those named.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.squeeze.html

    >>> gpunn.zeros(1, 2, 1).squeeze(0).shape
    torch.Size([2, 1])
    """
    x = input.array
    if dim is None:
        y = x.squeeze()
    elif type(dim) is int and -x.ndim <= dim < x.ndim:
        y = x.squeeze(dim) if x.shape[dim] == 1 else x
    else:
        dims = [normal_dim(int(d), x.ndim) for d in (dim if hasattr(dim, "__len__") else (dim,))]
        twice = next((d for d in dims if dims.count(d) > 1), None)
        if twice is not None:
            raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
        y = x.squeeze(tuple(d for d in dims if x.ndim and x.shape[d] == 1))
    return view(x[...] if y is x else y, input, _squeeze_vjp, (x.shape,))


@vjp((None,))
def _unsqueeze_vjp(g: Any, shape: tuple[int, ...]) -> Any:
    return g.reshape(shape)


_NEW_AT = [(*[slice(None)] * d, None) for d in range(8)]  # the key of a new dimension


@method
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A view with a new dimension of length 1 at `dim`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unsqueeze.html

    >>> gpunn.zeros(2, 3).unsqueeze(1).shape
    torch.Size([2, 1, 3])
    """
    x = input.array
    d = dim if dim >= 0 else dim + x.ndim + 1
    if not 0 <= d <= x.ndim:
        raise dim_error(dim, x.ndim + 1)
    y = x[_NEW_AT[d] if d < 8 else (*[slice(None)] * d, None)]
    return view(y, input, _unsqueeze_vjp, (x.shape,))


# --- in place -----------------------------------------------------------------------------


def _in_place(op: Callable[..., Tensor], name: str) -> None:
    """Sets the method that turns a tensor into a view of itself."""

    def op_(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return become(self, op(self, *args, **kwargs))

    op_.__name__ = op_.__qualname__ = name + "_"
    op_.__doc__ = f"In-place version of `{name}`: changes this tensor's shape and returns it."
    setattr(Tensor, name + "_", op_)


for _op in (squeeze, swapaxes, t, transpose, unsqueeze):
    _in_place(_op, _op.__name__)
_in_place(swapdims, "swapdims")


__all__ = [
    "adjoint", "broadcast_to", "expand", "expand_as", "permute", "reshape", "squeeze", "swapaxes",
    "swapdims", "t", "transpose", "unsqueeze",
]  # fmt: skip
