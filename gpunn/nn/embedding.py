"""Embedding: rows of a table by index.

The forward pass gathers rows; the backward pass scatters the rows' gradients back, rows that were
read several times adding up: in a fixed order on the CPU, and on a GPU where
`use_deterministic_algorithms(True)` asks for it or the kernels are quicker so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import native
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, touch, vjp
from gpunn.autograd.modes import no_grad
from gpunn.cuda.kernels import embedding as kernels
from gpunn.nn import init
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.ops._operands import not_a_tensor
from gpunn.ops._rows import same_device
from gpunn.ops.create import empty
from gpunn.ops.index import add_at, put
from gpunn.sparse import SparseTensor
from gpunn.tensor import Tensor, wrap


def checked_index(name: str, input: Tensor, weight: Tensor) -> Any:
    """The raw indices, all of them rows of the table; IndexError names the first that is not.

    On a GPU the kernels look, and the error comes when the result is used on the host.
    """
    if not isinstance(input, Tensor):
        raise not_a_tensor(name, input, "indices", 2)
    index = input.array
    if index.dtype.kind not in "iu" or index.dtype.itemsize < 4:
        raise RuntimeError(
            f"Expected tensor for argument #1 'indices' to have one of the following scalar types: "
            f"Long, Int; but got {input.dtype} instead (while checking arguments for {name})"
        )
    if weight.array.ndim != 2:
        raise RuntimeError(f"'weight' must be 2-D (got shape {list(weight.array.shape)})")
    same_device(name, (input, weight))
    rows = weight.array.shape[0]
    looks_later = type(index) is not np.ndarray and kernels.serves(weight.array, index)
    if index.size and not looks_later:
        low, high = int(index.min()), int(index.max())
        if low < 0 or high >= rows:
            bad = low if low < 0 else high
            at = np.argwhere(ns(index).asarray(index == bad).tolist())[0].tolist()
            raise IndexError(
                f"index out of range in self: {name} got index {bad} at position {at}, the table "
                f"has {rows} rows (0 to {rows - 1})"
            )
    return index


def renorm(weight: Tensor, index: Any, max_norm: float, norm_type: float) -> None:
    """Scales the rows that are about to be read down to `max_norm`, in place."""
    table = weight.array
    if type(table) is not np.ndarray and kernels.renorm(table, index, max_norm, norm_type):
        touch(weight)
        return
    xp = ns(index)
    rows = xp.unique(index)
    norms = (abs(table[rows]) ** norm_type).sum(axis=1) ** (1.0 / norm_type) if np.isfinite(
        norm_type) else abs(table[rows]).max(axis=1)  # fmt: skip
    long = norms > max_norm
    if long.any():
        scale = max_norm / (norms[long] + 1e-7)
        table[rows[long]] *= scale[:, None].astype(table.dtype)
        touch(weight)


@vjp((None,) * 5)
def _embedding_vjp(
    g: Any, index: Any, rows: int, padding_idx: int, by_frequency: bool, sparse: bool
) -> Any:
    """Row gradients added up by row; `padding_idx` (-1: none) gets none."""
    tensor_mode = isinstance(g, Tensor)
    xp = ns(index)
    flat = index.reshape(-1)
    width = g.shape[-1]
    g = g.reshape((flat.size, width))
    if not sparse and not tensor_mode:
        found = _dense_gradient(g, flat, rows, padding_idx, by_frequency)
        if found is not None:
            return found
    scale: Any = None
    if by_frequency:
        counts = xp.bincount(flat, minlength=rows)
        scale = (1 / counts[flat]).astype(g.array.dtype if tensor_mode else g.dtype)[:, None]
    if padding_idx >= 0:
        keep = (flat != padding_idx)[:, None].astype(g.array.dtype if tensor_mode else g.dtype)
        scale = keep if scale is None else scale * keep
    if tensor_mode:
        g = g if scale is None else g * wrap(scale, g.device)
        return put(g.new_zeros((rows, width)), (flat,), g, True)
    if sparse:
        return sparse_gradient(g, flat, rows, padding_idx, scale)
    whole = xp.zeros((rows, width), g.dtype)
    add_at(whole, (flat,), g if scale is None else g * scale)
    return whole


def _dense_gradient(g: Any, flat: Any, rows: int, padding_idx: int, by_frequency: bool) -> Any:
    """By the C++ library or the kernels; None where they do not serve it."""
    skip = None if padding_idx < 0 else padding_idx
    if type(g) is not np.ndarray:
        return kernels.embedding_backward(g, flat, rows, skip, by_frequency)
    return None if by_frequency else native.embedding_backward(g, flat, rows, skip)


def sparse_gradient(g: Any, flat: Any, rows: int, padding_idx: int, scale: Any) -> SparseTensor:
    from gpunn.device import CPU, Device

    if scale is not None:
        g = g * scale
    if padding_idx >= 0:
        keep = flat != padding_idx
        flat, g = flat[keep], g[keep]
    device = CPU if type(g) is np.ndarray else Device("cuda", g.device.id)
    places = flat.reshape(1, -1).astype(np.int64)
    return SparseTensor(places, g, (rows, g.shape[1]), device)


def embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, max_norm: float | None = None,
    norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Tensor:  # fmt: skip
    """The rows of `weight` named by `input`.

    Shapes: input any, int64 or int32; weight (rows, d): (*input, d). IndexError for an index
    that is no row; on a GPU it reads as zeros, and the error comes when a result is next used on
    the host. `padding_idx` names a row that gets no gradient. `max_norm` scales the rows
    that are read down to that norm, in `weight` itself and before they are read, so `weight`
    must not have been saved for a gradient earlier in the same graph. `scale_grad_by_freq`
    divides by how often a row occurs in the batch; `sparse` makes a row-sparse gradient.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.embedding.html

    >>> F.embedding(gpunn.tensor([1, 0]), gpunn.tensor([[1., 2.], [3., 4.]]))
    tensor([[3., 4.],
            [1., 2.]])
    """
    index = checked_index("embedding", input, weight)
    rows = weight.array.shape[0]
    place = padding_row(padding_idx, rows)
    if max_norm is not None:
        renorm(weight, index, max_norm, norm_type)
    saved = (index, rows, place, scale_grad_by_freq, sparse)
    table = weight.array
    read = None if type(table) is np.ndarray else kernels.embedding_forward(table, index)
    made = table[index] if read is None else read
    return result(made, weight, _embedding_vjp, (weight,), saved)


def padding_row(padding_idx: int | None, rows: int) -> int:
    """The padding row counted from the front, -1 for none; AssertionError for no row."""
    if padding_idx is None:
        return -1
    if padding_idx > 0:
        assert padding_idx < rows, "Padding_idx must be within num_embeddings"
    elif padding_idx < 0:
        assert padding_idx >= -rows, "Padding_idx must be within num_embeddings"
        padding_idx += rows
    return padding_idx


class Embedding(Module):
    """A table of vectors, looked up by index: see `nn.functional.embedding`.

    Shapes: input any, int64 or int32: (*input, embedding_dim). Parameter: weight
    (num_embeddings, embedding_dim), drawn from N(0, 1), the padding row zero. The padding row
    stays zero under training, `reset_parameters` and `from_pretrained` with padding_idx as given.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html

    >>> nn.Embedding(10, 3)(gpunn.tensor([[1, 2, 4]])).shape
    torch.Size([1, 3, 3])
    """

    __constants__ = ["num_embeddings", "embedding_dim", "padding_idx", "max_norm", "norm_type",
                     "scale_grad_by_freq", "sparse"]  # fmt: skip

    def __init__(
        self, num_embeddings: int, embedding_dim: int, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False, _weight: Tensor | None = None, _freeze: bool = False,
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        place = padding_row(padding_idx, num_embeddings)
        self.padding_idx = None if place < 0 else place
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        if _weight is None:
            made = empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
            self.weight = Parameter(made, requires_grad=not _freeze)
            self.reset_parameters()
        else:
            assert list(_weight.shape) == [num_embeddings, embedding_dim], (
                "Shape of weight does not match num_embeddings and embedding_dim"
            )
            self.weight = Parameter(_weight, requires_grad=not _freeze)

    def reset_parameters(self) -> None:
        """Draws new vectors; the padding row is zero."""
        init.normal_(self.weight)
        zero_row(self.weight, self.padding_idx)

    def forward(self, input: Tensor) -> Tensor:
        return embedding(input, self.weight, self.padding_idx, self.max_norm, self.norm_type,
                         self.scale_grad_by_freq, self.sparse)  # fmt: skip

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        if self.max_norm is not None:
            text += f", max_norm={self.max_norm}"
        if self.norm_type != 2:
            text += f", norm_type={self.norm_type}"
        if self.scale_grad_by_freq is not False:
            text += f", scale_grad_by_freq={self.scale_grad_by_freq}"
        return text + (", sparse=True" if self.sparse is not False else "")

    @classmethod
    def from_pretrained(
        cls, embeddings: Tensor, freeze: bool = True, padding_idx: int | None = None,
        max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:  # fmt: skip
        """A table of given vectors (rows, d), frozen unless `freeze` is False.

        >>> nn.Embedding.from_pretrained(gpunn.tensor([[1., 2.]]))(gpunn.tensor([0]))
        tensor([[1., 2.]])
        """
        assert embeddings.dim() == 2, "Embeddings parameter is expected to be 2-dimensional"
        rows, cols = embeddings.shape
        return cls(num_embeddings=rows, embedding_dim=cols, _weight=embeddings, _freeze=freeze,
                   padding_idx=padding_idx, max_norm=max_norm, norm_type=norm_type,
                   scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)  # fmt: skip


def zero_row(weight: Tensor, row: int | None) -> None:
    if row is not None:
        with no_grad():
            weight[row] = 0  # type: ignore[index]
