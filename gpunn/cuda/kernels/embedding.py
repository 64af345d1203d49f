"""Rows by index through kernels/embedding.cu; None where it does not serve the dtype or size.

A sum of rows by index has two forms. With atomic additions it is one launch, but the order of the
additions is not fixed, and a row that is named often makes its additions wait for one another. In
the sorted form the terms are ordered by row and added up in a fixed order, whatever repeats. The
sort is CuPy's argsort of int32 keys: stable, a radix sort, and queued like a kernel, without
waiting for the device; one of our own would only add launches.

The atomic form is used for float32 and float64 where no setting asks for a fixed order and there
are no more terms than rows, so that repeats are few; or so few terms that launches are what takes
time; or rows so short that sorting moves more bytes (about 100 a term) than adding. 16-bit rows
are always sorted: packed 16-bit atomics would round at each addition (a sum of ones stops at 256
in bfloat16), and a float32 copy of the whole table to add into costs more memory and time than
sorting the indices.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gpunn import settings
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, INDICES, Source

_source = Source("embedding", T=FLOATS, I=INDICES)
_USUAL = np.dtype(np.int64)  # I of kernels that read no index: compiled once with the others
_LIMIT = 2**31 - 1  # keys, and positions of terms, are 32-bit
_FEW = 1024  # terms: sorting them would take longer than their repeats do
_SHORT = 16  # values: rows for which sorting costs more than adding
_NONE = -(2**62)  # an index that is none, nor counts from the end
_AHEAD = 4  # rows that a thread of gather has in flight
_MANY = 1 << 22  # values from which on a longer run leaves enough threads


def serves(table: Any, index: Any) -> bool:
    """Whether there are kernels for rows of this table (rows, ...) by this index."""
    return (
        _source.serves(T=table.dtype, I=index.dtype)
        and table.ndim > 0 and len(table) < _LIMIT and index.size < _LIMIT
    )  # fmt: skip


# --- shapes of launches -------------------------------------------------------------------


def _wide(width: int, *arrays: Any) -> bool:
    """Whether rows of `width` values can be moved 16 bytes at a time."""
    return width * arrays[0].itemsize % 16 == 0 and all(a.data.ptr % 16 == 0 for a in arrays)


def _shape(rows: int, width: int, at_once: int, threads: int = 256) -> tuple[Any, Any]:
    """(grid, block) for `rows` rows of `width` values, `at_once` of which a thread moves."""
    lanes = 1
    while lanes < 32 and lanes * at_once < width:
        lanes *= 2
    columns = min(launch.blocks(width, lanes * at_once), 1024)
    return (launch.blocks(rows, threads // lanes), columns), (lanes, threads // lanes)


def _flat(n: int) -> tuple[int, int]:
    return launch.blocks(n, 256), 256


# --- lookup -------------------------------------------------------------------------------


def embedding_forward(weight: Any, index: Any, name: str | None = "embedding") -> Any:
    """weight[index]: rows of weight (rows, width) for index (...); None for other dtypes.

    An index that is no row gives zeros, and IndexError later: `name` says of which operation,
    None leaves it to another kernel.
    """
    if not serves(weight, index):
        return None
    rows, width = weight.shape
    weight, index = launch.contiguous(weight), launch.contiguous(index)
    out = launch.empty((*index.shape, width), weight.dtype)
    if out.size:
        wide = _wide(width, weight, out)
        grid, block = _shape(-(-index.size // _AHEAD), width, 16 // out.itemsize if wide else 1)
        fault = None if name is None else launch.fault(name)
        kernel = _source.get("gather", T=weight.dtype, I=index.dtype)
        kernel(grid, block, (weight, index, out, index.size, width, rows, wide, fault))
    return out


def renorm(weight: Any, index: Any, max_norm: float, norm_type: float) -> bool:
    """Scales the rows of weight that are named and longer than max_norm; whether it was done."""
    if not serves(weight, index):
        return False
    rows, width = weight.shape
    table, index = launch.contiguous(weight), launch.contiguous(index)
    if index.size and width:
        claimed = launch.zeros(rows, np.int32)
        args = (table, index, claimed, index.size, width, rows, max_norm, norm_type)
        kernel = _source.get("renorm_rows", T=table.dtype, I=index.dtype)
        kernel(launch.blocks(index.size, 8), (32, 8), args)
    if table is not weight:
        weight[...] = table
    return True


# --- sums by row --------------------------------------------------------------------------


class Terms(NamedTuple):
    """What is added up: row source[p] of `rows` (row p without source), times scales[p], over
    counts[source]; with `chosen`, of shape rows', only in the columns where it says p."""

    rows: Any
    source: Any = None
    scales: Any = None
    counts: Any = None
    chosen: Any = None


