"""Tensors in memory that processes share."""

import copy
import gc
import os
import pickle

import numpy as np
import pytest

import gpunn
import gpunn.multiprocessing as mp
from gpunn import nn
from tests.emulated import emulated  # noqa: F401

# Python 3.12 and later warn of "fork" in a process with threads, of which NumPy's BLAS has some.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def train(model, counts, queue, taken):
    optimizer = gpunn.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(200):
        x = gpunn.randn(16, 3)
        optimizer.zero_grad()
        (model(x) - x.sum(1, keepdim=True)).pow(2).mean().backward()
        optimizer.step()
    counts[1] += 7
    queue.put((model.weight.is_shared(), counts))
    taken.wait(60)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_model_is_trained_by_another_process(method):
    start = mp.get_context(method)
    model, counts = nn.Linear(3, 1), gpunn.zeros(2).share_memory_()
    queue, taken = start.Queue(), start.Event()
    assert not model.weight.is_shared()
    assert model.share_memory() is model and model.weight.is_shared()
    process = start.Process(target=train, args=(model, counts, queue, taken))
    process.start()
    shared, back = queue.get(timeout=60)
    taken.set()
    process.join()
    assert process.exitcode == 0 and shared
    assert counts.tolist() == [0, 7]
    back[0] = 5  # what came through the queue is the same memory again
    assert counts.tolist() == [5, 7] and back.is_shared()
    assert np.allclose(model.weight.tolist(), 1.0, atol=1e-2)
    assert isinstance(model.weight, nn.Parameter) and model.weight.requires_grad


def double(index, x, part, transposed, plain):
    x *= 2
    part += 1
    transposed[0, 1] = 50
    plain += 1


def test_views_strides_and_dtypes():
    x = gpunn.arange(6, dtype=gpunn.bfloat16).reshape(2, 3).clone().share_memory_()
    y, plain = gpunn.zeros(3, 2).T.clone().share_memory_(), gpunn.zeros(2)
    assert x.view(-1).is_shared() and not plain.is_shared()
    mp.spawn(double, (x, x[1], y, plain), nprocs=1)
    assert x.tolist() == [[0, 2, 4], [7, 9, 11]] and x.dtype is gpunn.bfloat16
    assert y.tolist() == [[0, 50, 0], [0, 0, 0]] and plain.tolist() == [0, 0]


def test_pickles_and_copies_have_memory_of_their_own():
    x = gpunn.ones(2).share_memory_()
    for other in (pickle.loads(pickle.dumps(x)), copy.deepcopy(x), x.clone(), x + 1):
        assert not other.is_shared() and other.data_ptr() != x.data_ptr()
    assert x.share_memory_() is x and x.tolist() == [1, 1]
    assert gpunn.ones(0).share_memory_().shape == (0,)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts Linux's descriptors")
def test_the_memory_goes_with_the_last_tensor():
    before = descriptors()
    x = gpunn.ones(1000).share_memory_()
    part = x[10:]
    assert descriptors() == before + 2  # ours, and the one that mmap keeps
    del x
    assert descriptors() == before + 2 and part.sum().item() == 990
    del part
    assert descriptors() == before


def test_a_view_cannot_be_moved():
    x = gpunn.ones(2, 3)
    with pytest.raises(RuntimeError, match="this tensor is a view of another one"):
        x[0].share_memory_()


def test_a_gpu_needs_nothing(emulated):  # noqa: F811
    x = gpunn.ones(2, device=emulated)
    assert x.is_shared() and x.share_memory_() is x
