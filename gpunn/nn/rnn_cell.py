"""Recurrent cells: one step of a plain RNN, an LSTM, a GRU.

A step is two matrix products and a point-wise part, which is in rnn_step.py.
Sources: Hochreiter and Schmidhuber 1997, Long short-term memory; Cho et al. 2014, Learning phrase
representations using RNN encoder-decoder.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpunn.amp.casts import autocasts
from gpunn.autograd.graph import mode, result
from gpunn.dtypes import F32
from gpunn.native import rnn as native
from gpunn.nn import init
from gpunn.nn.linear import _linear_vjp as linear_vjp
from gpunn.nn.linear import linear
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.nn.rnn_step import gru_step, lstm_step
from gpunn.ops.create import empty, zeros
from gpunn.tensor import Tensor

# --- functions ----------------------------------------------------------------------------


def _gates(
    input: Tensor, states: Any, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Any, bias_hh: Any,
    count: int,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The input's and the hidden state's part of `count` gates, after the checks."""
    x, w = input.array, weight_ih.array
    if x.ndim != 2:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [-{x.ndim}, {x.ndim - 1}], but "
            f"got 1): a cell's input is (rows, features), got {list(x.shape)}"
        )
    if x.shape[1] != w.shape[1]:
        raise RuntimeError(
            f"input has inconsistent input_size: got {x.shape[1]} expected {w.shape[1]}"
        )
    n = weight_hh.array.shape[1]
    for i, state in enumerate(states):
        if state.array.shape[0] != x.shape[0]:
            raise RuntimeError(
                f"Input batch size {x.shape[0]} doesn't match hidden{i} batch size "
                f"{state.array.shape[0]}"
            )
        if state.array.shape[1:] != (n,):
            raise RuntimeError(
                f"hidden{i} has inconsistent hidden_size: got {state.array.shape[-1]}, expected {n}"
            )
    if w.shape[0] != count * n:
        raise RuntimeError(
            f"weight_ih first dim must be {count} * hidden_size = {count * n}, but got {w.shape[0]}"
        )
    return _product(input, weight_ih, bias_ih), _product(states[0], weight_hh, bias_hh)


def _product(input: Tensor, weight: Tensor, bias: Any) -> Tensor:
    """`linear`; by compiled code where few rows meet large weights, BLAS's weak side."""
    x, w, y = input.array, weight.array, None
    few = type(x) is np.ndarray and x.dtype is F32 and 4 <= len(x) <= 128
    if few and len(x) * w.size > 65536 and weight.device is input.device:
        y = native.gates(x, w, None if bias is None else bias.array)
    if y is None:
        return linear(input, weight, bias)
    saved = (
        x if weight._requires_grad else None, w if input._requires_grad else None,
        None if bias is None else True,
    )  # fmt: skip
    return result(y, input, linear_vjp, (input, weight, bias), saved if mode.grad else ())


_CELL = """One step of {what}.

    Shapes: input (N, in), hx {hx}, w_ih ({k} n, in), w_hh ({k} n, n), biases ({k} n) or None: the
    new {hx}. {gates}RuntimeError where sizes do not agree.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.{module}.html

    >>> x, h, w = gpunn.zeros(1, 3), gpunn.ones(1, 2), gpunn.zeros({rows}, 3)
    >>> gpunn.{name}(x, {state}, w, gpunn.zeros({rows}, 2))
    {gives}
    """


@autocasts("rnn_cell")
def rnn_tanh_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:  # fmt: skip
    gi, gh = _gates(input, (hx,), w_ih, w_hh, b_ih, b_hh, 1)
    return (gi + gh).tanh()  # type: ignore[attr-defined]


@autocasts("rnn_cell")
def rnn_relu_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:  # fmt: skip
    gi, gh = _gates(input, (hx,), w_ih, w_hh, b_ih, b_hh, 1)
    return (gi + gh).relu()  # type: ignore[attr-defined]


