"""Models, data and comparisons that the tests of DataParallel share."""

import numpy as np

import gpunn
from gpunn import nn
from gpunn.nn import functional as F
from gpunn.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from gpunn.utils.checkpoint import checkpoint

CPUS = ["cpu:0", "cpu:1", "cpu:2"]


def drawn(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return gpunn.from_numpy(np.asarray(values))


def close(a, b, tolerance=1e-9):
    np.testing.assert_allclose(
        a.detach().cpu().numpy(), b.detach().cpu().numpy(), rtol=tolerance, atol=tolerance
    )


def same_training(make, inputs, loss, devices, steps=3):
    """A model trained on one device and on several: losses, gradients, buffers, parameters."""
    gpunn.manual_seed(0)
    one, twin = make().double(), make().double()
    twin.load_state_dict(one.state_dict())
    several = nn.DataParallel(twin.to(devices[0]), devices)
    optimizers = [gpunn.optim.SGD(m.parameters(), 0.1) for m in (one, several)]
    for step in range(steps):
        args = inputs(step)
        losses = []
        for model, optimizer in zip((one, several), optimizers, strict=True):
            optimizer.zero_grad()
            found = model(*args)
            losses.append(loss(found))
            losses[-1].backward()
            optimizer.step()
        close(*losses)
        pairs = zip(one.named_parameters(), several.module.named_parameters(), strict=True)
        for (name, p), (other, q) in pairs:
            assert name == other and q.device == gpunn.zeros(0, device=devices[0]).device
            close(p.grad, q.grad)
            close(p, q)
    for a, b in zip(one.buffers(), several.module.buffers(), strict=True):
        close(a, b)
    return one, several


class Perceptron(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, x, scale=1.0):
        return self.layers(x) * scale


class Recurrent(nn.Module):
    """Packed inside, as is usual, and padded to the length of the whole batch."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.out = nn.Linear(8, 2)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        made, (h, _) = self.lstm(packed)
        padded, _ = pad_packed_sequence(made, batch_first=True, total_length=x.shape[1])
        return self.out(padded), h.transpose(0, 1)


class Packed(nn.Module):
    """Given packed sequences; without total_length."""

    def __init__(self, kind=nn.GRU):
        super().__init__()
        self.rnn = kind(3, 4, num_layers=2, bidirectional=True)

    def forward(self, packed):
        made, h = self.rnn(packed)
        padded, lengths = pad_packed_sequence(made, batch_first=True)
        h = h[0] if isinstance(h, tuple) else h
        return made, padded, lengths, h.transpose(0, 1)


def sequences(counts, seed):
    return [drawn(n, 3, seed=seed * 10 + i) for i, n in enumerate(counts)]


def recurrent_loss(found):
    y, h = found
    return (y**2).mean() + h.sum()


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8, padding_idx=0)
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.norm, self.out = nn.LayerNorm(8), nn.Linear(8, 11)
        self.out.weight = self.embed.weight  # tied

    def forward(self, tokens, mask=None):
        x = self.embed(tokens)
        heads = (f(x).reshape(*x.shape[:2], 2, 4) for f in (self.q, self.k, self.v))
        q, k, v = (h.transpose(1, 2) for h in heads)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
        return self.out(self.norm(x + y.transpose(1, 2).reshape(x.shape)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(F.relu(self.norm(self.conv(x))).mean((2, 3)))


class Slope(nn.Module):
    """Its output is a derivative, found inside `forward`."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1, bias=False))

    def forward(self, x):
        x = x.detach().requires_grad_()
        (g,) = gpunn.autograd.grad(self.layers(x).sum(), x, create_graph=True)
        return g


class Checkpointed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        y = checkpoint(lambda x: self.first(x).tanh(), x, use_reentrant=False)
        return checkpoint(self.second, y, use_reentrant=False)


class Fails(nn.Module):
    def forward(self, x):
        if x.device.index == 1:
            raise LookupError(f"no such thing as {x.tolist()}")
        return x
