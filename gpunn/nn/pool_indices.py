"""Max pooling that always gives places, too: `max_pool2d_with_indices` and its kin."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from gpunn.nn import adaptive_pool, fractional_pool, pool

__all__ = [
    "adaptive_max_pool1d_with_indices",
    "adaptive_max_pool2d_with_indices",
    "adaptive_max_pool3d_with_indices",
    "fractional_max_pool2d_with_indices",
    "fractional_max_pool3d_with_indices",
    "max_pool1d_with_indices",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
]

_DOC = """Maxima and their places: `{name}` with `return_indices=True`.

    Shapes, dtypes and errors are the same; whether `return_indices` is given changes nothing.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.{name}.html

    >>> y, places = F.{name}_with_indices(gpunn.ones({ones}), {given})
    >>> places.shape == y.shape
    True
    """


def _with_indices(function: Callable[..., Any], given: str) -> Any:
    name, signature = function.__name__, inspect.signature(function)

    @functools.wraps(function)
    def both(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.arguments["return_indices"] = True
        return function(*bound.args, **bound.kwargs)

    ones = ", ".join(["1", "1", *["4"] * int(name[-2])])
    both.__name__ = both.__qualname__ = f"{name}_with_indices"
    both.__module__, both.__doc__ = __name__, _DOC.format(name=name, given=given, ones=ones)
    return both


max_pool1d_with_indices = _with_indices(pool.max_pool1d, "2")
max_pool2d_with_indices = _with_indices(pool.max_pool2d, "2")
max_pool3d_with_indices = _with_indices(pool.max_pool3d, "2")
adaptive_max_pool1d_with_indices = _with_indices(adaptive_pool.adaptive_max_pool1d, "2")
adaptive_max_pool2d_with_indices = _with_indices(adaptive_pool.adaptive_max_pool2d, "2")
adaptive_max_pool3d_with_indices = _with_indices(adaptive_pool.adaptive_max_pool3d, "2")
fractional_max_pool2d_with_indices = _with_indices(
    fractional_pool.fractional_max_pool2d, "2, output_size=2"
)
fractional_max_pool3d_with_indices = _with_indices(
    fractional_pool.fractional_max_pool3d, "2, output_size=2"
)
