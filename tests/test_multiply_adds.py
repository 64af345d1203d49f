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


def like_gpunns(name, **attributes):
    """A module of a class that counts as gpunn's."""
    kind = type(name, (nn.Module,), {"__module__": "gpunn.nn.here"})
    module = kind()
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


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


@pytest.mark.parametrize("packed", [True, False])
def test_recurrent_layers(packed):
    layer = like_gpunns("LSTM", weight_ih_l0=nn.Parameter(X(20, 3)), bias_ih_l0=nn.Parameter(X(20)))
    layer.weight_hh_l0 = nn.Parameter(X(20, 5))

    class Packed:
        data = X(14, 3)

    x = Packed() if packed else X(7, 2, 3)
    assert multiply_adds(layer, (x,), {}, X(7, 2, 5)) == 14 * (60 + 100)
