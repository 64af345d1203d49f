"""Views: operations that return the same memory under another shape, and writing through them.

A view remembers the base that owns its memory. When base or view is changed in place while
gradients are recorded, the base gets a node for the write (`_view_write_vjp`), and every live
view gets a new node that reads it from the base again, by its place in the base's memory.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd.graph import Node, result, vertex, view, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.tensor import Tensor, address, method, normal_dim, root, wrap

# --- shapes -------------------------------------------------------------------------------


def int_list(sizes: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given as one sequence or as arguments."""
    if len(sizes) == 1 and not isinstance(sizes[0], (int, np.integer)):
        only = sizes[0]
        if isinstance(only, Tensor) and only.ndim == 0:
            return (int(only.array),)
        sizes = tuple(only)
    return tuple(int(n) for n in sizes)


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
    if known == 0:
        if count == 0:
            raise RuntimeError(
                f"cannot reshape tensor of 0 elements into shape {list(shape)} because the "
                "unspecified dimension size -1 can be any value and is ambiguous"
            )
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {count}")
    if count % known:
        raise RuntimeError(f"shape '{list(shape)}' is invalid for input of size {count}")
    return (*shape[:free], count // known, *shape[free + 1 :])


@vjp((None,), name="ViewBackward0")
def _reshape_vjp(g: Any, shape: tuple[int, ...]) -> Any:
    return g.reshape(shape)


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape; a view where the memory allows it, else a copy.

    One size may be -1. RuntimeError where the sizes do not fit.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.reshape.html

    >>> gpunn.arange(4).reshape(2, 2)
    tensor([[0, 1],
            [2, 3]])
    """
    x = input.array
    y = x.reshape(infer(int_list(shape), x.size))
    if y is x or (x.size and root(y) is not root(x)):
        return result(y, input, _reshape_vjp, (input,), (x.shape,)) if y is not x else _same(input)
    return view(y, input, _reshape_vjp, (x.shape,))


def _same(x: Tensor) -> Tensor:
    return view(x.array[...], x, _reshape_vjp, (x.array.shape,))


Tensor.reshape = reshape  # type: ignore[attr-defined]


@method
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`reshape` to the shape of `other`."""
    return reshape(input, other.array.shape)


def view_(input: Tensor, *shape: Any) -> Tensor:
    """The same memory in another shape, or, given a dtype, read as another dtype.

    RuntimeError where the memory does not allow the shape: use `reshape` there.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.view.html
    """
    from gpunn import dtypes

    if len(shape) == 1 and type(shape[0]) is dtypes.dtype:
        return view_dtype(input, shape[0])
    x = input.array
    wanted = infer(int_list(shape), x.size)
    if x.flags.c_contiguous:
        y = x.reshape(wanted)
    else:
        y = x.view()
        try:
            y = x.reshape(wanted, copy=False) if type(x) is np.ndarray else _set_shape(y, wanted)
        except (ValueError, AttributeError):
            raise RuntimeError(
                "view size is not compatible with input tensor's size and stride (at least one "
                "dimension spans across two contiguous subspaces). Use .reshape(...) instead."
            ) from None
    return view(y[...] if y is x else y, input, _reshape_vjp, (x.shape,))


def _set_shape(array: Any, shape: tuple[int, ...]) -> Any:
    array.shape = shape
    return array


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
    """`view` in the shape of `other`."""
    return view_(input, other.array.shape)


@vjp((None,))
def _permute_vjp(g: Any, back: tuple[int, ...]) -> Any:
    return g.transpose(back) if not isinstance(g, Tensor) else permute(g, back)


@method
def permute(input: Tensor, *dims: Any) -> Tensor:
    """A view with the dimensions in another order.

    Shapes: dims names each dimension once; RuntimeError otherwise.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.permute.html

    >>> gpunn.zeros(2, 3, 4).permute(2, 0, 1).shape
    torch.Size([4, 2, 3])
    """
    order = int_list(dims)
    n = input.array.ndim
    if len(order) != n:
        raise RuntimeError(
            f"permute: number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {n} is not equal to "
            f"len(dims) = {len(order)}"
        )
    order = tuple(normal_dim(d, n) for d in order)
    if len(set(order)) != n:
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    back = tuple(int(i) for i in np.argsort(order))
    return view(input.array.transpose(order), input, _permute_vjp, (back,))


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
    n = input.array.ndim
    a, b = normal_dim(dim0, n), normal_dim(dim1, n)
    if n == 0:
        return _same(input)
    return view(input.array.swapaxes(a, b), input, _transpose_vjp, (a, b))


swapaxes = swapdims = transpose
Tensor.swapaxes = Tensor.swapdims = transpose  # type: ignore[attr-defined]


@method
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and scalars as they are.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.t.html

    >>> gpunn.zeros(2, 3).t().shape
    torch.Size([3, 2])
    """
    if input.array.ndim > 2:
        raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is "
                           f"{input.array.ndim}D")  # fmt: skip
    return transpose(input, 0, 1) if input.array.ndim == 2 else _same(input)


def _matrix_transpose(x: Tensor) -> Tensor:
    if x.array.ndim < 2:
        raise RuntimeError(
            "tensor.mT is only supported on matrices or batches of matrices. Got "
            f"{x.array.ndim}-D tensor."
        )
    return transpose(x, -2, -1)


Tensor.T = property(  # type: ignore[attr-defined]
    lambda x: permute(x, tuple(range(x.array.ndim))[::-1]), doc="All dimensions reversed."
)
Tensor.mT = property(_matrix_transpose, doc="The last two dimensions exchanged.")  # type: ignore[attr-defined]


@vjp((None,), name="ExpandBackward0")
def _expand_vjp(g: Any, shape: tuple[int, ...]) -> Any:
    from gpunn.autograd.graph import unbroadcast

    return unbroadcast(g, shape)


@method
def expand(input: Tensor, *sizes: Any, implicit: bool = False) -> Tensor:
    """A view in which dimensions of length 1, and new ones in front, are repeated; -1 keeps one.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.expand.html

    >>> gpunn.tensor([[1], [2]]).expand(2, 3)
    tensor([[1, 1, 1],
            [2, 2, 2]])
    """
    x = input.array
    wanted = list(int_list(sizes))
    missing = len(wanted) - x.ndim
    if missing < 0:
        raise RuntimeError(
            f"expand({input.array.dtype}{list(x.shape)}, size={wanted}): the number of sizes "
            f"provided ({len(wanted)}) must be greater or equal to the number of dimensions in "
            f"the tensor ({x.ndim})"
        )
    for i, n in enumerate(wanted):
        have = x.shape[i - missing] if i >= missing else None
        if n == -1:
            if have is None:
                raise RuntimeError(
                    f"The expanded size of the tensor (-1) isn't allowed in a leading, "
                    f"non-existing dimension {i}"
                )
            wanted[i] = have
        elif have is not None and have not in (1, n):
            raise RuntimeError(
                f"The expanded size of the tensor ({n}) must match the existing size ({have}) at "
                f"non-singleton dimension {i}.  Target sizes: {list(int_list(sizes))}.  Tensor "
                f"sizes: {list(x.shape)}"
            )
    y = input.device.xp.broadcast_to(x, tuple(wanted))
    if y.size == x.size:  # nothing is repeated: NumPy's broadcast views are read-only
        y = x.reshape(wanted)
    return view(y, input, _expand_vjp, (x.shape,))


@method
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`expand` to the shape of `other`."""
    return expand(input, other.array.shape)


def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """`expand` under NumPy's name."""
    return expand(input, size)


Tensor.broadcast_to = broadcast_to  # type: ignore[attr-defined]


@method
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """A view without the dimensions of length 1: all of them, or those named.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.squeeze.html

    >>> gpunn.zeros(1, 2, 1).squeeze(0).shape
    torch.Size([2, 1])
    """
    x = input.array
    if dim is None:
        keep = tuple(n for n in x.shape if n != 1)
    else:
        dims = (dim,) if isinstance(dim, int) else tuple(dim)
        gone = {normal_dim(d, x.ndim) for d in dims}
        keep = tuple(n for i, n in enumerate(x.shape) if i not in gone or n != 1)
    drop = tuple(i for i, n in enumerate(x.shape) if n == 1 and (dim is None or i in gone))
    y = x.squeeze(drop) if drop else x[...]
    assert y.shape == keep
    return view(y, input, _squeeze_vjp, (x.shape,))


@vjp((None,))
def _squeeze_vjp(g: Any, shape: tuple[int, ...]) -> Any:
    return g.reshape(shape)


@vjp((None,))
def _unsqueeze_vjp(g: Any, shape: tuple[int, ...]) -> Any:
    return g.reshape(shape)


@method
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A view with a new dimension of length 1 at `dim`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unsqueeze.html

    >>> gpunn.zeros(2, 3).unsqueeze(1).shape
    torch.Size([2, 1, 3])
    """
    x = input.array
    d = normal_dim(dim, x.ndim + 1)
    y = x[(slice(None),) * d + (None,)]
    return view(y, input, _unsqueeze_vjp, (x.shape,))


# --- writing through views ----------------------------------------------------------------


Place = tuple[tuple[int, ...], tuple[int, ...], int]  # shape, strides and offset in elements


def place_of(part: Any, base: Any) -> Place:
    """Where a view lies in the memory of its base."""
    size = base.itemsize
    if part.itemsize != size:
        raise RuntimeError(
            "in-place changes of a view of another dtype cannot be recorded for gradients; "
            "change the base, or work under gpunn.no_grad()"
        )
    steps = tuple(s // size for s in part.strides)
    return part.shape, steps, (address(part) - address(base)) // size


def _at(memory: Any, place: Place) -> Any:
    """The part of a contiguous array at a place, as a view."""
    shape, steps, offset = place
    size = memory.itemsize
    flat = memory.reshape(-1)[offset:]
    return ns(memory).lib.stride_tricks.as_strided(flat, shape, tuple(s * size for s in steps))


def _contiguous_base(base: Tensor) -> None:
    if not base.array.flags.c_contiguous:
        raise RuntimeError(
            "an in-place change through a view of a tensor that is not contiguous cannot be "
            "recorded for gradients; call .contiguous() on the base first"
        )


@vjp((None, None), name="CopySlices")
def _view_write_vjp(g: Any, place: Place, _: None) -> Any:
    """g splits: the base keeps what was not overwritten, the written value gets the rest."""
    if isinstance(g, Tensor):
        part = strided(g, place)
        return strided_write(g, part * 0, place), part
    rest = ns(g).ascontiguousarray(g).copy()
    part = _at(rest, place)
    value = part.copy()
    part[...] = 0
    return rest, value


@vjp((None, None), name="AsStridedBackward0")
def _strided_vjp(g: Any, place: Place, shape: tuple[int, ...]) -> Any:
    """The gradient of reading a place: g there, zero elsewhere; sums where elements repeat."""
    if isinstance(g, Tensor):
        return strided_write(g.new_zeros(shape), g, place)  # type: ignore[attr-defined]
    xp = ns(g)
    whole = xp.zeros(shape, g.dtype)
    _, steps, offset = place
    where = np.zeros(g.shape, np.int64) + offset
    for axis, step in enumerate(steps):
        along = np.arange(g.shape[axis], dtype=np.int64) * step
        where += along.reshape((-1,) + (1,) * (g.ndim - 1 - axis))
    if xp is np:
        np.add.at(whole.reshape(-1), where, g)
    else:
        import cupyx

        cupyx.scatter_add(whole.reshape(-1), xp.asarray(where), g)
    return whole


def strided(base: Tensor, place: Place) -> Tensor:
    """A view of base at a place."""
    array = _at(base.array, place) if base.array.flags.c_contiguous else _at(
        base.device.xp.ascontiguousarray(base.array), place
    )  # fmt: skip
    return view(array, base, _strided_vjp, (place, base.array.shape))


def strided_write(base: Tensor, value: Tensor, place: Place) -> Tensor:
    """A copy of base with `value` written at a place."""
    array = base.device.xp.ascontiguousarray(base.array).copy()
    _at(array, place)[...] = value.array
    return result(array, base, _view_write_vjp, (base, value), (place, None))


def view_write(base: Tensor, target: Tensor, value: Tensor) -> None:
    """Records that `value` was written into base through its view `target`."""
    _contiguous_base(base)
    saved = (place_of(target.array, base.array), None)
    parents = (vertex(base), vertex(value))
    base.node = Node(_view_write_vjp, parents, saved, base.device)
    base._requires_grad = True


def rejoin_views(base: Tensor) -> None:
    """Gives every live view of a base that was changed in place a node that reads it again."""
    for ref in base._extra.views:  # type: ignore[union-attr]
        out = ref()
        if out is None or out._base is not base:
            continue
        if base._requires_grad:
            _contiguous_base(base)
            saved = (place_of(out.array, base.array), base.array.shape)
            out.node = Node(_strided_vjp, (vertex(base),), saved, base.device)
        else:
            out.node = None
        out._requires_grad = base._requires_grad


__all__ = [
    "broadcast_to", "expand", "expand_as", "permute", "reshape", "squeeze", "swapaxes",
    "swapdims", "t", "transpose", "unsqueeze",
]  # fmt: skip
