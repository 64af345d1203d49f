"""Multiply-adds of each class of layers, against counts by hand."""

import pytest

import gpunn
from gpunn import nn
from gpunn.multiply_adds import multiply_adds

X = gpunn.ones


@pytest.mark.parametrize(
    ("make", "args", "expected"),
    [
        (lambda: nn.Linear(3, 5), (X(2, 7, 3),), 2 * 7 * 3 * 5),
        (lambda: nn.Linear(3, 5, bias=False), (X(3),), 15),
        (lambda: nn.Bilinear(3, 4, 5), (X(2, 3), X(2, 4)), 2 * 3 * 4 * 5),
        (lambda: nn.Conv1d(4, 6, 3), (X(2, 4, 10),), 2 * 8 * 6 * 4 * 3),
        (lambda: nn.Conv2d(4, 6, 3, stride=2, groups=2), (X(1, 4, 9, 9),), 16 * 6 * 2 * 9),
        (lambda: nn.Conv3d(1, 2, 2), (X(1, 1, 3, 3, 3),), 8 * 2 * 8),
        (lambda: nn.ConvTranspose2d(4, 6, 3, 2), (X(2, 4, 5, 5),), 2 * 4 * 25 * 6 * 9),
        (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), (X(1, 4, 5),), 4 * 5 * 3 * 3),
        (lambda: nn.Embedding(5, 3), (gpunn.tensor([1, 2]),), 0),
        (lambda: nn.EmbeddingBag(5, 3), (gpunn.tensor([[1, 2]]),), 0),
        (lambda: nn.BatchNorm2d(3), (X(2, 3, 4, 4),), 96),
        (lambda: nn.InstanceNorm1d(3), (X(2, 3, 4),), 24),
        (lambda: nn.LayerNorm(4), (X(2, 4),), 8),
        (lambda: nn.RMSNorm(4), (X(2, 4),), 8),
        (lambda: nn.GroupNorm(2, 4), (X(2, 4, 3),), 24),
        (lambda: nn.SwitchableNorm1d(4), (X(2, 4, 3),), 24),
        (lambda: nn.PReLU(), (X(2, 4),), 8),
        (lambda: nn.RNNCell(3, 5), (X(2, 3),), 2 * (15 + 25)),
        (lambda: nn.LSTMCell(3, 5), (X(2, 3),), 2 * 4 * (15 + 25)),
        (lambda: nn.GRUCell(3, 5), (X(3),), 3 * (15 + 25)),
        (lambda: nn.ReLU(), (X(2, 4),), None),
        (lambda: nn.Sequential(), (X(2, 4),), None),
    ],
)
def test_layers(make, args, expected):
    layer = make().eval()
    assert multiply_adds(layer, args, {}, layer(*args)) == expected


def test_parametrized_and_derived_classes_count_like_their_base():
    class Mine(nn.Linear):
        pass

    layer = nn.utils.parametrizations.spectral_norm(Mine(3, 5))
    assert multiply_adds(layer, (X(2, 3),), {}, layer(X(2, 3))) == 30


def test_a_class_of_the_same_name_elsewhere_is_another_one():
    class Linear(nn.Module):
        in_features = 3

    assert multiply_adds(Linear(), (X(2, 3),), {}, X(2, 3)) is None


def test_a_subclass_with_another_forward():
    class Pair(nn.Linear):
        pass

    assert multiply_adds(Pair(3, 5), (X(2, 3),), {}, (X(2, 5), None)) == 30
    assert multiply_adds(Pair(3, 5), (X(2, 3),), {}, {"out": X(2, 5)}) is None


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("batched", [True, False])
def test_attention(batch_first, batched):
    """Queries (5 of 8), keys (7 of 6) and values (7 of 4), in a batch of 3."""
    layer = nn.MultiheadAttention(8, 2, kdim=6, vdim=4, batch_first=batch_first)
    batch = 3 if batched else 1

    def inputs(length, size):
        if not batched:
            return X(length, size)
        return X(3, length, size) if batch_first else X(length, 3, size)

    query, key, value = inputs(5, 8), inputs(7, 6), inputs(7, 4)
    expected = batch * (5 * 8 * 8 * 2 + 7 * 6 * 8 + 7 * 4 * 8 + 2 * 5 * 7 * 8)
    out = layer(query, key, value=value)
    assert multiply_adds(layer, (query, key), {"value": value}, out) == expected
    longer = nn.MultiheadAttention(
        8, 4, kdim=6, vdim=4, batch_first=batch_first, add_bias_kv=True, add_zero_attn=True
    )
    more = batch * 2 * 5 * 2 * 8  # two entries more, in the scores and in the weighted sums
    assert multiply_adds(longer, (query, key, value), {}, out[0]) == expected + more


def test_transformer_in_a_summary():
    """The layer's attention and its two Linears, counted once each."""
    layer = nn.TransformerEncoderLayer(8, 2, 6, batch_first=True)
    found = gpunn.summary(layer, (3, 5, 8))
    attention, tokens = 3 * (4 * 5 * 8 * 8 + 2 * 5 * 5 * 8), 3 * 5
    assert found.multiply_adds == attention + tokens * (2 * 8 * 6 + 2 * 8)  # and two norms
    assert found.total_parameters == sum(p.numel() for p in layer.parameters())


@pytest.mark.parametrize("form", ["padded", "packed", "single"])
@pytest.mark.parametrize(("make", "weights"), [
    (lambda **k: nn.LSTM(3, 5, **k), 4 * (15 + 25)),
    (lambda **k: nn.LSTM(3, 5, proj_size=2, **k), 4 * (15 + 10) + 10),
    (lambda **k: nn.GRU(3, 5, bias=False, **k), 3 * (15 + 25)),
    (lambda **k: nn.RNN(3, 5, nonlinearity="relu", **k), 15 + 25),
    (lambda **k: nn.GRU(3, 5, 2, bidirectional=True, **k), 2 * 3 * (15 + 25 + 50 + 25)),
])  # fmt: skip
def test_recurrent_layers(make, weights, form):
    """Each step of each sequence, and only those that there are, meets every weight."""
    layer = make(batch_first=form == "padded")
    if form == "packed":
        x, steps = nn.utils.rnn.pack_padded_sequence(X(7, 2, 3), [7, 4]), 11
    else:
        x, steps = (X(2, 7, 3), 14) if form == "padded" else (X(7, 3), 7)
    assert multiply_adds(layer, (x,), {}, layer(x)) == steps * weights
    assert multiply_adds(layer, (), {"input": x}, layer(input=x)) == steps * weights


def test_a_recurrent_network_in_a_summary():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[1][0][-1])

    assert gpunn.summary(Reader(), (4, 7, 3)).multiply_adds == 4 * (7 * 4 * (15 + 25) + 5 * 2)
