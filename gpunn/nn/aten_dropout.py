"""The dropouts as `torch.dropout` and others have them, beside `nn.functional`.

All three arguments are required, the last is called `train`, and each has an in-place form.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import draw_integers
from gpunn.dtypes import F32
from gpunn.nn import dropout as plain
from gpunn.nn.feature_dropout import drop, scaled
from gpunn.ops._rows import half
from gpunn.tensor import Tensor, wrap

__all__ = [
    "alpha_dropout", "alpha_dropout_", "dropout", "dropout_", "feature_alpha_dropout",
    "feature_alpha_dropout_", "feature_dropout", "feature_dropout_", "native_dropout",
]  # fmt: skip


def _checked(p: float) -> float:
    if not 0 <= p <= 1:
        raise RuntimeError(f"dropout probability has to be between 0 and 1, but got {p}")
    return p


def _forms(name: str, body: Any, shows: str) -> tuple[Any, Any]:
    """op(input, p, train) and its in-place form, of body(input, p, training, inplace)."""

    def op(input: Tensor, p: float, train: bool) -> Tensor:
        return body(input, _checked(p), train, False)

    def op_(input: Tensor, p: float, train: bool) -> Tensor:
        return body(input, _checked(p), train, True)

    for function, form in ((op, name), (op_, name + "_")):
        function.__name__ = function.__qualname__ = form
        function.__doc__ = f"""{shows} RuntimeError for p outside [0, 1].

    >>> gpunn.{form}(gpunn.ones(1, 3), 1.0, train=True)
    tensor([[0., 0., 0.]])
    """
    return op, op_


dropout, dropout_ = _forms("dropout", plain.dropout, "`nn.functional.dropout`.")
feature_dropout, feature_dropout_ = _forms(
    "feature_dropout", lambda x, p, train, inplace: drop(x, p, train, inplace, 2),
    "Dropout of whole channels of an input (batch, channels, ...).",
)  # fmt: skip
alpha_dropout, alpha_dropout_ = _forms(
    "alpha_dropout", lambda x, p, train, inplace: drop(x, p, train, inplace, None, True),
    "`nn.functional.alpha_dropout`.",
)  # fmt: skip
feature_alpha_dropout, feature_alpha_dropout_ = _forms(
    "feature_alpha_dropout", lambda x, p, train, inplace: drop(x, p, train, inplace, 2, True),
    "`nn.functional.feature_alpha_dropout`.",
)  # fmt: skip


def native_dropout(input: Tensor, p: float, train: bool | None) -> tuple[Tensor, Tensor]:
    """Dropout, and the bool mask of what stayed.

    Shapes: any; both results have the same. RuntimeError for p outside [0, 1].

    >>> gpunn.native_dropout(gpunn.ones(2), 1.0, True)
    (tensor([0., 0.]), tensor([False, False]))
    """
    x = input.array
    keep = 1.0 if train is False or not x.size else 1 - _checked(p)
    coins = draw_integers.bernoulli(x.shape, np.dtype(bool), None, keep, device=input.device)
    made = scaled(input, coins.astype(F32 if half(x.dtype) else x.dtype) / (keep or 1.0))
    return made, wrap(coins, input.device)
