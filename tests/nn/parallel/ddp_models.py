"""Models, and one training run of DistributedDataParallel against one process: the tests share it.

Imported by the ranks themselves.
"""

import numpy as np

import gpunn
import gpunn.distributed as dist
from gpunn import nn
from gpunn.nn import functional as F
from gpunn.nn.parallel import DistributedDataParallel as DDP  # noqa: N817

#: What the programs of the ranks begin with.
PREPARED = """
import copy, io, signal, time, warnings
from datetime import timedelta
from tests.nn.parallel.ddp_models import *

def raised(kind, f, *args):
    try:
        f(*args)
    except kind as error:
        return str(error)
    raise AssertionError(f"{f} raised nothing")

def by_rank(value):
    found = [None] * world
    dist.all_gather_object(found, value)
    return found

def grads(model):
    return {n: None if p.grad is None else p.grad.tolist() for n, p in model.named_parameters()}

def rows(*shape, seed=0):
    return gpunn.from_numpy(np.random.default_rng(seed).normal(size=(2 * world, *shape)))

def mine(x):
    return x.chunk(world)[rank]

"""


#: How a program ends that runs under either package: `end(package, what it reports)`.
END = """
def end(T, found, started=True):
    T.distributed.barrier()
    report(found)
    if T.__name__ == "torch":  # whose threads now and then abort a process that ends by itself
        os._exit(0)
    if started:
        T.distributed.destroy_process_group()
"""


class Tagger(nn.Module):
    """An LSTM whose last output is classified."""

    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(4, 6, num_layers=2, batch_first=True), nn.Linear(6, 3)

    def forward(self, x):
        return self.out(self.lstm(x)[0][:, -1])


class Attending(nn.Module):
    """A transformer's encoder whose mean output is classified."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        return self.out(self.encoder(x).mean(1))


def perceptron(inputs=5, width=8):
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, 3))


def network():
    """Convolutions with batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip


MODELS = {
    "MLP": (perceptron, (5,)), "CNN": (network, (2, 8, 8)),
    "LSTM": (Tagger, (5, 4)), "transformer": (Attending, (5, 8)),
}  # fmt: skip


def batch(shape, step, rows=8):
    rng = np.random.default_rng(step)
    x, labels = rng.normal(size=(rows, *shape)), rng.integers(0, 3, rows)
    return gpunn.from_numpy(x), gpunn.from_numpy(labels)


def mean_over_ranks(value):
    found = gpunn.tensor(float(value), dtype=gpunn.float64)
    dist.all_reduce(found)
    return (found / dist.get_world_size()).item()


def trained_alone(kind, steps):
    """The losses of one process with the whole batches, and its model."""
    make, shape = MODELS[kind]
    gpunn.manual_seed(0)
    model, losses = make().double(), []
    optimizer = gpunn.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for step in range(steps):
        x, labels = batch(shape, step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model


def trained_together(kind, steps, **options):
    """The mean losses of the ranks, each with its part of the batches, and the model."""
    make, shape = MODELS[kind]
    rank, world = dist.get_rank(), dist.get_world_size()
    gpunn.manual_seed(rank)  # so that only rank 0 starts where the one process does
    model, losses = DDP(nn.SyncBatchNorm.convert_sync_batchnorm(make().double()), **options), []
    optimizer = gpunn.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for step in range(steps):
        x, labels = (part.chunk(world)[rank] for part in batch(shape, step))
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(mean_over_ranks(loss.item()))
    return losses, model


def same_training(kind, steps=20, **options):
    """The losses, which are those of one process with the whole batches, as is the model."""
    alone, one = trained_alone(kind, steps)
    together, model = trained_together(kind, steps, **options)
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-9)
    state = model.module.state_dict()
    for name, value in one.state_dict().items():
        np.testing.assert_allclose(state[name].numpy(), value.numpy(), rtol=1e-9, atol=1e-9)
    return together
