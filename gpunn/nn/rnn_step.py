"""The point-wise part of a step of an LSTM and of a GRU: from gates and old states to new states.

On raw arrays (`lstm_forward`, `gru_forward` and their gradients, on a GPU kernels/rnn.cu) and on
Tensors (`lstm_step`, `gru_step`). The gates after their activations are an output of the operation
which its gradient reads, so that the gates before them need not be kept, and gradients of any order
are made of plain operations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.autograd.graph import mode, results, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.cuda.kernels import rnn as kernels
from gpunn.dtypes import F32
from gpunn.native import rnn as native
from gpunn.ops._rows import half
from gpunn.ops.join import cat
from gpunn.tensor import Tensor

# --- raw arrays ---------------------------------------------------------------------------


def _sigmoid_(x: Any, xp: Any) -> None:
    """The logistic function in place: exact for small results too."""
    xp.negative(x, out=x)
    xp.exp(x, out=x)
    x += 1
    xp.reciprocal(x, out=x)


def _parts(x: Any, count: int) -> list[Any]:
    """The `count` equal parts of the last dimension, of arrays or Tensors."""
    n = x.shape[-1] // count
    return [x[..., k * n : (k + 1) * n] for k in range(count)]


def wide(*arrays: Any) -> list[Any]:
    """16-bit arrays as float32; None stays."""
    return [a if a is None or not half(a.dtype) else a.astype(F32) for a in arrays]


def lstm_forward(gi: Any, gh: Any, c: Any, keep: bool = True, into: Any = None) -> Any:
    """(h, c_new, acts) of the gates' two parts, (rows, 4 n), and the old cell state, (rows, n).

    acts are the gates i, f, g, o after their activations, for lstm_backward; None unless `keep`.
    They go `into` that array where it is given; it may be gi.
    """
    if type(gi) is not np.ndarray:
        found = kernels.lstm_forward(gi, gh, c, keep, into)
        if found is not None:
            return found
    dtype = c.dtype
    gi, gh, c = wide(gi, gh, c)
    fits = into is not None and into.dtype == gi.dtype
    acts = into if fits else ns(gi).empty(gi.shape, gi.dtype)
    made = None
    if type(gi) is np.ndarray:
        made = native.lstm_step_forward(gi, gh, c, acts if keep else None)
    h, c_new = _lstm_arrays(gi, gh, c, acts) if made is None else made
    h, c_new = h.astype(dtype, copy=False), c_new.astype(dtype, copy=False)
    if not keep:
        return h, c_new, None
    acts = acts.astype(dtype, copy=False)
    if into is not None and acts is not into:
        into[...] = acts
        acts = into
    return h, c_new, acts


def _lstm_arrays(gi: Any, gh: Any, c: Any, acts: Any) -> tuple[Any, Any]:
    """(h, c_new) in NumPy's or CuPy's steps; the gates go to acts, which may be gi."""
    xp, n = ns(gi), c.shape[-1]
    xp.add(gi, gh, out=acts)
    i, f, g, o = _parts(acts, 4)
    _sigmoid_(acts[:, : 2 * n], xp)
    xp.tanh(g, out=g)
    _sigmoid_(o, xp)
    c_new = f * c
    c_new += i * g
    h = xp.tanh(c_new)
    h *= o
    return h, c_new


def lstm_backward(dh: Any, dc: Any, acts: Any, c: Any, c_new: Any) -> tuple[Any, Any]:
    """(the gradient of each part of the gates, that of c); dh or dc may be None: zeros."""
    if type(acts) is not np.ndarray:
        found = kernels.lstm_backward(dh, dc, acts, c, c_new)
        if found is not None:
            return found
    xp, dtype = ns(acts), acts.dtype
    dh, dc, acts, c, c_new = wide(dh, dc, acts, c, c_new)
    if type(acts) is np.ndarray:
        made = native.lstm_step_backward(dh, dc, acts, c, c_new)
        if made is not None:
            return made[0].astype(dtype, copy=False), made[1].astype(dtype, copy=False)
    i, f, g, o = _parts(acts, 4)
    dgates = 1 - acts  # from here on: the slopes of the activations, then times what reaches them
    dgates *= acts
    di, df, dg, do = _parts(dgates, 4)
    xp.multiply(g, g, out=dg)
    xp.subtract(1, dg, out=dg)
    t = xp.tanh(c_new)
    if dh is None:
        do[...] = 0
        d = dc
    else:
        do *= dh * t
        t *= t
        d = (1 - t) * o * dh
        d = d if dc is None else d + dc
    di *= d * g
    df *= d * c
    dg *= d * i
    return dgates.astype(dtype, copy=False), (d * f).astype(dtype, copy=False)


def gru_forward(gi: Any, gh: Any, h: Any, keep: bool = True) -> Any:
    """(h_new, acts) of the gates' two parts, (rows, 3 n), and the old state, (rows, n).

    acts, (rows, 4 n), is for gru_backward: the gates r, z, m after their activations and gh's part
    of the last; None unless `keep`.
    """
    if type(gi) is not np.ndarray:
        found = kernels.gru_forward(gi, gh, h, keep)
        if found is not None:
            return found
    xp, dtype = ns(gi), h.dtype
    gi, gh, h = wide(gi, gh, h)
    made = native.gru_step_forward(gi, gh, h, keep) if type(gi) is np.ndarray else None
    if made is not None:
        return tuple(a if a is None else a.astype(dtype, copy=False) for a in made)
    rows, n = h.shape
    acts = xp.empty((rows, 4 * n), gi.dtype)
    r, z, m, part = _parts(acts, 4)
    xp.add(gi[:, : 2 * n], gh[:, : 2 * n], out=acts[:, : 2 * n])
    _sigmoid_(acts[:, : 2 * n], xp)
    part[...] = gh[:, 2 * n :]
    xp.multiply(r, part, out=m)
    m += gi[:, 2 * n :]
    xp.tanh(m, out=m)
    h_new = h - m
    h_new *= z
    h_new += m
    return h_new.astype(dtype, copy=False), acts.astype(dtype, copy=False) if keep else None


def gru_backward(dh: Any, acts: Any, h: Any) -> tuple[Any, Any, Any]:
    """(the gradient of gi, of gh, of h)."""
    if type(acts) is not np.ndarray:
        found = kernels.gru_backward(dh, acts, h)
        if found is not None:
            return found
    xp, dtype = ns(acts), acts.dtype
    dh, acts, h = wide(dh, acts, h)
    made = native.gru_step_backward(dh, acts, h) if type(acts) is np.ndarray else None
    if made is not None:
        return tuple(a.astype(dtype, copy=False) for a in made)  # type: ignore[return-value]
    r, z, m, part = _parts(acts, 4)
    rows, n = h.shape
    dgi = xp.empty((rows, 3 * n), acts.dtype)
    dr, dz, dm = _parts(dgi, 3)
    dm[...] = (1 - m * m) * (1 - z) * dh
    dz[...] = (1 - z) * z * (h - m) * dh
    dr[...] = (1 - r) * r * part * dm
    dgh = dgi.copy()
    dgh[:, 2 * n :] *= r
    return tuple(a.astype(dtype, copy=False) for a in (dgi, dgh, dh * z))  # type: ignore[return-value]


# --- Tensors ------------------------------------------------------------------------------


def _sum(*terms: Any) -> Any:
    """The sum of the terms that are not None."""
    found = [t for t in terms if t is not None]
    return sum(found[1:], found[0]) if found else None


@vjp((2, -2, -3), name="ThnnFusedLstmCellBackward0")
def _lstm_vjp(gs: Any, c: Any, c_new: Any, acts: Any) -> Any:
    dh, dc, da = gs
    if not isinstance(acts, Tensor) and da is None:
        dgates, dc_old = lstm_backward(dh, dc, acts, c, c_new)
        return dgates, dgates, dc_old
    i, f, g, o = _parts(acts, 4)
    t = ns(acts).tanh(c_new)
    d = _sum(dc, None if dh is None else dh * o * (1 - t * t))
    direct = [None] * 4 if da is None else _parts(da, 4)
    reach = [None if d is None else d * v for v in (g, c, i)] + [None if dh is None else dh * t]
    slopes = (i * (1 - i), f * (1 - f), 1 - g * g, o * (1 - o))
    totals = [_sum(a, b) for a, b in zip(direct, reach, strict=True)]
    dgates = _joined([s * 0 if v is None else s * v for s, v in zip(slopes, totals, strict=True)])
    return dgates, dgates, None if d is None else d * f


def _joined(parts: list[Any]) -> Any:
    """Parts side by side, of arrays or Tensors."""
    if isinstance(parts[0], Tensor):
        return cat(parts, -1)
    return ns(parts[0]).concatenate(parts, axis=-1)


def lstm_step(gi: Tensor, gh: Tensor, c: Tensor, spare: bool = False) -> tuple[Tensor, Tensor]:
    """(h, c) after a step, from the gates' two parts (rows, 4 n) and the old c (rows, n).

    With `spare`, gi's memory is nobody else's and is written over.
    """
    if not gi.array.dtype == gh.array.dtype == c.array.dtype:
        return lstm_composed(gi, gh, c)
    keep = mode.grad and (gi._requires_grad or gh._requires_grad or c._requires_grad)
    into = gi.array if spare and gi.array.flags.c_contiguous else None
    h, c_new, acts = lstm_forward(gi.array, gh.array, c.array, keep, into)
    if not keep:
        return tuple(results((h, c_new), gi, _lstm_vjp, ()))  # type: ignore[return-value]
    saved = (c.array, c_new, acts)
    made = results((h, c_new, acts), gi, _lstm_vjp, (gi, gh, c), saved)
    return made[0], made[1]


def lstm_composed(gi: Tensor, gh: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """`lstm_step` in plain operations."""
    i, f, g, o = _parts(gi + gh, 4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # type: ignore[attr-defined]
    return o.sigmoid() * c.tanh(), c  # type: ignore[attr-defined]


@vjp((2, -2), name="ThnnFusedGruCellBackward0")
def _gru_vjp(gs: Any, h: Any, acts: Any) -> Any:
    dh, da = gs
    if not isinstance(acts, Tensor) and da is None:
        return gru_backward(dh, acts, h)
    r, z, m, part = _parts(acts, 4)
    dh = z * 0 if dh is None else dh
    direct = [None] * 4 if da is None else _parts(da, 4)
    dm = _sum(direct[2], dh * (1 - z)) * (1 - m * m)
    dz = _sum(direct[1], dh * (h - m)) * (z * (1 - z))
    dr = _sum(direct[0], dm * part) * (r * (1 - r))
    return _joined([dr, dz, dm]), _joined([dr, dz, _sum(direct[3], dm * r)]), dh * z


def gru_step(gi: Tensor, gh: Tensor, h: Tensor) -> Tensor:
    """h after a step, from the gates' two parts (rows, 3 n) and the old h (rows, n)."""
    if not gi.array.dtype == gh.array.dtype == h.array.dtype:
        return gru_composed(gi, gh, h)
    keep = mode.grad and (gi._requires_grad or gh._requires_grad or h._requires_grad)
    h_new, acts = gru_forward(gi.array, gh.array, h.array, keep)
    if not keep:
        return results((h_new,), gi, _gru_vjp, ())[0]
    return results((h_new, acts), gi, _gru_vjp, (gi, gh, h), (h.array, acts))[0]


def gru_composed(gi: Tensor, gh: Tensor, h: Tensor) -> Tensor:
    """`gru_step` in plain operations."""
    (ri, zi, mi), (rh, zh, mh) = _parts(gi, 3), _parts(gh, 3)
    z = (zi + zh).sigmoid()
    m = (mi + (ri + rh).sigmoid() * mh).tanh()
    return m + z * (h - m)
