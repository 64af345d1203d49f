"""One recurrent layer in one direction over whole sequences: one node of the graph.

Sequences are packed: the rows of step 0, of step 1, ..., each step having at most as many rows as
the one before (a padded batch has the same number in all). The inputs' products are one matrix
product for all steps, and so are the gradients of the weights; what remains in the loop is the
product with the old state and the point-wise part (rnn_step.py). On the CPU that loop is one call
of kernels/rnn.cpp where it can be. The backward direction reads each sequence from its end: its
rows are reordered, and those of its output back.
"""

from __future__ import annotations

from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np

from gpunn.autograd.graph import mode, results, unbroadcast, vjp
from gpunn.autograd.graph import namespace as ns
from gpunn.dtypes import F32
from gpunn.native import rnn as native
from gpunn.nn.linear import linear
from gpunn.nn.rnn_step import (
    gru_backward,
    gru_composed,
    gru_forward,
    lstm_backward,
    lstm_composed,
    lstm_forward,
    wide,
)
from gpunn.ops._rows import half
from gpunn.ops.join import cat
from gpunn.ops.linalg import matmul_array
from gpunn.tensor import Tensor, wrap


class Steps:
    """Which rows of packed data are those of each step.

    `spans` has (start, stop, old) for each step: its rows, and the first row of its old states
    in an array that holds the first states and then those after all rows.
    """

    def __init__(self, sizes: list[int], reverse: bool = False):
        self.sizes, self.reverse = sizes, reverse
        self.starts = [0, *accumulate(sizes)]
        self.batch, self.rows = sizes[0], self.starts[-1]
        olds = [0, *(self.batch + s for s in self.starts)]
        self.spans = list(zip(self.starts, self.starts[1:], olds, strict=False))
        self.even = self.batch == sizes[-1]

    @cached_property
    def offsets(self) -> Any:
        """`starts` as an array."""
        return np.array(self.starts, np.int64)

    @cached_property
    def _lengths(self) -> Any:
        """The length of each sequence."""
        return (np.asarray(self.sizes)[:, None] > np.arange(self.batch)).sum(0)

    @cached_property
    def last(self) -> Any:
        """The row of each sequence's last step."""
        if self.even:
            return slice(self.rows - self.batch, self.rows)
        return np.asarray(self.starts)[self._lengths - 1] + np.arange(self.batch)

    @cached_property
    def old(self) -> Any:
        """The rows of all steps' old states, see `spans`."""
        if self.even:
            return slice(0, self.rows)
        return np.concatenate([np.arange(old, old + b - a) for a, b, old in self.spans])

    @cached_property
    def turned(self) -> Any:
        """Each row's place when every sequence is read from its end."""
        steps = np.repeat(np.arange(len(self.sizes)), self.sizes)
        which = np.concatenate([np.arange(n) for n in self.sizes])
        return np.asarray(self.starts)[self._lengths[which] - 1 - steps] + which

    def turn(self, x: Any) -> Any:
        """The rows of an array or Tensor in the direction of reading, and back."""
        if not self.reverse:
            return x
        if isinstance(x, Tensor):
            index = wrap(x.device.xp.asarray(self.turned), x.device)
            return x.index_select(0, index)  # type: ignore[attr-defined]
        return take(x, self.turned)


def take(x: Any, rows: Any) -> Any:
    """A copy of the rows, a slice or an array of numbers, of x."""
    return x[rows].copy() if isinstance(rows, slice) else x[ns(x).asarray(rows)]


def _times(w: Any) -> Any:
    """The function (x, out): out = x @ w, for many x."""
    if half(w.dtype):
        wide = w.astype(F32) if type(w) is np.ndarray else w

        def rounded(x: Any, out: Any) -> Any:
            out[...] = x.astype(wide.dtype, copy=False) @ wide
            return out

        return rounded
    if type(w) is np.ndarray:  # BLAS is slower by half where few rows meet a transposed matrix
        w = np.ascontiguousarray(w)
    matmul = ns(w).matmul
    return lambda x, out: matmul(x, w, out=out)


