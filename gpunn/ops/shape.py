"""Joining, splitting and rearranging tensors."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, view, vjp
from gpunn.ops._rows import cast, same_device, write_out
from gpunn.ops.index import getitem
from gpunn.ops.views import expand, int_list, permute, reshape
from gpunn.tensor import Size, Tensor, method, normal_dim, wrap

Tensors = Sequence[Tensor]


# --- joining ------------------------------------------------------------------------------


@vjp((None, None), name="CatBackward0")
def _cat_vjp(g: Any, axis: int, ends: list[int]) -> Any:
    parts, start = [], 0
    for end in ends:
        parts.append(g[(slice(None),) * axis + (slice(start, end),)])
        start = end
    return tuple(parts)


def _same_dtype(name: str, tensors: Tensors) -> list[Tensor]:
    """The tensors in their common dtype; TypeErrors for what is no tensor."""
    if isinstance(tensors, Tensor) or not all(isinstance(t, Tensor) for t in tensors):
        bad = next((t for t in tensors if not isinstance(t, Tensor)), tensors)
        raise TypeError(
            f"{name}(): argument 'tensors' (position 1) must be tuple of Tensors, not "
            f"{type(bad).__name__}"
        )
    same_device(name, tuple(tensors))
    common = dtypes.result_of([(t.dtype, 2 if t.array.ndim else 1) for t in tensors]).numpy
    return [cast(t, common) for t in tensors]


def cat(
    tensors: Tensors, dim: int = 0, *, out: Tensor | None = None, axis: int | None = None
) -> Tensor:
    """The tensors one after the other along an existing dimension.

    Shapes: alike but for `dim`; empty 1-d tensors are passed over. RuntimeError otherwise.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.cat.html

    >>> gpunn.cat([gpunn.tensor([1]), gpunn.tensor([2, 3])])
    tensor([1, 2, 3])
    """
    if axis is not None:
        dim = axis
    tensors = list(tensors) if isinstance(tensors, (tuple, list)) else tensors
    if not isinstance(tensors, Tensor) and not len(tensors):
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    parts = _same_dtype("cat", tensors)
    for i, t in enumerate(parts):
        if t.array.ndim == 0:
            raise RuntimeError(f"zero-dimensional tensor (at position {i}) cannot be concatenated")
    real = [t for t in parts if t.array.shape != (0,)] or parts[:1]
    axis = normal_dim(dim, real[0].array.ndim)
    arrays = [t.array for t in real]
    try:
        y = real[0].device.xp.concatenate(arrays, axis)
    except ValueError:
        raise _cat_error(arrays, axis) from None
    ends = np.cumsum([a.shape[axis] for a in arrays]).tolist()
    made = result(y, real[0], _cat_vjp, tuple(real), (axis, ends))
    return made if out is None else write_out(out, made, "cat")


def _cat_error(arrays: list[Any], axis: int) -> RuntimeError:
    first = arrays[0].shape
    for i, a in enumerate(arrays):
        if a.ndim != len(first):
            return RuntimeError(
                f"Tensors must have same number of dimensions: got {len(first)} and {a.ndim}"
            )
        for d, (m, n) in enumerate(zip(first, a.shape, strict=True)):
            if d != axis and m != n:
                return RuntimeError(
                    f"Sizes of tensors must match except in dimension {axis}. Expected size {m} "
                    f"but got size {n} for tensor number {i} in the list."
                )
    return RuntimeError("cat: the shapes do not fit")


concat = concatenate = cat


@vjp((None,), name="StackBackward0")
def _stack_vjp(g: Any, axis: int) -> Any:
    lead = (slice(None),) * axis
    return tuple(g[(*lead, i)] for i in range(g.shape[axis]))


def stack(tensors: Tensors, dim: int = 0, *, out: Tensor | None = None) -> Tensor:
    """Tensors of one shape along a new dimension.

    RuntimeError where the shapes differ.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.stack.html

    >>> gpunn.stack([gpunn.tensor([1, 2]), gpunn.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    tensors = list(tensors) if isinstance(tensors, (tuple, list)) else tensors
    if not isinstance(tensors, Tensor) and not len(tensors):
        raise RuntimeError("stack expects a non-empty TensorList")
    parts = _same_dtype("stack", tensors)
    first = parts[0].array.shape
    for i, t in enumerate(parts):
        if t.array.shape != first:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(first)} at entry 0 and "
                f"{list(t.array.shape)} at entry {i}"
            )
    axis = normal_dim(dim, len(first) + 1)
    y = parts[0].device.xp.stack([t.array for t in parts], axis)
    made = result(y, parts[0], _stack_vjp, tuple(parts), (axis,))
    return made if out is None else write_out(out, made, "stack")


