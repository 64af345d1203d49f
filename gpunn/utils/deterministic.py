"""What `use_deterministic_algorithms` does to memory that nothing was written to.

Source: https://docs.pytorch.org/docs/stable/deterministic.html
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import settings
from gpunn.autograd.graph import namespace as ns

fill_uninitialized_memory = True
"""Whether `empty` and its kind fill their memory while deterministic algorithms are asked for."""


def filled(array: Any) -> Any:
    """A new array: filled with NaN, the largest integer or True where results must repeat.

    >>> gpunn.use_deterministic_algorithms(True)
    >>> gpunn.empty(2)
    tensor([nan, nan])
    >>> gpunn.use_deterministic_algorithms(False)
    """
    if settings.are_deterministic_algorithms_enabled() and fill_uninitialized_memory:
        kind = array.dtype.kind
        if kind in "iu":
            array.fill(np.iinfo(array.dtype).max)
        elif kind == "b":
            array.fill(True)
        else:
            array.fill(ns(array).asarray(float("nan"), array.dtype)[()])
    return array