def _inputs(x: Any, w: Any, *biases: Any) -> Any:
    """The inputs' part of the gates of all steps."""
    gates = matmul_array(x, w.T)
    found = [b for b in biases if b is not None]
    if found:
        gates += sum(found[1:], found[0])
    return gates


def _states(first: Any, rows: int) -> Any:
    """Room for the first states and those after all rows."""
    states = ns(first).empty((len(first) + rows, first.shape[1]), first.dtype)
    states[: len(first)] = first
    return states


def _zeros_or(g: Any, like: Any, shape: tuple[int, ...]) -> Any:
    """A copy of a gradient, zeros for None."""
    return ns(like).zeros(shape, like.dtype) if g is None else g.astype(like.dtype, order="C")


def _parameters(
    needs: Any, steps: Steps, dgi: Any, dgh: Any, x: Any, states: Any, w_ih: Any
) -> tuple[Any, ...]:
    """The gradients of x, w_ih, w_hh, b_ih and b_hh from those of the gates' two parts."""
    rows = dgi.shape[1:]
    return (
        steps.turn(matmul_array(dgi, w_ih)) if needs[0] else None,
        matmul_array(dgi.T, steps.turn(x)) if needs[3] else None,
        matmul_array(dgh.T, _rows(states, steps.old)) if needs[4] else None,
        unbroadcast(dgi, rows) if needs[5] else None,
        unbroadcast(dgh, rows) if needs[6] else None,
    )


def _rows(x: Any, rows: Any) -> Any:
    """The rows, a view where they are a slice."""
    return x[rows] if isinstance(rows, slice) else take(x, rows)


PARENTS = range(8)  # x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr

# --- compiled -----------------------------------------------------------------------------


def _compiled_arrays(
    kind: str, steps: Steps, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any,
    w_hr: Any, keep: bool,
) -> Any:  # fmt: skip
    """All states (hs, cs), and what the gradient needs, by the C++ code; None without an answer.

    16-bit numbers are float32 in here, and rounded at the end alone.
    """
    if type(x) is not np.ndarray or w_hr is not None or not native.available():
        return None
    x, h0, c0, w_ih, w_hh, b_ih, b_hh = wide(x, h0, c0, w_ih, w_hh, b_ih, b_hh)
    gi, bias = matmul_array(x, w_ih.T), _bias(kind, w_hh, b_ih, b_hh)
    found = native.recurrent_forward(kind, steps.offsets, gi, bias, w_hh, h0, c0, keep)
    if found is None:
        return None
    hs, cs, acts = found
    return hs, cs, *{"LSTM": (acts, None), "GRU": (acts,)}.get(kind, ())


def _bias(kind: str, like: Any, b_ih: Any, b_hh: Any) -> Any:
    """What is added to the gates: of a GRU to those of r, z, and to both parts of the last."""
    if b_ih is None and b_hh is None:
        return None
    none = np.zeros(len(like), like.dtype)
    b_ih, b_hh = (none if b is None else b for b in (b_ih, b_hh))
    if kind != "GRU":
        return b_ih + b_hh
    n = like.shape[1]
    return np.concatenate([b_ih[: 2 * n] + b_hh[: 2 * n], b_ih[2 * n :], b_hh[2 * n :]])


def _compiled_gradient(
    kind: str, gs: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, w_hr: Any, steps: Steps,
    hs: Any, cs: Any, acts: Any, needs: Any,
) -> Any:  # fmt: skip
    """The gradients of a layer by the C++ code; None without an answer."""
    if type(x) is not np.ndarray or w_hr is not None or not native.available():
        return None
    dtype, n = x.dtype, w_hh.shape[1]
    dout = None if gs[0] is None else steps.turn(gs[0])
    dout, x, w_ih, w_hh, hs, cs, acts = wide(dout, x, w_ih, w_hh, hs, cs, acts)
    dh = _zeros_or(gs[1], w_hh, h0.shape)
    dc = None if c0 is None else _zeros_or(gs[2], w_hh, c0.shape)
    made = native.recurrent_backward(kind, steps.offsets, w_hh, hs, cs, acts, dout, dh, dc)
    if made is None:
        return None
    d, db = made
    dgi = dgh = d
    db_ih = db_hh = db.reshape(-1)
    if kind == "GRU":  # d has the gates m, r, z, and m's part of the old state
        dgi, dgh, w_ih = d[:, : 3 * n], d[:, n:], np.roll(w_ih, n, 0)
        db_ih, db_hh = np.concatenate([db_hh[n : 3 * n], db_hh[:n]]), db_hh[n:]
    dx, dw_ih, dw_hh, *_ = _parameters((*needs[:5], False, False), steps, dgi, dgh, x, hs, w_ih)
    if kind == "GRU" and dw_ih is not None:
        dw_ih = np.roll(dw_ih, -n, 0)
    if needs[5] and needs[6] and db_ih is db_hh:
        db_hh = db_hh.copy()
    found = zip((dx, dh, dc, dw_ih, dw_hh, db_ih, db_hh), needs, strict=False)
    return *(g.astype(dtype, copy=False) if need else None for g, need in found), None


