"""The point-wise parts of LSTM and GRU cells through kernels/rnn.cu; None where it has no answer.

States are (rows, n), gates (rows, 4 n) for an LSTM and (rows, 3 n) for a GRU, all of one dtype.
"""

from __future__ import annotations

from typing import Any

from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.loader import FLOATS, Source

BLOCK = 256

_source = Source("rnn", T=FLOATS, VEC=(False, True))


def _launch(name: str, args: Any, like: Any) -> None:
    """Runs a kernel over the entries of a state."""
    rows, n = like.shape
    if not like.size:
        return
    width = 2 if like.dtype.itemsize == 8 else 4
    wide = width * like.dtype.itemsize
    vec = n % width == 0 and all(a is None or a.data.ptr % wide == 0 for a in args)
    grid = launch.blocks(like.size // (width if vec else 1), BLOCK)
    _source.get(name, T=like.dtype, VEC=vec)(grid, BLOCK, (*args, rows, n))


def _ready(*arrays: Any) -> list[Any] | None:
    """The arrays, contiguous; None where the kernels do not serve their dtype."""
    dtype = arrays[-1].dtype
    if not _source.serves(T=dtype) or any(a is not None and a.dtype != dtype for a in arrays):
        return None
    return [None if a is None else launch.contiguous(a) for a in arrays]


def lstm_forward(gi: Any, gh: Any, c: Any, keep: bool = True, into: Any = None) -> Any:
    """(h, c_new, acts) of the gates' two parts and the old cell state.

    acts, the gates after their activations, is for lstm_backward: None unless `keep`. `into` is
    where it goes, a C-contiguous array of gi's shape that may be gi itself.
    """
    ready = _ready(gi, gh, c)
    if ready is None:
        return None
    gi, gh, c = ready
    h, c_new = launch.empty_like(c), launch.empty_like(c)
    acts = None if not keep else launch.empty_like(gi) if into is None else into
    _launch("lstm_forward", (gi, gh, c, h, c_new, acts), c)
    return h, c_new, acts


def lstm_backward(dh: Any, dc: Any, acts: Any, c: Any, c_new: Any) -> Any:
    """(the gradient of each part of the gates, that of c); dh or dc may be None: zeros."""
    ready = _ready(dh, dc, acts, c, c_new)
    if ready is None:
        return None
    dgates, dc_old = launch.empty_like(acts), launch.empty_like(c)
    _launch("lstm_backward", (*ready, dgates, dc_old), c)
    return dgates, dc_old


def gru_forward(gi: Any, gh: Any, h: Any, keep: bool = True) -> Any:
    """(h_new, acts) of the gates' two parts and the old state; acts, (rows, 4 n), is for
    gru_backward: None unless `keep`."""
    ready = _ready(gi, gh, h)
    if ready is None:
        return None
    gi, gh, h = ready
    h_new = launch.empty_like(h)
    acts = launch.empty((h.shape[0], 4 * h.shape[1]), h.dtype) if keep else None
    _launch("gru_forward", (gi, gh, h, h_new, acts), h)
    return h_new, acts


def gru_backward(dh: Any, acts: Any, h: Any) -> Any:
    """(the gradient of gi, of gh, of h)."""
    ready = _ready(dh, acts, h)
    if ready is None:
        return None
    shape = (h.shape[0], 3 * h.shape[1])
    dgi, dgh = launch.empty(shape, h.dtype), launch.empty(shape, h.dtype)
    dh_old = launch.empty_like(h)
    _launch("gru_backward", (*ready, dgi, dgh, dh_old), h)
    return dgi, dgh, dh_old
