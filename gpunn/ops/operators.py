"""Python's operators on tensors: each is the function that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.device import to_host
from gpunn.ops import elementwise as e
from gpunn.ops import logic as l
from gpunn.ops._rows import NUMBERS, inplace
from gpunn.ops.linalg import matmul
from gpunn.ops.powers import pow
from gpunn.ops.transcend import positive
from gpunn.tensor import Tensor

_OPERANDS = (Tensor, *NUMBERS, np.ndarray)


def _reflected(op: Any) -> Any:
    """__rsub__ and its kind: the operands the other way round."""

    def operator(self: Tensor, other: Any) -> Any:
        return op(other, self)

    return operator


def _guarded(op: Any) -> Any:
    """For operands that op does not know: NotImplemented, so that Python asks the other one."""

    def operator(self: Any, other: Any) -> Any:
        try:
            return op(self, other)
        except TypeError:
            if isinstance(self, _OPERANDS) and isinstance(other, _OPERANDS):
                raise
            return NotImplemented

    return operator


def _install() -> None:
    """Sets the operators as attributes of Tensor."""
    for name, op in (
        ("add", e._add), ("sub", e._sub), ("mul", e.mul), ("truediv", e._true_divide),
        ("div", e._true_divide), ("pow", pow), ("floordiv", e.floor_divide),
        ("mod", e.remainder), ("and", l.bitwise_and), ("or", l.bitwise_or), ("xor", l.bitwise_xor),
        ("lshift", l.bitwise_left_shift), ("rshift", l.bitwise_right_shift),
    ):  # fmt: skip
        operator = getattr(op, "operator", None) or _guarded(op)
        setattr(Tensor, f"__{name}__", operator)
        setattr(Tensor, f"__r{name}__", getattr(op, "reflected", None) or _reflected(operator))
        setattr(Tensor, f"__i{name}__", inplace(op, name))
    Tensor.__radd__, Tensor.__rmul__ = Tensor.__add__, Tensor.__mul__  # type: ignore[attr-defined]
    Tensor.__rdiv__ = lambda self, other: self.reciprocal() * other  # type: ignore[attr-defined]
    Tensor.__rsub__ = _rsub  # type: ignore[attr-defined]
    Tensor.__matmul__ = matmul  # type: ignore[attr-defined]
    Tensor.__rmatmul__ = _reflected(matmul)  # type: ignore[attr-defined]
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Tensor, f"__{name}__", getattr(l, name).operator)
    Tensor.__neg__ = e.neg  # type: ignore[attr-defined]
    Tensor.__pos__ = positive  # type: ignore[attr-defined]
    Tensor.__invert__ = _invert  # type: ignore[attr-defined]
    Tensor.__bool__ = Tensor.__nonzero__ = _truth  # type: ignore[attr-defined]
    Tensor.__int__ = Tensor.__long__ = lambda self: int(_number(self))  # type: ignore[attr-defined]
    Tensor.__float__ = lambda self: float(_number(self))  # type: ignore[attr-defined]
    Tensor.__complex__ = lambda self: complex(_number(self))  # type: ignore[attr-defined]
    Tensor.__index__ = _index  # type: ignore[attr-defined]
    Tensor.__contains__ = _contains  # type: ignore[attr-defined]
    Tensor.__reversed__ = _reversed  # type: ignore[attr-defined]


def _number(self: Tensor) -> Any:
    if self.array.size != 1:
        raise ValueError(
            "only one element tensors can be converted to Python scalars, not one of shape "
            f"{list(self.array.shape)}"
        )
    return self.item()  # type: ignore[attr-defined]


def _invert(self: Tensor) -> Tensor:
    if self.array.dtype.kind not in "biu":
        raise TypeError(
            "~ (operator.invert) is only implemented on integer and Boolean-type tensors, not "
            f"on {self.dtype}"
        )
    return l.bitwise_not(self)


def _truth(self: Tensor) -> bool:
    size = self.array.size
    if size > 1:
        raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
    if size == 0:
        raise RuntimeError("Boolean value of Tensor with no values is ambiguous")
    return bool(to_host(self.array).item())


def _index(self: Tensor) -> int:
    if self.array.size != 1 or self.array.dtype.kind not in "biu":
        raise TypeError("only integer tensors of a single element can be converted to an index")
    return int(to_host(self.array).item())


def _contains(self: Tensor, element: Any) -> bool:
    if not isinstance(element, (Tensor, *NUMBERS)):
        raise RuntimeError(
            f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a "
            f"{type(element)}."
        )
    return bool((self == element).any().item())  # type: ignore[attr-defined]


def _rsub(self: Any, other: Any) -> Any:
    return e._sub.reflected(self, other) if isinstance(self, Tensor) else NotImplemented


def _reversed(self: Tensor) -> Tensor:
    return self.flip(0) if self.array.ndim else self  # type: ignore[attr-defined]


_install()
