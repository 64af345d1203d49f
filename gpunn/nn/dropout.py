"""Dropout: zeros at random while training, scaled so that the mean stays.

The mask comes from the device's default generator, one draw an element: on the CPU in the order of
memory, as PyTorch's. On a GPU it is never stored: the gradient computes it again from the place in
the stream.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import draw_integers, native
from gpunn.autograd.graph import result, vjp
from gpunn.cuda.kernels import dropout as kernels
from gpunn.draw import need
from gpunn.generator import default_for
from gpunn.nn._pointwise import Activation
from gpunn.ops._rows import inplace, proper
from gpunn.tensor import Tensor, wrap

_NATIVE_SIZE = 1 << 12  # elements from which on the compiled code is quicker


@vjp((None, None), name="NativeDropoutBackward0")
def _dropout_vjp(g: Any, kept: Any, factor: Any) -> Any:
    if isinstance(g, Tensor):
        return g * wrap(kept * factor, g.device)
    return _apply(g, kept, factor)


def _apply(x: Any, kept: Any, factor: Any) -> Any:
    """x * factor where `kept`, x * 0 elsewhere, of raw arrays; the result lies as `kept` does."""
    order = _order(kept)
    if order is not None:
        y = _apply(x.transpose(order), kept.transpose(order), factor)
        return y.transpose(np.argsort(order))
    y = None
    if type(x) is np.ndarray and x.size >= _NATIVE_SIZE and x.dtype == factor.dtype:
        y = native.dropout(x, kept, float(factor))
    return x * (kept * factor) if y is None else y


def refuse_integers(input: Tensor, p: float) -> None:
    """PyTorch's error for integers and bools, which 1 / (1 - p) does not fit into."""
    if input.array.dtype.kind in "biu" and p < 1:
        raise RuntimeError(
            "result type Float can't be cast to the desired output type "
            f"{proper(input.dtype)} (dropout takes floating numbers)"
        )


def _coins(x: Any, keep: float, device: Any) -> Any:
    """True where an element stays; of a transposed array in the order of its memory, on the CPU."""
    if not keep:  # PyTorch draws nothing
        return device.xp.zeros(x.shape, np.bool_)
    order = None if 0 in x.strides else _order(x)
    shape = x.shape if order is None else tuple(x.shape[d] for d in order)
    kept = draw_integers.bernoulli(shape, np.dtype(np.bool_), None, keep, device=device)
    return kept if order is None else kept.transpose(np.argsort(order))


def _order(x: Any) -> list[int] | None:
    """The dimensions in the order of memory, where that is not their own, of a NumPy array."""
    if type(x) is not np.ndarray or x.flags.c_contiguous:
        return None
    return sorted(range(x.ndim), key=lambda d: -abs(x.strides[d]))


def _drop(input: Tensor, p: float) -> Tensor:
    refuse_integers(input, p)
    x = input.array
    keep = 1 - p
    if type(x) is not np.ndarray and kernels.serves(x.dtype):
        return _kept(input, keep, *default_for(input.device).reserve(x.size))
    need(x.dtype.kind != "c", "bernoulli_scalar_cpu_", x.dtype)
    kept = _coins(x, keep, input.device)
    one = x.dtype.type(1)
    factor = one / x.dtype.type(keep) if keep else one
    return result(_apply(x, kept, factor), input, _dropout_vjp, (input,), (kept, factor))


def _kept(input: Tensor, keep: float, seed: int, offset: int) -> Tensor:
    """The elements that the random words from `offset` on let stay, on a GPU."""
    y = kernels.dropout(input.array, keep, seed, offset)
    return result(y, input, _kept_vjp, (input,), (keep, seed, offset))


@vjp((None, None, None), name="NativeDropoutBackward0")
def _kept_vjp(g: Any, keep: float, seed: int, offset: int) -> Any:
    apply: Any = _kept if isinstance(g, Tensor) else kernels.dropout
    return apply(g, keep, seed, offset)


_drop_ = inplace(_drop, "dropout")


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Each element is zero with probability p, else divided by 1 - p; untouched if not training.

    Shapes: any; the result has the same. ValueError for p outside [0, 1].
    On the CPU the mask is PyTorch's own for the same seed (its bernoulli stream).
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.dropout.html

    >>> F.dropout(gpunn.ones(3), 0.5, training=False)
    tensor([1., 1., 1.])
    """
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0 or input.array.size == 0:
        return input
    return _drop_(input, p) if inplace else _drop(input, p)


class _DropoutNd(Activation):
    """What the modules have in common: their parameters' check and their repr."""

    __constants__ = ["p", "inplace"]
    p: float
    inplace: bool

    def __init__(self, p: float = 0.5, inplace: bool = False):
        super().__init__()
        if p < 0 or p > 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p, self.inplace = p, inplace

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_DropoutNd, function=dropout):
    """`nn.functional.dropout` while the module is training.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html

    >>> nn.Dropout(0.5).eval()(gpunn.ones(3))
    tensor([1., 1., 1.])
    """
