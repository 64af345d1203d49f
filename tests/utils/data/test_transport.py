"""Batches through pipes and shared memory: what arrives, and what becomes of the segments."""

import collections
import gc
import multiprocessing
import os
import threading

import numpy as np
import pytest

import gpunn
from gpunn.tensor import wrap
from gpunn.utils.data import transport
from gpunn.utils.data.transport import Failure, Receiver, Sender

needs_segments = pytest.mark.skipif(not transport.HAS_SEGMENTS, reason="needs memfd_create")
LARGE = transport.SMALL // 4 + 1  # float32 elements


@pytest.fixture(params=[True, False], ids=["segments", "pipe"])
def ends(request, monkeypatch):
    if request.param and not transport.HAS_SEGMENTS:
        pytest.skip("needs memfd_create")
    monkeypatch.setattr(transport, "HAS_SEGMENTS", request.param)
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        yield Sender(theirs), Receiver(ours, lend=3)


def through(ends, data):
    sender, receiver = ends
    sender.free.update(receiver.take_returned())
    sending = threading.Thread(target=sender.send, args=("key", data, "here"))
    sending.start()
    key, out = receiver.receive()
    sending.join()
    assert key == "key"
    return out


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool", "complex64", "uint8", "float16"])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (2, 10_000)])
def test_tensors(ends, dtype, shape):
    x = gpunn.zeros(shape).to(getattr(gpunn, dtype)) + True
    y = through(ends, x)
    assert y.dtype is x.dtype and y.shape == x.shape and y.tolist() == x.tolist()
    y.array[...] = 0
    assert not y.requires_grad and y.device is x.device


@pytest.mark.parametrize("size", [4, LARGE])
def test_operations_that_compare_dtypes_take_what_arrives(ends, size):
    sender, receiver = ends
    sender.send(0, [gpunn.ones(1, size), gpunn.ones(1, size, dtype=gpunn.bfloat16)], "here")
    for x in receiver.receive()[1]:
        assert x.array.dtype is x.dtype.numpy
        assert gpunn.nn.Linear(size, 2, dtype=x.dtype)(x).shape == (1, 2)


@pytest.mark.parametrize(
    "make",
    [lambda x: x.T, lambda x: x[:, ::2], lambda x: x.flip(0), lambda x: x[:1].expand(9, 200)],
)
def test_views(ends, make):
    x = make(gpunn.arange(40_000.0).reshape(200, 200))
    y = through(ends, x)
    assert y.tolist() == x.tolist() and y.shape == x.shape
    y += 1


def test_a_view_leaves_the_memory_around_it_behind():
    buffers = []
    assert len(transport._dumps(gpunn.zeros(1_000_000)[10:20], buffers)) < 1000
    assert buffers == []


def test_containers(ends):
    batch = {"a": [gpunn.ones(LARGE), "text"], "b": Point(np.ones((3, LARGE)), 3), "c": None}
    out = through(ends, batch)
    assert list(out) == ["a", "b", "c"] and type(out["b"]) is Point
    assert (out["a"][0] == 1).all() and out["a"][1] == "text"
    assert out["b"].x.shape == (3, LARGE) and out["b"].x.sum() == 3 * LARGE
    out["b"].x[:] = 0


def test_requires_grad_and_attributes_are_kept(ends):
    x = gpunn.ones(LARGE, requires_grad=True)
    assert through(ends, x).requires_grad
    x = gpunn.ones(3)
    x.label = "cat"
    assert through(ends, x).label == "cat"


def test_read_only_arrays_become_tensors_to_write(ends):
    for size in (1, LARGE):
        array = np.zeros(size, np.float32)
        array.flags.writeable = False
        y = through(ends, wrap(array))
        y += 1
        assert y.sum() == size


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: gpunn.ones(2, requires_grad=True) * 2, RuntimeError, "refusing to serialize"),
        (lambda: lambda: 0, Exception, "pickle"),
    ],
)
def test_what_cannot_be_sent_arrives_as_the_error(ends, make, kind, message):
    out = through(ends, [gpunn.ones(LARGE), make()])
    with pytest.raises(kind, match=message):
        out.reraise()


def test_tensors_on_a_gpu_stay_in_their_process(ends):
    x = gpunn.tensor([1.0])
    x.device = gpunn.device("cuda")
    with pytest.raises(RuntimeError, match=r"a DataLoader worker made a tensor on cuda"):
        through(ends, x).reraise()


class Unloadable:
    def __reduce__(self):
        return int, ("no number",)


def test_what_cannot_be_loaded_is_an_error(ends):
    with pytest.raises(ValueError, match="(?s)Caught ValueError while unpickling.*no number"):
        through(ends, Unloadable()).reraise()


@needs_segments
def test_segments_come_back_when_the_last_array_is_gone():
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        sender, receiver = ends = Sender(theirs), Receiver(ours, lend=3)
        a, b = through(ends, (gpunn.ones(LARGE), gpunn.ones(LARGE)))
        view = a.array[5:]
        del a, b
        assert receiver.lent == {0} and receiver.returned == []
        second = through(ends, gpunn.ones(LARGE))
        assert len(sender.segments) == 2
        del view
        gc.collect()
        assert receiver.returned == [0]
        third = through(ends, gpunn.full((LARGE,), 7.0))
        assert len(sender.segments) == 2 and receiver.lent == {0, 1}
        assert (second == 1).all() and (third == 7).all()


@needs_segments
def test_beyond_what_is_lent_batches_are_copied():
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        sender, receiver = ends = Sender(theirs), Receiver(ours, lend=2)
        kept = [through(ends, gpunn.full((LARGE,), i)) for i in range(20)]
        assert [int(x.sum()) // LARGE for x in kept] == list(range(20))
        assert len(sender.segments) <= 3


@needs_segments
def test_a_segment_that_fits_best_is_reused():
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        sender, _ = ends = Sender(theirs), Receiver(ours, lend=4)
        kept = [through(ends, gpunn.ones(n * LARGE)) for n in (1, 50, 8)]
        sizes = [len(segment) for segment in sender.segments]
        assert all(size & (size - 1) == 0 for size in sizes)
        kept.clear()
        kept = [through(ends, gpunn.ones(n * LARGE)) for n in (7, 1, 49)]
        assert [len(segment) for segment in sender.segments] == sizes
        assert all(bool((x == 1).all()) for x in kept)


@needs_segments
def test_no_descriptor_is_left_open():
    if not os.path.exists("/proc/self/fd"):
        pytest.skip("reads /proc")
    before = len(os.listdir("/proc/self/fd"))
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        ends = Sender(theirs), Receiver(ours, lend=4)
        batch = through(ends, gpunn.ones(LARGE))
    del ends
    gc.collect()
    assert float(batch.sum()) == LARGE  # the memory lives as long as its arrays
    del batch
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


class Shy(Exception):
    message = "a default"

    def __init__(self, *, message):
        super().__init__(message)


def failure(error):
    try:
        raise error
    except Exception:
        return Failure("in a test")


def test_failure():
    with pytest.raises(ValueError, match=r"Caught ValueError in a test\.\nOriginal Traceback"):
        failure(ValueError("x")).reraise()
    with pytest.raises(Shy, match="Caught Shy in a test"):
        failure(Shy(message="x")).reraise()
    with pytest.raises(KeyError) as caught:
        failure(KeyError("x")).reraise()
    assert "\n" in str(caught.value) and "\\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match="Caught StopIteration"):
        failure(StopIteration()).reraise()
    with pytest.raises(RuntimeError, match="Caught UnicodeDecodeError"):
        failure(UnicodeDecodeError("utf-8", b"", 0, 1, "x")).reraise()
