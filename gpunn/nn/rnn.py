"""Recurrent layers over sequences: plain RNNs, LSTMs and GRUs of several layers and directions.

The functions of whole networks are in rnn_layers.py, one layer in one direction in
rnn_sequence.py, a step's point-wise part in rnn_step.py.
Sources: Hochreiter and Schmidhuber 1997, Long short-term memory; Cho et al. 2014, Learning phrase
representations using RNN encoder-decoder; Sak et al. 2014, Long short-term memory recurrent
neural network architectures for large scale acoustic modeling (the projections).
"""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

from gpunn.amp.casts import autocast_is_on
from gpunn.nn import init
from gpunn.nn.module import Module
from gpunn.nn.parameter import Parameter
from gpunn.nn.rnn_layers import packed as run_packed
from gpunn.nn.rnn_layers import padded as run_padded
from gpunn.nn.rnn_sequence import KINDS
from gpunn.ops.create import empty, zeros
from gpunn.tensor import Tensor


def apply_permutation(tensor: Tensor, permutation: Tensor, dim: int = 1) -> Tensor:
    """The entries along a dimension in another order: `tensor.index_select(dim, permutation)`.

    Deprecated by PyTorch, as the FutureWarning says.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     nn.modules.rnn.apply_permutation(gpunn.eye(2), gpunn.tensor([1, 0]))
    tensor([[0., 1.],
            [1., 0.]])
    """
    warnings.warn(
        "`apply_permutation` is deprecated, please use "
        "`tensor.index_select(dim, permutation)` instead",
        category=FutureWarning,
        stacklevel=2,
    )
    return tensor.index_select(dim, permutation)  # type: ignore[attr-defined, no-any-return]


def _check_arguments(
    dropout: Any, num_layers: Any, bias: Any, batch_first: Any, input_size: Any, hidden_size: Any,
    proj_size: Any,
) -> None:  # fmt: skip
    if isinstance(dropout, bool) or not (isinstance(dropout, numbers.Number) and 0 <= dropout <= 1):  # type: ignore[operator]
        raise ValueError(
            "dropout should be a number in range [0, 1] representing the probability of an "
            f"element being zeroed, got {dropout}"
        )
    if dropout > 0 and num_layers == 1:  # type: ignore[operator]
        warnings.warn(
            "dropout option adds dropout after all but last recurrent layer, so non-zero dropout "
            f"expects num_layers greater than 1, but got dropout={dropout} and "
            f"num_layers={num_layers}",
            stacklevel=4,
        )
    for name, value in (("bias", bias), ("batch_first", batch_first)):
        if not isinstance(value, bool):
            raise TypeError(f"{name} should be of type bool, got: {type(value).__name__}")
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size)):
        if not isinstance(value, int):
            raise TypeError(f"{name} should be of type int, got: {type(value).__name__}")
        if value <= 0:
            raise ValueError(f"{name} must be greater than zero, got {value}")
    if num_layers <= 0:
        raise ValueError(f"num_layers must be greater than zero, got {num_layers}")
    if proj_size < 0:
        raise ValueError(
            "proj_size should be a positive integer or zero to disable projections, got "
            f"{proj_size}"
        )
    if proj_size >= hidden_size:
        raise ValueError(
            f"proj_size has to be smaller than hidden_size, got {proj_size} and {hidden_size}"
        )