# --- composed -----------------------------------------------------------------------------


def composed(step: Any) -> Any:
    """The layer in plain operations: `step(gi, gh, h, c)` gives the new (h, c)."""

    def layer(
        x: Tensor, h0: Tensor, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
        steps: Steps, *rest: Any,
    ) -> Any:  # fmt: skip
        gi = linear(steps.turn(x), w_ih, b_ih)
        h, c, made, done = h0, c0, [], []
        for start, stop, _ in steps.spans:
            count = stop - start
            if count < h.shape[0]:
                done.append((h[count:], None if c is None else c[count:]))
                h, c = h[:count], None if c is None else c[:count]
            h, c = step(gi[start:stop], linear(h, w_hh, b_hh), h, c)
            if w_hr is not None:
                h = linear(h, w_hr)
            made.append(h)
        done.append((h, c))
        last = [cat(part) for part in zip(*done[::-1], strict=True) if part[0] is not None]
        return steps.turn(cat(made)), *last

    return layer


# --- LSTM ---------------------------------------------------------------------------------


def _lstm_arrays(
    steps: Steps, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any,
    w_hr: Any, keep: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """All states (h, c), the gates, and the states before their projection."""
    xp, size = ns(x), len(h0)
    acts = _inputs(x, w_ih, b_ih, b_hh)
    hs, cs = _states(h0, steps.rows), _states(c0, steps.rows)
    tall: Any = None if w_hr is None else xp.empty((steps.rows, c0.shape[1]), c0.dtype)
    gh, times = xp.empty((size, acts.shape[1]), acts.dtype), _times(w_hh.T)
    project = None if w_hr is None else _times(w_hr.T)
    for start, stop, old in steps.spans:
        count, now = stop - start, slice(size + start, size + stop)
        gates, before = acts[start:stop], slice(old, old + count)
        part = times(hs[before], gh[:count])
        h, cs[now], _ = lstm_forward(gates, part, cs[before], keep, gates)
        if project is None:
            hs[now] = h
        else:
            tall[start:stop] = h
            project(h, hs[now])
    return hs, cs, acts, tall


_LSTM_STEP = composed(lambda gi, gh, h, c: lstm_composed(gi, gh, c))


@vjp((*PARENTS, *[None] * 5), composed=_LSTM_STEP, masked=True, name="LstmLayerBackward0")
def _lstm_vjp(
    gs: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    steps: Steps, hs: Any, cs: Any, acts: Any, tall: Any, needs: Any = (True,) * 8,
) -> Any:  # fmt: skip
    made = _compiled_gradient(
        "LSTM", gs, x, h0, c0, w_ih, w_hh, w_hr, steps, hs, cs, acts, needs
    )
    if made is not None:
        return made
    xp, size = ns(x), len(h0)
    dh, dc = _zeros_or(gs[1], x, h0.shape), _zeros_or(gs[2], x, c0.shape)
    dout = None if gs[0] is None else steps.turn(gs[0])
    dgates, times = xp.empty_like(acts), _times(w_hh)
    dhs: Any = None if w_hr is None else xp.empty((steps.rows, dh.shape[1]), x.dtype)
    wide, unproject = xp.empty_like(dc), None if w_hr is None else _times(w_hr)
    for start, stop, old in reversed(steps.spans):
        count = stop - start
        g = dh[:count]
        if dout is not None:
            g += dout[start:stop]
        if unproject is not None:
            dhs[start:stop] = g
            g = unproject(g, wide[:count])
        now, before = slice(size + start, size + stop), slice(old, old + count)
        found = lstm_backward(g, dc[:count], acts[start:stop], cs[before], cs[now])
        dgates[start:stop], dc[:count] = found
        times(found[0], dh[:count])
    dx, dw_ih, dw_hh, db_ih, db_hh = _parameters(needs, steps, dgates, dgates, x, hs, w_ih)
    dw_hr = matmul_array(dhs.T, tall) if needs[7] else None
    return dx, dh, dc, dw_ih, dw_hh, db_ih, db_hh, dw_hr


# --- GRU ----------------------------------------------------------------------------------


def _gru_arrays(
    steps: Steps, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any,
    w_hr: Any, keep: bool,
) -> tuple[Any, ...]:  # fmt: skip
    """All states, and the gates."""
    xp, size, n = ns(x), len(h0), h0.shape[1]
    gi, hs = _inputs(x, w_ih, b_ih), _states(h0, steps.rows)
    acts = xp.empty((steps.rows, 4 * n), x.dtype) if keep else None
    gh, times = xp.empty((size, gi.shape[1]), gi.dtype), _times(w_hh.T)
    for start, stop, old in steps.spans:
        count = stop - start
        part, before = gh[:count], hs[old : old + count]
        times(before, part)
        if b_hh is not None:
            part += b_hh
        hs[size + start : size + stop], made = gru_forward(gi[start:stop], part, before, keep)
        if acts is not None:
            acts[start:stop] = made
    return hs, None, acts


_GRU_STEP = composed(lambda gi, gh, h, c: (gru_composed(gi, gh, h), None))


@vjp((*PARENTS, *[None] * 4), composed=_GRU_STEP, masked=True, name="GruLayerBackward0")
def _gru_vjp(
    gs: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    steps: Steps, hs: Any, cs: Any, acts: Any, needs: Any = (True,) * 8,
) -> Any:  # fmt: skip
    made = _compiled_gradient(
        "GRU", gs, x, h0, c0, w_ih, w_hh, w_hr, steps, hs, cs, acts, needs
    )
    if made is not None:
        return made
    xp = ns(x)
    dh = _zeros_or(gs[1], x, h0.shape)
    dout = None if gs[0] is None else steps.turn(gs[0])
    dgi = xp.empty((steps.rows, len(w_hh)), x.dtype)
    dgh, times, part = xp.empty_like(dgi), _times(w_hh), xp.empty_like(dh)
    for start, stop, old in reversed(steps.spans):
        count = stop - start
        g = dh[:count]
        if dout is not None:
            g += dout[start:stop]
        found = gru_backward(g, acts[start:stop], hs[old : old + count])
        dgi[start:stop], dgh[start:stop], g[...] = found
        g += times(found[1], part[:count])
    dx, dw_ih, dw_hh, db_ih, db_hh = _parameters(needs, steps, dgi, dgh, x, hs, w_ih)
    return dx, dh, None, dw_ih, dw_hh, db_ih, db_hh, None


# --- plain --------------------------------------------------------------------------------


def _tanh_(x: Any) -> None:
    ns(x).tanh(x, out=x)


def _relu_(x: Any) -> None:
    ns(x).maximum(x, x.dtype.type(0), out=x)


def _plain_arrays(activate: Any) -> Any:
    """The plain layer with an activation that works in place."""

    def arrays(
        steps: Steps, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any,
        w_hr: Any, keep: bool,
    ) -> tuple[Any, ...]:  # fmt: skip
        size, times = len(h0), _times(w_hh.T)
        gi, hs = _inputs(x, w_ih, b_ih, b_hh), _states(h0, steps.rows)
        for start, stop, old in steps.spans:
            h = hs[size + start : size + stop]
            times(hs[old : old + stop - start], h)
            h += gi[start:stop]
            activate(h)
        return hs, None

    return arrays


def _plain_gradient(
    kind: str, slope: Any, gs: Any, x: Any, h0: Any, w_ih: Any, w_hh: Any, steps: Steps, hs: Any,
    needs: Any,
) -> Any:  # fmt: skip
    """The gradients of a plain layer; slope(h) is its activation's, from its result."""
    made = _compiled_gradient(
        kind, gs, x, h0, None, w_ih, w_hh, None, steps, hs, None, None, needs
    )
    if made is not None:
        return made
    dh = _zeros_or(gs[1], x, h0.shape)
    dout = None if gs[0] is None else steps.turn(gs[0])
    dgates, times = slope(hs[len(h0) :]).astype(x.dtype, copy=False), _times(w_hh)
    for start, stop, _ in reversed(steps.spans):
        g, gates = dh[: stop - start], dgates[start:stop]
        if dout is not None:
            g += dout[start:stop]
        gates *= g
        times(gates, g)
    dx, dw_ih, dw_hh, db_ih, db_hh = _parameters(needs, steps, dgates, dgates, x, hs, w_ih)
    return dx, dh, None, dw_ih, dw_hh, db_ih, db_hh, None


_TANH_STEP = composed(lambda gi, gh, h, c: ((gi + gh).tanh(), None))
_RELU_STEP = composed(lambda gi, gh, h, c: ((gi + gh).relu(), None))


@vjp((*PARENTS, *[None] * 3), composed=_TANH_STEP, masked=True, name="RnnTanhLayerBackward0")
def _tanh_vjp(
    gs: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    steps: Steps, hs: Any, cs: Any, needs: Any = (True,) * 8,
) -> Any:  # fmt: skip
    return _plain_gradient(
        "RNN_TANH", lambda h: 1 - h * h, gs, x, h0, w_ih, w_hh, steps, hs, needs
    )


@vjp((*PARENTS, *[None] * 3), composed=_RELU_STEP, masked=True, name="RnnReluLayerBackward0")
def _relu_vjp(
    gs: Any, x: Any, h0: Any, c0: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any, w_hr: Any,
    steps: Steps, hs: Any, cs: Any, needs: Any = (True,) * 8,
) -> Any:  # fmt: skip
    return _plain_gradient(
        "RNN_RELU", lambda h: h > 0, gs, x, h0, w_ih, w_hh, steps, hs, needs
    )


# --- one layer ----------------------------------------------------------------------------

KINDS = {
    "LSTM": (4, _lstm_arrays, _lstm_vjp),
    "GRU": (3, _gru_arrays, _gru_vjp),
    "RNN_TANH": (1, _plain_arrays(_tanh_), _tanh_vjp),
    "RNN_RELU": (1, _plain_arrays(_relu_), _relu_vjp),
}


def layer(
    kind: str, steps: Steps, x: Tensor, h0: Tensor, c0: Tensor | None, w_ih: Tensor, w_hh: Tensor,
    b_ih: Tensor | None = None, b_hh: Tensor | None = None, w_hr: Tensor | None = None,
) -> list[Tensor]:  # fmt: skip
    """[out, h] or, for an LSTM, [out, h, c]: the states after all steps, and after the last.

    Shapes, with k gates: x (rows, in), h0 (batch, p), c0 (batch, n), w_ih (k n, in), w_hh (k n, p),
    biases (k n), w_hr (p, n) where p is not n: out (rows, p).
    """
    _, compute, gradient = KINDS[kind]
    parents = (x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr)
    keep = mode.grad and any(p is not None and p._requires_grad for p in parents)
    arrays: list[Any] = [None if p is None else p.array for p in parents]
    given = (steps, steps.turn(arrays[0]), *arrays[1:], keep)
    found = _compiled_arrays(kind, *given)
    hs, cs, *kept = compute(*given) if found is None else found
    size, dtype = len(arrays[1]), arrays[0].dtype
    # Copies, so that a change of an output in place leaves what the gradient reads.
    out = steps.turn(hs[size:]) if steps.reverse or not keep else hs[size:].copy()
    made = [out, *(take(s[size:], steps.last) for s in (hs, cs) if s is not None)]
    made = [s.astype(dtype, copy=False) for s in made]
    saved = (*arrays, steps, hs, cs, *kept) if keep else ()
    return results(made, x, gradient, parents, saved)
