"""The pseudo-inverse and least squares, by singular values."""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import result, vjp
from gpunn.linalg._common import (
    adjoint,
    check_floating,
    check_square,
    check_tensor,
    common_batch,
    constant,
    give,
    lapack,
    return_type,
    tensor_vjp,
)
from gpunn.linalg.norms import tolerance
from gpunn.linalg.spectral import svd_arrays
from gpunn.ops._rows import half, proper, same_device
from gpunn.tensor import Tensor, wrap


@tensor_vjp((0, -1), name="LinalgPinvBackward0")
def _pinv_vjp(g: Any, a: Any, p: Any) -> Any:
    """Golub and Pereyra, The Differentiation of Pseudo-Inverses (1973), for constant rank."""
    pa, ga = adjoint(p), adjoint(g)
    rows, columns = ga @ (p @ pa), (pa @ p) @ ga
    return rows - a @ (p @ rows) + columns - (columns @ p) @ a - pa @ g @ pa


def _spectrum(a: Tensor, hermitian: bool) -> tuple[Any, Any, Any]:
    """Raw u, s, vh with a = u * s @ vh, s real and not negative."""
    if not hermitian:
        return svd_arrays(a.array, False)
    values, u = lapack("eigh", a.array)
    xp = a.device.xp
    sign = xp.where(values < 0, -1, 1).astype(values.dtype)
    return u, abs(values), sign[..., None] * u.swapaxes(-1, -2).conj()


def _inverted(a: Tensor, s: Any, atol: Any, rtol: Any) -> tuple[Any, Any]:
    """1 / s, 0 for what counts as 0, and which do not."""
    values = wrap(s, a.device)
    limit = tolerance(a, values, atol, rtol)
    xp = a.device.xp
    keep = s > limit.array[..., None]
    return xp.where(keep, 1 / xp.where(keep, s, 1), 0).astype(s.dtype), keep


