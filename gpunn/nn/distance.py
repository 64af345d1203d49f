"""Norms and distances of vectors."""

from __future__ import annotations

from typing import Any

from gpunn.ops._rows import write_out
from gpunn.tensor import Tensor


def normalize(
    input: Tensor, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """x divided by its p-norm along `dim`, or by `eps` where the norm is smaller.

    Shapes: any; the result has the same.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.normalize.html

    >>> F.normalize(gpunn.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    size = input.norm(p, dim, keepdim=True).clamp_min(eps)  # type: ignore[attr-defined]
    made = input / size.expand_as(input)  # type: ignore[operator]
    return made if out is None else write_out(out, made, "normalize")
