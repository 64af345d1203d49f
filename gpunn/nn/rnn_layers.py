"""Recurrent networks over sequences as functions: all layers and directions, padded or packed.

One layer in one direction is in rnn_sequence.py; the modules are in rnn.py.
"""

from __future__ import annotations

from typing import Any

from gpunn.amp.casts import autocasts
from gpunn.nn.dropout import dropout as drop
from gpunn.nn.rnn_sequence import KINDS, Steps, layer
from gpunn.ops._rows import proper
from gpunn.ops.join import cat, stack
from gpunn.tensor import Tensor


def _check_states(input: Tensor, states: Any, params: Any) -> None:
    """Dtypes and devices agree."""
    for param in params:
        if param.device is not input.device:
            raise RuntimeError(
                "Input and parameter tensors are not at the same device, found input tensor at "
                f"{input.device} and parameter tensor at {param.device}"
            )
    for state in states:
        if state.device is not input.device:
            raise RuntimeError(
                "Input and hidden tensors are not at the same device, found input tensor at "
                f"{input.device} and hidden tensor at {state.device}"
            )
        if state.array.dtype != input.array.dtype:
            raise RuntimeError(
                "mat1 and mat2 must have the same dtype, but got "
                f"{proper(state.dtype)} and {proper(input.dtype)} (hidden state and input)"
            )


def _split(params: Any, biased: bool, projected: bool, count: int) -> list[list[Any]]:
    """The parameters w_ih, w_hh, b_ih, b_hh, w_hr of each of `count` layers and directions."""
    each = (4 if biased else 2) + projected
    if len(params) != each * count:
        raise RuntimeError(
            f"got an incorrect number of RNN parameters: {len(params)}, {count} layers and "
            f"directions have {each * count}"
        )
    found = []
    for k in range(0, len(params), each):
        part = list(params[k : k + each])
        hr = [part.pop()] if projected else [None]
        found.append([*part, *([] if biased else [None, None]), *hr])
    return found


def _layers(
    kind: str, x: Tensor, sizes: list[int], states: Any, params: Any, biased: bool,
    num_layers: int, dropout: float, train: bool, bidirectional: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """(out, last states) of packed rows; `states` is (h,), or (h, c) of an LSTM."""
    _check_states(x, states, params)
    ways = 2 if bidirectional else 1
    projected = len(states) == 2 and states[0].shape[2] != states[1].shape[2]
    weights = _split(params, biased, projected, num_layers * ways)
    steps = [Steps(sizes, reverse=bool(way)) for way in range(ways)]
    firsts = [s.unbind(0) for s in states]
    last: list[list[Tensor]] = [[] for _ in states]
    for k in range(num_layers):
        outs = []
        for way in range(ways):
            i = k * ways + way
            state = [s[i] for s in firsts] + [None] * (2 - len(states))
            out, *final = layer(kind, steps[way], x, *state, *weights[i])
            outs.append(out)
            for found, one in zip(last, final, strict=True):
                found.append(one)
        x = cat(outs, -1) if bidirectional else outs[0]
        if train and dropout > 0 and k < num_layers - 1:
            x = drop(x, dropout, True)
    return x, *(stack(found) for found in last)


_LAYERS = {kind: autocasts(kind.partition("_")[0].lower())(_layers) for kind in KINDS}


def padded(
    kind: str, input: Tensor, hx: Any, params: Any, has_biases: bool, num_layers: int,
    dropout: float, train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """(out, last states) of a padded batch; hx and the last states are (h,), or (h, c)."""
    x = input.transpose(0, 1) if batch_first else input
    steps, batch = x.shape[:2]
    if steps == 0:
        raise RuntimeError(
            f"Expected sequence length to be larger than 0 in RNN, got input {list(input.shape)}"
        )
    rows = x.reshape(steps * batch, x.shape[2])
    out, *last = _LAYERS[kind](
        kind, rows, [batch] * steps, hx, params, has_biases, num_layers, dropout, train,
        bidirectional,
    )  # fmt: skip
    out = out.view(steps, batch, out.shape[1])
    return out.transpose(0, 1) if batch_first else out, *last


def packed(
    kind: str, data: Tensor, batch_sizes: Tensor, hx: Any, params: Any, has_biases: bool,
    num_layers: int, dropout: float, train: bool, bidirectional: bool,
) -> tuple[Tensor, ...]:  # fmt: skip
    """`padded` of packed rows."""
    sizes = batch_sizes.tolist()
    if not sizes or sum(sizes) != len(data) or sorted(sizes, reverse=True) != sizes:
        raise RuntimeError(
            f"batch_sizes {sizes} must not rise and must add up to the {len(data)} rows of data"
        )
    return _LAYERS[kind](
        kind, data, sizes, hx, params, has_biases, num_layers, dropout, train, bidirectional
    )


_FUNCTION = """A recurrent network over sequences: {what}.

    Two forms: {name}(input, hx, params, has_biases, num_layers, dropout, train, bidirectional,
    batch_first), and {name}(data, batch_sizes, hx, params, has_biases, num_layers, dropout, train,
    bidirectional) for packed sequences. params: each layer's and direction's weight_ih, weight_hh
    and, with has_biases, bias_ih and bias_hh, as in the module.
    Shapes: see the module. Returns (output, {last}).
    RuntimeError for an empty sequence, other dtypes of states, or another number of parameters.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.{module}.html

    >>> x, h, w = gpunn.ones(2, 1, 3), gpunn.zeros(1, 1, 2), gpunn.zeros({rows}, 3)
    >>> params = [w, gpunn.zeros({rows}, 2)]
    >>> gpunn.{name}(x, {state}, params, False, 1, 0.0, False, False, False)[0].shape
    torch.Size([2, 1, 2])
    """


def _public(name: str, kind: str, what: str, module: str) -> Any:
    """The public function of a kind."""
    pair = kind == "LSTM"

    def function(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        second, third = (*args, None, None, None)[1:3]
        apart = isinstance(second if pair else third, Tensor) or "batch_sizes" in kwargs
        at = 2 if apart else 1
        if len(args) > at:
            args = (*args[:at], _pair(args[at]) if pair else (args[at],), *args[at + 1 :])
        else:
            kwargs["hx"] = _pair(kwargs["hx"]) if pair else (kwargs["hx"],)
        return packed(kind, *args, **kwargs) if apart else padded(kind, *args, **kwargs)

    function.__name__ = function.__qualname__ = name
    rows = 2 * KINDS[kind][0]
    function.__doc__ = _FUNCTION.format(
        what=what, name=name, module=module, rows=rows, state="[h, h]" if pair else "h",
        last="h, c" if pair else "h",
    )  # fmt: skip
    return function


def _pair(hx: Any) -> Any:
    if len(hx) != 2:
        raise RuntimeError(f"lstm expects two hidden states, got {len(hx)}")
    return hx


lstm = _public("lstm", "LSTM", "an LSTM", "LSTM")
gru = _public("gru", "GRU", "a GRU", "GRU")
rnn_tanh = _public("rnn_tanh", "RNN_TANH", "a plain RNN with tanh", "RNN")
rnn_relu = _public("rnn_relu", "RNN_RELU", "a plain RNN with relu", "RNN")
