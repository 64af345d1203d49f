"""Python's operators on tensors: each is the function that it stands for."""

from __future__ import annotations

from typing import Any

from gpunn.ops import elementwise as e
from gpunn.ops._rows import NUMBERS, inplace
from gpunn.ops.linalg import matmul
from gpunn.tensor import Tensor


def _reflected(op: Any) -> Any:
    """__rsub__ and its kind: the operands the other way round."""

    def operator(self: Tensor, other: Any) -> Any:
        return op(other, self)

    return operator


def _guarded(op: Any, symbol: str) -> Any:
    """For operands that op does not know: NotImplemented, so that Python asks the other one."""

    def operator(self: Tensor, other: Any) -> Any:
        try:
            return op(self, other)
        except TypeError:
            if isinstance(other, (Tensor, *NUMBERS)):
                raise
            return NotImplemented

    return operator


def _install() -> None:
    """Sets the operators as attributes of Tensor."""
    for name, op in (
        ("add", e._add), ("sub", e._sub), ("mul", e.mul), ("truediv", e._true_divide),
        ("matmul", matmul), ("pow", e.pow), ("floordiv", e._floor_div), ("mod", e.remainder),
    ):  # fmt: skip
        setattr(Tensor, f"__{name}__", op)
        setattr(Tensor, f"__r{name}__", _reflected(op))
        setattr(Tensor, f"__i{name}__", inplace(op, name))
    Tensor.__radd__, Tensor.__rmul__ = e._add, e.mul  # type: ignore[attr-defined]
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Tensor, f"__{name}__", _guarded(getattr(e, name), name))
    Tensor.__neg__ = e.neg  # type: ignore[attr-defined]


_install()
