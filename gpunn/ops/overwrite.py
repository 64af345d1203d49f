"""Writing values at indices that may repeat: the last of them stays, as in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn import settings
from gpunn.autograd.graph import namespace as ns


def write_at_key(whole: Any, key: Any, values: Any) -> None:
    """whole[key] = values. On a GPU any one of several stays, unless results must repeat."""
    if type(whole) is np.ndarray or not settings.are_deterministic_algorithms_enabled():
        whole[key] = values
        return
    xp = ns(whole)
    places = xp.arange(whole.size).reshape(whole.shape)[key]
    last = xp.zeros(whole.size, np.uint64)  # the position of the last value for each place
    xp.maximum.at(last, places.reshape(-1), xp.arange(places.size, dtype=np.uint64))
    values = xp.broadcast_to(values, places.shape).reshape(-1)
    whole[key] = values[last[places].astype(np.int64)]  # all that meet write the same
