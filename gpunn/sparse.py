"""Sparse tensors in coordinate form (COO): what `Embedding(sparse=True)` gives as gradients.

A SparseTensor holds `indices` (sparse dims, n) and `values` (n, *dense dims). It can be added,
scaled, coalesced, made dense, moved and saved; other operations ask for `to_dense()`.
Source: https://docs.pytorch.org/docs/stable/sparse.html
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.autograd.graph import Node, needs, result, vertex, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.cuda.kernels import embedding as kernels
from gpunn.device import Device, resolve
from gpunn.layout import sparse_coo
from gpunn.ops.create import to_device
from gpunn.ops.index import add_at
from gpunn.tensor import Size, Tensor, method, wrap

_new = object.__new__


class SparseTensor(Tensor):
    """A tensor whose entries not listed are zero; made by `sparse_coo_tensor` or `to_sparse`."""

    __slots__ = ("_places", "_entries", "_size", "_coalesced")
    _places: Any
    _entries: Any
    _size: tuple[int, ...]
    _coalesced: bool
    __array_ufunc__ = None  # ndarray + SparseTensor is ours
    is_sparse = True
    layout = sparse_coo

    def __new__(
        cls, places: Any, entries: Any, size: Any, device: Device, once: bool = False
    ) -> SparseTensor:
        out = _new(cls)
        out._places, out._entries, out._size, out._coalesced = places, entries, tuple(size), once
        out.device = device
        out._requires_grad = False
        out._grad = out.node = out._base = out._extra = None
        return out

    @property
    def array(self) -> Any:  # type: ignore[override]
        raise RuntimeError(
            "this operation works on dense tensors and got a sparse one: call .to_dense() first"
        )

    shape = property(lambda self: Size(self._size))  # type: ignore[assignment]
    dtype = property(lambda self: wrap(self._entries).dtype)  # type: ignore[assignment]
    ndim = property(lambda self: len(self._size))  # type: ignore[assignment]

    def dim(self) -> int:
        return len(self._size)

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self._size[dim]

    def numel(self) -> int:
        return math.prod(self._size)

    def sparse_dim(self) -> int:
        """How many dimensions the indices cover."""
        return self._places.shape[0]

    def dense_dim(self) -> int:
        """How many dimensions each value has."""
        return self._entries.ndim - 1

    def _nnz(self) -> int:
        return self._places.shape[1]

    def is_coalesced(self) -> bool:
        """Whether each place is listed once, in order."""
        return self._coalesced

    def _indices(self) -> Tensor:
        return wrap(self._places, self.device)

    def _values(self) -> Tensor:
        return wrap(self._entries, self.device)

    def indices(self) -> Tensor:
        """The places, (sparse dims, n), of a coalesced tensor."""
        self._once("indices")
        return self._indices()

    def values(self) -> Tensor:
        """The values, (n, *dense dims), of a coalesced tensor."""
        self._once("values")
        return self._values()

    def _once(self, what: str) -> None:
        if not self._coalesced:
            raise RuntimeError(
                f"Cannot get {what} on an uncoalesced tensor, please call .coalesce() first"
            )

    def coalesce(self) -> SparseTensor:
        """The same with each place once, in order; values of one place are added up."""
        if self._coalesced:
            return self
        xp = self.device.xp
        sparse = self._size[: self.sparse_dim()]
        flat = xp.zeros(self._nnz(), np.int64)
        for place, n in zip(self._places, sparse, strict=True):
            flat = flat * n + place
        found = None if xp is np else kernels.coalesce(flat, self._entries)
        if found is None:
            places, owner = xp.unique(flat, return_inverse=True)
            entries = xp.zeros((places.size, *self._entries.shape[1:]), self._entries.dtype)
            add_at(entries, (owner.reshape(-1),), self._entries)
        else:
            places, entries = found
        spread = xp.stack(xp.unravel_index(places, sparse)).astype(np.int64)
        return SparseTensor(spread, entries, self._size, self.device, True)

    def to_dense(self, dtype: Any = None, *, masked_grad: Any = None) -> Tensor:
        """The dense tensor."""
        whole = self.device.xp.zeros(self._size, self._entries.dtype)
        add_at(whole, tuple(self._places), self._entries)
        made = result(whole, self, _same_vjp, (self,))
        return made if dtype is None else made.to(dtype)  # type: ignore[attr-defined]

    def _with(self, entries: Any) -> SparseTensor:
        return SparseTensor(self._places, entries, self._size, self.device, self._coalesced)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, SparseTensor):
            if other._size != self._size:
                raise RuntimeError(f"add: expected sizes to match, got {list(self._size)} and "
                                   f"{list(other._size)}")  # fmt: skip
            xp = self.device.xp
            return SparseTensor(
                xp.concatenate([self._places, other._places], axis=1),
                xp.concatenate([self._entries, other._entries]), self._size, self.device,
            )  # fmt: skip
        if isinstance(other, Tensor):
            return other + self.to_dense()  # type: ignore[operator]
        if hasattr(other, "dtype"):  # a raw gradient
            return other + self.to_dense().array
        return NotImplemented

    __radd__ = __add__

    def __mul__(self, other: Any) -> Any:
        factor = other.item() if isinstance(other, Tensor) else other
        return self._with(self._entries * self._entries.dtype.type(factor))

    __rmul__ = mul = __mul__  # type: ignore[assignment]

    def __truediv__(self, other: Any) -> Any:
        return self * (1 / (other.item() if isinstance(other, Tensor) else other))

    div = __truediv__  # type: ignore[assignment]

    def __neg__(self) -> SparseTensor:
        return self._with(-self._entries)

    def mul_(self, other: Any) -> SparseTensor:  # type: ignore[override]
        self._entries *= self._entries.dtype.type(
            other.item() if isinstance(other, Tensor) else other
        )
        return self

    def zero_(self) -> SparseTensor:
        self._places, self._entries = self._places[:, :0], self._entries[:0]
        self._coalesced = True
        return self

    def detach(self) -> SparseTensor:
        return self._with(self._entries)

    detach_ = detach

    def clone(self, **_: Any) -> SparseTensor:
        out = self._with(self._entries.copy())
        out._places = self._places.copy()
        return out

    def to(self, *args: Any, **kwargs: Any) -> SparseTensor:
        entries = self._values().to(*args, **kwargs)  # type: ignore[attr-defined]
        places = to_device(self._indices(), entries.device)
        return SparseTensor(places.array, entries.array, self._size, entries.device,
                            self._coalesced)  # fmt: skip

    def cpu(self) -> SparseTensor:  # type: ignore[override]
        return self.to("cpu")

    def norm(self, p: Any = 2) -> Tensor:  # type: ignore[override]
        """The p-norm of all values."""
        return self.coalesce()._values().norm(p)  # type: ignore[attr-defined]

    def sum(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.to_dense().sum(*args, **kwargs)  # type: ignore[attr-defined]

    def __repr__(self, *, tensor_contents: str | None = None) -> str:  # type: ignore[override]
        from gpunn.printing import sparse_repr

        parts = {"indices": self._indices(), "values": self._values()}
        return sparse_repr(self, parts, self._nnz(), "torch.sparse_coo")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return sparse_coo_tensor, (self._indices(), self._values(), self._size)


def sparse_coo_tensor(
    indices: Any, values: Any, size: Any = None, *, dtype: Any = None, device: Any = None,
    requires_grad: bool = False, check_invariants: bool | None = None,
    is_coalesced: bool | None = None,
) -> SparseTensor:  # fmt: skip
    """A sparse tensor from places (sparse dims, n) and values (n, ...); repeated places add up.

    RuntimeError for places outside `size`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.sparse_coo_tensor.html

    >>> gpunn.sparse_coo_tensor([[0, 2]], [1.0, 3.0], (3,)).to_dense()
    tensor([1., 0., 3.])
    """
    from gpunn.ops.create import as_tensor

    entries = as_tensor(values, dtype=dtype, device=device)
    where = entries.device if device is None else resolve(device)
    places = as_tensor(indices, device=where).array.astype(np.int64)
    if places.ndim == 1:
        places = places.reshape(1, -1)
    dense = tuple(entries.array.shape[1:])
    if size is None:
        size = (*(int(p.max()) + 1 if p.size else 0 for p in places), *dense)
    for d, row in enumerate(places):
        if row.size and (int(row.min()) < 0 or int(row.max()) >= size[d]):
            raise RuntimeError(
                f"size is inconsistent with indices: for dim {d}, size is {size[d]} but found "
                f"index {int(row.min()) if int(row.min()) < 0 else int(row.max())}"
            )
    return SparseTensor(places, entries.array, size, where, bool(is_coalesced))


@vjp(name="ToDenseBackward0")
def _same_vjp(g: Any) -> Any:
    return g


@vjp((None,), name="ToSparseBackward0")
def _to_sparse_vjp(g: Any, places: Any) -> Any:
    """The gradient at the places that are listed."""
    g = g.to_dense() if isinstance(g, Tensor) else g
    mask = ns(places).zeros(g.shape, bool)
    mask[tuple(places)] = True
    return g * (wrap(mask, g.device) if isinstance(g, Tensor) else mask)


@method
def to_sparse(input: Tensor, sparse_dim: int | None = None) -> SparseTensor:
    """The tensor in coordinate form, coalesced."""
    x = input.array
    n = x.ndim if sparse_dim is None else sparse_dim
    filled = x != 0 if n == x.ndim else (x != 0).reshape(*x.shape[:n], -1).any(axis=-1)
    places = input.device.xp.stack(filled.nonzero()).astype(np.int64)
    out = SparseTensor(places, x[tuple(places)], x.shape, input.device, True)
    if needs(input):
        out._requires_grad = True
        out.node = Node(_to_sparse_vjp, (vertex(input),), (places,), input.device)
    return out


@method
def to_dense(input: Tensor, dtype: Any = None, *, masked_grad: Any = None) -> Tensor:
    """The tensor itself: it is dense."""
    return input if dtype is None else input.to(dtype)  # type: ignore[attr-defined]