@autocasts("lstm_cell")
def lstm_cell(
    input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    if not isinstance(hx, (tuple, list)):
        raise TypeError(
            "lstm_cell(): argument 'hx' (position 2) must be tuple of Tensors, not "
            f"{type(hx).__name__}"
        )
    if len(hx) != 2:
        raise RuntimeError(f"lstm_cell expects two hidden states, got {len(hx)}")
    gi, gh = _gates(input, hx, w_ih, w_hh, b_ih, b_hh, 4)
    return lstm_step(gi, gh, hx[1], spare=True)


@autocasts("gru_cell")
def gru_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> Tensor:  # fmt: skip
    gi, gh = _gates(input, (hx,), w_ih, w_hh, b_ih, b_hh, 3)
    return gru_step(gi, gh, hx)


rnn_tanh_cell.__doc__ = _CELL.format(
    what="a plain RNN: tanh(x w_ih^T + b_ih + h w_hh^T + b_hh)", hx="(N, n)", k=1, gates="",
    module="RNNCell", rows=2, name="rnn_tanh_cell", state="h", gives="tensor([[0., 0.]])",
)  # fmt: skip
rnn_relu_cell.__doc__ = _CELL.format(
    what="a plain RNN: relu(x w_ih^T + b_ih + h w_hh^T + b_hh)", hx="(N, n)", k=1, gates="",
    module="RNNCell", rows=2, name="rnn_relu_cell", state="h", gives="tensor([[0., 0.]])",
)  # fmt: skip
lstm_cell.__doc__ = _CELL.format(
    what="an LSTM", hx="(h, c), each (N, n)", k=4, module="LSTMCell", rows=8, name="lstm_cell",
    gates="The gates' order is input, forget, cell, output. ", state="(h, h)",
    gives="(tensor([[0.2311, 0.2311]]), tensor([[0.5000, 0.5000]]))",
)  # fmt: skip
gru_cell.__doc__ = _CELL.format(
    what="a GRU", hx="(N, n)", k=3, module="GRUCell", rows=6, name="gru_cell",
    gates="The gates' order is reset, update, new. ", state="h", gives="tensor([[0.5000, 0.5000]])",
)  # fmt: skip

# --- modules ------------------------------------------------------------------------------


class RNNCellBase(Module):
    """The parameters of a cell with `num_chunks` gates.

    weight_ih (num_chunks * hidden_size, input_size), weight_hh (.., hidden_size), bias_ih and
    bias_hh (..), all uniform in +-1/sqrt(hidden_size).

    >>> nn.RNNCellBase(3, 2, bias=False, num_chunks=4).weight_ih.shape
    torch.Size([8, 3])
    """

    __constants__ = ["input_size", "hidden_size", "bias"]
    weight_ih: Any
    weight_hh: Any
    bias_ih: Any
    bias_hh: Any

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        make = {"device": device, "dtype": dtype}
        rows = num_chunks * hidden_size
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self.weight_ih = Parameter(empty(rows, input_size, **make))
        self.weight_hh = Parameter(empty(rows, hidden_size, **make))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(rows, **make)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new weights."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _check(self, what: str, x: Tensor) -> None:
        if x.ndim not in (1, 2):
            raise ValueError(
                f"{type(self).__name__}: Expected {what} to be 1D or 2D, got {x.ndim}D instead"
            )

    def _start(self, input: Tensor) -> Tensor:
        """A state of zeros for a batch."""
        return zeros(input.shape[0], self.hidden_size, dtype=input.dtype, device=input.device)

    def _weights(self) -> tuple[Any, ...]:
        return self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        if self.bias is not True:
            text += f", bias={self.bias}"
        return text


class _OneState(RNNCellBase):
    """What the cells with one state share: h, the old one or zeros, batched or not."""

    _step: Any

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The new state."""
        self._check("input", input)
        if hx is not None:
            self._check("hidden", hx)
        if input.ndim == 2:
            return self._step(input, self._start(input) if hx is None else hx)
        input = input.unsqueeze(0)  # type: ignore[attr-defined]
        hx = self._start(input) if hx is None else hx.unsqueeze(0)  # type: ignore[attr-defined]
        return self._step(input, hx).squeeze(0)  # type: ignore[attr-defined]


class RNNCell(_OneState):
    """One step of a plain RNN: h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or with relu.

    Shapes: input (N, input_size) or (input_size), hx (N, hidden_size) or (hidden_size), zeros if
    not given: the new hx. Parameters: see RNNCellBase, with one gate.
    ValueError for other numbers of dimensions, RuntimeError for another nonlinearity.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNNCell.html

    >>> nn.RNNCell(10, 20)(gpunn.zeros(3, 10)).shape
    torch.Size([3, 20])
    """

    __constants__ = ["input_size", "hidden_size", "bias", "nonlinearity"]

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
        device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def _step(self, input: Tensor, hx: Tensor) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        cell = rnn_tanh_cell if self.nonlinearity == "tanh" else rnn_relu_cell
        return cell(input, hx, *self._weights())

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"


class LSTMCell(RNNCellBase):
    """One step of an LSTM.

    Shapes: input (N, input_size) or (input_size), hx a pair (h, c) of (N, hidden_size) or
    (hidden_size), zeros if not given: the new pair. Parameters: see RNNCellBase, with the gates
    input, forget, cell, output. ValueError for other numbers of dimensions.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTMCell.html

    >>> h, c = nn.LSTMCell(10, 20)(gpunn.zeros(3, 10))
    >>> h.shape, c.shape
    (torch.Size([3, 20]), torch.Size([3, 20]))
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(self, input: Tensor, hx: Any = None) -> tuple[Tensor, Tensor]:
        """The new states."""
        self._check("input", input)
        for i, state in enumerate(() if hx is None else hx):
            self._check(f"hx[{i}]", state)
        batched = input.ndim == 2
        if not batched:
            input = input.unsqueeze(0)  # type: ignore[attr-defined]
            hx = None if hx is None else tuple(state.unsqueeze(0) for state in hx)
        if hx is None:
            hx = (self._start(input),) * 2
        h, c = lstm_cell(input, hx, *self._weights())
        return (h, c) if batched else (h.squeeze(0), c.squeeze(0))  # type: ignore[attr-defined]


class GRUCell(_OneState):
    """One step of a GRU.

    Shapes: input (N, input_size) or (input_size), hx (N, hidden_size) or (hidden_size), zeros if
    not given: the new hx. Parameters: see RNNCellBase, with the gates reset, update, new.
    ValueError for other numbers of dimensions.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRUCell.html

    >>> nn.GRUCell(10, 20)(gpunn.zeros(3, 10)).shape
    torch.Size([3, 20])
    """

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
        dtype: Any = None,
    ):  # fmt: skip
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def _step(self, input: Tensor, hx: Tensor) -> Tensor:
        return gru_cell(input, hx, *self._weights())
