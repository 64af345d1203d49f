"""Streams and events: queues of GPU work, and marks in them to wait for and to time.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams
"""

from __future__ import annotations

from typing import Any

from gpunn.cuda import current
from gpunn.cuda.detect import is_initialized, load
from gpunn.cuda.devices import device as enter
from gpunn.cuda.devices import index_of
from gpunn.device import Device


class Stream:
    """A queue of work on a device, beside the default one. A context manager, as `stream`.

    `device`: int, name, Device or None (the current one). `priority`: lower numbers first.
    Attributes: `device`, `cuda_stream` (the handle). RuntimeError on a CPU machine.

    >>> if gpunn.cuda.is_available():
    ...     s = gpunn.cuda.Stream()
    ...     with gpunn.cuda.stream(s):
    ...         x = gpunn.ones(3, device="cuda")
    ...     s.synchronize()
    """

    device: Device

    def __init__(self, device: Any = None, priority: int = 0):
        cupy = load()
        index = index_of(device)
        with enter(index):
            self._raw = cupy.cuda.Stream(non_blocking=True, priority=priority)
        self.device = Device("cuda", index)
        self._contexts: list[StreamContext] = []

    @classmethod
    def _around(cls, raw: Any, index: int) -> Stream:
        out = object.__new__(cls)
        out._raw, out.device, out._contexts = raw, Device("cuda", index), []
        return out

    @property
    def cuda_stream(self) -> int:
        """The handle of the CUDA runtime."""
        return self._raw.ptr

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.cuda_stream

    def wait_event(self, event: Event) -> None:
        """Work given to this stream from now on waits for the event."""
        event.wait(self)

    def wait_stream(self, stream: Stream) -> None:
        """Work given to this stream from now on waits for what `stream` was given so far."""
        self.wait_event(stream.record_event())

    def record_event(self, event: Event | None = None) -> Event:
        """Marks this point of the stream with an event, a new one by default, and returns it."""
        event = Event() if event is None else event
        event.record(self)
        return event

    def query(self) -> bool:
        """Whether all work given so far is done."""
        with enter(self.device):
            return self._raw.done

    def synchronize(self) -> None:
        """Waits until all work given so far is done."""
        with enter(self.device):
            self._raw.synchronize()

    def __enter__(self) -> Stream:
        self._contexts.append(StreamContext(self))
        self._contexts[-1].__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._contexts.pop().__exit__(*exc)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Stream):
            return False
        return (self.cuda_stream, self.device) == (other.cuda_stream, other.device)

    def __hash__(self) -> int:
        return hash((self.cuda_stream, self.device))

    def __repr__(self) -> str:
        return f"<torch.cuda.Stream device={self.device} cuda_stream={self.cuda_stream:#x}>"


class Event:
    """A mark in a stream, made when it is first recorded.

    `enable_timing` for `elapsed_time`; `blocking` lets `synchronize` sleep instead of spin;
    `interprocess` for use by other processes.

    >>> if gpunn.cuda.is_available():
    ...     start, end = (gpunn.cuda.Event(enable_timing=True) for _ in range(2))
    ...     start.record()
    ...     x = gpunn.ones(3, device="cuda")
    ...     end.record()
    ...     end.synchronize()
    ...     assert start.elapsed_time(end) >= 0
    """

    def __init__(
        self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False
    ):
        self._timed, self._blocking, self._interprocess = enable_timing, blocking, interprocess
        self._raw: Any = None
        self.device: Device | None = None

    @property
    def cuda_event(self) -> int:
        """The handle of the CUDA runtime; 0 before the event is recorded."""
        return 0 if self._raw is None else self._raw.ptr

    def record(self, stream: Stream | None = None) -> None:
        """Marks the stream, by default the current one. RuntimeError on another device's stream."""
        stream = current_stream() if stream is None else stream
        if self._raw is not None and self.device is not stream.device:
            raise RuntimeError(
                f"Event device {self.device} does not match recording stream's device "
                f"{stream.device}"
            )
        with enter(stream.device):  # the handle of every device's default stream is 0
            if self._raw is None:
                self._raw = load().cuda.Event(self._blocking, not self._timed, self._interprocess)
                self.device = stream.device
            self._raw.record(stream._raw)

    def wait(self, stream: Stream | None = None) -> None:
        """Work given to the stream, by default the current one, from now on waits for the mark."""
        if self._raw is not None:
            stream = current_stream() if stream is None else stream
            with enter(stream.device):
                stream._raw.wait_event(self._raw)

    def query(self) -> bool:
        """Whether all work before the mark is done; True before the event is recorded."""
        return self._raw is None or self._raw.done

    def synchronize(self) -> None:
        """Waits until all work before the mark is done."""
        if self._raw is not None:
            self._raw.synchronize()

    def elapsed_time(self, end_event: Event) -> float:
        """Milliseconds from this mark to `end_event`, both timed, recorded and reached."""
        if not (self._timed and end_event._timed):
            raise ValueError("Both events must be created with argument 'enable_timing=True'.")
        if self._raw is None or end_event._raw is None:
            raise ValueError("Both events must be recorded before calculating elapsed time.")
        if not (self.query() and end_event.query()):
            raise RuntimeError(
                "Both events must be completed before calculating elapsed time: call "
                "synchronize() on the later one first."
            )
        return load().cuda.get_elapsed_time(self._raw, end_event._raw)

    def __repr__(self) -> str:
        handle = f"{self.cuda_event:#x}" if self.cuda_event else "uninitialized"
        return f"<torch.cuda.Event {handle}>"


class StreamContext:
    """A context in which work goes to a stream, on its device; None changes nothing."""

    def __init__(self, stream: Stream | None):
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            self._device = enter(self.stream.device)
            self._device.__enter__()
            self.stream._raw.__enter__()

    def __exit__(self, *exc: object) -> None:
        if self.stream is not None:
            with enter(self.stream.device):  # work inside may have been on another
                self.stream._raw.__exit__(*exc)
            self._device.__exit__(*exc)


def stream(stream: Stream | None) -> StreamContext:
    """A context in which work goes to `stream`, on its device; None changes nothing.

    >>> with gpunn.cuda.stream(None):
    ...     x = gpunn.zeros(2)
    """
    return StreamContext(stream)


def set_stream(stream: Stream | None) -> None:
    """Makes a stream, and its device, the current one; None does nothing.

    >>> gpunn.cuda.set_stream(None)
    """
    if stream is not None:
        current.ask(stream.device.index)  # type: ignore[arg-type]
        stream._raw.use()


def current_stream(device: Any = None) -> Stream:
    """The stream that work on a device goes to; RuntimeError on a CPU machine.

    >>> if gpunn.cuda.is_available():
    ...     assert gpunn.cuda.current_stream() == gpunn.cuda.default_stream()
    """
    index = index_of(device)
    return Stream._around(load().cuda.get_current_stream(index), index)


def default_stream(device: Any = None) -> Stream:
    """The stream of a device that work goes to unless another is chosen.

    >>> if gpunn.cuda.is_available():
    ...     assert gpunn.cuda.default_stream().query()
    """
    index = index_of(device)
    return Stream._around(load().cuda.Stream.null, index)


def is_current_stream_capturing() -> bool:
    """Whether the current stream records a CUDA graph.

    >>> gpunn.cuda.is_current_stream_capturing()
    False
    """
    return is_initialized() and bool(current_stream()._raw.is_capturing())
