"""Masks: elements filled or replaced where a bool tensor says so."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd.graph import check_inplace, mode, needs, result, touch, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import inplace, same_device
from gpunn.ops.choose import only, where_array
from gpunn.ops.index import put, refuse_overlap
from gpunn.ops.index_write import fill_value
from gpunn.ops.shape import broadcast_tensors
from gpunn.ops.views import expand, reshape
from gpunn.tensor import Tensor, method, wrap


def _mask(name: str, mask: Tensor) -> Any:
    if mask.array.dtype != np.bool_:
        raise RuntimeError(
            f"{name} only supports boolean masks, but got mask with dtype {mask.dtype}. Use "
            "mask.bool()"
        )
    return mask.array


@vjp((None,), masked=True)
def _masked_fill_vjp(g: Any, mask: Any, needs: tuple[bool, bool]) -> Any:
    if isinstance(g, Tensor):
        m = wrap(mask, g.device)
        gv = g.masked_fill(~m, 0).sum() if needs[1] else None  # type: ignore[attr-defined]
        return g.masked_fill(m, 0), gv  # type: ignore[attr-defined]
    return only(~mask, g), only(mask, g).sum() if needs[1] else None


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A copy of input with `value`, a number or 0-dim tensor, where mask is true.

    Shapes: input and mask broadcast. RuntimeError where value does not fit input's dtype.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.masked_fill_.html

    >>> gpunn.tensor([1, 2]).masked_fill(gpunn.tensor([True, False]), 0)
    tensor([0, 2])
    """
    m = _mask("masked_fill_", mask)
    if mask.device is not input.device:
        same_device("masked_fill", (input, mask))
    fill = fill_value("masked_fill", input, value)
    x = input.array
    y = where_array(m, fill.array, x)
    if y.shape != x.shape:
        input = expand(input, y.shape)
    return result(y, input, _masked_fill_vjp, (input, fill), (m,))


_recorded_fill = inplace(masked_fill)


@method
def masked_fill_(self: Tensor, mask: Tensor, value: Any) -> Tensor:
    """In-place version of `masked_fill`: mask must broadcast to this tensor's shape."""
    if mode.grad and (self._requires_grad or needs(value)):
        return _recorded_fill(self, mask, value)
    m = _mask("masked_fill_", mask)
    if mask.device is not self.device:
        same_device("masked_fill_", (self, mask))
    fill = fill_value("masked_fill", self, value)
    check_inplace(self)
    refuse_overlap(self.array)
    try:
        ns(m).copyto(self.array, fill.array, where=m)
    except ValueError:
        shape = broadcast_tensors(self.detach(), mask)[0].array.shape
        raise RuntimeError(
            f"output with shape {list(self.array.shape)} doesn't match the broadcast shape "
            f"{list(shape)} (masked_fill_)"
        ) from None
    touch(self)
    return self


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy of input whose elements under the mask are taken from source, in order.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.masked_scatter_.html

    >>> mask = gpunn.tensor([True, False, True])
    >>> gpunn.tensor([1, 2, 3]).masked_scatter(mask, gpunn.tensor([8, 9]))
    tensor([8, 2, 9])
    """
    same_device("masked_scatter", (input, mask, source))
    if source.dtype is not input.dtype:
        raise RuntimeError("masked_scatter: expected self and source to have same dtypes but got"
                           f"{input.dtype} and {source.dtype}")  # fmt: skip
    x, mask = broadcast_tensors(input, mask)
    m = _mask("masked_scatter_", mask)
    count = int(m.sum())
    if source.array.size < count:
        raise RuntimeError(
            f"Number of elements of source < number of ones in mask: {source.array.size} < {count}"
        )
    part = reshape(source, source.array.size)[:count]  # type: ignore[index]
    if not m.ndim:
        return reshape(put(reshape(x, 1), (m.reshape(1),), part, False), ())
    return put(x, (m,), part, False)


__all__ = ["masked_fill", "masked_scatter"]
for _f in (masked_fill, masked_scatter):
    method(_f)
setattr(Tensor, "masked_scatter_", inplace(masked_scatter))  # noqa: B010
