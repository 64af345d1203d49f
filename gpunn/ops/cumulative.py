"""Running reductions along a dimension: sums, products, extremes, log-sum-exp; differences."""

# mypy: disable-error-code="attr-defined, operator"
from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import AUTOCAST, casts_one
from gpunn.autograd.graph import namespace as ns
from gpunn.autograd.graph import result, vjp
from gpunn.dtypes import F32, F64
from gpunn.ops._rows import cast, document, half, inplace, write_out
from gpunn.ops.extreme import pair_at, pair_type
from gpunn.settings import alert_not_deterministic
from gpunn.tensor import Tensor, normal_dim

_CumMax, _CumMin = pair_type("cummax"), pair_type("cummin")


def accumulate(name: str, x: Any, axis: int) -> Any:
    """The running results of an associative ufunc along an axis of a raw array."""
    if type(x) is np.ndarray:
        return getattr(np, name).accumulate(x, axis=axis)
    return scan(getattr(ns(x), name), x, axis)


def scan(op: Any, x: Any, axis: int) -> Any:
    """The same for CuPy, which has no `accumulate`: log2(n) steps, each twice as far."""
    lead = (slice(None),) * axis
    y, step = x.copy(), 1
    while step < x.shape[axis]:
        y[(*lead, slice(step, None))] = op(
            y[(*lead, slice(step, None))], y[(*lead, slice(None, -step))]
        )
        step *= 2
    return y


def _turn(x: Any, axis: int) -> Any:
    return ns(x).flip(x, (axis,))


def _from_end(x: Any, axis: int) -> Any:
    """Running sums from the end."""
    return _turn(ns(x).cumsum(_turn(x, axis), axis=axis), axis)


# --- sums and products --------------------------------------------------------------------


@vjp((None,))
def _cumsum_vjp(g: Any, axis: int) -> Any:
    return _from_end(g, axis) if g.ndim else g


def _running(name: str, input: Tensor, dim: int, dtype: Any) -> tuple[Tensor, Any, int]:
    """The input in the dtype to work in, the raw running result, the axis."""
    if dtype is not None:
        input = cast(input, dtypes.as_dtype(dtype).numpy)
    x = input.array
    axis = normal_dim(dim, x.ndim)
    if x.dtype.kind in "biu" and dtype is None:
        x = x.astype(np.int64)
    if type(x) is not np.ndarray and x.dtype.kind not in "biu":
        alert_not_deterministic(f"{name}_cuda_kernel")
    wide = x.astype(F32) if half(x.dtype) else x
    y = getattr(ns(x), name)(wide, axis=axis, dtype=wide.dtype) if x.ndim else wide.copy()
    return input, y.astype(x.dtype, copy=False), axis


def cumsum(
    input: Tensor, dim: Any = None, *, dtype: Any = None, out: Tensor | None = None,
    axis: Any = None,
) -> Tensor:  # fmt: skip
    """Running sums along dim.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cumsum.html

    >>> gpunn.cumsum(gpunn.tensor([1, 2, 3]), 0)
    tensor([1, 3, 6])
    """
    if AUTOCAST and dtype is None and out is None:
        input = casts_one("cumsum", input)
    x, y, d = _running("cumsum", input, axis if dim is None else dim, dtype)
    made = result(y, x, _cumsum_vjp, (x,), (d,))
    return made if out is None else write_out(out, made, "cumsum")


