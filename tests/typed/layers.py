"""Layers, functions and containers in typed code; a module's call gives what its forward gives."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

import gpunn as torch
import gpunn.nn.functional as F
from gpunn import Tensor, nn


def functions(x: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    assert_type(F.relu(x), Tensor)
    assert_type(F.gelu(x, approximate="tanh"), Tensor)
    assert_type(F.silu(x), Tensor)
    assert_type(F.softmax(x, dim=-1), Tensor)
    assert_type(F.log_softmax(x, dim=-1), Tensor)
    assert_type(F.linear(x, weight), Tensor)
    assert_type(F.dropout(x, p=0.1, training=True), Tensor)
    assert_type(F.layer_norm(x, (x.size(-1),)), Tensor)
    assert_type(F.cross_entropy(x, target, reduction="mean"), Tensor)
    assert_type(F.mse_loss(x, x), Tensor)
    assert_type(F.one_hot(target, 4), Tensor)
    assert_type(F.pad(x, (1, 1)), Tensor)
    assert_type(F.embedding(target, weight), Tensor)
    assert_type(F.scaled_dot_product_attention(x, x, x, is_causal=True), Tensor)
    images = torch.randn(2, 3, 8, 8)
    assert_type(F.conv2d(images, torch.randn(4, 3, 3, 3), padding=1, stride=(2, 2)), Tensor)
    assert_type(F.avg_pool2d(images, 2), Tensor)
    assert_type(F.max_pool2d(images, 2), Tensor)
    assert_type(F.adaptive_avg_pool2d(images, 1), Tensor)
    assert_type(F.interpolate(images, scale_factor=2.0, mode="bilinear"), Tensor)
    return F.normalize(x, dim=-1)


class Encoder(nn.Module):
    def __init__(self, words: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, padding_idx=0)
        self.rnn = nn.LSTM(width, width, num_layers=2, batch_first=True, bidirectional=True)
        self.attention = nn.MultiheadAttention(2 * width, 2, batch_first=True)
        self.norm = nn.LayerNorm(2 * width)
        self.heads = nn.ModuleDict({"a": nn.Linear(2 * width, 3)})
        layer = nn.TransformerEncoderLayer(2 * width, 2, 4 * width, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        x = self.embedding(tokens)
        x, (h, _) = self.rnn(x)
        y, weights = self.attention(x, x, x)
        x = self.encoder(self.norm(x + y))
        assert isinstance(weights, Tensor)
        return self.heads["a"](x), weights


class Scaled(nn.Module):
    def forward(self, x: Tensor, times: int = 1) -> Tensor:
        return x * times


def calls(x: Tensor) -> None:
    """A call has the types of `forward`, without a word in the class."""
    assert_type(Scaled()(x), Tensor)
    assert_type(Scaled()(x, times=2), Tensor)
    Scaled()(x, times="twice")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(nn.Linear(2, 3)(x), Tensor)
    assert_type(nn.Sequential(nn.Linear(2, 3), nn.ReLU())(x), Any)
    assert_type(nn.CrossEntropyLoss()(x, x), Tensor)
    assert_type(Encoder(2, 4)(x), tuple[Tensor, Tensor])


def members(model: nn.Module) -> int:
    initialise(model)
    model.apply(initialise).requires_grad_(False).to(torch.float32).eval()
    for name, child in model.named_children():
        print(name, type(child).__name__)
    handle = model.register_forward_hook(seen)
    handle.remove()
    assert_type(next(model.parameters()).data, Tensor)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
        assert_type(module.in_features, int)


def seen(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    print(type(module).__name__, len(args), output.shape)


if __name__ == "__main__":
    functions(torch.randn(2, 4), torch.randn(4, 4), torch.tensor([0, 1]))
    output, weights = Encoder(10, 4)(torch.randint(1, 10, (2, 3)))
    print(output.shape, weights.shape, members(nn.Sequential(nn.Linear(2, 3), nn.ReLU())))
