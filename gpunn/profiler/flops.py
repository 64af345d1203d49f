"""Floating point operations of products and convolutions, sums and multiplications."""

from __future__ import annotations

import math
from typing import Any

_PRODUCTS = {  # the operand whose last dimension is summed over
    "linear": (0, "input"), "mm": (0, "input"), "bmm": (0, "input"), "matmul": (0, "input"),
    "mv": (0, "input"), "dot": (0, "input"), "addmm": (1, "mat1"), "baddbmm": (1, "batch1"),
    "addmv": (1, "mat"), "addbmm": (1, "batch1"),
}  # fmt: skip


def flops_of(name: str, args: Any, kwargs: Any, out: Any) -> int:
    """How many operations a call took, a multiplication and an addition being two; 0: unknown.

    Formulas: PyTorch's `with_flops`, https://docs.pytorch.org/docs/stable/profiler.html
    """
    kind = name.removeprefix("aten::").removesuffix("_")
    try:
        count = out.array.size
        if kind in ("add", "mul"):
            return count
        if kind in _PRODUCTS:
            return 2 * count * _argument(args, kwargs, *_PRODUCTS[kind]).array.shape[-1]
        if kind.startswith("conv"):
            weight = _argument(args, kwargs, 1, "weight").array.shape
            if kind.startswith("conv_transpose"):
                count = _argument(args, kwargs, 0, "input").array.size
            return 2 * count * math.prod(weight[1:])
    except (AttributeError, IndexError, KeyError):  # numbers in the place of tensors
        pass
    return 0


def _argument(args: Any, kwargs: Any, position: int, name: str) -> Any:
    return args[position] if len(args) > position else kwargs[name]
