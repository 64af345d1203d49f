"""Streams and events."""

import fake_cupy
import pytest

from gpunn import cuda
from gpunn.device import Device


@pytest.fixture
def cupy():
    with fake_cupy.installed(fake_cupy.make(devices=2)) as cupy:
        yield cupy


def test_stream_context(cupy):
    default = cuda.current_stream()
    assert default == cuda.default_stream() and default.cuda_stream == 0
    one, other = cuda.Stream(), cuda.Stream(device=1, priority=-1)
    assert one.device is Device("cuda:0") and other.device is Device("cuda:1")
    assert other._raw.priority == -1 and one._raw.non_blocking
    with cuda.stream(one):
        assert cuda.current_stream() == one
        with cuda.stream(other), cuda.stream(None):
            assert cuda.current_device() == 1 and cuda.current_stream() == other
            assert cuda.current_stream(0) == one
        assert cuda.current_device() == 0 and cuda.current_stream() == one
    assert cuda.current_stream() == default


def test_stream_is_a_context_that_nests_in_itself(cupy):
    one = cuda.Stream(1)
    with one as entered, one:
        assert entered is one and cuda.current_stream() == one
    assert cuda.current_device() == 0 and cuda.current_stream(1) == cuda.default_stream(1)


def test_set_stream(cupy):
    one = cuda.Stream(1)
    cuda.set_stream(None)
    assert cuda.current_device() == 0
    cuda.set_stream(one)
    assert cuda.current_device() == 1 and cuda.current_stream() == one


def test_streams_compare_by_handle_and_device(cupy):
    assert cuda.default_stream(0) != cuda.default_stream(1)
    assert cuda.Stream() != cuda.Stream() and cuda.Stream() != 3
    assert len({cuda.default_stream(0), cuda.default_stream(0), cuda.default_stream(1)}) == 2
    stream = cuda.Stream()
    handle = stream.cuda_stream
    assert repr(stream) == f"<torch.cuda.Stream device=cuda:0 cuda_stream={handle:#x}>"
    assert stream.__cuda_stream__() == (0, handle)


def test_waiting(cupy):
    one, other, log = cuda.Stream(), cuda.Stream(1), cupy.cuda.runtime.log
    other.wait_stream(one)
    (first, second) = log
    assert first[:3] == ("record", 0, one.cuda_stream)
    assert second == ("wait", 1, other.cuda_stream, first[3])
    log.clear()
    default = cuda.default_stream(1)  # its handle is 0, as that of device 0's
    default.wait_stream(one)
    other.wait_stream(default)
    assert [entry[:3] for entry in log] == [
        ("record", 0, one.cuda_stream), ("wait", 1, 0), ("record", 1, 0),
        ("wait", 1, other.cuda_stream),
    ]  # fmt: skip
    default.synchronize()
    assert log[-1] == ("stream synchronize", 0) and cuda.current_device() == 0
    log.clear()
    event = one.record_event()
    event.wait(other)
    other.wait_event(event)
    assert [entry[0] for entry in log] == ["record", "wait", "wait"]
    assert one.query() and not cuda.is_current_stream_capturing()
    one.synchronize()
    assert log[-1] == ("stream synchronize", one.cuda_stream)


def test_events(cupy):
    start, end = (cuda.Event(enable_timing=True) for _ in range(2))
    assert start.query() and repr(start) == "<torch.cuda.Event uninitialized>"
    start.synchronize()
    start.wait()
    with pytest.raises(ValueError, match="must be recorded before"):
        start.elapsed_time(end)
    start.record()
    end.record(cuda.Stream())
    assert start.device is Device("cuda:0") and repr(start).startswith("<torch.cuda.Event 0x")
    assert not end.query()
    with pytest.raises(RuntimeError, match="must be completed before"):
        start.elapsed_time(end)
    start.synchronize(), end.synchronize()
    assert start.elapsed_time(end) > 0
    with pytest.raises(RuntimeError, match="does not match recording stream's device"):
        end.record(cuda.Stream(1))
    with pytest.raises(ValueError, match="enable_timing=True"):
        cuda.Event().elapsed_time(end)


def test_event_of_another_device_is_made_there(cupy):
    event = cuda.Event()
    event.record(cuda.Stream(1))
    assert event.device is Device("cuda:1") and cupy.cuda.runtime.log[-1][0] == "record"
    assert cuda.current_device() == 0


@pytest.mark.gpu
def test_on_a_gpu():
    import gpunn

    start, end = (cuda.Event(enable_timing=True) for _ in range(2))
    stream = cuda.Stream()
    x = gpunn.ones(1 << 20, device="cuda")
    stream.wait_stream(cuda.current_stream())
    with cuda.stream(stream):
        assert cuda.current_stream() == stream
        start.record()
        y = x + x
        end.record()
    cuda.current_stream().wait_stream(stream)
    assert float(y.sum()) == 2 << 20
    end.synchronize()
    assert stream.query() and start.elapsed_time(end) > 0
