"""Powers and logarithms of pairs, element by element: pow, ldexp, logaddexp, xlogy."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import dtypes
from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import Node, mode, result, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.ops._rows import (
    NUMBERS,
    adapt,
    binary,
    half,
    inplace,
    proper,
    public,
    publish,
    refusal,
    same_device,
    size_error,
    unary,
    write_out,
)  # fmt: skip
from gpunn.ops._rows import conjugate as _conj
from gpunn.ops.elementwise import mul
from gpunn.tensor import Tensor, wrap

# --- powers -------------------------------------------------------------------------------


def _pow_vjp(g: Any, a: Any, b: Any, y: Any) -> Any:
    xp = ns(g)
    ga = gb = None
    if b is not None:
        ga = g * _conj(b * a ** (b - 1)) if not _is_zero(b) else xp.zeros_like(g)
        if not isinstance(b, NUMBERS):
            ga = xp.where(b == 0, xp.zeros_like(ga), ga)
    if y is not None:
        flat = (a == 0) & _at_least_zero(b)
        log = xp.log(xp.where(flat, xp.ones_like(a), a))
        gb = xp.where(flat, xp.zeros_like(g), g * _conj(y * log))
    return ga, gb


def _is_zero(b: Any) -> bool:
    return isinstance(b, NUMBERS) and b == 0


def _at_least_zero(b: Any) -> Any:
    if b.is_complex() if isinstance(b, Tensor) else b.dtype.kind == "c":
        return (b.imag == 0) & (b.real >= 0)
    return b >= 0


def _pow_forward(a: Any, b: Any, xp: Any) -> Any:
    if a.dtype.kind in "iu" and a.dtype.kind == b.dtype.kind and (b < 0).any():
        # NumPy refuses; PyTorch gives the integer part: 1 and -1 alone survive
        size = xp.where(a == 1, 1, xp.where(a == -1, xp.where(b % 2 == 0, 1, -1), 0))
        return xp.where(b < 0, size.astype(a.dtype), xp.power(a, xp.where(b < 0, 0, b)))
    return xp.power(a, b)


_power = binary(
    "pow", _pow_forward, _pow_vjp, "a b y?b", refuses="b", summary="input ** exponent.",
    example="gpunn.pow(gpunn.tensor([1., 2., 3.]), 2)\ntensor([1., 4., 9.])",
)  # fmt: skip


def _power_row(forward: Any, vjp: Any, saves: int) -> Any:
    return unary("pow", forward, vjp, saves)


_square = _power_row(np.square, lambda g, x: g * (2 * _conj(x)), 0)
_BY_EXPONENT = {  # quicker, and exact where a power by exp and log is not
    2: _square,
    3: _power_row(lambda x, xp: x * x * x, lambda g, x: g * (3 * _conj(x * x)), 0),
    0.5: _power_row(np.sqrt, lambda g, y: g / (2 * _conj(y)), -1),
    -1: _power_row(lambda x, xp: 1 / x, lambda g, y: -g * _conj(y * y), -1),
}


def pow(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:  # noqa: A001
    """input ** exponent, element by element; one of the two may be a number.

    Integers to a negative integer number raise RuntimeError, as in PyTorch.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.pow.html

    >>> gpunn.pow(gpunn.tensor([1., 2., 3.]), 2)
    tensor([1., 4., 9.])
    """
    if type(exponent) in (int, float) and isinstance(input, Tensor):
        kind = input.array.dtype.kind
        if kind not in "biu":
            row = _BY_EXPONENT.get(exponent)
            if row is not None:
                return row(input, out=out)
        elif type(exponent) is int and exponent < 0 and kind != "b":
            raise RuntimeError("Integers to negative integer powers are not allowed.")
    return _power(input, exponent, out=out)


def square(input: Tensor, *, out: Tensor | None = None) -> Tensor:
    """input ** 2; int64 for bool.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.square.html

    >>> gpunn.square(gpunn.tensor([1., -2.]))
    tensor([1., 4.])
    """
    if getattr(input, "dtype", None) is dtypes.bool_:
        return _power(input, 2, out=out)
    return _square(input, out=out)


def _float_power_dtype(input: Any, exponent: Any) -> dtypes.dtype:
    both = (input, exponent)
    wide = any(v.is_complex() if isinstance(v, Tensor) else isinstance(v, complex) for v in both)
    return dtypes.complex128 if wide else dtypes.float64


def float_power(input: Any, exponent: Any, *, out: Tensor | None = None) -> Tensor:
    """input ** exponent in float64 (complex128 for complex).

    Source: https://docs.pytorch.org/docs/stable/generated/torch.float_power.html

    >>> gpunn.float_power(gpunn.tensor([2]), 3)
    tensor([8.], dtype=torch.float64)
    """
    d = _float_power_dtype(input, exponent)
    a, b = (v.to(d) if isinstance(v, Tensor) else v for v in (input, exponent))  # type: ignore[attr-defined]
    if not isinstance(a, Tensor):
        from gpunn.ops.create import tensor

        a = tensor(a, dtype=d)
    if out is not None and out.dtype is not d:
        raise RuntimeError(
            f"the output given to float_power has dtype {proper(out.dtype)} but the operation's "
            f"result requires dtype {proper(d)}"
        )
    return pow(a, b, out=out)


_float_power_inplace = inplace(float_power)


def _float_power_(self: Tensor, exponent: Any) -> Tensor:
    """In-place version of `float_power`: changes this float64 or complex128 tensor."""
    d = _float_power_dtype(self, exponent)
    if self.dtype is not d:
        raise RuntimeError(
            f"the base given to float_power_ has dtype {proper(self.dtype)} but the operation's "
            f"result requires dtype {proper(d)}"
        )
    return _float_power_inplace(self, exponent)


@vjp((None,), name="LdexpBackward0")
def _ldexp_vjp(g: Any, exponent: Any) -> Any:
    if isinstance(g, Tensor):
        return ldexp(g, wrap(exponent, g.device))
    return _ldexp_array(g, exponent, ns(g))


def _ldexp_array(x: Any, exponent: Any, xp: Any) -> Any:
    wide = x.astype(np.float32) if half(x.dtype) else x
    return xp.ldexp(wide, exponent).astype(x.dtype)


@autocasts("ldexp")
def ldexp(input: Tensor, other: Tensor, *, out: Tensor | None = None) -> Tensor:
    """input * 2 ** other, exact for floats and whole exponents.

    Shapes: any two that broadcast. dtypes: the floating input's; with a floating exponent the
    operands' common dtype.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.ldexp.html

    >>> gpunn.ldexp(gpunn.tensor([1.]), gpunn.tensor([3]))
    tensor([8.])
    """
    if not (input.is_floating_point() and isinstance(other, Tensor)) or (
        other.array.dtype.kind not in "biu"
    ):
        return mul(input, pow(2.0, other), out=out)
    if other.dtype is dtypes.bool_:
        raise refusal("ldexp", other.array.dtype)
    device = same_device("ldexp", (input, other))
    exponent = device.xp.asarray(other.array)
    try:
        y = _ldexp_array(input.array, exponent, device.xp)
    except ValueError:
        raise size_error(input.array.shape, exponent.shape) from None
    made = result(y, input)
    if mode.grad and input._requires_grad:
        made._requires_grad = True
        made.node = Node(_ldexp_vjp, (adapt(input, y.shape),), (exponent,), device)
    return made if out is None else write_out(out, made, "ldexp")


# --- logarithms of sums and products ------------------------------------------------------


def _logaddexp_forward(a: Any, b: Any, xp: Any) -> Any:
    if a.dtype.kind != "c":
        return xp.logaddexp(a, b)
    first = a.real >= b.real
    high, low = xp.where(first, a, b), xp.where(first, b, a)
    y = high + xp.log1p(xp.exp(low - high))
    both = (high.real == low.real) & xp.isinf(high.real)  # inf - inf has no value
    return xp.where(both, xp.where(high.real < 0, low, xp.log(xp.exp(a) + xp.exp(b))), y)


def _logaddexp_vjp(g: Any, a: Any, b: Any) -> Any:
    xp = ns(g)
    return g / _conj(1 + xp.exp(b - a)), g / _conj(1 + xp.exp(a - b))


logaddexp = binary(
    "logaddexp", _logaddexp_forward, _logaddexp_vjp, "a b", refuses="biu",
    summary="log(e ** input + e ** other), without overflow.",
    example="gpunn.logaddexp(gpunn.tensor([0.]), gpunn.tensor([0.]))\ntensor([0.6931])",
)  # fmt: skip
logaddexp2 = binary(
    "logaddexp2", np.logaddexp2, lambda g, a, b: (g / (1 + 2 ** (b - a)), g / (1 + 2 ** (a - b))),
    "a b", refuses="biuc", summary="log2(2 ** input + 2 ** other), without overflow.",
    example="gpunn.logaddexp2(gpunn.tensor([0.]), gpunn.tensor([0.]))\ntensor([1.])",
)  # fmt: skip


def _xlogy_forward(a: Any, b: Any, xp: Any) -> Any:
    return xp.where((a == 0) & ~xp.isnan(b), a.dtype.type(0), a * xp.log(b))


def _xlogy_vjp(g: Any, a: Any, b: Any) -> Any:
    xp = ns(g)
    zero = xp.zeros_like(g)
    return xp.where((a == 0) & (b <= 0), zero, g * xp.log(b)), g * a / b


xlogy = binary(
    "xlogy", _xlogy_forward, _xlogy_vjp, "a b", to_float=True, refuses="c",
    summary="input * log(other), 0 where input is 0.",
    example="gpunn.xlogy(gpunn.tensor([0., 2.]), gpunn.tensor([0., 1.]))\ntensor([0., 0.])",
)  # fmt: skip


_METHODS = ["float_power", "ldexp", "pow", "square", "xlogy"]
_METHODS_ONLY_OUT = ["logaddexp", "logaddexp2"]
publish(globals(), [*_METHODS, *_METHODS_ONLY_OUT], _METHODS)
__all__ = [*public(_METHODS, _METHODS), *_METHODS_ONLY_OUT]
Tensor.float_power_ = _float_power_  # type: ignore[attr-defined]
