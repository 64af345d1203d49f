"""Recurrent layers and the point-wise part of single steps through kernels/rnn.cpp.

Each returns None where the C++ library has no answer: NumPy's turn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpunn.native.loader import address, alike, contiguous, function, lib, optional

PART = 4  # sequences whose gates' gradients are added up together, as in the C++ file


def available() -> bool:
    """Whether there is a library."""
    return lib() is not None


def recurrent_forward(
    kind: str, starts: np.ndarray, gi: np.ndarray, bias: np.ndarray | None, w: np.ndarray,
    h0: np.ndarray, c0: np.ndarray | None, keep: bool,
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None] | None:  # fmt: skip
    """(hs, cs, acts): the first states and those after all rows, and what the gradient needs.

    `kind` is "LSTM", "GRU", "RNN_TANH" or "RNN_RELU"; starts the first row of each step and the
    number of rows, int64; gi (rows, G n) the inputs' part of the gates, which an LSTM writes over.
    See the C++ file for the rest. cs and acts may be None, acts also without `keep`. None too for
    shapes that do not belong together.
    """
    if not alike(gi, bias, w, h0, c0):
        return None
    name, types = _which(kind)
    call = function(f"{name}_layer_forward", "iiipppp" + types[0], gi.dtype)
    (batch, n), rows = h0.shape, len(gi)
    wide = {"lstm": 4 * n, "gru": 3 * n, "rnn": n}[name]
    fits = gi.shape[1] == wide and w.shape == (wide, n) and batch == starts[1]
    fits = fits and (c0 is None or c0.shape == h0.shape)
    if call is None or not fits or (bias is not None and bias.shape != (4 * n if n < wide else n,)):
        return None
    gi, w, bias = contiguous(gi), contiguous(w), None if bias is None else contiguous(bias)
    hs, cs = (None if s is None else _states(s, rows) for s in (h0, c0))
    acts = None
    if keep and name != "rnn":
        acts = gi if name == "lstm" else np.empty((rows, 4 * n), gi.dtype)
    lists = {"lstm": (hs, cs, acts), "gru": (hs, acts), "rnn": (hs,)}
    call(
        batch, len(starts) - 1, n, address(starts), address(gi), optional(bias), address(w),
        *map(optional, lists[name]), *_relu(kind),
    )  # fmt: skip
    return hs, cs, acts  # type: ignore[return-value]


def recurrent_backward(
    kind: str, starts: np.ndarray, w: np.ndarray, hs: np.ndarray, cs: np.ndarray | None,
    acts: np.ndarray | None, dout: np.ndarray | None, dh: np.ndarray, dc: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray] | None:  # fmt: skip
    """(d, db): the gradients of all gates, (rows, 4 n or n), and their sums, (4 or 1, n).

    dh and dc, the gradients of the last states, become those of the first; they must be contiguous.
    A GRU's gates are in another order, see the C++ file.
    """
    if not alike(w, hs, cs, acts, dout, dh, dc):
        return None
    name, types = _which(kind)
    call = function(f"{name}_layer_backward", "iiipp" + types[1], w.dtype)
    if call is None:
        return None
    (batch, n), rows = dh.shape, len(hs) - len(dh)
    sums = 1 if name == "rnn" else 4
    # A few more numbers a row: rows that lie a power of two apart meet in the same cache lines.
    d = np.empty((rows, sums * n + 64 // w.itemsize), w.dtype)
    db = np.empty(((batch + PART - 1) // PART, sums, n), w.dtype)
    w, dout = contiguous(w), None if dout is None else contiguous(dout)
    lists = {
        "lstm": (cs, acts, dout, dh, dc), "gru": (hs, acts, dout, dh), "rnn": (hs, dout, dh),
    }  # fmt: skip
    call(
        batch, len(starts) - 1, n, address(starts), address(w), *map(optional, lists[name]),
        address(d), d.shape[1], address(db), *_relu(kind),
    )  # fmt: skip
    return d[:, : sums * n], db.sum(0)


def gates(x: np.ndarray, w: np.ndarray, bias: np.ndarray | None) -> np.ndarray | None:
    """x @ w.T + bias for few rows: x (rows, depth), w (n, depth), bias (n) or None."""
    call = function("gates", "iiipppp", x.dtype)
    if call is None or not alike(x, w, bias):
        return None
    if x.shape[1] != w.shape[1] or (bias is not None and bias.shape != (len(w),)):
        return None
    y = np.empty((len(x), len(w)), x.dtype)
    x, w, bias = contiguous(x), contiguous(w), None if bias is None else contiguous(bias)
    call(len(x), len(w), x.shape[1], address(x), address(w), optional(bias), address(y))
    return y


def lstm_step_forward(
    gi: np.ndarray, gh: np.ndarray, c: np.ndarray, acts: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray] | None:
    """(h, c_new) from the gates' two parts (rows, 4 n) and the old c (rows, n).

    The gates after their activations go to acts, contiguous, which may be gi; None: nowhere.
    """
    call = function("lstm_step_forward", "iipppppp", c.dtype)
    if call is None or not alike(gi, gh, c, acts) or not _fits(4, c, gi, gh):
        return None
    h, c_new = np.empty(c.shape, c.dtype), np.empty(c.shape, c.dtype)
    gi, gh, c = contiguous(gi), contiguous(gh), contiguous(c)
    call(
        *c.shape, address(gi), address(gh), address(c), address(h), address(c_new), optional(acts)
    )
    return h, c_new


def lstm_step_backward(
    dh: np.ndarray | None, dc: np.ndarray | None, acts: np.ndarray, c: np.ndarray,
    c_new: np.ndarray,
) -> tuple[np.ndarray, np.ndarray] | None:  # fmt: skip
    """(the gradient of each part of the gates, that of the old c)."""
    call = function("lstm_step_backward", "iipppppp", c.dtype)
    if call is None or not alike(dh, dc, acts, c, c_new):
        return None
    dc = np.zeros(c.shape, c.dtype) if dc is None else dc.copy()
    d, dh = np.empty(acts.shape, c.dtype), None if dh is None else contiguous(dh)
    acts, c, c_new = contiguous(acts), contiguous(c), contiguous(c_new)
    call(
        *c.shape, optional(dh), address(acts), address(c), address(c_new), address(dc), address(d)
    )
    return d, dc


def gru_step_forward(
    gi: np.ndarray, gh: np.ndarray, h: np.ndarray, keep: bool
) -> tuple[np.ndarray, np.ndarray | None] | None:
    """(h_new, acts) from the gates' two parts (rows, 3 n) and the old h (rows, n)."""
    call = function("gru_step_forward", "iippppp", h.dtype)
    if call is None or not alike(gi, gh, h) or not _fits(3, h, gi, gh):
        return None
    rows, n = h.shape
    h_new, acts = np.empty(h.shape, h.dtype), np.empty((rows, 4 * n), h.dtype) if keep else None
    gi, gh, h = contiguous(gi), contiguous(gh), contiguous(h)
    call(rows, n, address(gi), address(gh), address(h), address(h_new), optional(acts))
    return h_new, acts


