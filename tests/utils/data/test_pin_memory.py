"""Page-locked batches and prefetching, with a CuPy that needs no GPU."""

import fake_cupy
import numpy as np
import pytest

import gpunn
from gpunn.utils.data import DataLoader, TensorDataset
from gpunn.utils.data.pin_memory import pin_memory
from gpunn.utils.data.transport import Failure


@pytest.fixture
def cupy():
    with fake_cupy.installed(fake_cupy.make(devices=2)) as cupy:
        cupy.cuda.allocated = []

        def alloc_pinned_memory(size):
            cupy.cuda.allocated.append(size)
            return bytearray(-(-size // 512) * 512)

        cupy.cuda.alloc_pinned_memory = alloc_pinned_memory
        yield cupy


class Own:
    def pin_memory(self):
        return "pinned"


@pytest.mark.parametrize("workers", [0, 1])
def test_without_a_gpu_it_warns_and_does_nothing(workers):
    loader = DataLoader(TensorDataset(gpunn.arange(4)), 2, pin_memory=True, num_workers=workers)
    with pytest.warns(UserWarning, match="'pin_memory' argument is set as true but no accelerator"):
        batches = [x.tolist() for (x,) in loader]
    assert batches == [[0, 1], [2, 3]]


def test_every_tensor_is_copied_to_page_locked_memory(cupy):
    x = gpunn.arange(6.0).reshape(2, 3)
    batch = pin_memory({"x": [x, (x.T, "text")], "own": Own(), "n": 3, "empty": gpunn.ones(0)})
    assert batch["own"] == "pinned" and batch["n"] == 3 and batch["x"][1][1] == "text"
    assert type(batch["x"][1]) is tuple
    for ours, theirs in ((batch["x"][0], x), (batch["x"][1][0], x.T)):
        assert ours.tolist() == theirs.tolist() and ours.device is theirs.device
        assert not np.shares_memory(ours.array, theirs.array)
    assert cupy.cuda.allocated == [24, 24, 1]


def test_bfloat16(cupy):
    x = gpunn.tensor([1.5, 2.5]).bfloat16()
    assert pin_memory(x).tolist() == [1.5, 2.5]
    assert pin_memory(x).dtype is gpunn.bfloat16


def test_a_loader_pins_its_batches(cupy):
    batches = list(DataLoader(TensorDataset(gpunn.arange(4)), 2, pin_memory=True))
    assert [x.tolist() for (x,) in batches] == [[0, 1], [2, 3]]
    assert cupy.cuda.allocated == [16, 16]


@pytest.mark.parametrize("workers", [0, 1])
def test_prefetching_to_a_device(cupy, workers):
    loader = DataLoader(
        TensorDataset(gpunn.arange(4)), 2, pin_memory=True, pin_memory_device="cuda:1",
        num_workers=workers,
    )  # fmt: skip
    batches = list(loader)
    assert [type(x.array) for (x,) in batches] == [cupy.ndarray] * 2
    assert [np.asarray(x.array).tolist() for (x,) in batches] == [[0, 1], [2, 3]]
    assert all(x.device is gpunn.device("cuda:1") for (x,) in batches)
    marks = [entry for entry in cupy.cuda.runtime.log if entry[0] in ("record", "wait")]
    side = next(stream for kind, _, stream, _ in marks if kind == "wait")
    assert side != 0
    for kind, _, stream, event in marks:
        if kind == "wait":  # of what the other stream recorded before
            origin = next(s for k, _, s, e in marks if k == "record" and e == event)
            assert {stream, origin} == {0, side}


def test_failures_pass(cupy):
    from gpunn.utils.data.pin_memory import Stager

    try:
        raise ValueError("x")
    except ValueError:
        failure = Failure("here")
    assert Stager(True, "").stage(failure) is failure
