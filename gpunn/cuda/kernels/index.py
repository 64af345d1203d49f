"""Index arrays made safe by kernels/index.cu."""

from __future__ import annotations

from typing import Any

from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import INDICES, Source

_source = Source("index", I=INDICES)
_BLOCK = 256


def checked(name: str, index: Any, limit: int, below: int = 0) -> Any:
    """`index` with entries of [-below, limit) made non-negative and others 0.

    The first bad one becomes the error of operation `name`, raised when the host next looks. None
    for a dtype that is not int32 or int64. `limit` is at least 1.
    """
    if not _source.serves(I=index.dtype):
        return None
    safe = launch.empty_like(index)
    if index.size:
        kernel = _source.get("index_check", I=index.dtype)
        arguments = (launch.contiguous(index), safe, index.size, below, limit, launch.fault(name))
        kernel(launch.blocks(index.size, _BLOCK), _BLOCK, arguments)
    return safe
