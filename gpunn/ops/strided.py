"""Memory read and written by shape, strides and offset, and writing through views.

A view remembers the base that owns its memory. When base or view is changed in place while
gradients are recorded, the base gets a node for the write (`_write_vjp`), and every live view gets
a new node that reads it from the base again, by its place in the base's memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpunn.autograd.graph import Node, check_inplace, result, vertex, view, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.tensor import Tensor, address, method, root, wrap

# --- places -------------------------------------------------------------------------------


class Place(NamedTuple):
    """Where a view lies in memory, counted in elements from the first element of its base."""

    shape: tuple[int, ...]
    steps: tuple[int, ...]
    offset: int
    halves: bool = False  # the base is complex, the view real: it counts real numbers

    def reach(self) -> tuple[int, int]:
        """The lowest position in elements of the base, and the one after the highest."""
        if 0 in self.shape:
            return 0, 0
        ends = [(n - 1) * s for n, s in zip(self.shape, self.steps, strict=True)]
        low = self.offset + sum(e for e in ends if e < 0)
        high = self.offset + sum(e for e in ends if e > 0)
        return (low // 2, high // 2 + 1) if self.halves else (low, high + 1)

    def overlaps(self) -> bool:
        """Whether two indices may name the same element."""
        return overlapping(self.shape, self.steps, 0)


def overlapping(shape: tuple[int, ...], steps: tuple[int, ...], least: int) -> bool:
    """Whether elements may share memory along dimensions whose steps are at least `least`."""
    reach = 0
    for step, n in sorted(zip(map(abs, steps), shape, strict=True)):
        if n > 1 and step >= least:
            if step <= reach:
                return 0 not in shape
            reach += step * (n - 1)
    return False


SMALL = 65_536  # bytes
Outline = tuple[Any, ...]  # (shape, strides in bytes, dtype, address), or (array,)


def outline(a: Any, small: bool) -> Outline:
    """What `place_in` needs of an array. To ask NumPy for an address takes longer than all else
    here: a small array stands for itself until then, a large one must not be kept alive."""
    return (a,) if small else (a.shape, a.strides, a.dtype, address(a))


def place_in(part: Outline, base: Outline) -> Place:
    """Where a view lies in the memory of its base."""
    (shape, strides, dtype, first), (_, _, whole, start) = (
        outline(o[0], False) if len(o) == 1 else o for o in (part, base)
    )
    size = dtype.itemsize
    steps = tuple(s // size for s in strides)
    return Place(shape, steps, (first - start) // size, dtype != whole)


def place_of(a: Any) -> Place:
    """How an array lies in memory, counted from its first element."""
    size = a.itemsize
    return Place(a.shape, tuple(s // size for s in a.strides), 0)


def _check_dtypes(part: Any, base: Any) -> None:
    """RuntimeError for views that read their base in another dtype, but for complex parts."""
    if part.dtype is base.dtype or part.dtype == base.dtype:
        return
    if base.dtype.kind != "c" or part.dtype.kind != "f" or base.itemsize != 2 * part.itemsize:
        raise RuntimeError(
            f"in-place changes of a {part.dtype} view of {base.dtype} memory cannot be recorded "
            "for gradients; change the base, or work under gpunn.no_grad()"
        )


def at(flat: Any, place: Place, low: int = 0) -> Any:
    """A place in contiguous memory whose first element is at position `low`, as a view."""
    xp = ns(flat)
    if place.halves:
        flat, low = flat.view(flat.real.dtype), 2 * low
    if 0 in place.shape:
        return xp.empty(place.shape, flat.dtype)
    size = flat.itemsize
    strides, offset = tuple(s * size for s in place.steps), place.offset - low
    if xp is np:
        return np.ndarray(place.shape, flat.dtype, flat, offset * size, strides)
    return xp.lib.stride_tricks.as_strided(flat[offset:], place.shape, strides)


def positions(place: Place, low: int = 0) -> np.ndarray:
    """The position of each element of a place."""
    found = np.full(place.shape, place.offset - low, np.int64)
    for axis, (n, step) in enumerate(zip(place.shape, place.steps, strict=True)):
        along = np.arange(n, dtype=np.int64) * step
        found += along.reshape((-1,) + (1,) * (len(place.shape) - 1 - axis))
    return found


def _range(*places: Place) -> tuple[int, int]:
    """The position of the first element that the places reach, and the count to the last."""
    ends = [p.reach() for p in places]
    low = min(a for a, _ in ends)
    return low, max(b for _, b in ends) - low


def _add(flat: Any, values: Any, place: Place, low: int) -> None:
    """Adds values at a place where elements may overlap."""
    from gpunn.ops.index import add_at

    *_, n = place.shape
    thin = Place(place.shape[:-1], place.steps[:-1], place.offset, place.halves)
    if n <= 64 and not thin.overlaps():  # windows: one element of each at a time
        for k in range(n):
            there = thin._replace(offset=place.offset + k * place.steps[-1])
            at(flat, there, low)[...] += values[..., k]
        return
    if place.halves:
        flat, low = flat.view(flat.real.dtype), 2 * low
    xp = ns(flat)
    where = positions(place, low).reshape(-1)
    add_at(flat, (where if xp is np else xp.asarray(where),), values.reshape(-1))


def _share(g: Any, origin: Place, low: int, count: int) -> Any:
    """g divided among the elements of origin that lie in one place in memory."""
    counts = np.bincount(positions(origin, low).reshape(-1), minlength=count)
    return g / ns(g).asarray(counts[positions(origin, low)].astype(g.dtype))


def _laid(g: Any, origin: Place, low: int, count: int) -> Any:
    """Memory that holds g where origin says, and zeros elsewhere."""
    flat = ns(g).zeros(count, g.dtype)
    if origin.overlaps():
        _add(flat, _share(g, origin, low, count), origin, low)
    else:
        at(flat, origin, low)[...] = g
    return flat


# --- reading and writing a place, and their gradients -------------------------------------


def read_place(x: Any, place: Place, origin: Place) -> Any:
    """The elements at a place of an array that lies in memory as origin says."""
    low, count = _range(place, origin)
    return at(_laid(x, origin, low, count), place, low).copy()


def add_place(g: Any, place: Place, origin: Place) -> Any:
    """The transpose of `read_place`: g added up at its place, in the shape of origin."""
    low, count = _range(place, origin)
    dtype = np.result_type(g.dtype, np.complex64) if place.halves else g.dtype
    flat = ns(g).zeros(count, dtype)
    if place.overlaps():
        _add(flat, g, place, low)
    else:
        at(flat, place, low)[...] = g
    whole = at(flat, origin, low)
    return _share(whole, origin, low, count) if origin.overlaps() else whole


@vjp((None, None), name="AsStridedBackward0")
def read_vjp(g: Any, place: Place, origin: Place) -> Any:
    """The gradient of reading a place: g there, zeros elsewhere; what overlaps adds up."""
    if isinstance(g, Tensor):
        return result(add_place(g.array, place, origin), g, _add_vjp, (g,), (place, origin))
    return add_place(g, place, origin)


@vjp((None, None), name="AsStridedScatterBackward0")
def _add_vjp(g: Any, place: Place, origin: Place) -> Any:
    if isinstance(g, Tensor):
        return result(read_place(g.array, place, origin), g, read_vjp, (g,), (place, origin))
    return read_place(g, place, origin)


@vjp((None, None), name="CopySlices")
def _write_vjp(g: Any, place: Place, origin: Place) -> Any:
    """g splits: the base keeps what was not overwritten, the written value gets the rest."""
    if isinstance(g, Tensor):
        value = _add_vjp(g, place, origin)
        if place.halves:
            return g - read_vjp(value, place, origin), value  # type: ignore[operator]
        ones = ns(g.array).ones(place.shape, value.array.dtype)
        written = wrap(add_place(ones, place, origin) != 0, g.device)
        return g.masked_fill(written, 0), value  # type: ignore[attr-defined]
    low, count = _range(place, origin)
    flat = _laid(g, origin, low, count)
    part = at(flat, place, low)
    # only filling writes to expanded memory: each of the equal values has its share
    value = _share(part, place, low, count) if place.overlaps() else part.copy()
    part[...] = 0
    return at(flat, origin, low), value


# --- as_strided ---------------------------------------------------------------------------


def _storage_place(x: Any, size: Any, stride: Any, offset: int | None) -> Place:
    """The place that as_strided's arguments name, checked; x is the raw array."""
    from gpunn.ops.views import int_list

    shape, steps = int_list((size,)), int_list((stride,))
    if len(shape) != len(steps):
        raise RuntimeError(
            f"mismatch in length of strides and shape: strides {list(steps)}, shape {list(shape)}"
        )
    if any(s < 0 for s in steps):
        raise RuntimeError(
            "as_strided: Negative strides are not supported at the moment, got strides: "
            f"{list(steps)}"
        )
    if any(n < 0 for n in shape):
        raise RuntimeError(f"as_strided: sizes must not be negative, got {list(shape)}")
    owner = root(x)
    here = (address(x) - address(owner)) // x.itemsize
    offset = here if offset is None else int(offset)
    if offset < 0:
        raise RuntimeError(f"Tensor: invalid storage offset {offset}")
    place = Place(shape, steps, offset)
    needed = place.reach()[1] * x.itemsize
    if needed > owner.nbytes:
        raise RuntimeError(
            f"setStorage: sizes {list(shape)}, strides {list(steps)}, storage offset {offset}, and "
            f"itemsize {x.itemsize} requiring a storage size of {needed} are out of bounds for "
            f"storage of size {owner.nbytes}"
        )
    return Place(shape, steps, offset - here)


