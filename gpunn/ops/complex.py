"""Complex numbers: parts, angles, conjugates, and complex tensors seen as pairs of real ones.

Gradients follow PyTorch's convention: of a real loss L, x.grad is dL/d(real) + i dL/d(imag).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import Node, mode, view, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import (
    adapt,
    inplace,
    not_a_tensor,
    proper,
    same_device,
    size_error,
    unary,
    write_out,
)  # fmt: skip
from gpunn.ops.choose import only
from gpunn.tensor import Tensor, method, wrap


def _is_complex(x: Tensor) -> bool:
    try:
        return x.array.dtype.kind == "c"
    except AttributeError:
        raise not_a_tensor("complex", x) from None


# --- conjugates ---------------------------------------------------------------------------

_conj = unary(
    "conj", np.conjugate, lambda g: g.conj(), None, node_name="ConjBackward0",
)  # fmt: skip


@method
def conj(input: Tensor) -> Tensor:
    """The complex conjugate; real tensors are returned as they are.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.conj.html

    >>> gpunn.conj(gpunn.tensor([1 + 2j]))
    tensor([1.-2.j])
    """
    return _conj(input) if _is_complex(input) else input


def conj_physical(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """The complex conjugate, as `conj`; real tensors are returned as they are.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.conj_physical.html

    >>> gpunn.conj_physical(gpunn.tensor([1 + 2j]))
    tensor([1.-2.j])
    """
    if _is_complex(input):
        return _conj(input, out=out)
    return input if out is None else write_out(out, input, "conj_physical")


@method
def resolve_conj(input: Tensor) -> Tensor:
    """input itself: conjugates are computed at once here.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.resolve_conj.html

    >>> gpunn.resolve_conj(gpunn.tensor([1 + 2j]).conj())
    tensor([1.-2.j])
    """
    return input


@method
def resolve_neg(input: Tensor) -> Tensor:
    """input itself: negative values are computed at once here.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.resolve_neg.html

    >>> gpunn.resolve_neg(gpunn.tensor([1.]))
    tensor([1.])
    """
    return input


@method
def is_conj(input: Tensor) -> bool:
    """Whether a conjugation is still to be done: never, see `resolve_conj`.

    >>> gpunn.is_conj(gpunn.tensor([1j]).conj())
    False
    """
    return False


@method
def is_neg(input: Tensor) -> bool:
    """Whether a negation is still to be done: never, see `resolve_neg`.

    >>> gpunn.is_neg(gpunn.tensor([1.]))
    False
    """
    return False


# --- parts --------------------------------------------------------------------------------


@vjp((None,), name="RealBackward0")
def _real_vjp(g: Any, d: Any) -> Any:
    return g.to(dtypes.of(d)) if isinstance(g, Tensor) else g.astype(d)


@vjp((None,), name="ImagBackward0")
def _imag_vjp(g: Any, d: Any) -> Any:
    return _real_vjp(g, d) * 1j


def real(input: Tensor) -> Tensor:
    """The real part, a view; real tensors are returned as they are.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.real.html

    >>> gpunn.real(gpunn.tensor([1 + 2j]))
    tensor([1.])
    """
    if not _is_complex(input):
        return input
    return view(input.array.real, input, _real_vjp, (input.array.dtype,))


def imag(input: Tensor) -> Tensor:
    """The imaginary part, a view; RuntimeError for real tensors.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.imag.html

    >>> gpunn.imag(gpunn.tensor([1 + 2j]))
    tensor([2.])
    """
    if not _is_complex(input):
        raise RuntimeError("imag is not implemented for tensors with non-complex dtypes.")
    return view(input.array.imag, input, _imag_vjp, (input.array.dtype,))


def _part(function: Any) -> property:
    """The attribute x.real or x.imag; assigning writes into x."""

    def assign(self: Tensor, value: Any) -> None:
        function(self).copy_(value)

    return property(function, assign, doc=function.__doc__.partition("\n")[0])


Tensor.real, Tensor.imag = _part(real), _part(imag)  # type: ignore[assignment]


def _angle_forward(x: Any, xp: Any) -> Any:
    if x.dtype.kind == "c":
        return xp.arctan2(x.imag, x.real)
    return xp.where(x != x, x, xp.where(x < 0, math.pi, 0)).astype(x.dtype)


def _angle_vjp(g: Any, x: Any) -> Any:
    if not (x.is_complex() if isinstance(x, Tensor) else x.dtype.kind == "c"):
        return ns(g).zeros_like(g)
    size = x.real * x.real + x.imag * x.imag
    scaled = g / ns(x).where(size == 0, ns(x).ones_like(size), size)
    return only(size != 0, x * scaled * 1j)


angle = unary(
    "angle", _angle_forward, _angle_vjp, to_float=True,
    summary="The angle in radians; 0 or pi for real numbers.",
    example="gpunn.angle(gpunn.tensor([1j]))\ntensor([1.5708])",
)  # fmt: skip

# --- complex tensors from real ones -------------------------------------------------------


@vjp((), name="ComplexBackward0")
def _complex_vjp(g: Any) -> Any:
    return g.real, g.imag


def complex(real: Tensor, imag: Tensor, *, out: Tensor | None = None) -> Tensor:  # noqa: A001
    """real + i imag.

    Shapes: any two that broadcast. dtypes: both float32 (complex64) or both float64
    (complex128); RuntimeError otherwise.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.complex.html

    >>> gpunn.complex(gpunn.tensor([1.]), gpunn.tensor([2.]))
    tensor([1.+2.j])
    """
    _check_parts("complex", real, imag)
    device = same_device("complex", (real, imag))
    a, b = real.array, imag.array
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise size_error(a.shape, b.shape) from None
    y = device.xp.empty(shape, real.dtype.to_complex().numpy)
    y.real, y.imag = a, b
    t = wrap(y, device)
    if mode.grad and (real._requires_grad or imag._requires_grad):
        t._requires_grad = True
        t.node = Node(_complex_vjp, (adapt(real, shape), adapt(imag, shape)), (), device)
    return t if out is None else _complex_out(out, t, "complex")


def _check_parts(name: str, a: Tensor, b: Tensor) -> None:
    for t in (a, b):
        if t.dtype not in (dtypes.float32, dtypes.float64):
            raise RuntimeError(
                f"Expected both inputs to be Half, Float or Double tensors but got "
                f"{proper(a.dtype)} and {proper(b.dtype)} ({name})"
            )
    if a.dtype is not b.dtype:
        raise RuntimeError(
            f"Expected object of scalar type {proper(a.dtype)} but got scalar type "
            f"{proper(b.dtype)} for second argument ({name})"
        )


def _complex_out(out: Tensor, value: Tensor, name: str) -> Tensor:
    if out.dtype is not value.dtype:
        raise RuntimeError(
            f"Expected object of scalar type {proper(value.dtype)} but got scalar type "
            f"{proper(out.dtype)} for argument 'out' ({name})"
        )
    return write_out(out, value, name)


@autocasts("polar")
def polar(abs: Tensor, angle: Tensor, *, out: Tensor | None = None) -> Tensor:  # noqa: A002
    """The complex numbers of absolute value `abs` and angle `angle` (radians).

    Shapes and dtypes: see `complex`.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.polar.html

    >>> gpunn.polar(gpunn.tensor([2.]), gpunn.tensor([0.]))
    tensor([2.+0.j])
    """
    _check_parts("polar", abs, angle)
    made = complex(abs * angle.cos(), abs * angle.sin())  # type: ignore[attr-defined, operator]
    return made if out is None else _complex_out(out, made, "polar")


# --- complex as pairs ---------------------------------------------------------------------


@vjp((), name="ViewAsRealBackward0")
def _view_as_real_vjp(g: Any) -> Any:
    if isinstance(g, Tensor):
        return complex(g[..., 0], g[..., 1])  # type: ignore[index]
    return g[..., 0] + 1j * g[..., 1]


def view_as_real(input: Tensor) -> Tensor:
    """A complex tensor as a real view with a last dimension of 2: real and imaginary parts.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.view_as_real.html

    >>> gpunn.view_as_real(gpunn.tensor([1 + 2j]))
    tensor([[1., 2.]])
    """
    x = input.array
    if not _is_complex(input):
        raise RuntimeError("view_as_real is only supported for complex tensors")
    part = x.real
    y = ns(x).lib.stride_tricks.as_strided(part, (*x.shape, 2), (*x.strides, part.itemsize))
    return view(y, input, _view_as_real_vjp)


@vjp((), name="ViewAsComplexBackward0")
def _view_as_complex_vjp(g: Any) -> Any:
    return ns(g).stack([g.real, g.imag], -1)


@autocasts("view_as_complex")
def view_as_complex(input: Tensor) -> Tensor:
    """A real tensor whose last dimension is 2 as a complex view: (real, imaginary) pairs.

    RuntimeError where the memory does not allow it.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.view_as_complex.html

    >>> gpunn.view_as_complex(gpunn.tensor([[1., 2.]]))
    tensor([1.+2.j])
    """
    x = input.array
    if input.dtype not in (dtypes.float32, dtypes.float64):
        raise RuntimeError(
            "view_as_complex is only supported for half, float and double tensors, but got a "
            f"tensor of scalar type: {proper(input.dtype)}"
        )
    if x.ndim == 0:
        raise RuntimeError("Input tensor must have one or more dimensions")
    if x.shape[-1] != 2:
        raise RuntimeError("Tensor must have a last dimension of size 2")
    if x.strides[-1] != x.itemsize:
        raise RuntimeError("Tensor must have a last dimension with stride 1")
    if any(s % (2 * x.itemsize) for s, n in zip(x.strides[:-1], x.shape, strict=False) if n > 1):
        raise RuntimeError("Tensor must have a stride divisible by 2 for all but last dimension")
    y = x.view(input.dtype.to_complex().numpy)[..., 0]
    return view(y, input, _view_as_complex_vjp)


def _conj_physical_(self: Tensor) -> Tensor:
    """In-place version of `conj_physical`: changes this tensor and returns it."""
    return _conj_in_place(self) if _is_complex(self) else self


_conj_in_place = inplace(_conj, "conj_physical")
Tensor.angle = angle  # type: ignore[attr-defined]
Tensor.conj_physical, Tensor.conj_physical_ = conj_physical, _conj_physical_  # type: ignore[attr-defined]
conj_physical_ = _conj_physical_
__all__ = [
    "angle", "complex", "conj", "conj_physical", "conj_physical_", "imag", "is_conj", "is_neg",
    "polar", "real", "resolve_conj", "resolve_neg", "view_as_complex", "view_as_real",
]  # fmt: skip
