"""Modules whose parameters are float16 or bfloat16: training steps on the CPU and on CUDA."""

import numpy as np
import pytest

import gpunn
from gpunn import nn
from gpunn.nn import functional as F

DTYPES = [gpunn.float16, gpunn.bfloat16]
IDS = gpunn.tensor([[0, 3, 1], [1, 2, 4]])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        out, weights = self.inner(x, x, x)
        return out * weights.sum()


class First(nn.Module):
    """The first of what a recurrent module returns."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)[0]


MODULES = {
    "Linear": (lambda: nn.Linear(4, 3), (5, 4)),
    "Conv1d": (lambda: nn.Conv1d(4, 3, 3, padding=1), (2, 4, 6)),
    "Conv2d": (lambda: nn.Conv2d(4, 3, 3), (2, 4, 6, 6)),
    "Conv2d in groups": (lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), (2, 4, 5, 5)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(4, 3, 2, stride=2), (2, 4, 3, 3)),
    "LayerNorm": (lambda: nn.LayerNorm(4), (5, 4)),
    "RMSNorm": (lambda: nn.RMSNorm(4), (5, 4)),
    "BatchNorm1d": (lambda: nn.BatchNorm1d(4), (8, 4)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(4), (4, 4, 3, 3)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (4, 4, 3)),
    "Embedding": (lambda: nn.Embedding(5, 4), None),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(5, 4), None),
    "LSTM": (lambda: First(nn.LSTM(4, 3)), (5, 2, 4)),
    "GRU": (lambda: First(nn.GRU(4, 3, bidirectional=True)), (5, 2, 4)),
    "LSTMCell": (lambda: First(nn.LSTMCell(4, 3)), (2, 4)),
    "MultiheadAttention": (Attention, (2, 3, 4)),
    "TransformerEncoderLayer": (
        lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), (2, 3, 4),
    ),
    "PReLU": (nn.PReLU, (5, 4)),
}  # fmt: skip


def step(name, dtype, device):
    """Loss, gradients and parameters of one SGD step, as float32 arrays."""
    gpunn.manual_seed(0)
    make, shape = MODULES[name]
    module = make()
    x = IDS if shape is None else gpunn.randn(*shape)
    if x.dtype.is_floating_point:
        x = x.to(dtype)
    module, x = module.to(device, dtype), x.to(device)
    optimizer = gpunn.optim.SGD(module.parameters(), lr=0.125, momentum=0.9)
    y = module(x)
    loss = F.mse_loss(y, gpunn.ones_like(y))
    loss.backward()
    grads = [p.grad.clone() for p in module.parameters()]
    optimizer.step()
    made = [loss.detach(), *grads, *(p.detach() for p in module.parameters())]
    assert {t.dtype for t in (y, *made)} == {dtype}
    return [t.cpu().float().numpy() for t in made]


@pytest.mark.parametrize("dtype", DTYPES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", list(MODULES))
def test_a_step_on_the_cpu_is_near_float32_s(name, dtype):
    scale = 0.05 if dtype is gpunn.bfloat16 else 0.01
    for got, want in zip(step(name, dtype, "cpu"), step(name, gpunn.float32, "cpu"), strict=True):
        np.testing.assert_allclose(got, want, atol=scale * max(1.0, np.abs(want).max()))


@pytest.mark.parametrize("dtype", DTYPES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", list(MODULES))
def test_a_step_on_cuda_is_near_that_on_the_cpu(name, dtype, emulated):
    scale = 0.05 if dtype is gpunn.bfloat16 else 0.01
    for got, want in zip(step(name, dtype, "cuda"), step(name, dtype, "cpu"), strict=True):
        np.testing.assert_allclose(got, want, atol=scale * max(1.0, np.abs(want).max()))


LOSSES = {
    "mse": lambda x, t: F.mse_loss(x, t), "l1": lambda x, t: F.l1_loss(x, t),
    "smooth l1": lambda x, t: F.smooth_l1_loss(x, t), "huber": lambda x, t: F.huber_loss(x, t),
    "cross entropy": lambda x, t: F.cross_entropy(x, t.argmax(1)),
    "cross entropy, smoothed": lambda x, t: F.cross_entropy(x, t.argmax(1), label_smoothing=0.1),
    "nll": lambda x, t: F.nll_loss(F.log_softmax(x, 1), t.argmax(1)),
    "kl": lambda x, t: F.kl_div(F.log_softmax(x, 1), F.softmax(t, 1), reduction="batchmean"),
    "bce": lambda x, t: F.binary_cross_entropy(x.sigmoid(), t.sigmoid()),
    "bce with logits": lambda x, t: F.binary_cross_entropy_with_logits(x, t.sigmoid()),
    "gaussian nll": lambda x, t: F.gaussian_nll_loss(x, t, t.exp()),
    "poisson nll": lambda x, t: F.poisson_nll_loss(x, t.abs()),
    "hinge": lambda x, t: F.hinge_embedding_loss(x, t.sign()),
    "cosine": lambda x, t: F.cosine_embedding_loss(x, t, gpunn.ones(6, device=x.device)),
    "margin ranking": lambda x, t: F.margin_ranking_loss(x, t, t.sign()),
    "soft margin": lambda x, t: F.soft_margin_loss(x, t.sign()),
    "triplet": lambda x, t: F.triplet_margin_loss(x, t, -t),
}  # fmt: skip


def loss_and_gradient(name, dtype, device):
    gpunn.manual_seed(0)
    x, t = gpunn.randn(6, 4), gpunn.randn(6, 4)
    x = x.to(dtype).to(device).requires_grad_()
    loss = LOSSES[name](x, t.to(dtype).to(device))
    loss.backward()
    assert x.grad.dtype is dtype
    return loss.item(), x.grad.cpu().float().numpy()


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", DTYPES, ids=["float16", "bfloat16"])
@pytest.mark.parametrize("name", list(LOSSES))
def test_losses(name, dtype, device, emulated):
    got, grad = loss_and_gradient(name, dtype, device)
    want, exact = loss_and_gradient(name, gpunn.float32, "cpu")
    scale = 0.04 if dtype is gpunn.bfloat16 else 0.006
    assert abs(got - want) <= scale * max(1.0, abs(want))
    np.testing.assert_allclose(grad, exact, atol=scale * max(1.0, np.abs(exact).max()))
