"""Truth of elements: comparisons, logic, bits, tests of values, and equality of whole tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.ops._rows import binary, publish, same_device, unary
from gpunn.tensor import Tensor, method, wrap

# --- comparison ---------------------------------------------------------------------------


def _compare(name: str, ufunc: Any, sign: str, refuses: str = "c") -> Any:
    truth = [bool(ufunc(a, 2)) for a in (1, 2)]
    width = 4 if all(truth) else 5
    return binary(
        name, ufunc, None, compares=True, refuses=refuses,
        summary=f"input {sign} other, as bool.",
        example=f"gpunn.{name}(gpunn.tensor([1, 2]), 2)\n"
        f"tensor([{', '.join(f'{t!s:>{width}}' for t in truth)}])",
    )  # fmt: skip


eq = _compare("eq", np.equal, "==", "")
ne = not_equal = _compare("ne", np.not_equal, "!=", "")
lt = less = _compare("lt", np.less, "<")
le = less_equal = _compare("le", np.less_equal, "<=")
gt = greater = _compare("gt", np.greater, ">")
ge = greater_equal = _compare("ge", np.greater_equal, ">=")

# --- logic and bits -----------------------------------------------------------------------


def _logical(name: str, ufunc: Any, word: str) -> Any:
    return binary(
        name, ufunc, None, compares=True,
        summary=f"input {word} other, where non-zero counts as true.",
        example=f"gpunn.{name}(gpunn.tensor([True]), gpunn.tensor([False]))\n"
        f"tensor([{ufunc(True, False)!s:>5}])".replace("[ True", "[True"),
    )  # fmt: skip


logical_and = _logical("logical_and", np.logical_and, "and")
logical_or = _logical("logical_or", np.logical_or, "or")
logical_xor = _logical("logical_xor", np.logical_xor, "xor")
logical_not = unary(
    "logical_not", np.logical_not, None, summary="True where x is zero.",
    example="gpunn.logical_not(gpunn.tensor([0, 2]))\ntensor([ True, False])",
)  # fmt: skip


def _bits(name: str, ufunc: Any, symbol: str) -> Any:
    return binary(
        name, ufunc, None, refuses="fVc", summary=f"input {symbol} other, bit by bit.",
        example=f"gpunn.{name}(gpunn.tensor([6]), 3)\ntensor([{ufunc(6, 3)}])",
    )  # fmt: skip


bitwise_and = _bits("bitwise_and", np.bitwise_and, "&")
bitwise_or = _bits("bitwise_or", np.bitwise_or, "|")
bitwise_xor = _bits("bitwise_xor", np.bitwise_xor, "^")
bitwise_not = unary(
    "bitwise_not", np.invert, None, refuses="fVc",
    summary="Every bit turned round; logical not for bool.",
    example="gpunn.bitwise_not(gpunn.tensor([0, 5]))\ntensor([-1, -6])",
)  # fmt: skip


def _shift(name: str, ufunc: Any, symbol: str) -> Any:
    def forward(a: Any, b: Any, xp: Any) -> Any:
        bad = (b < 0) | (b >= a.dtype.itemsize * 8)
        y = getattr(xp, ufunc.__name__)(a, xp.where(bad, 0, b))
        over = xp.where(a < 0, -1, 0) if symbol == ">>" else 0
        return xp.where(bad, over, y).astype(a.dtype)

    return binary(
        name, forward, None, refuses="bfVc", summary=f"input {symbol} other.",
        example=f"gpunn.{name}(gpunn.tensor([4]), 1)\ntensor([{ufunc(4, 1)}])",
    )  # fmt: skip


bitwise_left_shift = _shift("bitwise_left_shift", np.left_shift, "<<")
bitwise_right_shift = _shift("bitwise_right_shift", np.right_shift, ">>")

# --- tests of the values ------------------------------------------------------------------


def _test(name: str, f: Any, summary: str, of_integers: bool = False, **kw: Any) -> Any:
    def forward(x: Any, xp: Any) -> Any:
        return xp.full(x.shape, of_integers) if x.dtype.kind in "biu" else f(x, xp)

    return unary(name, forward, None, summary=summary,
                 example=f"gpunn.{name}(gpunn.tensor([1.]))\ntensor([{of_integers}])",
                 **kw)  # fmt: skip


isnan = _test("isnan", lambda x, xp: xp.isnan(x), "Whether x is NaN.")
isinf = _test("isinf", lambda x, xp: xp.isinf(x), "Whether x is infinite.")
isfinite = _test(
    "isfinite", lambda x, xp: xp.isfinite(x), "Whether x is neither NaN nor infinite.", True
)
isposinf = _test("isposinf", lambda x, xp: x == np.inf, "Whether x is +infinity.", refuses="c",
                 why="isposinf does not support complex inputs.")  # fmt: skip
isneginf = _test("isneginf", lambda x, xp: x == -np.inf, "Whether x is -infinity.", refuses="c",
                 why="isneginf does not support complex inputs.")  # fmt: skip
isreal = _test("isreal", lambda x, xp: x.imag == 0 if x.dtype.kind == "c" else
               xp.full(x.shape, True), "Whether the imaginary part is 0.", True)  # fmt: skip
signbit = unary(
    "signbit", lambda x, xp: xp.signbit(x) if x.dtype.kind == "f" else x < 0, None, refuses="c",
    why="signbit is not implemented for complex tensors.", summary="Whether the sign bit is set.",
    example="gpunn.signbit(gpunn.tensor([-0., 1.]))\ntensor([ True, False])",
)  # fmt: skip

# --- equality of whole tensors ------------------------------------------------------------


@method
def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> Tensor:
    """Where |input - other| <= atol + rtol * |other|, as bool.

    RuntimeError where the dtypes differ, or a tolerance is negative.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.isclose.html

    >>> gpunn.isclose(gpunn.tensor([1.]), gpunn.tensor([1.000001]))
    tensor([True])
    """
    same_device("isclose", (input, other))
    if input.dtype is not other.dtype:
        raise RuntimeError(f"{input.dtype} did not match {other.dtype}")
    for name, tolerance in (("rtol", rtol), ("atol", atol)):
        if tolerance < 0:
            raise RuntimeError(
                f"{name} must be greater than or equal to zero, but got {tolerance} (isclose)"
            )
    xp = input.device.xp
    a, b = input.array, other.array
    if a.dtype.kind in "biu":
        a, b = a.astype(np.float64), b.astype(np.float64)
    elif a.dtype.kind not in "fc":
        a, b = a.astype(np.float32), b.astype(np.float32)
    return wrap(xp.asarray(xp.isclose(a, b, rtol, atol, equal_nan)), input.device)


@method
def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
) -> bool:
    """Whether all elements are close: see `isclose`.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.allclose.html

    >>> gpunn.allclose(gpunn.tensor([1.]), gpunn.tensor([1.000001]))
    True
    """
    return bool(isclose(input, other, rtol, atol, equal_nan).array.all())


@method
def equal(input: Tensor, other: Tensor) -> bool:
    """Whether both have the same shape and elements.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.equal.html

    >>> gpunn.equal(gpunn.tensor([1]), gpunn.tensor([1]))
    True
    """
    same_device("equal", (input, other))
    return input.array.shape == other.array.shape and bool((input.array == other.array).all())


_IN_PLACE = [
    "bitwise_and", "bitwise_left_shift", "bitwise_not", "bitwise_or", "bitwise_right_shift",
    "bitwise_xor", "eq", "ge", "greater", "greater_equal", "gt", "le", "less", "less_equal",
    "logical_and", "logical_not", "logical_or", "logical_xor", "lt", "ne", "not_equal",
]  # fmt: skip
_METHODS = [
    *_IN_PLACE, "isfinite", "isinf", "isnan", "isneginf", "isposinf", "isreal", "signbit",
]  # fmt: skip
publish(globals(), _METHODS, _IN_PLACE)
__all__ = [*_METHODS, "allclose", "equal", "isclose"]
