"""entr and xlog1py: terms of entropies and likelihoods, 0 where their factor is 0."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd.graph import namespace as ns
from gpunn.special._series import special


def _entr(x: Any, xp: Any) -> Any:
    y = -x * xp.log(xp.where(x > 0, x, 1))
    return xp.where(x >= 0, y, xp.where(x != x, x, -np.inf)).astype(x.dtype)


def _entr_vjp(g: Any, x: Any) -> Any:
    xp = ns(g)
    positive = x > 0
    slope = -1 - xp.log(xp.where(positive, x, xp.ones_like(x)))
    edge = xp.where(x == 0, xp.full_like(x, np.inf), xp.full_like(x, np.nan))
    return g * xp.where(positive, slope, edge)


def _xlog1py(x: Any, y: Any, xp: Any) -> Any:
    return xp.where((x == 0) & (y == y), x.dtype.type(0), x * xp.log1p(y))


def _xlog1py_vjp(g: Any, x: Any, y: Any) -> Any:
    xp = ns(g)
    gone = (x == 0) & (y <= -1)
    return xp.where(gone, xp.zeros_like(g), g * xp.log1p(y)), g * x / (y + 1)


entr = special("entr", _entr, _entr_vjp, 0, "-x log(x); 0 at 0, -inf below.", "0.5", "0.3466",
               direct=True)  # fmt: skip
xlog1py = special("xlog1py", _xlog1py, _xlog1py_vjp, "a b",
                  "input * log1p(other), 0 where input is 0.", "2.; 1.", "1.3863",
                  direct=True)  # fmt: skip