def _at_least(name: str, ndim: int) -> Any:
    def atleast(*tensors: Any) -> Any:
        if len(tensors) == 1 and isinstance(tensors[0], Tensor):
            return _raise_ndim(tensors[0], ndim)
        if len(tensors) == 1:
            tensors = tuple(tensors[0])
        return tuple(_raise_ndim(t, ndim) for t in tensors)

    from gpunn.ops._rows import document

    document(
        atleast, name, f"Each tensor with at least {ndim} dimensions.",
        f"gpunn.{name}(gpunn.tensor(1)).ndim\n{ndim}", "lower ones get dimensions of length 1",
        "unchanged",
    )  # fmt: skip
    return atleast


def _raise_ndim(x: Tensor, ndim: int) -> Tensor:
    n = x.array.ndim
    if n >= ndim:
        return x
    shape = {
        (0, 1): (1,), (0, 2): (1, 1), (0, 3): (1, 1, 1), (1, 2): (1, -1), (1, 3): (1, -1, 1),
        (2, 3): (*x.array.shape, 1),
    }[n, ndim]  # fmt: skip
    return reshape(x, shape if x.array.size or n == 2 else tuple(x.array.size if s == -1 else s
                                                               for s in shape))  # fmt: skip


atleast_1d, atleast_2d, atleast_3d = (_at_least(f"atleast_{n}d", n) for n in (1, 2, 3))


def _joiner(name: str, raise_to: int, axis: Any, what: str) -> Any:
    def join(tensors: Tensors, *, out: Tensor | None = None) -> Tensor:
        if not len(tensors):
            raise RuntimeError(f"{name} expects a non-empty TensorList")
        parts = [_raise_ndim(t, raise_to) for t in tensors]
        d = axis if axis is not None else (0 if parts[0].array.ndim == 1 else 1)
        return cat(parts, d, out=out)

    from gpunn.ops._rows import document

    document(join, name, f"The tensors joined {what}.",
             f"gpunn.{name}([gpunn.ones(1, 1), gpunn.ones(1, 1)]).numel()\n2",
             "alike but for the joined dimension", "the common one")  # fmt: skip
    return join


hstack = _joiner("hstack", 1, None, "along columns (dimension 1; 0 for vectors)")
vstack = row_stack = _joiner("vstack", 2, 0, "along rows (dimension 0)")
dstack = _joiner("dstack", 3, 2, "along depth (dimension 2)")


def column_stack(tensors: Tensors, *, out: Tensor | None = None) -> Tensor:
    """Vectors as columns, next to matrices.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.column_stack.html

    >>> gpunn.column_stack([gpunn.tensor([1, 2]), gpunn.tensor([3, 4])])
    tensor([[1, 3],
            [2, 4]])
    """
    return hstack([reshape(t, t.numel(), 1) if t.ndim <= 1 else t for t in tensors], out=out)


# --- splitting ----------------------------------------------------------------------------