def embedding_backward(
    grad: Any, index: Any, count: int, padding_idx: int | None = None, by_frequency: bool = False
) -> Any:
    """The gradient (count, row) of embedding_forward's weight from grad (*index.shape, row).

    Row padding_idx gets none; by_frequency divides a row's by how often it was read.
    """
    if not _source.serves(T=grad.dtype, I=index.dtype) or max(count, index.size) >= _LIMIT:
        return None
    width = grad.shape[-1]
    terms = Terms(launch.contiguous(grad).reshape(index.size, width))
    out = launch.zeros((count, width), grad.dtype)
    _add_rows(out, index, terms, skip=padding_idx, by_frequency=by_frequency)
    return out


def index_add_rows(out: Any, index: Any, rows: Any) -> bool:
    """out[index[p]] += rows[p], in place, for C-contiguous out (count, width), index (n), rows
    (n, width); indices from -count on count from the end. Whether it was done.
    """
    if not serves(out, index):
        return False
    terms = Terms(launch.contiguous(rows))
    _add_rows(out, index, terms, wrap=True, add=True, name="index_add")
    return True


def _add_rows(
    out: Any, index: Any, terms: Terms, *, skip: int | None = None, wrap: bool = False,
    add: bool = False, by_frequency: bool = False, name: str | None = None,
) -> None:  # fmt: skip
    """out[index[p]] += term p; out is zeros, unless `add`."""
    rows, width = out.shape
    n, index = index.size, launch.contiguous(index)
    if not (n and out.size):
        return
    fault = None if name is None else launch.fault(name)
    skip = _NONE if skip is None else skip
    if terms.chosen is None and not by_frequency and _atomic(n, out):
        wide = _wide(width, out, terms.rows)
        kernel = _source.get("scatter_add", T=out.dtype, I=index.dtype)
        grid, block = _shape(n, width, 16 // out.itemsize if wide else 1)
        kernel(grid, block, (*terms[:4], index, out, n, width, rows, skip, wrap, wide, fault))
        return
    keys = launch.empty(n, np.int32)
    kernel = _source.get("row_keys", T=out.dtype, I=index.dtype)
    kernel(*_flat(n), (index, keys, n, rows, skip, wrap, fault))
    order = keys.argsort(kind="stable")
    counts = row_counts(keys, order, rows) if by_frequency else None
    sum_sorted(out, keys, order, terms, counts, add)


def _atomic(n: int, out: Any) -> bool:
    """Whether to add n terms up with atomic additions: see the module's text."""
    if out.itemsize == 2 or settings.are_deterministic_algorithms_enabled():
        return False
    return n <= max(len(out), _FEW) or out.shape[1] < _SHORT


def row_counts(keys: Any, order: Any, rows: int) -> Any:
    """How often each of the keys below `rows` occurs."""
    counts = launch.zeros(rows, np.int32)
    kernel = _source.get("row_counts", T=np.dtype(np.float32), I=_USUAL)
    kernel(*_flat(keys.size), (keys, order, counts, keys.size, rows))
    return counts


def sum_sorted(
    out: Any, keys: Any, order: Any, terms: Terms, counts: Any = None, add: bool = False
) -> None:
    """out[key] = the sum of the terms of that key, over counts[key]; `add`: += instead.

    keys (n) int32, in order, or put in order by `order` (n) int64; those below 0 or from len(out)
    on are left out. Rows of out that no key names stay. The sums are made in an order that
    depends on n and the row's length alone: the same bits each time, on each GPU.
    """
    (rows, width), n = out.shape, keys.size
    if not (n and out.size):
        return
    chunk = 64 if n * width >= _MANY else 32
    acc = np.dtype(np.float64 if out.dtype == np.float64 else np.float32)
    wide = _wide(width, out, terms.rows)
    choice = {"T": out.dtype, "I": _USUAL}
    first: tuple[Any, ...] = (*terms, keys, order, counts, out)
    kernel, at_once = _source.get("segment_sum", **choice), 16 // out.itemsize
    while True:
        runs = -(-n // chunk)
        parts = part_keys = None
        if runs > 1:
            parts = launch.empty((2 * runs, width), acc)
            part_keys = launch.empty(2 * runs, np.int32)
        grid, block = _shape(runs, width, at_once if wide else 1, 128)
        limit = (rows,) if kernel.name == "segment_sum" else ()
        kernel(grid, block, (*first, parts, part_keys, n, width, *limit, chunk, add, wide))
        if runs == 1:
            return
        first, n, chunk = (parts, part_keys, counts, out), 2 * runs, 64
        kernel, at_once = _source.get("segment_join", **choice), 16 // acc.itemsize


def coalesce(flat: Any, entries: Any) -> Any:
    """(places, sums): each of the numbers in flat (n) once, in order, with the sum of its entries
    (n, ...). None for other dtypes. Waits for the device: how many there are is not known before.
    """
    if not _source.serves(T=entries.dtype) or flat.size >= _LIMIT:
        return None
    order = flat.argsort(kind="stable")
    ordered = flat[order]
    new = launch.empty(flat.size, np.bool_)
    new[:1], new[1:] = True, ordered[1:] != ordered[:-1]
    places, keys = ordered[new], launch.empty(flat.size, np.int32)
    keys[order] = new.cumsum(dtype=np.int32) - 1
    sums = launch.empty((places.size, *entries.shape[1:]), entries.dtype)
    width = int(np.prod(entries.shape[1:]))
    rows = launch.contiguous(entries).reshape(flat.size, width)
    sum_sorted(sums.reshape(places.size, width), keys, order, Terms(rows))
    return places, sums


# --- bags ---------------------------------------------------------------------------------


class Entries(NamedTuple):
    """The entries of bags, as int32: the bag (~bag where the entry does not count), the row, how
    many count in each bag (or None), and of a maximum the entry that it comes from (or None)."""

    keys: Any
    source: Any
    counts: Any
    chosen: Any


def embedding_bag_forward(
    weight: Any, index: Any, offsets: Any, bags: int, mode: str, scales: Any = None,
    padding_idx: int | None = None,
) -> tuple[Any, Entries] | None:  # fmt: skip
    """(out (bags, width), entries) of weight (rows, width) and index (n).

    Bag b begins at offsets[b] and ends where the next begins, the last at n; without offsets all
    are equally long. Rows of padding_idx count nowhere. mode is "sum", "mean" or "max".
    """
    if not serves(weight, index) or bags >= _LIMIT:
        return None
    weight, index = launch.contiguous(weight), launch.contiguous(index)
    (rows, width), n = weight.shape, index.size
    if offsets is not None:
        offsets = launch.contiguous(offsets.astype(index.dtype, copy=False))
    each = n // bags if bags else 0
    keys, source = launch.empty(n, np.int32), launch.empty(n, np.int32)
    counts = launch.zeros(bags, np.int32) if mode == "mean" else None
    choice = {"T": weight.dtype, "I": index.dtype}
    if n and bags:
        skip = _NONE if padding_idx is None else padding_idx
        args = (index, offsets, keys, source, counts, n, bags, each, rows, skip)
        fault = launch.fault("embedding_bag")
        _source.get("bag_entries", **choice)(*_flat(n), (*args, fault))
    if mode == "max":
        out = launch.empty((bags, width), weight.dtype)
        chosen = launch.empty((bags, width), np.int32)
        if out.size:
            grid = launch.blocks(bags, 1), min(-(-width // 32), 1024)
            args = (weight, keys, source, offsets, out, chosen, n, bags, each, width)
            _source.get("bag_max", **choice)(grid, (32, _height(each)), args)
        return out, Entries(keys, source, None, chosen)
    out = launch.zeros((bags, width), weight.dtype)
    scales = None if scales is None else launch.contiguous(scales)
    sum_sorted(out, keys, None, Terms(weight, source, scales), counts)
    return out, Entries(keys, source, counts, None)


def _height(each: int) -> int:
    """Of blocks of 32 columns: as many entries at a time as bags have, 8 at most."""
    return 1 if each < 2 else 2 if each < 4 else 4 if each < 8 else 8


def embedding_bag_backward(
    grad: Any, index: Any, entries: Entries, count: int, scales: Any = None,
    padding_idx: int | None = None, by_frequency: bool = False,
) -> Any:  # fmt: skip
    """The gradient (count, width) of the weight from grad (bags, width)."""
    out = launch.zeros((count, grad.shape[1]), grad.dtype)
    if not grad.size:
        return out
    scales = None if scales is None else launch.contiguous(scales)
    terms = Terms(launch.contiguous(grad), entries.keys, scales, entries.counts, entries.chosen)
    _add_rows(out, index, terms, skip=padding_idx, by_frequency=by_frequency)
    return out


def embedding_bag_scales(grad: Any, weight: Any, entries: Entries) -> Any:
    """The gradient (n) of the per-sample weights from grad (bags, width)."""
    grad, weight = launch.contiguous(grad), launch.contiguous(weight)
    n, width = entries.keys.size, grad.shape[1]
    out = launch.zeros(n, grad.dtype)
    if n and grad.size:
        kernel = _source.get("row_dots", T=grad.dtype, I=_USUAL)
        args = (grad, weight, entries.keys, entries.source, out, n, width)
        kernel(launch.blocks(n, 8), (32, 8), (*args, _wide(width, grad, weight)))
    return out