def pinv(
    input: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None,
    rtol: Any = None, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The pseudo-inverse (Moore-Penrose), by singular values.

    Shapes: (*, m, n) gives (*, n, m). Singular values of at most max(atol, rtol * the largest)
    count as 0; `rcond` is the older name of rtol. The gradient is that at constant rank.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.pinv.html

    >>> gpunn.linalg.pinv(gpunn.tensor([[2., 0.], [0., 0.]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.0000]])
    """
    check_tensor("linalg.pinv", "input", input)
    a = input.array
    if a.ndim < 2 or a.dtype.kind in "biu" or half(a.dtype):
        raise RuntimeError(
            f"linalg.pinv({proper(input.dtype)}{{{list(a.shape)}}}): expected a tensor with 2 or "
            "more dimensions of float, double, cfloat or cdouble types"
        )
    if hermitian:
        check_square("linalg.pinv", input)
    if a.size == 0:
        xp = input.device.xp
        p = xp.zeros((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype)
    else:
        u, s, vh = _spectrum(input, hermitian)
        inverted, _ = _inverted(input, s, atol, rcond if rtol is None else rtol)
        p = (vh.swapaxes(-1, -2).conj() * inverted[..., None, :]) @ u.swapaxes(-1, -2).conj()
    return give(result(p, input, _pinv_vjp, (input,), (a, p)), out, "linalg.pinv")


@autocasts("pinverse")
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The pseudo-inverse: `linalg.pinv` with the older default of rcond.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.pinverse.html

    >>> gpunn.pinverse(gpunn.tensor([[2.]]))
    tensor([[0.5000]])
    """
    return pinv(input, rcond)


_Lstsq = return_type("linalg_lstsq", "solution", "residuals", "rank", "singular_values")
DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


def _lstsq_composed(a: Tensor, b: Tensor, *_: Any) -> Tensor:
    return pinv(a, 0.0) @ b


@vjp((0, 1, None), composed=_lstsq_composed, name="LinalgLstsqBackward0")
def _lstsq_vjp(g: Any, a: Any, b: Any, p: Any) -> Any:
    """Through the pseudo-inverse: x = pinv(a) @ b."""
    turned = b.swapaxes(-1, -2).conj()
    return _pinv_vjp(g @ turned, a, p), p.swapaxes(-1, -2).conj() @ g


@autocasts("linalg_lstsq")
def lstsq(
    input: Tensor, b: Tensor, rcond: float | None = None, *, driver: str | None = None,
    out: Any = None,
) -> Any:  # fmt: skip
    """(solution, residuals, rank, singular_values) of min ||A X - B||, by singular values.

    Shapes: A (*, m, n), B (*, m, k) or (*, m). As PyTorch's drivers do: residuals for m > n and
    full rank with gels, gelsd, gelss; rank with all but gels; singular values with gelsd, gelss.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.linalg.lstsq.html

    >>> A = gpunn.tensor([[1.], [1.]])
    >>> gpunn.linalg.lstsq(A, gpunn.tensor([[1.], [3.]])).solution.round()
    tensor([[2.]])
    """
    name = "torch.linalg.lstsq"
    driver = _check_lstsq(name, input, b, driver)
    vector = _is_lstsq_vector(input, b)
    a, rhs = common_batch(input, b.unsqueeze(-1) if vector else b)
    m, n = a.array.shape[-2:]
    rcond = float(np.finfo(a.array.dtype).eps) * max(m, n) if rcond is None else rcond
    u, s, vh = _spectrum(a.detach(), False)
    inverted, keep = _inverted(a.detach(), s, None, rcond if driver != "gels" else 0.0)
    right = vh.swapaxes(-1, -2).conj() * inverted[..., None, :]
    left = u.swapaxes(-1, -2).conj()
    x = right @ (left @ rhs.array)
    solution = result(x, a, _lstsq_vjp, (a, rhs), (a.array, rhs.array, right @ left))
    rank = keep.sum(-1)
    empty = a.device.xp.zeros(0, s.dtype)
    full = m > n and driver != "gelsy" and bool((rank == n).all())
    residuals = ((rhs - a @ solution).abs() ** 2).sum(-2) if full else constant(empty, solution)
    made = _Lstsq(
        solution.squeeze(-1) if vector else solution,
        residuals,
        result(rank if driver != "gels" else empty.astype(np.int64), a),
        result(s if driver in ("gelsd", "gelss") else empty, a),
    )
    return give(made, out, name)


def _is_lstsq_vector(a: Tensor, b: Tensor) -> bool:
    return b.array.ndim == 1 or (
        a.array.ndim - 1 == b.array.ndim and a.array.shape[:-1] == b.array.shape
    )


def _check_lstsq(name: str, a: Tensor, b: Tensor, driver: str | None) -> str:
    """The driver; raises for arguments that do not fit."""
    check_tensor("linalg.lstsq", "b", b, 2)
    check_tensor("linalg.lstsq", "input", a)
    if a.array.ndim < 2:
        raise RuntimeError(f"{name}: input must have at least 2 dimensions.")
    if b.array.ndim < 1:
        raise RuntimeError(f"{name}: other must have at least 1 dimension.")
    check_floating(name, a)
    same_device(name, (a, b))
    if a.array.dtype != b.array.dtype:
        raise RuntimeError(
            f"{name}: Expected input and other to have the same dtype, but got input's dtype "
            f"{proper(a.dtype)} and other's dtype {proper(b.dtype)}"
        )
    rows = -1 if _is_lstsq_vector(a, b) else -2
    if a.array.shape[-2] != b.array.shape[rows]:
        raise RuntimeError(
            f"{name}: input.size(-2) should match other.size({rows}), got "
            f"{a.array.shape[-2]} and {b.array.shape[rows]}"
        )
    if driver is not None and driver not in DRIVERS:
        raise RuntimeError(
            f"{name}: parameter `driver` should be one of ({', '.join(DRIVERS)}), got {driver!r}"
        )
    return driver or "gelsy"