class RNNBase(Module):
    """What RNN, LSTM and GRU share: parameters, checks, states, the way through the layers.

    Parameters, for layer k, with "_reverse" appended for the backward direction, and g gates:
    weight_ih_l{k} (g * hidden_size, inputs), weight_hh_l{k} (g * hidden_size, outputs),
    bias_ih_l{k} and bias_hh_l{k} (g * hidden_size), and weight_hr_l{k} (proj_size, hidden_size)
    with projections; all uniform in +-1/sqrt(hidden_size).
    `mode` is "LSTM", "GRU", "RNN_TANH" or "RNN_RELU". ValueError and TypeError for arguments that
    make no network.

    >>> nn.RNNBase("GRU", 3, 2).weight_ih_l0.shape
    torch.Size([6, 3])
    """

    __constants__ = [
        "mode", "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout",
        "bidirectional", "proj_size",
    ]  # fmt: skip

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1,
        bias: bool = True, batch_first: bool = False, dropout: float = 0.0,
        bidirectional: bool = False, proj_size: int = 0, device: Any = None, dtype: Any = None,
    ):  # fmt: skip
        super().__init__()
        _check_arguments(dropout, num_layers, bias, batch_first, input_size, hidden_size, proj_size)
        if mode not in KINDS:
            raise ValueError(f"Unrecognized RNN mode: {mode}")
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self._all_weights: list[list[str]] = []
        for k in range(num_layers):
            for suffix in ("", "_reverse")[: self._ways]:
                self._add_layer(k, suffix, {"device": device, "dtype": dtype})
        self.reset_parameters()

    def _add_layer(self, k: int, suffix: str, make: dict[str, Any]) -> None:
        """The parameters of a layer in one direction."""
        rows, outputs = KINDS[self.mode][0] * self.hidden_size, self.proj_size or self.hidden_size
        inputs = self.input_size if k == 0 else outputs * self._ways
        shapes = {"weight_ih": (rows, inputs), "weight_hh": (rows, outputs)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}  # type: ignore[dict-item]
        if self.proj_size:
            shapes["weight_hr"] = (self.proj_size, self.hidden_size)
        for name, shape in shapes.items():
            setattr(self, f"{name}_l{k}{suffix}", Parameter(empty(shape, **make)))
        self._all_weights.append([f"{name}_l{k}{suffix}" for name in shapes])

    @property
    def _ways(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def _flat_weights_names(self) -> list[str]:
        return [name for names in self._all_weights for name in names]

    @property
    def _flat_weights(self) -> list[Any]:
        """The parameters as they are now, in order."""
        return [getattr(self, name, None) for name in self._flat_weights_names]

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of each layer and direction."""
        return [[getattr(self, name) for name in names] for names in self._all_weights]

    def flatten_parameters(self) -> None:
        """Does nothing: the parameters need not lie side by side."""

    def reset_parameters(self) -> None:
        """Draws new weights."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def check_input(self, input: Tensor, batch_sizes: Tensor | None) -> None:
        """ValueError for another dtype than the weights', RuntimeError for other sizes."""
        dtype = self._flat_weights[0].dtype
        if input.dtype != dtype and not autocast_is_on():
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({dtype}). Convert "
                f"input: input.to({dtype}), or convert model: model.to({input.dtype})"
            )
        wanted = 3 if batch_sizes is None else 2
        if input.ndim != wanted:
            raise RuntimeError(f"input must have {wanted} dimensions, got {input.ndim}")
        if self.input_size != input.shape[-1]:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. Expected "
                f"{self.input_size}, got {input.shape[-1]}"
            )

    def get_expected_hidden_size(
        self, input: Tensor, batch_sizes: Tensor | None
    ) -> tuple[int, int, int]:
        """The shape of the hidden states."""
        if batch_sizes is not None:
            batch = int(batch_sizes.array[0])
        else:
            batch = input.shape[0 if self.batch_first else 1]
        return self.num_layers * self._ways, batch, self.proj_size or self.hidden_size

    def check_hidden_size(
        self, hx: Tensor, expected_hidden_size: tuple[int, int, int],
        msg: str = "Expected hidden size {}, got {}",
    ) -> None:  # fmt: skip
        """RuntimeError for states of another shape."""
        if tuple(hx.shape) != tuple(expected_hidden_size):
            raise RuntimeError(msg.format(expected_hidden_size, list(hx.shape)))

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        """The checks of input and states."""
        self.check_input(input, batch_sizes)
        self.check_hidden_size(hidden, self.get_expected_hidden_size(input, batch_sizes))

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """The states of the sequences in another order."""
        return hx if permutation is None else hx.index_select(1, permutation)

    def extra_repr(self) -> str:
        usual = {
            "proj_size": 0, "num_layers": 1, "bias": True, "batch_first": False, "dropout": 0,
            "bidirectional": False,
        }  # fmt: skip
        found = [f"{k}={getattr(self, k)}" for k, v in usual.items() if getattr(self, k) != v]
        return ", ".join([f"{self.input_size}, {self.hidden_size}", *found])

    # What LSTM, with its two states, does in another way:

    def _zero_states(self, input: Tensor, shape: Any) -> Any:
        return zeros(*shape, dtype=input.dtype, device=input.device)

    def _each(self, hx: Any, change: Any) -> Any:
        return change(hx)

    def _check_dims(self, hx: Any, batched: bool) -> None:
        if hx.ndim != (3 if batched else 2):
            what = "batched 3-D" if batched else "unbatched 2-D"
            raise RuntimeError(
                f"For {what} input, hx should also be {3 if batched else 2}-D but got "
                f"{hx.ndim}-D tensor"
            )

    def forward(self, input: Any, hx: Any = None) -> tuple[Any, Any]:
        """(output, last states)."""
        if hasattr(input, "batch_sizes"):
            return self._forward_packed(input, hx)
        if input.ndim not in (2, 3):
            got = f"{input.ndim}D" + " tensor" * self.mode.startswith("RNN")
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 2D or 3D, got {got} instead"
            )
        batched, axis = input.ndim == 3, 0 if self.batch_first else 1
        if not batched:
            input = input.unsqueeze(axis)
        if hx is None:
            hx = self._zero_states(input, self.get_expected_hidden_size(input, None))
        else:
            self._check_dims(hx, batched)
            hx = hx if batched else self._each(hx, lambda s: s.unsqueeze(1))
        self.check_forward_args(input, hx, None)
        states = tuple(hx) if self.mode == "LSTM" else (hx,)
        options = self._options()
        out, *last = run_padded(self.mode, input, states, **options, batch_first=self.batch_first)
        hx = tuple(last) if self.mode == "LSTM" else last[0]
        if batched:
            return out, hx
        return out.squeeze(axis), self._each(hx, lambda s: s.squeeze(1))

    def _options(self) -> dict[str, Any]:
        return {
            "params": self._flat_weights, "has_biases": self.bias, "num_layers": self.num_layers,
            "dropout": self.dropout, "train": self.training, "bidirectional": self.bidirectional,
        }  # fmt: skip

    def _forward_packed(self, packed: Any, hx: Any) -> tuple[Any, Any]:
        data, sizes, order, back = packed
        if hx is None:
            hx = self._zero_states(data, self.get_expected_hidden_size(data, sizes))
        self.check_forward_args(data, hx, sizes)
        hx = self.permute_hidden(hx, order)
        states = tuple(hx) if self.mode == "LSTM" else (hx,)
        out, *last = run_packed(self.mode, data, sizes, states, **self._options())
        hx = tuple(last) if self.mode == "LSTM" else last[0]
        return type(packed)(out, sizes, order, back), self.permute_hidden(hx, back)