@vjp((0, None))
def _cumprod_vjp(g: Any, x: Any, axis: int) -> Any:
    """Exact where elements are zero: up to a row's first zero the usual quotient, there the
    products without it, nothing after it."""
    if 0 in x.shape or x.ndim == 0:
        return g
    xp = ns(x)
    zero = x.detach() == 0 if isinstance(x, Tensor) else x == 0
    if not zero.any():
        return _from_end(g * xp.cumprod(x, axis=axis).conj(), axis) / x.conj()
    if isinstance(x, Tensor):
        return _cumprod_gradients(g, x, axis)
    count = xp.cumsum(zero, axis=axis)
    first = zero & (count == 1)
    filled = xp.where(zero, x.dtype.type(1), x)
    before = _from_end(g * xp.cumprod(x, axis=axis).conj(), axis) / filled.conj()
    other = xp.cumprod(xp.where(first, x.dtype.type(1), x), axis=axis).conj()
    at = _from_end(g * other * (count >= 1), axis)
    return xp.where(first, at, xp.where(count == 0, before, x.dtype.type(0)))


def _cumprod_gradients(g: Tensor, x: Tensor, axis: int) -> Tensor:
    """The gradient of each prefix product, summed: n^2 products, differentiable at zeros."""
    from gpunn.ops.join import cat
    from gpunn.ops.reduce import prod

    n = x.array.shape[axis]
    ones = x.narrow(axis, 0, 1) * 0 + 1
    parts = []
    for i in range(n):
        tail = cumprod(cat([ones, x.narrow(axis, i + 1, n - i - 1)], axis), axis)
        others = tail * prod(x.narrow(axis, 0, i), axis, True)
        parts.append((g.narrow(axis, i, n - i) * others.conj()).sum(axis, True))
    return cat(parts, axis)


def cumprod(
    input: Tensor, dim: Any = None, *, dtype: Any = None, out: Tensor | None = None,
    axis: Any = None,
) -> Tensor:  # fmt: skip
    """Running products along dim.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cumprod.html

    >>> gpunn.cumprod(gpunn.tensor([1, 2, 3]), 0)
    tensor([1, 2, 6])
    """
    if AUTOCAST and dtype is None and out is None:
        input = casts_one("cumprod", input)
    x, y, d = _running("cumprod", input, axis if dim is None else dim, dtype)
    made = result(y, x, _cumprod_vjp, (x,), (x.array, d))
    return made if out is None else write_out(out, made, "cumprod")


# --- extremes -----------------------------------------------------------------------------


def _running_extreme(name: str, kind: Any) -> Any:
    ufunc = "maximum" if name == "cummax" else "minimum"

    def running(input: Tensor, dim: int, *, out: Any = None) -> Any:
        x = input.array
        axis = normal_dim(dim, x.ndim)
        xp = ns(x)
        wide = (x.astype(F32) if half(x.dtype) else x).reshape(x.shape or (1,))
        best = accumulate(ufunc, wide, axis)
        place = xp.arange(wide.shape[axis]).reshape((-1,) + (1,) * (wide.ndim - 1 - axis))
        hit = (wide == best) | (wide != wide)
        indices = accumulate("maximum", xp.where(hit, place, 0), axis)
        return pair_at(kind, name, input, indices, dim, True, out)

    document(running, name, f"(values, indices) of the running {name[3:]}imum along dim.",
             f"gpunn.{name}(gpunn.tensor([1, 3, 2]), 0).values\n"
             f"tensor([{'1, 3, 3' if name == 'cummax' else '1, 1, 1'}])", "unchanged",
             "unchanged; indices are int64")  # fmt: skip
    return running


cummax = _running_extreme("cummax", _CumMax)
cummin = _running_extreme("cummin", _CumMin)


# --- log-sum-exp --------------------------------------------------------------------------


def _log_running(x: Any, axis: int) -> Any:
    """The running log-sum-exp of an array or Tensor."""
    if isinstance(x, Tensor):
        return logcumsumexp(x, axis)
    if x.dtype.kind == "c":
        return _complex_log_running(x, axis)
    wide = x.astype(F64) if x.dtype == F32 else x  # as PyTorch's sums
    return accumulate("logaddexp", wide, axis).astype(x.dtype, copy=False)


