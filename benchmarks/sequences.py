"""One training step of networks over sequences: forward, backward, update. compare.py runs it.

    python benchmarks/sequences.py [--threads N] [--rounds N]
"""

import compare
import recurrent


def cases(T):
    T.manual_seed(0)
    made = {
        "encoder 4x256, dropout 0.1, Adam": encoder_step(T, 0.1),
        "encoder 4x256, dropout 0, Adam": encoder_step(T, 0.0),
        "GPT 6x384, AdamW, clipped": gpt_step(T),
    }
    for layer in (T.nn.LSTM(256, 256), T.nn.GRU(256, 256)):
        made[f"{type(layer).__name__} 256, 64 long, no update"] = recurrent.train(T, layer, 64, 32)
    return made


def attention(T, width, heads):
    """Causal self-attention from the fused function and two linear layers."""
    F = T.nn.functional

    class SelfAttention(T.nn.Module):
        def __init__(self):
            super().__init__()
            self.project_in = T.nn.Linear(width, 3 * width)
            self.project_out = T.nn.Linear(width, width)

        def forward(self, x):
            n, length, _ = x.shape
            parts = self.project_in(x).view(n, length, 3, heads, width // heads)
            q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.project_out(y.transpose(1, 2).reshape(n, length, width))

    return SelfAttention()


def gpt_step(T, width=384, layers=6, heads=6, length=256, batch=8, vocabulary=100):
    """A small language model as people write it: pre-norm blocks with GELU."""
    nn = T.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.attention = attention(T, width, heads)
            self.feed = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )

        def forward(self, x):
            x = x + self.attention(self.norm1(x))
            return x + self.feed(self.norm2(x))

    class GPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.token = nn.Embedding(vocabulary, width)
            self.place = nn.Embedding(length, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)

        def forward(self, text):
            x = self.token(text) + self.place(T.arange(text.shape[1]))
            return self.head(self.norm(self.blocks(x)))

    model = GPT()
    text = T.randint(0, vocabulary, (batch, length + 1))
    x, y = text[:, :-1].contiguous(), text[:, 1:].reshape(-1)
    loss_of = nn.CrossEntropyLoss()
    optimizer = T.optim.AdamW(model.parameters(), lr=3e-4)

    def train():
        optimizer.zero_grad()
        loss_of(model(x).view(-1, vocabulary), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return train


def encoder_step(T, dropout, width=256, layers=4, heads=8, feed=1024, length=128, batch=16):
    """nn.TransformerEncoder as it comes: post-norm, ReLU."""
    layer = T.nn.TransformerEncoderLayer(width, heads, feed, dropout, batch_first=True)
    model = T.nn.TransformerEncoder(layer, layers)
    x, y = T.randn(batch, length, width), T.randn(batch, length, width)
    return regression_step(T, model, x, y)


def regression_step(T, model, x, y):
    optimizer = T.optim.Adam(model.parameters(), lr=1e-4)
    loss_of = T.nn.MSELoss()

    def train():
        optimizer.zero_grad()
        loss_of(model(x), y).backward()
        optimizer.step()

    return train


if __name__ == "__main__":
    compare.main(cases, unit="ms", scale=1e3, seconds=2.0)
