"""Filling tensors in place, and the tensor's state: detach_, fill_, zero_, share_memory_."""

from __future__ import annotations

import sys as _sys
from typing import Any

import numpy as np

from gpunn.autograd.graph import adopt, check_inplace, result, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.tensor import Tensor, method, root


@vjp(name="FillBackward0")
def _fill_vjp(g: Any) -> Any:
    """Nothing of what was overwritten, all of a tensor that was written."""
    return ns(g).zeros_like(g), g.sum()


@vjp(name="ZeroBackward0")
def _zero_vjp(g: Any) -> Any:
    return ns(g).zeros_like(g)


def _fill_array(x: Tensor, value: Any) -> Any:
    """A raw number for x's dtype; RuntimeError for a complex one in a real tensor."""
    if isinstance(value, Tensor):
        if value.array.ndim:
            raise RuntimeError(
                "fill_ only supports 0-dimension value tensor but got tensor with "
                f"{value.array.ndim} dimensions."
            )
        value = value.array.astype(x.array.dtype)
    if isinstance(value, complex) and not x.dtype.is_complex:
        raise RuntimeError("value cannot be converted to type float without overflow")
    return value


@method
def fill_(self: Tensor, value: Any) -> Tensor:
    """Writes one number, or a 0-dim tensor, into every element, in place."""
    check_inplace(self)
    number = _fill_array(self, value)
    parents = (self, value) if isinstance(value, Tensor) else (self,)
    self.array[...] = number
    adopt(self, result(self.array, self, _fill_vjp if len(parents) == 2 else _zero_vjp, parents))
    return self


def fill(input: Tensor, value: Any) -> Tensor:
    """A copy of input with every element one number, or a 0-dim tensor.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.fill_.html

    >>> gpunn.fill(gpunn.zeros(2), 7)
    tensor([7., 7.])
    """
    return fill_(input.clone(), value)


@method
def zero_(self: Tensor) -> Tensor:
    """Writes zero into every element, in place."""
    check_inplace(self)
    self.array[...] = 0
    adopt(self, result(self.array, self, _zero_vjp, (self,)))
    return self


@method
def fill_diagonal_(self: Tensor, fill_value: Any, wrap: bool = False) -> Tensor:
    """Writes a number onto the diagonal, in place; `wrap` goes on below it in tall matrices."""
    if self.array.ndim < 2:
        raise RuntimeError("dimensions must larger than 1")
    if self.array.ndim > 2 and len(set(self.array.shape)) > 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    n = min(self.array.shape)
    step = tuple(range(n))
    if self.array.ndim == 2 and wrap:
        rows, columns = self.array.shape
        flat = np.arange(0, rows * columns, columns + 1)
        key = (flat // columns, flat % columns)
    else:
        key = (np.array(step, np.int64),) * self.array.ndim
    self[key] = fill_value
    return self


@method
def detach_(self: Tensor) -> Tensor:
    """Forgets the history: the tensor becomes a leaf without gradient, in place."""
    if self._base is not None:
        raise RuntimeError("Can't detach views in-place. Use detach() instead.")
    self.node, self._requires_grad = None, False
    return self


@method
def share_memory_(self: Tensor) -> Tensor:
    """The tensor itself, its values moved to memory that processes which get it share.

    What one process writes, all see; a CUDA tensor stays as it is. RuntimeError for a view.
    """
    if self.device.type == "cpu":
        from gpunn.multiprocessing.memory import share

        share(self)
    return self


@method
def is_shared(self: Tensor) -> bool:
    """Whether other processes that get the tensor share its memory; True on a GPU."""
    if self.device.type != "cpu":
        return True
    memory = _sys.modules.get("gpunn.multiprocessing.memory")
    return memory is not None and memory.memory_of(self.array) is not None


@method
def pin_memory(self: Tensor, device: Any = None) -> Tensor:
    """A copy in page-locked memory, from which a GPU copies faster; itself on a CPU machine."""
    from gpunn import cuda

    if self.device.type != "cpu" or not cuda.is_available():
        return self
    from gpunn.utils.data.pin_memory import pinned

    return pinned(self)


@method
def is_pinned(self: Tensor, device: Any = None) -> bool:
    """Whether the values lie in page-locked memory, which only `pin_memory` gives."""
    from gpunn import cuda

    return self.device.type == "cpu" and cuda.is_available() and _is_pinned(root(self.array).base)


def _is_pinned(owner: Any) -> bool:
    """Whether CuPy's pinned memory is the owner of an array's memory."""
    owner = getattr(owner, "obj", owner)
    return owner.__class__.__name__.startswith("PinnedMemory")


__all__ = ["detach_", "fill", "fill_", "zero_"]