_SHAPES = """Shapes: input (T, N, input_size), (N, T, input_size) with batch_first, (T, input_size)
    for one sequence, or a PackedSequence; with L layers in D directions, {states}, zeros if not
    given. Returns (output, {last}): output (T, N, D * {p}) in the input's layout, the last
    layer's states after each step; {last} the last states of all layers. With `dropout`, the
    output of each layer but the last is dropped while training. Parameters: see RNNBase.
    ValueError for an input of another dtype or number of dimensions, RuntimeError for other sizes.
    """


class RNN(RNNBase):
    """Plain recurrent layers: h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or with relu.

    Arguments: input_size, hidden_size, num_layers=1, nonlinearity="tanh", bias=True,
    batch_first=False, dropout=0.0, bidirectional=False, device=None, dtype=None.
    {shapes}Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html

    >>> output, h = nn.RNN(10, 20, 2)(gpunn.zeros(5, 3, 10))
    >>> output.shape, h.shape
    (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    def __init__(self, *args: Any, **kwargs: Any):
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        nonlinearity = kwargs.pop("nonlinearity", "tanh") if len(args) <= 3 else args[3]
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__(f"RNN_{nonlinearity.upper()}", *args[:3], *args[4:], **kwargs)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory layers.

    With s the logistic function: i, f, o = s(W x_t + b + U h_(t-1) + d), g = tanh(...),
    c_t = f c_(t-1) + i g, h_t = o tanh(c_t), or with proj_size h_t = W_hr (o tanh(c_t)). The rows
    of the weights are those of i, f, g, o.
    Arguments: input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
    bidirectional=False, proj_size=0, device=None, dtype=None.
    {shapes}Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html

    >>> output, (h, c) = nn.LSTM(10, 20, 2)(gpunn.zeros(5, 3, 10))
    >>> output.shape, h.shape, c.shape
    (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]), torch.Size([2, 3, 20]))
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__("LSTM", *args, **kwargs)

    def get_expected_cell_size(
        self, input: Tensor, batch_sizes: Tensor | None
    ) -> tuple[int, int, int]:
        """The shape of the cell states."""
        return *self.get_expected_hidden_size(input, batch_sizes)[:2], self.hidden_size

    def check_forward_args(self, input: Tensor, hidden: Any, batch_sizes: Tensor | None) -> None:
        """The checks of input and states."""
        self.check_input(input, batch_sizes)
        sizes = (self.get_expected_hidden_size, self.get_expected_cell_size)
        for k in range(2):
            words = f"Expected hidden[{k}] size {{}}, got {{}}"
            self.check_hidden_size(hidden[k], sizes[k](input, batch_sizes), words)

    def permute_hidden(self, hx: Any, permutation: Tensor | None) -> Any:
        """The states of the sequences in another order."""
        if permutation is None:
            return hx
        return tuple(s.index_select(1, permutation) for s in (hx[0], hx[1]))

    def _zero_states(self, input: Tensor, shape: Any) -> Any:
        return tuple(super(LSTM, self)._zero_states(input, (*shape[:2], n))
                     for n in (shape[2], self.hidden_size))  # fmt: skip

    def _each(self, hx: Any, change: Any) -> Any:
        return change(hx[0]), change(hx[1])

    def _check_dims(self, hx: Any, batched: bool) -> None:
        n = 3 if batched else 2
        if hx[0].ndim != n or hx[1].ndim != n:
            what = "batched 3-D" if batched else "unbatched 2-D"
            raise RuntimeError(
                f"For {what} input, hx and cx should also be {n}-D but got ({hx[0].ndim}-D, "
                f"{hx[1].ndim}-D) tensors"
            )


class GRU(RNNBase):
    """Gated recurrent unit layers.

    With s the logistic function: r, z = s(W x_t + b + U h_(t-1) + d),
    n = tanh(W_n x_t + b_n + r (U_n h_(t-1) + d_n)), h_t = (1 - z) n + z h_(t-1). The rows of the
    weights are those of r, z, n.
    Arguments: input_size, hidden_size, num_layers=1, bias=True, batch_first=False, dropout=0.0,
    bidirectional=False, device=None, dtype=None.
    {shapes}Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html

    >>> output, h = nn.GRU(10, 20, 2)(gpunn.zeros(5, 3, 10))
    >>> output.shape, h.shape
    (torch.Size([5, 3, 20]), torch.Size([2, 3, 20]))
    """

    def __init__(self, *args: Any, **kwargs: Any):
        if "proj_size" in kwargs:
            raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
        super().__init__("GRU", *args, **kwargs)


_ONE = _SHAPES.format(states="hx (L * D, N, hidden_size)", last="h", p="hidden_size")
_TWO = _SHAPES.format(
    states="hx a pair (h, c) of (L * D, N, proj_size or hidden_size) and (L * D, N, hidden_size)",
    last="(h, c)", p="(proj_size or hidden_size)",
)  # fmt: skip
for _class, _text in ((RNN, _ONE), (GRU, _ONE), (LSTM, _TWO)):
    _class.__doc__ = (_class.__doc__ or "").replace("{shapes}", _text)
