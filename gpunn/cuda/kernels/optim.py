"""Optimizer steps, norms and clipping over many arrays at once through kernels/optim.cu.

The twin of gpunn/native/optim.py. A launch takes up to 64 arrays, of any sizes. What works in place
says whether it did: False, with nothing changed, where arrays have gaps or another dtype.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, Source

Arrays = Sequence[Any]

ARRAYS, BLOCK = 64, 256
CHUNK = 2048  # elements: so few that the last blocks of a launch end at nearly the same time
_source = Source("optim", T=FLOATS, ARRAYS=(ARRAYS,), BLOCK=(BLOCK,), CHUNK=(CHUNK,))
_LAYOUT = np.dtype([("size", "i8", (ARRAYS,)), ("first", "i4", (ARRAYS + 1,))], align=True)
_KINDS = {np.inf: 0, 1.0: 1, 2.0: 2}  # enum Kind of the kernel; 3: any other


def sgd_step(
    params: Arrays, grads: Arrays, buffers: Arrays | None, lr: float, momentum: float = 0.0,
    dampening: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False,
    maximize: bool = False, first: bool = False,
) -> bool:  # fmt: skip
    """A step of torch.optim.SGD on all params; buffers (None without momentum) are set if first."""
    if momentum == 0:
        buffers = None
    sign = -1.0 if maximize else 1.0
    numbers = (sign, lr, weight_decay, momentum, 1 - dampening, nesterov, first)
    return _step("sgd_step", numbers, params, grads, buffers)


def adam_step(
    params: Arrays, grads: Arrays, exp_avgs: Arrays, exp_avg_sqs: Arrays, step: float, lr: float,
    beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0,
    decoupled: bool = False, maximize: bool = False, max_exp_avg_sqs: Arrays | None = None,
) -> bool:  # fmt: skip
    """Step number `step` (from 1) of torch.optim.Adam on all params; AdamW if decoupled."""
    shrink, decay = (1 - lr * weight_decay, 0.0) if decoupled else (1.0, weight_decay)
    numbers = (
        -1.0 if maximize else 1.0, shrink, decay, 1 - beta1, beta2, 1 - beta2,
        lr / (1 - beta1**step), (1 - beta2**step) ** -0.5, eps,
    )  # fmt: skip
    return _step("adam_step", numbers, params, grads, exp_avgs, exp_avg_sqs, max_exp_avg_sqs)


def total_norm(arrays: Arrays, p: float, dtype: Any) -> Any:
    """The p-norm of all elements together, a 0-dim array of `dtype`; None for p = 0 and -inf."""
    lists = _by_dtype(arrays)
    if lists is None or p == 0 or p == -np.inf:
        return None
    launches = [
        run for same in lists for run in _launches([[launch.contiguous(a) for a in same]])
    ]
    parts = launch.empty((max(1, sum(chunks for *_, chunks in launches)),), np.float64)
    kind, end = _KINDS.get(p, 3), 0
    for (part,), layout, chunks in launches:
        start, end = end, end + chunks
        kernel = _source.get("norm_parts", T=part[0].dtype)
        kernel(launch.blocks(chunks, 1), BLOCK, (part, layout, kind, p, parts[start:end]))
    total = launch.empty((), dtype)
    _source.get("norm_total", T=total.dtype)(1, 1024, (parts, end, kind, p, total))
    return total


def scale_by_norm(arrays: Arrays, total: Any, max_norm: float) -> bool:
    """Multiplies all arrays by max_norm / (total + 1e-6) where that is below 1; total is 0-dim."""
    launches = _launches_in_place(arrays)
    totals: dict[Any, Any] = {total.dtype: total}
    for part, layout, chunks in launches or ():
        dtype = part[0].dtype
        wide = np.dtype(np.float64 if dtype == np.float64 else np.float32)
        if wide not in totals:
            totals[wide] = total.astype(wide)
        kernel = _source.get("scale_by_norm", T=dtype)
        kernel(launch.blocks(chunks, 1), BLOCK, (part, layout, totals[wide], max_norm))
    return launches is not None


def clip_values(arrays: Arrays, limit: float) -> bool:
    """Clamps the elements of all arrays to [-limit, limit]."""
    launches = _launches_in_place(arrays)
    for part, layout, chunks in launches or ():
        kernel = _source.get("clip_values", T=part[0].dtype)
        kernel(launch.blocks(chunks, 1), BLOCK, (part, layout, limit))
    return launches is not None


def _launches_in_place(arrays: Arrays) -> list[tuple[Any, Any, int]] | None:
    """Runs of arrays to change, each of one dtype; None if one has gaps or is not served."""
    lists = _by_dtype(arrays)
    columns = [_in_order([same]) for same in lists or ()]
    if lists is None or None in columns:
        return None
    runs = [run for column in filter(None, columns) for run in _launches(column)]
    return [(part, layout, chunks) for (part,), layout, chunks in runs]


def _step(name: str, numbers: tuple[float, ...], *lists: Arrays | None) -> bool:
    """Launches a step over lists of params, gradients and states (None: no such state)."""
    present = [arrays for arrays in lists if arrays is not None]
    if not present[0] or not _source.serves(T=present[0][0].dtype):
        return False
    columns, dtype = _in_order(present), present[0][0].dtype
    if columns is None:
        return False
    kernel = _source.get(name, T=dtype)
    missing: list[Any] = [[]] * (len(lists) - len(present))
    for part, layout, chunks in _launches(columns):
        kernel(launch.blocks(chunks, 1), BLOCK, (*part, *missing, layout, *numbers))
    return True


def _in_order(columns: Sequence[Arrays]) -> Sequence[Arrays] | None:
    """C-contiguous arrays with the elements of each row in one order: views, or gradients copied.

    `columns` are lists of parameters, gradients and states. None where a parameter or a state has
    gaps, or a row differs in shape or dtype.
    """
    dtype = columns[0][0].dtype
    rows = list(zip(*columns, strict=True))
    for first, *rest in rows:
        if first.dtype != dtype:
            return None
        for a in rest:
            if a.dtype != dtype or a.size != first.size:
                return None
    if all(a._c_contiguous for column in columns for a in column):
        return columns
    ordered = [_row_in_order(row) for row in rows]
    return None if None in ordered else list(zip(*ordered, strict=True))  # type: ignore[arg-type]


def _row_in_order(arrays: Arrays) -> Arrays | None:
    """`_in_order` of one parameter, its gradient and its states."""
    first = arrays[0]
    if any(a.shape != first.shape for a in arrays):
        return None
    axes = list(range(first.ndim))
    if not first._c_contiguous:  # a transposed or channels_last one: as its memory lies
        axes.sort(key=lambda axis: -first.strides[axis])
    views = [a.transpose(axes) for a in arrays]
    if len(views) > 1:
        views[1] = launch.contiguous(views[1])
    return views if all(a._c_contiguous for a in views) else None


def _by_dtype(arrays: Arrays) -> list[Arrays] | None:
    """The arrays in lists of one dtype each; None if a dtype is not served."""
    lists: dict[Any, list[Any]] = {}
    for a in arrays:
        lists.setdefault(a.dtype, []).append(a)
    return list(lists.values()) if all(_source.serves(T=dtype) for dtype in lists) else None


def _launches(columns: Sequence[Arrays]) -> Iterator[tuple[list[Any], Any, int]]:
    """The columns of arrays in runs that a launch can take, their layout, the number of chunks."""
    kept = [i for i, a in enumerate(columns[0]) if a.size]
    for start in range(0, len(kept), ARRAYS):
        run = kept[start : start + ARRAYS]
        layout, chunks = _layout(tuple(columns[0][i].size for i in run))
        yield [[column[i] for i in run] for column in columns], layout, chunks


@lru_cache(maxsize=1024)
def _layout(sizes: tuple[int, ...]) -> tuple[Any, int]:
    """The kernel's `Layout` of arrays of these sizes, and how many chunks they have."""
    layout = np.zeros((), _LAYOUT)
    layout["size"][: len(sizes)] = sizes
    ends = np.cumsum([-(-size // CHUNK) for size in sizes])
    layout["first"][1:] = ends[-1]
    layout["first"][1 : len(sizes) + 1] = ends
    return layout, int(ends[-1])
