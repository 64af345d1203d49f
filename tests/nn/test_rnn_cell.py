"""Recurrent cells: against PyTorch's, with the same weights."""

import numpy as np
import pytest
from both import packages, refused, same

import gpunn
from gpunn import nn

rng = np.random.default_rng(0)
KINDS = [("RNNCell", {}), ("RNNCell", {"nonlinearity": "relu"}), ("LSTMCell", {}), ("GRUCell", {})]


@pytest.mark.parametrize("batch", [None, 3, 0])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("kind, options", KINDS, ids=str)
def test_cells(kind, options, given, bias, batch):
    """Initial weights, states and all gradients under one seed."""
    lead = () if batch is None else (batch,)
    x, *states = (rng.normal(size=(*lead, n)) for n in (5, 4, 4))

    def program(T):
        T.manual_seed(1)
        cell = getattr(T.nn, kind)(5, 4, bias=bias, dtype=T.float64, **options)
        leaves = [T.from_numpy(a.copy()).requires_grad_() for a in (x, *states)]
        if kind != "LSTMCell":
            leaves = leaves[:2]
        hx = (tuple(leaves[1:]) if kind == "LSTMCell" else leaves[1]) if given else None
        made = cell(leaves[0], hx)
        made = list(made) if isinstance(made, tuple) else [made]
        wanted = [*(leaves if given else leaves[:1]), *cell.parameters()]
        gs = T.autograd.grad(sum((k + 1) * (y * y).sum() for k, y in enumerate(made)), wanted)
        return [list(cell.state_dict()), repr(cell), *made, *gs]

    same(program)


@pytest.mark.parametrize("name, gates", [("rnn_tanh_cell", 1), ("rnn_relu_cell", 1),
                                         ("lstm_cell", 4), ("gru_cell", 3)])  # fmt: skip
def test_functions(name, gates):
    x, h, c = (rng.normal(size=(3, n)) for n in (5, 4, 4))
    weights = [rng.normal(size=s) for s in ((gates * 4, 5), (gates * 4, 4), gates * 4, gates * 4)]

    def program(T, count):
        parts = [T.from_numpy(w.copy()) for w in weights[:count]]
        state = T.from_numpy(h.copy())
        if name == "lstm_cell":
            state = [state, T.from_numpy(c.copy())]
        made = getattr(T, name)(T.from_numpy(x.copy()), state, *parts)
        return list(made) if isinstance(made, tuple) else made

    same(lambda T: program(T, 2))
    same(lambda T: program(T, 3))
    same(lambda T: program(T, 4))


@pytest.mark.parametrize("kind, options", KINDS, ids=str)
def test_few_rows_and_large_weights(kind, options):
    """Float32, where compiled code takes the products: three steps against PyTorch."""
    torch, _ = packages()
    arrays = [rng.normal(size=(3, 20, 70)).astype(np.float32)]
    theirs = getattr(torch.nn, kind)(70, 90, **options)
    weights = {k: v.numpy() for k, v in theirs.state_dict().items()}
    found = []
    for T in (torch, gpunn):
        cell = getattr(T.nn, kind)(70, 90, **options)
        cell.load_state_dict({k: T.from_numpy(v.copy()) for k, v in weights.items()})
        x, state = T.from_numpy(arrays[0]).requires_grad_(), None
        for t in range(3):
            state = cell(x[t], state)
        made = list(state) if kind == "LSTMCell" else [state]
        loss = sum(y.square().mean() for y in made)
        grads = T.autograd.grad(loss, [x, *cell.parameters()])
        found.append([y.detach().numpy() for y in (*made, *grads)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6)


def test_large_weights_on_another_device_are_refused():
    cell = nn.LSTMCell(70, 90).to("cpu:1")
    with pytest.raises(RuntimeError, match="device"):
        cell(gpunn.ones(20, 70), (gpunn.ones(20, 90), gpunn.ones(20, 90)))


def test_many_steps_learn():
    """A cell carries one bit through five steps."""
    gpunn.manual_seed(0)
    cell, head = nn.LSTMCell(2, 8), nn.Linear(8, 1)
    optimizer = gpunn.optim.Adam([*cell.parameters(), *head.parameters()], lr=0.02)
    bits = gpunn.randint(0, 2, (32, 1)).float()
    for _ in range(100):
        state = None
        for step in range(5):
            x = gpunn.cat([bits if step == 0 else bits * 0, gpunn.rand(32, 1)], 1)
            state = cell(x, state)
        loss = nn.functional.binary_cross_entropy_with_logits(head(state[0]), bits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


@pytest.mark.parametrize("count", [1, 3])
def test_an_lstm_has_two_states(count):
    def call(T):
        T.lstm_cell(T.ones(2, 3), [T.ones(2, 4)] * count, T.ones(16, 3), T.ones(16, 4))

    refused(call, "lstm_cell expects two hidden states")


@pytest.mark.parametrize("shape, hidden, rows, words", [
    ((2, 5), (2, 4), 3, "input has inconsistent input_size: got 5 expected 3"),
    ((2, 3), (3, 4), 3, "Input batch size 2 doesn't match hidden0 batch size 3"),
    ((2, 3), (2, 5), 3, "hidden0 has inconsistent hidden_size: got 5, expected 4"),
    ((2, 3), (2, 4), 4, r"weight_ih first dim must be 3 \* hidden_size = 12, but got 16"),
    ((3,), (4,), 3, r"range of \[-1, 0\], but got 1"),
])  # fmt: skip
def test_errors_are_pytorchs(shape, hidden, rows, words):
    refused(lambda T: T.gru_cell(T.ones(shape), T.ones(hidden), T.ones(rows * 4, 3),
                                 T.ones(12, 4)), words)  # fmt: skip


@pytest.mark.parametrize("call, words", [
    (lambda T: T.nn.LSTMCell(3, 4)(T.ones(2, 2, 3)), "LSTMCell: Expected input to be 1D or 2D"),
    (lambda T: T.nn.GRUCell(3, 4)(T.ones(2, 3), T.ones(1, 2, 4)), "Expected hidden to be 1D or"),
    (lambda T: T.nn.LSTMCell(3, 4)(T.ones(2, 3), (T.ones(2, 4), T.ones(1, 2, 4))),
     r"Expected hx\[1\] to be 1D or 2D, got 3D"),
    (lambda T: T.nn.LSTMCell(3, 4)(T.ones(2, 3), T.ones(2, 4)), "must be tuple of Tensors, not T"),
    (lambda T: T.nn.LSTMCell(3, 4)(T.ones(2, 3), (T.ones(2, 4), T.ones(3, 4))),
     "Input batch size 2 doesn't match hidden1 batch size 3"),
    (lambda T: T.nn.RNNCell(3, 4, nonlinearity="gelu")(T.ones(3)), "Unknown nonlinearity: gelu"),
])  # fmt: skip
def test_errors_of_modules_are_pytorchs(call, words):
    refused(call, words)


def test_names():
    torch, mine = packages()
    for name in ("RNNCellBase", "RNNCell", "LSTMCell", "GRUCell"):
        assert getattr(mine.nn.modules.rnn, name) is getattr(mine.nn, name)
    same(lambda T: repr(T.nn.RNNCell(3, 4, bias=False, nonlinearity="relu")))
    assert gpunn.nn.LSTMCell(3, 4, dtype=gpunn.float64).weight_hh.dtype is gpunn.float64
