"""Rearranging the elements of one tensor, repeating them, and common shapes of several."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, unbroadcast, view, vjp
from gpunn.ops._rows import refusal, same_device, size_error
from gpunn.ops.accumulate import add_at
from gpunn.ops.index import put
from gpunn.ops.reduce import sum_array
from gpunn.ops.strided import Place, lay, place_of, read_vjp
from gpunn.ops.views import expand, infer, int_list, permute, reshape, view_
from gpunn.tensor import Size, Tensor, address, method, normal_dim, root, wrap

# --- dimensions together, apart, and elsewhere --------------------------------------------


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The dimensions from start_dim to end_dim as one.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.flatten.html

    >>> gpunn.flatten(gpunn.zeros(2, 3, 4), 1).shape
    torch.Size([2, 12])
    """
    shape = input.array.shape
    n = len(shape)
    if not n:
        return reshape(input, 1)
    if start_dim == 0 and end_dim == -1:
        return reshape(input, -1 if input.array.size else 0) if n > 1 else input
    a, b = normal_dim(start_dim, n), normal_dim(end_dim, n)
    if a > b:
        raise RuntimeError("flatten() has invalid args: start_dim cannot come after end_dim")
    if a == b:
        return input
    return reshape(input, (*shape[:a], math.prod(shape[a : b + 1]), *shape[b + 1 :]))


def ravel(input: Tensor) -> Tensor:
    """The elements in one dimension, in C order: a view where they lie in that order.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.ravel.html

    >>> gpunn.ravel(gpunn.zeros(2, 3)).shape
    torch.Size([6])
    """
    return view_(input.contiguous(), input.array.size)  # type: ignore[attr-defined]


def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """One dimension spread over several; one size may be -1.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.unflatten.html

    >>> gpunn.unflatten(gpunn.zeros(2, 12), 1, (3, -1)).shape
    torch.Size([2, 3, 4])
    """
    sizes = int_list((sizes,))
    if not sizes:
        raise RuntimeError("unflatten: sizes must be non-empty")
    shape = input.array.shape
    d = normal_dim(dim, len(shape))
    try:
        spread = infer(sizes, shape[d] if shape else 1)
    except RuntimeError as error:
        if "only one dimension" in str(error):
            raise
        raise RuntimeError(
            f"unflatten: Provided sizes {list(sizes)} don't multiply up to the size of dim {d} "
            f"({shape[d] if shape else 1}) in the input tensor"
        ) from None
    return view_(input, (*shape[:d], *spread, *shape[d + 1 :]))


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """A view with dimensions moved to other places; the rest keep their order.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.movedim.html

    >>> gpunn.movedim(gpunn.zeros(2, 3, 4), 0, 2).shape
    torch.Size([3, 4, 2])
    """
    src, dst = int_list((source,)), int_list((destination,))
    n = input.array.ndim
    if len(src) != len(dst):
        raise RuntimeError(
            f"movedim: Invalid source or destination dims: source ({list(src)} dims) should "
            f"contain the same number of dims as destination ({list(dst)} dims)"
        )
    for what, dims in (("source", src), ("destination", dst)):
        if len({normal_dim(d, n) for d in dims}) != len(dims):
            raise RuntimeError(f"movedim: repeated dim in `{what}` ({list(dims)})")
    src, dst = tuple(normal_dim(d, n) for d in src), tuple(normal_dim(d, n) for d in dst)
    order = [d for d in range(n) if d not in src]
    for d, s in sorted(zip(dst, src, strict=True)):
        order.insert(d, s)
    return permute(input, order) if n else view_(input, ())


