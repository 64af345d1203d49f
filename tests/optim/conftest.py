"""One optimizer in both libraries, on the same parameters and gradients."""

import warnings

import numpy as np
import pytest

import gpunn

SHAPES = ((3, 4), (5,), ())
TOLERANCE = {
    "float64": {"rtol": 1e-9, "atol": 1e-12},
    "float32": {"rtol": 2e-5, "atol": 1e-6},
}


def to_numpy(value):
    """A tensor of either library as a float64 or complex128 array."""
    if not isinstance(value, gpunn.Tensor) and hasattr(value, "detach"):  # torch.Tensor
        value = value.detach()
        value = value.numpy() if value.is_complex() else value.double().numpy()
    elif isinstance(value, gpunn.Tensor):
        value = value.detach().array
    return np.asarray(value, np.complex128 if np.iscomplexobj(value) else np.float64)


def assert_same(mine, theirs, **tolerance):
    """The same nested containers; tensors with the same dtype and values."""
    if isinstance(mine, gpunn.Tensor):
        assert str(mine.dtype) == str(theirs.dtype)
        assert tuple(mine.shape) == tuple(theirs.shape)
        np.testing.assert_allclose(to_numpy(mine), to_numpy(theirs), **tolerance)
    elif isinstance(mine, dict):
        assert list(mine) == list(theirs)
        for key in mine:
            assert_same(mine[key], theirs[key], **tolerance)
    elif isinstance(mine, (list, tuple)):
        assert type(mine) is type(theirs) and len(mine) == len(theirs)
        for a, b in zip(mine, theirs, strict=True):
            assert_same(a, b, **tolerance)
    elif isinstance(mine, float):
        assert mine == pytest.approx(theirs, rel=1e-6)
    else:
        assert type(mine) is type(theirs) and mine == theirs


def converted(value, torch, to):
    """Nested containers with the tensors of one library made tensors of the other, `to`."""
    if isinstance(value, dict):
        return {k: converted(v, torch, to) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(converted(v, torch, to) for v in value)
    if isinstance(value, (gpunn.Tensor, torch.Tensor)):
        name = str(value.dtype).removeprefix("torch.")
        return to.tensor(to_numpy(value), dtype=getattr(to, name))
    return value


class Twins:
    """An optimizer of both libraries; `step` gives both the same random gradients."""

    def __init__(self, torch, name, kwargs=None, dtype="float64", shapes=SHAPES, seed=0):
        self.torch, self.name, self.kwargs = torch, name, kwargs or {}
        self.dtype, self.shapes = dtype, shapes
        self.rng = np.random.default_rng(seed)
        values = [self.random(shape) for shape in shapes]
        self.params, self.optimizers = [], []
        for library in (gpunn, torch):
            d = getattr(library, dtype)
            params = [library.nn.Parameter(library.tensor(v, dtype=d)) for v in values]
            kwargs = {
                k: library.tensor(v, dtype=library.float32) if isinstance(v, np.ndarray) else v
                for k, v in self.kwargs.items()
            }
            self.params.append(params)
            self.optimizers.append(getattr(library.optim, name)(params, **kwargs))
        self.mine, self.theirs = self.optimizers

    def random(self, shape):
        x = self.rng.standard_normal(shape)
        return x + 1j * self.rng.standard_normal(shape) if "complex" in self.dtype else x

    def step(self, count=1):
        for _ in range(count):
            grads = [self.random(shape) for shape in self.shapes]
            for library, params in zip((gpunn, self.torch), self.params, strict=True):
                for p, g in zip(params, grads, strict=True):
                    p.grad = library.tensor(g, dtype=p.dtype)
            for optimizer in self.optimizers:
                optimizer.step()
        return self

    def check(self, **tolerance):
        if not tolerance:  # PyTorch computes with a tensor lr in that tensor's float32
            float32 = any(isinstance(v, np.ndarray) for v in self.kwargs.values())
            tolerance = TOLERANCE["float32" if float32 or self.dtype == "float32" else "float64"]
        for mine, theirs in zip(*self.params, strict=True):
            assert_same(mine, theirs, **tolerance)
        assert_same(self.mine.state_dict(), self.theirs.state_dict(), **tolerance)
        return self

    def exchange_states(self):
        """New optimizers, each with the state of the other library's old one."""
        states = self.theirs.state_dict(), self.mine.state_dict()
        for i, library in enumerate((gpunn, self.torch)):
            new = getattr(library.optim, self.name)(self.params[i])
            new.load_state_dict(converted(states[i], self.torch, library))
            self.optimizers[i] = new
        self.mine, self.theirs = self.optimizers
        return self


@pytest.fixture
def twins():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def make(name, kwargs=None, **options):
        return Twins(torch, name, kwargs, **options)

    return make


@pytest.fixture
def parity(twins):
    """20 steps in both libraries with the states exchanged in the middle, and equal reprs."""

    def compare(name, kwargs, dtype="float64", **tolerance):
        pair = twins(name, kwargs, dtype=dtype)
        pair.check(**tolerance).step(10).check(**tolerance)
        assert repr(pair.mine) == repr(pair.theirs)
        pair.exchange_states().check(**tolerance).step(10).check(**tolerance)

    return compare


@pytest.fixture
def sparse_parity():
    """An embedding with sparse gradients trained in both libraries."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    weight = np.random.default_rng(0).standard_normal((6, 3))

    def train(library, name, kwargs):
        table = library.nn.Embedding(6, 3, sparse=True, dtype=library.float64)
        with library.no_grad():
            table.weight.copy_(library.tensor(weight))
        optimizer = getattr(library.optim, name)(table.parameters(), **kwargs)
        for rows in ([1, 4, 1], [0, 4], [4, 4, 4, 2], []):
            optimizer.zero_grad()
            rows = library.tensor(rows, dtype=library.int64)
            (table(rows) ** 2).sum().backward()
            assert table.weight.grad.is_sparse
            optimizer.step()
        state = {
            k: v.to_dense() if getattr(v, "is_sparse", False) else v
            for k, v in optimizer.state_dict()["state"].get(0, {}).items()
        }
        return [table.weight, state]

    def compare(name, kwargs):
        mine = train(gpunn, name, kwargs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse invariant checks")  # PyTorch's, once
            theirs = train(torch, name, kwargs)
        assert_same(mine, theirs, rtol=1e-12, atol=1e-14)

    return compare