def _complex_log_running(x: Any, axis: int) -> Any:
    """From each to the next, as the imaginary part counts the turns."""
    xp = ns(x)
    y = x.copy()
    rows = xp.moveaxis(y, axis, 0)
    for before, now in zip(rows, rows[1:], strict=False):
        more = before.real > now.real
        high, low = xp.where(more, before, now), xp.where(more, now, before)
        finite = xp.isfinite(high.real)
        ratio = xp.exp(xp.where(finite, low - high, x.dtype.type(0)))
        now[...] = xp.where(finite, high + xp.log(1 + ratio), high)
    return y


@vjp((0, -1, None))
def _logcumsumexp_vjp(g: Any, x: Any, y: Any, axis: int) -> Any:
    """sum over j >= i of g[j] exp(x[i] - y[j]), in logarithms: no exp(-y) that overflows."""
    xp = ns(g)
    if x.dtype in _COMPLEX:
        weight = xp.log(g.conj()) - y
        return xp.exp(_turn(_log_running(_turn(weight, axis), axis), axis) + x).conj()
    least = dtypes.finfo(g.dtype if isinstance(g, Tensor) else dtypes.of(g.dtype)).min
    parts = []
    for sign in (1, -1):
        has = g * sign > 0
        weight = xp.where(has, xp.log(xp.where(has, g * sign, 1.0)), least) - y
        parts.append(xp.exp(_turn(_log_running(_turn(weight, axis), axis), axis) + x))
    return parts[0] - parts[1]


_COMPLEX = (dtypes.complex64, dtypes.complex128, np.complex64, np.complex128)


def logcumsumexp(input: Tensor, dim: int, *, out: Tensor | None = None) -> Tensor:
    """log of the running sums of exp(x) along dim, without overflow.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.logcumsumexp.html

    >>> gpunn.logcumsumexp(gpunn.zeros(2), 0)
    tensor([0.0000, 0.6931])
    """
    x = input
    if x.dtype.category < dtypes.FLOATING:
        x = cast(x, dtypes.get_default_dtype().numpy)
    a = x.array
    axis = normal_dim(dim, a.ndim)
    if type(a) is not np.ndarray:
        alert_not_deterministic("logcumsumexp_cuda_kernel")
    if a.ndim == 0:
        made = x.clone()
    else:
        y = _log_running(a.astype(F32) if half(a.dtype) else a, axis).astype(a.dtype, copy=False)
        made = result(y, x, _logcumsumexp_vjp, (x,), (a, y, axis))
    return made if out is None else write_out(out, made, "logcumsumexp")


# --- differences --------------------------------------------------------------------------


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
    append: Tensor | None = None, *, out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The n-th differences of neighbours along dim; `prepend` and `append` lengthen it first.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.diff.html

    >>> gpunn.diff(gpunn.tensor([1, 4, 9]))
    tensor([3, 5])
    """
    from gpunn.ops.join import cat

    if input.array.ndim == 0:
        raise RuntimeError("diff expects input to be at least one-dimensional")
    if n < 0:
        raise RuntimeError(f"order must be non-negative but got {n}")
    axis = normal_dim(dim, input.array.ndim)
    parts = [t for t in (prepend, input, append) if t is not None]
    x = cat(parts, axis) if len(parts) > 1 and n else input
    for _ in range(n):
        length = max(x.array.shape[axis] - 1, 0)
        ahead = x.narrow(axis, min(1, x.array.shape[axis]), length)
        behind = x.narrow(axis, 0, length)
        x = ahead ^ behind if x.dtype is dtypes.bool_ else ahead - behind
    if x is input:
        x = input.clone()
    return x if out is None else write_out(out, x, "diff")


_METHODS = ["cummax", "cummin", "cumprod", "cumsum", "diff", "logcumsumexp"]
__all__ = list(_METHODS)
for _name in _METHODS:
    setattr(Tensor, _name, globals()[_name])
for _name in ("cumsum", "cumprod"):
    setattr(Tensor, _name + "_", inplace(globals()[_name], _name))
