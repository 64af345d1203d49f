"""The arguments `device`, `dtype` and `memory_format` of a layer, as its parameters need them."""

from __future__ import annotations

from typing import Any

_NAMES = {"device", "dtype", "memory_format"}


def factory_kwargs(kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """Keyword arguments of a layer as those of `empty` and its like, for its parameters.

    kwargs: device, dtype, memory_format, or the same in a dict under "factory_kwargs"; None is {}.
    TypeError for any other name, and for one that is given in both places.
    Source: https://docs.pytorch.org/docs/stable/nn.html

    >>> nn.factory_kwargs({"dtype": gpunn.float64})
    {'dtype': torch.float64}
    """
    kwargs = kwargs or {}
    unknown = kwargs.keys() - _NAMES - {"factory_kwargs"}
    if unknown:
        raise TypeError(f"unexpected kwargs {unknown} (factory_kwargs takes {sorted(_NAMES)})")
    found = dict(kwargs.get("factory_kwargs", {}))
    for name in kwargs.keys() & _NAMES:
        if name in found:
            raise TypeError(f"{name} specified twice, in **kwargs and in factory_kwargs")
        found[name] = kwargs[name]
    return found