@method
def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """A view of `length` entries of a dimension from `start`.

    RuntimeError or IndexError where they do not exist.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.narrow.html

    >>> gpunn.narrow(gpunn.arange(5), 0, 1, 2)
    tensor([1, 2])
    """
    start = int(start.item()) if isinstance(start, Tensor) else int(start)
    if input.array.ndim == 0:
        raise RuntimeError("narrow() cannot be applied to a 0-dim tensor.")
    d = normal_dim(dim, input.array.ndim)
    n = input.array.shape[d]
    if length < 0:
        raise RuntimeError("narrow(): length must be non-negative.")
    if not -n <= start <= n:
        raise IndexError(f"Dimension out of range (expected to be in range of [{-n}, {n}], but "
                         f"got {start})")  # fmt: skip
    start = start + n if start < 0 else start
    if start + length > n:
        raise RuntimeError(f"start ({start}) + length ({length}) exceeds dimension size ({n}).")
    return getitem(input, (slice(None),) * d + (slice(start, start + length),))


@method
def narrow_copy(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`narrow` as a copy."""
    return narrow(input, dim, start, length).clone()  # type: ignore[attr-defined]


@method
def select(input: Tensor, dim: int, index: int) -> Tensor:
    """A view of one entry of a dimension, which disappears.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.select.html

    >>> gpunn.select(gpunn.tensor([[1, 2], [3, 4]]), 1, 0)
    tensor([1, 3])
    """
    if input.array.ndim == 0:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    d = normal_dim(dim, input.array.ndim)
    n = input.array.shape[d]
    if not -n <= index < n:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(input.array.shape)} at "
            f"dimension {d}"
        )
    return getitem(input, (slice(None),) * d + (int(index),))


@method
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The entries of a dimension as a tuple of views.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unbind.html

    >>> gpunn.unbind(gpunn.tensor([[1, 2], [3, 4]]))
    (tensor([1, 2]), tensor([3, 4]))
    """
    d = normal_dim(dim, input.array.ndim)
    return tuple(select(input, d, i) for i in range(input.array.shape[d]))


def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of consecutive pieces: of one size (the last may be shorter) or of given sizes.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.split.html

    >>> gpunn.split(gpunn.arange(5), 2)
    (tensor([0, 1]), tensor([2, 3]), tensor([4]))
    """
    if tensor.array.ndim == 0:
        raise RuntimeError("split expects at least a 1-dimensional tensor")
    d = normal_dim(dim, tensor.array.ndim)
    n = tensor.array.shape[d]
    size = split_size_or_sections
    if isinstance(size, (int, np.integer)):
        if size < 0:
            raise RuntimeError(f"split expects split_size be non-negative, but got split_size="
                               f"{size}")  # fmt: skip
        if size == 0 and n:
            raise RuntimeError(f"split_size can only be 0 if dimension size is 0, but got "
                               f"dimension size of {n}")  # fmt: skip
        sizes = [size] * (n // size) + ([n % size] if n % size else []) if n else [0]
    else:
        sizes = [int(s) for s in size]
        if builtins.sum(sizes) != n or any(s < 0 for s in sizes):
            raise RuntimeError(
                f"split_with_sizes expects split_sizes to sum exactly to {n} (input tensor's size "
                f"at dimension {d}), but got split_sizes={sizes}"
            )
    pieces, start = [], 0
    for s in sizes:
        pieces.append(narrow(tensor, d, start, s))
        start += s
    return tuple(pieces)


Tensor.split = split  # type: ignore[attr-defined]


@method
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> Any:
    """`split` into pieces of given sizes."""
    return split(input, list(split_sizes), dim)


@method
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of nearly equal size.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.chunk.html

    >>> gpunn.chunk(gpunn.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if chunks <= 0:
        raise RuntimeError(f"chunk expects `chunks` to be greater than 0, got: {chunks}")
    if input.array.ndim == 0:
        raise RuntimeError("chunk expects at least a 1-dimensional tensor")
    n = input.array.shape[normal_dim(dim, input.array.ndim)]
    size = -(-n // chunks)
    if n == 0:
        return split(input, [0] * chunks, dim)
    return split(input, size, dim)


@method
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of pieces whose sizes differ by at most one, or that end at given indices.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.tensor_split.html

    >>> gpunn.tensor_split(gpunn.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if input.array.ndim == 0:
        raise RuntimeError("tensor_split expected at least a 1-dimensional tensor, but got a "
                           "tensor with 0 dims")  # fmt: skip
    cuts = indices_or_sections
    if isinstance(cuts, Tensor):
        cuts = cuts.tolist()
    d = normal_dim(dim, input.array.ndim)
    n = input.array.shape[d]
    if isinstance(cuts, int):
        if cuts <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {cuts}")
        sizes = [n // cuts + (i < n % cuts) for i in range(cuts)]
        return split(input, sizes, d)
    edges = [slice(a, b).indices(n)[:2] for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    return tuple(narrow(input, d, a, max(b - a, 0)) for a, b in edges)


def _directed_split(name: str, axis: int, least: int) -> Any:
    def split_along(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
        if input.array.ndim < least:
            raise RuntimeError(
                f"torch.{name} requires a tensor with at least {least} dimension"
                f"{'s' if least > 1 else ''}, but got a tensor with {input.array.ndim} dimensions!"
            )
        d = 0 if input.array.ndim == 1 else axis
        n = input.array.shape[d]
        if isinstance(indices_or_sections, int) and (
            indices_or_sections <= 0 or n % indices_or_sections
        ):
            raise RuntimeError(
                f"torch.{name} attempted to split along dimension {d}, but the size of the "
                f"dimension {n} is not divisible by the split_size {indices_or_sections}!"
            )
        return tensor_split(input, indices_or_sections, d)

    from gpunn.ops._rows import document

    document(split_along, name, f"`tensor_split` along dimension {axis}.",
             f"len(gpunn.{name}(gpunn.zeros(2, 2, 2), 2))\n2", "any", "any")  # fmt: skip
    return split_along


hsplit = _directed_split("hsplit", 1, 1)
vsplit = _directed_split("vsplit", 0, 2)
dsplit = _directed_split("dsplit", 2, 3)


# --- rearranging --------------------------------------------------------------------------


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from start_dim to end_dim as one.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.flatten.html

    >>> gpunn.flatten(gpunn.zeros(2, 3, 4), 1).shape
    torch.Size([2, 12])
    """
    shape = input.array.shape
    if not shape:
        return reshape(input, 1)
    a, b = normal_dim(start_dim, len(shape)), normal_dim(end_dim, len(shape))
    if a > b:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if a == b:
        return input
    return reshape(input, *shape[:a], int(np.prod(shape[a : b + 1])), *shape[b + 1 :])


def ravel(input: Tensor) -> Tensor:
    """The elements in one dimension, in C order.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.ravel.html

    >>> gpunn.ravel(gpunn.zeros(2, 3)).shape
    torch.Size([6])
    """
    return reshape(input, -1 if input.array.size else 0)


def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """One dimension spread over several; one size may be -1.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unflatten.html

    >>> gpunn.unflatten(gpunn.zeros(2, 12), 1, (3, -1)).shape
    torch.Size([2, 3, 4])
    """
    from gpunn.ops.views import infer

    sizes = tuple(int(s) for s in sizes)
    if not sizes:
        raise RuntimeError("unflatten: sizes must be non-empty")
    d = normal_dim(dim, input.array.ndim)
    shape = input.array.shape
    try:
        spread = infer(sizes, shape[d])
    except RuntimeError:
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {d} "
            f"({shape[d]}) in the input tensor"
        ) from None
    return reshape(input, *shape[:d], *spread, *shape[d + 1 :])


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """A view with dimensions moved to other places; the rest keep their order.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.movedim.html

    >>> gpunn.movedim(gpunn.zeros(2, 3, 4), 0, 2).shape
    torch.Size([3, 4, 2])
    """
    src = (source,) if isinstance(source, int) else tuple(source)
    dst = (destination,) if isinstance(destination, int) else tuple(destination)
    n = input.array.ndim
    if len(src) != len(dst):
        raise RuntimeError(
            "movedim: Invalid source or destination dims: source "
            f"({list(src)} dims) should contain the same number of dims as destination "
            f"({list(dst)} dims)"
        )
    src, dst = tuple(normal_dim(d, n) for d in src), tuple(normal_dim(d, n) for d in dst)
    for what, dims in (("source", src), ("destination", dst)):
        if len(set(dims)) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{what}` ({list(dims)})")
    order = [d for d in range(n) if d not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return permute(input, order) if n else input.view(())  # type: ignore[attr-defined]


moveaxis = movedim


def tile(input: Tensor, *dims: Any) -> Tensor:
    """The tensor repeated along its dimensions; missing counts are 1.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.tile.html

    >>> gpunn.tile(gpunn.tensor([1, 2]), (2,))
    tensor([1, 2, 1, 2])
    """
    counts = int_list(dims)
    return repeat(input, (1,) * max(input.array.ndim - len(counts), 0) + counts)


def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """The tensor repeated along its dimensions; extra counts make dimensions in front."""
    counts = int_list(repeats)
    extra = len(counts) - input.array.ndim
    if extra < 0:
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of "
            "tensor"
        )
    if any(c < 0 for c in counts):
        raise RuntimeError(f"Trying to create tensor with negative dimension: {list(counts)}")
    shape = (1,) * extra + input.array.shape
    pairs = [n for c, s in zip(counts, shape, strict=True) for n in (1, s)]
    wide = [n for c, s in zip(counts, shape, strict=True) for n in (c, s)]
    final = tuple(c * s for c, s in zip(counts, shape, strict=True))
    out = reshape(expand(reshape(input, pairs), wide), final)
    return out.clone() if out._base is not None else out  # type: ignore[attr-defined]


@vjp((None, None, None), name="RepeatInterleaveBackward0")
def _repeat_interleave_vjp(g: Any, owner: Any, axis: int, shape: Any) -> Any:
    key = (slice(None),) * axis + (owner,)
    if isinstance(g, Tensor):
        from gpunn.ops.index import put

        return put(g.new_zeros(shape), key, g, True)  # type: ignore[attr-defined]
    from gpunn.ops.index import add_at

    whole = ns(g).zeros(shape, g.dtype)
    add_at(whole, key, g)
    return whole


def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each entry repeated, next to itself: `repeats` times, or as often as its own count says.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.repeat_interleave.html

    >>> gpunn.repeat_interleave(gpunn.tensor([1, 2]), 2)
    tensor([1, 1, 2, 2])
    """
    xp = input.device.xp
    if repeats is None:
        counts = input.array
        return wrap(xp.repeat(xp.arange(counts.size), counts), input.device)
    if dim is None:
        input, dim = flatten(input), 0
    axis = normal_dim(dim, input.array.ndim)
    n = input.array.shape[axis] if input.array.ndim else 1
    counts = repeats.array if isinstance(repeats, Tensor) else xp.asarray(repeats)
    if counts.dtype.kind not in "iu":
        raise RuntimeError("repeats has to be Long or Int tensor")
    if (counts < 0).any():
        raise RuntimeError("repeats can not be negative")
    if counts.ndim > 1:
        raise RuntimeError("repeat_interleave only accept 1D vector as repeat")
    if counts.size not in (1, n):
        raise RuntimeError(
            f"repeats must have the same size as input along dim, but got repeats.size(0) = "
            f"{counts.size} and input.size({axis}) = {n}"
        )
    owner = xp.repeat(xp.arange(n), counts if counts.size == n else int(counts.reshape(-1)[0]))
    source = input if input.array.ndim else reshape(input, 1)
    y = source.array.take(owner, axis)
    saved = (owner, axis, source.array.shape)
    return result(y, source, _repeat_interleave_vjp, (source,), saved)


@vjp((None,))
def _flip_vjp(g: Any, axes: tuple[int, ...]) -> Any:
    return flip(g, axes) if isinstance(g, Tensor) else ns(g).flip(g, axes)


def flip(input: Tensor, *dims: Any) -> Tensor:
    """A copy with the order along `dims` reversed.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.flip.html

    >>> gpunn.flip(gpunn.arange(3), (0,))
    tensor([2, 1, 0])
    """
    n = input.array.ndim
    axes = tuple(normal_dim(d, n) for d in int_list(dims))
    if len(set(axes)) != len(axes):
        twice = next(a for a in axes if axes.count(a) > 1)
        raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
    y = input.device.xp.flip(input.array, axes).copy() if n else input.array.copy()
    return result(y, input, _flip_vjp, (input,), (axes if n else (),))


def fliplr(input: Tensor) -> Tensor:
    """A copy with dimension 1 reversed."""
    if input.array.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """A copy with dimension 0 reversed."""
    if input.array.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return flip(input, 0)


@vjp((None, None))
def _roll_vjp(g: Any, shifts: tuple[int, ...], axes: Any) -> Any:
    back = tuple(-s for s in shifts)
    if isinstance(g, Tensor):
        return roll(g, back, axes)
    return ns(g).roll(g, back if axes else back[0], axes or None)


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """A copy whose entries moved along `dims`, the last ones coming back at the front.

    Without dims the tensor is rolled as if it were flat.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.roll.html

    >>> gpunn.roll(gpunn.arange(3), 1)
    tensor([2, 0, 1])
    """
    moves = int_list((shifts,))
    axes = () if dims is None else int_list((dims,))
    if not moves:
        raise RuntimeError("`shifts` required")
    if len(moves) != (len(axes) or 1):
        raise RuntimeError(
            f"shifts and dimensions must align. shifts: {len(moves)}, dims:{len(axes)}"
        )
    for d in axes:
        normal_dim(d, input.array.ndim)
    if input.array.ndim == 0:
        return input.clone()  # type: ignore[attr-defined]
    xp = input.device.xp
    y = xp.roll(input.array, moves if axes else moves[0], axes or None)
    return result(y, input, _roll_vjp, (input,), (moves, axes))


def rot90(input: Tensor, k: int = 1, dims: Any = (0, 1)) -> Tensor:
    """A copy turned by 90 degrees k times in the plane of two dimensions.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.rot90.html

    >>> gpunn.rot90(gpunn.tensor([[1, 2], [3, 4]]))
    tensor([[2, 4],
            [1, 3]])
    """
    n = input.array.ndim
    if len(dims) != 2:
        raise RuntimeError(f"expected total rotation dims == 2, but got dims = {len(dims)}")
    if n < 2:
        raise RuntimeError(f"expected total dims >= 2, but got total dims = {n}")
    a, b = (normal_dim(d, n) for d in dims)
    if a == b:
        raise RuntimeError(f"expected rotation dims to be different, but got dim0 = {dims[0]} and "
                           f"dim1 = {dims[1]}")  # fmt: skip
    turns = {
        0: lambda x: x.clone(),
        1: lambda x: flip(x, b).transpose(a, b).contiguous(),
        2: lambda x: flip(x, a, b),
        3: lambda x: flip(x, a).transpose(a, b).contiguous(),
    }
    return turns[k % 4](input)


@vjp((None, None, None))
def _diagonal_vjp(g: Any, shape: Any, offset: int, axes: tuple[int, int]) -> Any:
    if isinstance(g, Tensor):
        return diagonal_scatter(g.new_zeros(shape), g, offset, *axes)  # type: ignore[attr-defined]
    whole = ns(g).zeros(shape, g.dtype)
    _diagonal_of(whole, offset, axes)[...] = g
    return whole


def _diagonal_of(x: Any, offset: int, axes: tuple[int, int]) -> Any:
    """The diagonal as a writeable view: NumPy's own is read-only."""
    a, b = axes
    m, n = x.shape[a], x.shape[b]
    length = max(min(m, n - offset) if offset >= 0 else min(m + offset, n), 0)
    start = [slice(None)] * x.ndim
    start[a] = slice(max(-offset, 0) if length else 0, None)
    start[b] = slice(max(offset, 0) if length else 0, None)
    inner = x[tuple(start)]
    rest = [i for i in range(x.ndim) if i not in axes]
    shape = (*(x.shape[i] for i in rest), length)
    steps = (*(x.strides[i] for i in rest), x.strides[a] + x.strides[b])
    return ns(x).lib.stride_tricks.as_strided(inner, shape, steps)


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of the diagonal of two dimensions, as a new last dimension.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.diagonal.html

    >>> gpunn.diagonal(gpunn.tensor([[1, 2], [3, 4]]))
    tensor([1, 4])
    """
    n = input.array.ndim
    axes = (normal_dim(dim1, n), normal_dim(dim2, n))
    if axes[0] == axes[1]:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    y = _diagonal_of(input.array, offset, axes)
    return view(y, input, _diagonal_vjp, (input.array.shape, offset, axes))


def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """A copy of input with `src` on a diagonal.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.diagonal_scatter.html

    >>> gpunn.diagonal_scatter(gpunn.zeros(2, 2), gpunn.ones(2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    out = input.clone()  # type: ignore[attr-defined]
    part = diagonal(out, offset, dim1, dim2)
    if part.shape != src.shape:
        raise RuntimeError(
            f"expected src to have a size equal to the slice of self. src size = "
            f"{list(src.shape)}, slice size = {list(part.shape)}"
        )
    part.copy_(src)  # type: ignore[attr-defined]
    return out


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that several shapes broadcast to; RuntimeError where there is none.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.broadcast_shapes.html

    >>> gpunn.broadcast_shapes((2, 1), (3,))
    torch.Size([2, 3])
    """
    plain = [(s,) if isinstance(s, int) else tuple(s) for s in shapes]
    try:
        return Size(np.broadcast_shapes(*plain))
    except ValueError:
        raise RuntimeError(
            f"Shape mismatch: objects cannot be broadcast to a single shape: {plain}"
        ) from None


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.broadcast_tensors.html

    >>> [t.shape for t in gpunn.broadcast_tensors(gpunn.ones(2, 1), gpunn.ones(3))]
    [torch.Size([2, 3]), torch.Size([2, 3])]
    """
    from gpunn.ops._rows import size_error

    if len(tensors) == 1 and not isinstance(tensors[0], Tensor):
        tensors = tuple(tensors[0])
    shape: Any = ()
    for t in tensors:
        try:
            shape = np.broadcast_shapes(shape, t.array.shape)
        except ValueError:
            raise size_error(shape, t.array.shape) from None
    return tuple(expand(t, shape) for t in tensors)


__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_shapes", "broadcast_tensors", "cat",
    "chunk", "column_stack", "concat", "concatenate", "diagonal", "diagonal_scatter", "dsplit",
    "dstack", "flatten", "flip", "fliplr", "flipud", "hsplit", "hstack", "moveaxis", "movedim",
    "narrow", "narrow_copy", "ravel", "repeat_interleave", "roll", "rot90", "row_stack", "select",
    "split", "split_with_sizes", "stack", "tensor_split", "tile", "unbind", "unflatten", "vsplit",
    "vstack",
]  # fmt: skip
for _f in (flatten, ravel, unflatten, movedim, moveaxis, tile, repeat, repeat_interleave, flip,
           fliplr, flipud, roll, rot90, diagonal, diagonal_scatter, hsplit, vsplit, dsplit):  # fmt: skip
    method(_f)