def lay(x: Any, place: Place) -> Any:
    """A place in the memory of x, counted from its first element, as a view."""
    if 0 in place.shape:
        return x[..., :0].reshape(place.shape) if x.ndim else x.reshape(1)[:0].reshape(place.shape)
    size = x.itemsize
    strides = tuple(s * size for s in place.steps)
    if type(x) is np.ndarray:
        owner = root(x)
        offset = address(x) - address(owner) + place.offset * size
        if owner.flags.c_contiguous or owner.flags.f_contiguous:
            return np.ndarray(place.shape, x.dtype, owner, offset, strides)
    as_strided = ns(x).lib.stride_tricks.as_strided
    first = as_strided(x, (2,), (place.offset * size,))[1:]  # NumPy has no offset
    return as_strided(first, place.shape, strides)


@method
def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of the memory that input lies in, by shape, strides and offset in elements.

    The offset counts from the start of the memory; without it the view starts where input does.
    Elements may appear several times. RuntimeError for places outside of the memory.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.as_strided.html

    >>> gpunn.as_strided(gpunn.arange(4), (2, 3), (1, 1))
    tensor([[0, 1, 2],
            [1, 2, 3]])
    """
    x = input.array
    place = _storage_place(x, size, stride, storage_offset)
    return view(lay(x, place), input, read_vjp, (place, place_of(x)))


@method
def as_strided_(
    self: Tensor, size: Any, stride: Any, storage_offset: int | None = None
) -> Tensor:
    """`as_strided` in place: changes how this tensor reads its memory."""
    return become(self, as_strided(self, size, stride, storage_offset))


def become(x: Tensor, seen: Tensor) -> Tensor:
    """Turns x into `seen`, a view of x: how squeeze_, t_ and their kind work."""
    check_inplace(x)
    x.array = seen.array
    if seen.node is not None:
        x.node = seen.node
    return x


@method
def as_strided_scatter(
    input: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None
) -> Tensor:
    """A copy of input with `src` written at the place that `as_strided` would read.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.as_strided_scatter.html

    >>> gpunn.as_strided_scatter(gpunn.zeros(4), gpunn.ones(2), (2,), (2,))
    tensor([1., 0., 1., 0.])
    """
    x = input.array
    place, origin = _storage_place(x, size, stride, storage_offset), place_of(x)
    if src.array.shape != place.shape:
        raise RuntimeError(
            "expected src to have a size equal to the slice of self. src size = "
            f"{list(src.array.shape)}, slice size = {list(place.shape)}"
        )
    src = src.to(input)  # type: ignore[attr-defined]
    low, count = _range(place, origin)
    flat = _laid(x, origin, low, count)
    at(flat, place, low)[...] = src.array
    return result(at(flat, origin, low), input, _scatter_vjp, (input, src), (place, origin))


@vjp((None, None), name="AsStridedScatterBackward0")
def _scatter_vjp(g: Any, place: Place, origin: Place) -> Any:
    return _write_vjp(g, place, origin)


# --- writing through views ----------------------------------------------------------------


@vjp((None, None), name="AsStridedBackward0")
def _rejoin_vjp(g: Any, part: Outline, base: Outline) -> Any:
    return read_vjp(g, place_in(part, base), place_in(base, base))


@vjp((None, None), name="CopySlices")
def _view_write_vjp(g: Any, part: Outline, base: Outline) -> Any:
    return _write_vjp(g, place_in(part, base), place_in(base, base))


def view_write(base: Tensor, target: Tensor, value: Tensor) -> Tensor:
    """Records that `value` was written into base through its view `target`; the tensor whose
    views must be read again."""
    a, b = target.array, base.array
    if a.base is not b and root(a) is not root(b):  # `base.data = ...` has parted them
        target._base = None
        target.node, target._requires_grad = value.node, value._requires_grad
        return target
    _check_dtypes(a, b)
    if not a.flags.c_contiguous and overlapping(a.shape, a.strides, 1):
        raise RuntimeError(OVERLAP)
    saved = (outline(a, b.nbytes < SMALL), outline(b, b.nbytes < SMALL))
    base.node = Node(_view_write_vjp, (vertex(base), vertex(value)), saved, base.device)
    base._requires_grad = True
    return base


OVERLAP = (
    "unsupported operation: more than one element of the written-to tensor refers to a single "
    "memory location. Please clone() the tensor before performing the operation."
)


def rejoin_views(base: Tensor) -> None:
    """Gives every live view of a base that was changed in place a node that reads it again."""
    origin = outline(base.array, base.array.nbytes < SMALL)
    for ref in base._extra.views:  # type: ignore[union-attr]
        out = ref()
        if out is None or out._base is not base:
            continue
        a, b = out.array, base.array
        if a.base is not b and root(a) is not root(b):
            continue
        if base._requires_grad:
            _check_dtypes(a, b)
            saved = (outline(a, b.nbytes < SMALL), origin)
            out.node = Node(_rejoin_vjp, (vertex(base),), saved, base.device)
        else:
            out.node = None
        out._requires_grad = base._requires_grad


__all__ = ["as_strided", "as_strided_", "as_strided_scatter"]