moveaxis = movedim


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """A view of all windows of `size` entries of a dimension, `step` apart, as a new last one.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.unfold.html

    >>> gpunn.arange(5).unfold(0, 3, 2)
    tensor([[0, 1, 2],
            [2, 3, 4]])
    """
    x = input.array
    d = normal_dim(dimension, x.ndim)
    shape, steps = list(x.shape), [s // x.itemsize for s in x.strides]
    n, along = (shape[d], steps[d]) if shape else (1, 1)
    if size < 0:
        raise RuntimeError(f"size is {size} but must be >= 0")
    if size > n:
        raise RuntimeError(f"maximum size for tensor at dimension {d} is {n} but size is {size}")
    if step <= 0:
        raise RuntimeError(f"step is {step} but must be > 0")
    if shape:
        shape[d], steps[d] = (n - size) // step + 1, along * step
    place = Place((*shape, size), (*steps, along), 0)
    return view(lay(x, place), input, unfold_vjp, (place, place_of(x)))


@vjp((None, None))
def unfold_vjp(g: Any, place: Place, origin: Place) -> Any:
    """The gradient of `unfold`: overlapping windows add up."""
    return read_vjp(g, place, origin)


# --- repeating ----------------------------------------------------------------------------


def tile(input: Tensor, *repeats: Any, dims: Any = None) -> Tensor:
    """The tensor repeated along its dimensions; missing counts are 1.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.tile.html

    >>> gpunn.tile(gpunn.tensor([1, 2]), (2,))
    tensor([1, 2, 1, 2])
    """
    counts = int_list(repeats if dims is None else (dims,))
    return repeat(input, (1,) * max(input.array.ndim - len(counts), 0) + counts)


@vjp((None, None, None))
def _repeat_vjp(g: Any, wide: Any, axes: tuple[int, ...], shape: Any) -> Any:
    wide = g.reshape(wide)
    total = wide.sum(axis=axes) if isinstance(g, Tensor) else sum_array(wide, axes)
    return total.reshape(shape)


@method
def repeat(input: Tensor, *size: Any, repeats: Any = None) -> Tensor:
    """The tensor repeated along its dimensions; extra counts make dimensions in front.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.repeat.html

    >>> gpunn.tensor([1, 2]).repeat(2, 2)
    tensor([[1, 2, 1, 2],
            [1, 2, 1, 2]])
    """
    x = input.array
    counts = int_list(size if repeats is None else (repeats,))
    extra = len(counts) - x.ndim
    if extra < 0:
        raise RuntimeError(
            "Number of dimensions of repeat dims can not be smaller than number of dimensions of "
            "tensor"
        )
    shape = (1,) * extra + x.shape
    final = tuple(c * n for c, n in zip(counts, shape, strict=True))
    for n in final:
        if n < 0:
            raise RuntimeError(
                f"Trying to create tensor with negative dimension {n}: {list(final)}"
            )
    wide = tuple(k for c, n in zip(counts, shape, strict=True) for k in (c, n))
    y = input.device.xp.empty(wide, x.dtype)
    y[...] = x.reshape(tuple(k for n in shape for k in (1, n)))
    axes = tuple(range(0, len(wide), 2))
    return result(y.reshape(final), input, _repeat_vjp, (input,), (wide, axes, x.shape))


@vjp((None, None, None))
def _repeat_interleave_vjp(g: Any, owner: Any, axis: int, shape: Any) -> Any:
    key = (*[slice(None)] * axis, owner)
    if isinstance(g, Tensor):
        return put(g.new_zeros(shape), key, g, True)  # type: ignore[attr-defined]
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
        counts = _counts(input.array, input.array.size)
        return wrap(xp.repeat(xp.arange(counts.size), counts), input.device)
    if dim is None:
        input, dim = flatten(input), 0
    source = input if input.array.ndim else reshape(input, 1)
    axis = normal_dim(dim, source.array.ndim)
    n = source.array.shape[axis]
    if isinstance(repeats, Tensor):
        same_device("repeat_interleave", (input, repeats))
        counts = _counts(repeats.array, n, axis)
        counts = counts if counts.size == n else int(counts.reshape(-1)[0])
    else:
        counts = int(repeats)
        if counts < 0:
            raise RuntimeError("Repeats must be non-negative")
    owner = xp.repeat(xp.arange(n), counts)
    if output_size is not None and output_size != owner.size:
        raise RuntimeError(
            f"allocated size does not match required size: output_size={output_size}, but the "
            f"repeats add up to {owner.size}"
        )
    y = source.array.take(owner, axis)
    return result(y, source, _repeat_interleave_vjp, (source,), (owner, axis, source.array.shape))


def _counts(a: Any, n: int, axis: int = 0) -> Any:
    """The repeats of each entry, checked; a raw array."""
    if a.ndim > 1:
        raise RuntimeError("repeat_interleave only accept 1D vector as repeat")
    if a.dtype.kind != "i" or a.dtype.itemsize < 4:
        raise refusal("repeat_interleave", a.dtype)
    if a.size not in (1, n):
        raise RuntimeError(
            f"repeats must have the same size as input along dim, but got repeats.size(0) = "
            f"{a.size} and input.size({axis}) = {n}"
        )
    if (a < 0).any():
        raise RuntimeError("repeats can not be negative")
    return a


# --- another order of elements ------------------------------------------------------------


@vjp((None,))
def _flip_vjp(g: Any, axes: tuple[int, ...]) -> Any:
    return flip(g, axes) if isinstance(g, Tensor) else ns(g).flip(g, axes)


def flip(input: Tensor, *axes: Any, dims: Any = None) -> Tensor:
    """A copy with the order along `dims` reversed.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.flip.html

    >>> gpunn.flip(gpunn.arange(3), (0,))
    tensor([2, 1, 0])
    """
    if not axes and dims is None:
        raise TypeError('flip() missing 1 required positional arguments: "dims"')
    x = input.array
    n = x.ndim
    wanted = [normal_dim(d, n) for d in int_list(axes if dims is None else (dims,))]
    twice = next((d for d in wanted if wanted.count(d) > 1), None)
    if twice is not None:
        raise RuntimeError(f"dim {twice} appears multiple times in the list of dims")
    backwards, same = slice(None, None, -1), slice(None)
    y = x[tuple(backwards if d in wanted else same for d in range(n))].copy() if n else x.copy()
    return result(y, input, _flip_vjp, (input,), (tuple(wanted) if n else (),))


def fliplr(input: Tensor) -> Tensor:
    """A copy with dimension 1 reversed.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.fliplr.html

    >>> gpunn.fliplr(gpunn.tensor([[1, 2]]))
    tensor([[2, 1]])
    """
    if input.array.ndim < 2:
        raise RuntimeError("Input must be >= 2-d.")
    return flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """A copy with dimension 0 reversed.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.flipud.html

    >>> gpunn.flipud(gpunn.tensor([1, 2]))
    tensor([2, 1])
    """
    if input.array.ndim < 1:
        raise RuntimeError("Input must be >= 1-d.")
    return flip(input, 0)


@vjp((None, None))
def _roll_vjp(g: Any, shifts: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    back = tuple(-s for s in shifts)
    return roll(g, back, axes) if isinstance(g, Tensor) else _rolled(g, back, axes)


def _rolled(x: Any, shifts: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """np.roll on a raw array, without its overhead; flat where there are no axes."""
    if not axes:
        return _rolled(x.reshape(-1), shifts, (0,)).reshape(x.shape)
    for shift, axis in zip(shifts, axes, strict=True):
        d = axis % x.ndim
        lead, cut = (slice(None),) * d, -shift % x.shape[d]
        parts = x[(*lead, slice(cut, None))], x[(*lead, slice(0, cut))]
        x = ns(x).concatenate(parts, d)
    return x


def roll(input: Tensor, shifts: Any, dims: Any = ()) -> Tensor:
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
    x = input.array
    for d in axes:
        normal_dim(d, x.ndim)
        if not x.ndim:
            raise IndexError(f"Dimension specified as {d} but tensor has no dimensions")
    if x.ndim == 0 or x.size == 0:
        return input.clone()  # type: ignore[attr-defined]
    y = _rolled(x, moves, axes)
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
    if dims[0] == dims[1] or abs(dims[0] - dims[1]) == n:
        raise RuntimeError(
            f"expected rotation dims to be different, but got dim0 = {dims[0]} and dim1 = {dims[1]}"
        )
    a, b = (normal_dim(d, n) for d in dims)
    turns: dict[int, Callable[[Any], Tensor]] = {
        0: lambda x: x.clone(),
        1: lambda x: flip(x, b).transpose(a, b),  # type: ignore[attr-defined]
        2: lambda x: flip(x, a, b),
        3: lambda x: flip(x, a).transpose(a, b),  # type: ignore[attr-defined]
    }
    return turns[k % 4](input)


# --- other memory -------------------------------------------------------------------------


@method
def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Gives this tensor another shape in place: its memory read in C order from where it starts,
    or larger memory that begins with the old one. What is new there is not initialised.

    RuntimeError where it requires a gradient.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.resize_.html

    >>> gpunn.tensor([[1, 2], [3, 4]]).resize_(3)
    tensor([1, 2, 3])
    """
    if self._requires_grad:
        raise RuntimeError("cannot resize variables that require grad")
    shape = int_list(sizes)
    if any(n < 0 for n in shape):
        raise RuntimeError(f"Trying to create tensor with negative dimension: {list(shape)}")
    x = self.array
    if x.shape == shape:
        return self
    owner = root(x)
    start, size = address(x) - address(owner), x.itemsize
    if start + math.prod(shape) * size <= owner.nbytes:
        steps = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        self.array = lay(x, Place(shape, steps, 0))
        return self
    held = lay(x, Place(((owner.nbytes - start) // size,), (1,), 0))
    larger = ns(x).empty(math.prod(shape), x.dtype)
    larger[: held.size] = held
    self.array, self._base = larger.reshape(shape), None
    return self


@method
def resize_as_(self: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """`resize_` to the shape of another tensor.

    >>> gpunn.tensor([1, 2]).resize_as_(gpunn.zeros(1))
    tensor([1])
    """
    return resize_(self, the_template.array.shape)


# --- common shapes ------------------------------------------------------------------------


def broadcast_shapes(*shapes: Any) -> Size:
    """The shape that several shapes broadcast to; RuntimeError where there is none.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.broadcast_shapes.html

    >>> gpunn.broadcast_shapes((2, 1), (3,))
    torch.Size([2, 3])
    """
    common: list[Any] = []
    for k, shape in enumerate(shapes):
        plain = [shape] if isinstance(shape, (int, np.integer)) else list(shape)
        if any(isinstance(n, str) or not hasattr(n, "__index__") for n in plain):
            raise RuntimeError(
                "Input shapes should be of type ints, a tuple of ints, or a list of ints, got "
                f"{shape!r}"
            )
        common = [1] * (len(plain) - len(common)) + common
        for i in range(-1, -1 - len(plain), -1):
            if plain[i] < 0:
                raise ValueError("Attempting to broadcast a dimension with negative length!")
            if plain[i] != 1 and common[i] not in (1, plain[i]):
                raise RuntimeError(
                    "Shape mismatch: objects cannot be broadcast to a single shape. Attempting to "
                    f"broadcast a dimension of length {plain[i]} at {i}! Mismatching argument at "
                    f"index {k} had {shape}; but expected shape should be broadcastable to "
                    f"{common}"
                )
            common[i] = plain[i] if common[i] == 1 else common[i]
    return Size(common)


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.broadcast_tensors.html

    >>> [t.shape for t in gpunn.broadcast_tensors(gpunn.ones(2, 1), gpunn.ones(3))]
    [torch.Size([2, 3]), torch.Size([2, 3])]
    """
    if len(tensors) == 1 and not isinstance(tensors[0], Tensor):
        tensors = tuple(tensors[0])
    shape: Any = ()
    for t in tensors:
        try:
            shape = np.broadcast_shapes(shape, t.array.shape)
        except ValueError:
            raise size_error(shape, t.array.shape) from None
    return tuple(expand(t, shape) for t in tensors)


@method
def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """The sum over the dimensions that broadcasting from `size` would have added or repeated.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.sum_to_size.html

    >>> gpunn.ones(2, 3).sum_to_size(1, 3)
    tensor([[2., 2., 2.]])
    """
    wanted, have = int_list(size), input.array.shape
    if not wanted:
        return input.sum()  # type: ignore[attr-defined]
    new = len(have) - len(wanted)
    if new < 0 or any(n not in (1, m) for n, m in zip(wanted, have[new:], strict=True)):
        raise RuntimeError(f"size {{{list(wanted)}}} is not expandable to size {{{list(have)}}}.")
    return unbroadcast(input, wanted)


__all__ = [
    "broadcast_shapes", "broadcast_tensors", "flatten", "flip", "fliplr", "flipud", "moveaxis",
    "movedim", "ravel", "repeat_interleave", "resize_as_", "roll", "rot90", "tile", "unflatten",
]  # fmt: skip
for _f in (flatten, ravel, unflatten, movedim, tile, unfold, repeat_interleave, flip, fliplr,
           flipud, roll, rot90):  # fmt: skip
    method(_f)
Tensor.moveaxis = moveaxis  # type: ignore[attr-defined]
