"""Bags of embeddings: the sum, mean or maximum of some rows of a table.

On the CPU in differentiable operations; on a GPU in kernels of which each reads a row once.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import needs as is_needed
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import embedding as kernels
from gpunn.nn import init
from gpunn.nn.embedding import (
    checked_index,
    embedding,
    padding_row,
    renorm,
    sparse_gradient,
    zero_row,
)
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.ops._rows import half, same_device
from gpunn.ops.create import empty
from gpunn.ops.index import put
from gpunn.sparse import SparseTensor
from gpunn.tensor import Tensor, wrap


def embedding_bag(
    input: Tensor, weight: Tensor, offsets: Tensor | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
    sparse: bool = False, per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False, padding_idx: int | None = None,
) -> Tensor:  # fmt: skip
    """The sum, mean or maximum of the table's rows in each bag.

    Shapes: input (bags, n); or (total,) with `offsets` (bags,), where each bag begins. weight
    (rows, d): (bags, d); empty bags are zero. per_sample_weights: input's shape, mode "sum"
    only. `padding_idx` rows count nowhere. IndexError for an index that is no row, on a GPU when a
    result is next used on the host; there the values of `offsets` are not checked.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.embedding_bag.html

    >>> F.embedding_bag(gpunn.tensor([[0, 1]]), gpunn.tensor([[1., 2.], [3., 4.]]), mode="sum")
    tensor([[4., 6.]])
    """
    if weight.dtype.name.startswith("int") and input.dtype.is_floating_point:
        warnings.warn(
            "Argument order of nn.functional.embedding_bag was changed. Usage "
            "`embedding_bag(weight, input, ...)` is deprecated, and should now be "
            "`embedding_bag(input, weight, ...)`.",
            stacklevel=2,
        )
        input, weight = weight, input
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    _check_bag_arguments(input, offsets, per_sample_weights, mode, scale_grad_by_freq, sparse)
    flat = input.reshape(-1)  # type: ignore[operator]
    index = checked_index("embedding_bag", flat, weight)
    same_device("embedding_bag", (input, offsets, per_sample_weights))
    if max_norm is not None:
        renorm(weight, index, max_norm, norm_type)
    scales = None if per_sample_weights is None else per_sample_weights.reshape(-1)  # type: ignore[operator]
    place = padding_row(padding_idx, weight.array.shape[0])
    if type(index) is not np.ndarray and kernels.serves(weight.array, index):
        starts = None if offsets is None else offsets.array
        bags = len(input.array) if starts is None else max(starts.size - include_last_offset, 0)
        how = (mode, place, scale_grad_by_freq, sparse)
        return _bags_by_kernels(index, weight, scales, starts, bags, *how)
    bags, owner = _owners(input, offsets, include_last_offset)
    if bags == 0:  # then no entry has one
        flat, index, scales = flat[:0], index[:0], None if scales is None else scales[:0]
    if place >= 0:
        keep = index != place
        flat, owner = wrap(index[keep], flat.device), owner[keep]
        scales = None if scales is None else scales[wrap(keep, flat.device)]
    rows = embedding(flat, weight, None, None, norm_type, scale_grad_by_freq, sparse)
    narrow = rows.dtype if half(rows.array.dtype) else None
    if narrow is not None:  # added up in float32, rounded once
        rows = rows.float()  # type: ignore[attr-defined]
        scales = None if scales is None else scales.float()
    if scales is not None:
        rows = rows * scales.unsqueeze(1)
    if mode == "max":
        made = _bag_max(rows, owner, bags)
    else:
        made = _bag_sum(rows, owner, bags, mode)
    return made if narrow is None else made.to(narrow)  # type: ignore[attr-defined]


def _bags_by_kernels(
    index: Any, weight: Tensor, scales: Tensor | None, starts: Any, bags: int, mode: str,
    place: int, by_frequency: bool, sparse: bool,
) -> Tensor:  # fmt: skip
    """The bags of rows of a table on a GPU."""
    if scales is not None:
        scales = scales.to(weight.dtype)  # type: ignore[attr-defined]
    raw = None if scales is None else scales.array
    skip = None if place < 0 else place
    table = weight.array
    out, entries = kernels.embedding_bag_forward(table, index, starts, bags, mode, raw, skip)  # type: ignore[misc]
    kept = table if is_needed(scales) else None
    saved = (index, kept, raw, entries, len(table), skip, by_frequency, sparse)
    return result(out, weight, _bags_vjp, (weight, scales), saved)


@vjp((None, 0, 1, None, None, None, None, None), masked=True, name="EmbeddingBagBackward0")
def _bags_vjp(
    g: Any, index: Any, weight: Any, scales: Any, entries: Any, rows: int, skip: int | None,
    by_frequency: bool, sparse: bool, needs: tuple[bool, bool],
) -> Any:  # fmt: skip
    if isinstance(g, Tensor):
        return _bags_vjp_recorded(g, weight, scales, entries, rows, by_frequency, needs)
    dense = found = None
    if needs[0] and sparse:
        dense = _sparse_bags(g, scales, entries, rows, by_frequency)
    elif needs[0]:
        dense = kernels.embedding_bag_backward(g, index, entries, rows, scales, skip, by_frequency)
    if needs[1]:
        found = kernels.embedding_bag_scales(g, weight, entries)
    return dense, found


def _sparse_bags(g: Any, scales: Any, entries: Any, rows: int, by_frequency: bool) -> SparseTensor:
    """The gradient of the weight as rows, of the entries that count."""
    counted = entries.keys >= 0
    owner, places = entries.keys[counted], entries.source[counted]
    part = kernels.embedding_forward(g, owner, None)
    scale = None if scales is None else scales[counted]
    if entries.counts is not None:
        share = (1 / entries.counts[owner]).astype(g.dtype)
        scale = share if scale is None else scale * share
    if by_frequency:
        share = (1 / ns(g).bincount(places, minlength=rows)[places]).astype(g.dtype)
        scale = share if scale is None else scale * share
    return sparse_gradient(part, places, rows, -1, None if scale is None else scale[:, None])


def _bags_vjp_recorded(
    g: Tensor, weight: Any, scales: Any, entries: Any, rows: int, by_frequency: bool,
    needs: tuple[bool, bool],
) -> Any:  # fmt: skip
    """The same in recorded operations."""
    xp = ns(entries.keys)
    owner = xp.where(entries.keys >= 0, entries.keys, 0).astype(np.int64)
    share = (entries.keys >= 0)[:, None]
    if entries.chosen is not None:
        share = share & (entries.chosen[owner] == xp.arange(owner.size)[:, None])
    if entries.counts is not None:
        share = share / entries.counts[owner].clip(1, None)[:, None]
    places = entries.source.astype(np.int64)
    dtype = g.array.dtype
    part: Any = g[wrap(owner, g.device)] * wrap(share.astype(dtype), g.device)  # type: ignore[index]
    found = (part * weight[wrap(places, g.device)]).sum(1) if needs[1] else None
    if not needs[0]:
        return None, found
    if scales is not None:
        scales = scales if isinstance(scales, Tensor) else wrap(scales, g.device)
        part = part * scales.unsqueeze(1)  # type: ignore[attr-defined]
    if by_frequency:
        often = xp.bincount(places[entries.keys >= 0], minlength=rows)[places].clip(1, None)
        part = part * wrap((1 / often).astype(dtype)[:, None], g.device)
    return put(g.new_zeros((rows, g.array.shape[1])), (places,), part, True), found  # type: ignore[attr-defined]


def _bag_sum(rows: Tensor, owner: Any, bags: int, mode: str) -> Tensor:
    """The sum or mean of each bag."""
    total = put(rows.new_zeros((bags, rows.array.shape[1])), (owner,), rows, True)  # type: ignore[attr-defined]
    if mode == "sum":
        return total
    xp = ns(owner)
    counts = xp.maximum(xp.bincount(owner, minlength=bags), 1).astype(rows.array.dtype)
    return total / wrap(counts[:, None], rows.device)  # type: ignore[operator]


def _check_bag_arguments(
    input: Tensor, offsets: Any, scales: Any, mode: str, by_frequency: bool, sparse: bool
) -> None:
    if scales is not None:
        if mode != "sum":
            raise NotImplementedError(
                "embedding_bag: per_sample_weights was not None. per_sample_weights is only "
                f"supported for mode='sum' (got mode='{mode}'): weigh the rows of F.embedding for "
                "other modes."
            )
        if scales.shape != input.shape:
            raise ValueError(
                f"embedding_bag: If per_sample_weights ({tuple(scales.shape)}) is not None, then "
                f"it must have the same shape as the input ({tuple(input.shape)})"
            )
    if mode == "max" and by_frequency:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError("max mode does not support sparse weights")
    if input.array.ndim == 2 and offsets is not None:
        raise ValueError(
            "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of "
            f"fixed length sequences. However, found offsets of type {type(offsets)}"
        )
    if input.array.ndim == 1:
        if offsets is None:
            raise ValueError("offsets has to be a 1D Tensor but got None")
        if offsets.array.ndim != 1:
            raise ValueError("offsets has to be a 1D Tensor")
        if type(offsets.array) is not np.ndarray:
            return  # to read the offsets would wait for the device
        if offsets.array.size and int(offsets.array[0]) != 0:
            raise ValueError(
                f"offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start "
                f"from position 0. However, got {int(offsets.array[0])}"
            )
        if offsets.array.size and int(offsets.array[-1]) > input.array.size:
            raise ValueError(
                f"offsets[-1] can not be greater than input's length ({input.array.size}), but got "
                f"offsets[-1] of {int(offsets.array[-1])}"
            )
    elif input.array.ndim != 2:
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension "
                         f"{input.array.ndim}")  # fmt: skip


def _owners(input: Tensor, offsets: Tensor | None, include_last: bool) -> tuple[int, Any]:
    """(number of bags, the bag of each entry)."""
    xp = input.device.xp
    if offsets is None:
        bags, n = input.array.shape
        return bags, xp.repeat(xp.arange(bags), n)
    starts = offsets.array
    if include_last:
        starts = starts[:-1]
    bags, total = starts.size, input.array.size
    ends = xp.concatenate([starts[1:], xp.asarray([total], starts.dtype)]) if bags else starts
    return bags, xp.repeat(xp.arange(bags), ends - starts)


def _bag_max(rows: Tensor, owner: Any, bags: int) -> Tensor:
    """The maximum of each bag and column: the first row that has it."""
    xp = ns(owner)
    out = rows.new_zeros((bags, rows.array.shape[1]))  # type: ignore[attr-defined]
    if not owner.size:
        return put(out, (owner,), rows, True)
    filled, starts = xp.unique(owner, return_index=True)
    top = xp.maximum.reduceat(rows.array, starts, axis=0)
    group = xp.searchsorted(filled, owner)
    numbers = xp.where(rows.array == top[group], xp.arange(owner.size)[:, None], owner.size)
    first = xp.minimum.reduceat(numbers, starts, axis=0).clip(0, owner.size - 1)
    columns = xp.arange(rows.array.shape[1])
    best = rows[(wrap(first, rows.device), wrap(columns, rows.device))]  # type: ignore[index]
    return put(out, (filled,), best, False)


class EmbeddingBag(Module):
    """Sums, means or maxima of bags of vectors: see `nn.functional.embedding_bag`.

    Shapes: input (bags, n), or (total,) with offsets: (bags, embedding_dim). Parameter: weight
    (num_embeddings, embedding_dim), drawn from N(0, 1), the padding row zero.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.EmbeddingBag.html

    >>> nn.EmbeddingBag(10, 3)(gpunn.tensor([[1, 2], [4, 5]])).shape
    torch.Size([2, 3])
    """

    __constants__ = ["num_embeddings", "embedding_dim", "max_norm", "norm_type",
                     "scale_grad_by_freq", "mode", "sparse", "include_last_offset",
                     "padding_idx"]  # fmt: skip

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
        sparse: bool = False, _weight: Tensor | None = None, include_last_offset: bool = False,
        padding_idx: int | None = None, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        if padding_idx is not None:
            if padding_idx > 0:
                assert padding_idx < num_embeddings, "padding_idx must be within num_embeddings"
            elif padding_idx < 0:
                assert padding_idx >= -num_embeddings, "padding_idx must be within num_embeddings"
                padding_idx += num_embeddings
        self.padding_idx = padding_idx
        if _weight is None:
            made = empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
            self.weight = Parameter(made)
            self.reset_parameters()
        else:
            assert list(_weight.shape) == [num_embeddings, embedding_dim], (
                "Shape of weight does not match num_embeddings and embedding_dim"
            )
            self.weight = Parameter(_weight)
        self.mode, self.sparse, self.include_last_offset = mode, sparse, include_last_offset

    def reset_parameters(self) -> None:
        """Draws new vectors; the padding row is zero."""
        init.normal_(self.weight)
        zero_row(self.weight, self.padding_idx)

    def forward(
        self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None
    ) -> Tensor:
        return embedding_bag(input, self.weight, offsets, self.max_norm, self.norm_type,
                             self.scale_grad_by_freq, self.mode, self.sparse, per_sample_weights,
                             self.include_last_offset, self.padding_idx)  # fmt: skip

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq is not False:
            text += f", scale_grad_by_freq={self.scale_grad_by_freq}"
        text += f", mode={self.mode!r}"
        return text + (f", padding_idx={self.padding_idx}" if self.padding_idx is not None else "")

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
        sparse: bool = False, include_last_offset: bool = False, padding_idx: int | None = None,
    ) -> EmbeddingBag:  # fmt: skip
        """Bags over a table of given vectors (rows, d), frozen unless `freeze` is False."""
        assert embeddings.dim() == 2, "Embeddings parameter is expected to be 2-dimensional"
        rows, cols = embeddings.shape
        made = cls(num_embeddings=rows, embedding_dim=cols, _weight=embeddings, max_norm=max_norm,
                   norm_type=norm_type, scale_grad_by_freq=scale_grad_by_freq, mode=mode,
                   sparse=sparse, include_last_offset=include_last_offset,
                   padding_idx=padding_idx)  # fmt: skip
        made.weight.requires_grad = not freeze
        return made