def gru_step_backward(
    dh: np.ndarray, acts: np.ndarray, h: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(the gradient of gi, of gh, of h)."""
    call = function("gru_step_backward", "iipppppp", h.dtype)
    if call is None or not alike(dh, acts, h):
        return None
    rows, n = h.shape
    dgi, dgh, dh_old = (np.empty((rows, k * n), h.dtype) for k in (3, 3, 1))
    dh, acts, h = contiguous(dh), contiguous(acts), contiguous(h)
    call(
        rows, n, address(dh), address(acts), address(h), address(dgi), address(dgh),
        address(dh_old),
    )  # fmt: skip
    return dgi, dgh, dh_old


def _fits(gates: int, state: np.ndarray, *parts: np.ndarray) -> bool:
    """Whether the gates' parts have the shape that the states ask for."""
    return all(p.shape == (len(state), gates * state.shape[1]) for p in parts)


def _which(kind: str) -> tuple[str, tuple[str, str]]:
    """The C++ name of a kind, and the letters of its last arguments forward and backward."""
    letters = {"lstm": ("ppp", "ppppppip"), "gru": ("pp", "pppppip"), "rnn": ("pi", "ppppipi")}
    name = kind.partition("_")[0].lower()
    return name, letters[name]


def _relu(kind: str) -> tuple[Any, ...]:
    """The last argument, which says the activation of a plain layer."""
    return (int(kind.endswith("RELU")),) if kind.startswith("RNN") else ()


def _states(first: np.ndarray, rows: int) -> np.ndarray:
    """Room for the first states and those after all rows."""
    states = np.empty((len(first) + rows, first.shape[1]), first.dtype)
    states[: len(first)] = first
    return states
