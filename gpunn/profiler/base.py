"""The profile of a block, which `gpunn.profiler.profile` is made of; custom ranges; NVTX.

Source: https://docs.pytorch.org/docs/stable/autograd.html#profiler
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from gpunn.autograd.profiler_util import EventList, FunctionEventAvg
from gpunn.profiler.recorder import ACTIVE, USER, Range, Recorder

__all__ = ["emit_nvtx", "profile", "record_function"]

F = TypeVar("F", bound=Callable[..., Any])


class profile:  # noqa: N801 (PyTorch's name)
    """Notes the operations of a block: their times and, on request, their memory and inputs.

    `gpunn.profiler.profile` has the same arguments and schedules besides; there is what they mean.
    `enabled=False` makes a block that notes nothing.
    Raises RuntimeError where a profile is on already, or is read before it has ended.
    Source: https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.profiler.profile

    >>> with gpunn.autograd.profiler.profile() as prof:
    ...     x = gpunn.ones(3).exp()
    >>> [event.name for event in prof.function_events]
    ['aten::ones', 'aten::exp']
    """

    def __init__(
        self, enabled: bool = True, *, use_cuda: bool = False, use_device: str | None = None,
        record_shapes: bool = False, with_flops: bool = False, profile_memory: bool = False,
        with_stack: bool = False, with_modules: bool = False, use_kineto: bool = False,
        use_cpu: bool = True, experimental_config: Any = None, acc_events: bool = False,
        custom_trace_id_callback: Callable[[], str] | None = None,
    ):  # fmt: skip
        self.enabled = enabled
        self.use_device = _usable("cuda" if use_cuda else use_device)
        self.record_shapes = record_shapes or with_flops
        self.with_flops, self.profile_memory = with_flops, profile_memory
        self.with_stack, self.with_modules, self.acc_events = with_stack, with_modules, acc_events
        self.use_cpu = use_cpu
        self.entered = False
        self._recorder: Recorder | None = None
        self._recorders: list[Recorder] = []
        self._events: EventList | None = None

    def __enter__(self) -> profile:
        if not self.enabled:
            return self
        if self.entered:
            raise RuntimeError("Profiler context manager is not reentrant")
        self.entered = True
        self._start()
        return self

    def _start(self) -> None:
        recorder = Recorder(
            cpu=self.use_cpu, cuda=self.use_device == "cuda", shapes=self.record_shapes,
            memory=self.profile_memory, stack=self.with_stack, modules=self.with_modules,
            flops=self.with_flops,
        )  # fmt: skip
        recorder.start()
        self._recorder = recorder

    def __exit__(self, *exc: object) -> None:
        recorder = self._recorder
        if recorder is not None:
            self.discard()
            self._recorders = [*self._recorders, recorder] if self.acc_events else [recorder]
            self._events = None

    def discard(self) -> None:
        """Ends, and forgets what was noted since it began."""
        if self._recorder is not None:
            self._recorder.stop()
            self._recorder = None

    @property
    def function_events(self) -> EventList:
        """The events, in the order in which they began."""
        if not self._recorders:
            raise RuntimeError(
                "Profiler didn't finish running: read its events after the block, or after stop()"
            )
        if self._events is None:
            from gpunn.profiler.events import events_of

            self._events = EventList(
                events_of(self._recorders), use_device=self.use_device,
                profile_memory=self.profile_memory, with_flops=self.with_flops,
            )  # fmt: skip
        return self._events

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds on the CPU of all events."""
        return self.function_events.self_cpu_time_total

    def table(self, *args: Any, **kwargs: Any) -> str:
        """`EventList.table` of all events."""
        return self.function_events.table(*args, **kwargs)

    def key_averages(
        self, group_by_input_shape: bool = False, group_by_stack_n: int = 0,
        group_by_overload_name: bool = False, group_by_module: bool = False,
    ) -> EventList:  # fmt: skip
        """`EventList.key_averages` of all events."""
        return self.function_events.key_averages(
            group_by_input_shape, group_by_stack_n, group_by_overload_name, group_by_module
        )

    def total_average(self) -> FunctionEventAvg:
        """`EventList.total_average` of all events."""
        return self.function_events.total_average()

    def export_stacks(self, path: Any, metric: str = "self_cpu_time_total") -> None:
        """`EventList.export_stacks` of all events; needs `with_stack=True`."""
        if not self.with_stack:
            raise AssertionError("export_stacks() requires with_stack=True")
        self.function_events.export_stacks(path, metric)

    def export_chrome_trace(self, path: Any, metadata: dict[str, Any] | None = None) -> None:
        """Writes a trace for chrome://tracing or ui.perfetto.dev; gzipped for a path in .gz.

        `metadata` becomes further entries of the file.

        >>> with gpunn.autograd.profiler.profile() as prof:
        ...     x = gpunn.ones(3).exp()
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     prof.export_chrome_trace(folder + "/trace.json")
        ...     os.listdir(folder)
        ['trace.json']
        """
        from gpunn.profiler.chrome import write_trace

        options = dict(
            record_shapes=self.record_shapes, profile_memory=self.profile_memory,
            with_stack=self.with_stack, with_modules=self.with_modules,
            with_flops=self.with_flops,
        )  # fmt: skip
        given = {name: 1 for name, on in options.items() if on}
        write_trace(path, self.function_events, {**given, **(metadata or {})}, self._recorders)

    def __repr__(self) -> str:
        if not self._recorders:
            return "<unfinished torch.autograd.profile>"
        return repr(self.function_events)

    def __str__(self) -> str:
        if not self._recorders:
            return "<unfinished torch.autograd.profile>"
        return str(self.function_events)

    def _repr_html_(self) -> str:
        return self.key_averages()._repr_html_()


def _usable(device: str | None) -> str | None:
    """ "cuda" where there is a GPU."""
    if device in (None, "cpu"):
        return None
    if device != "cuda":
        raise RuntimeError(f"profile: use_device is 'cuda' or None, not {device!r}")
    from gpunn import cuda

    if cuda.is_available():
        return "cuda"
    warnings.warn("CUDA is not available, disabling CUDA profiling", stacklevel=4)
    return None


class record_function:  # noqa: N801 (PyTorch's name)
    """A block, or a decorated function, that a profile shows as a range under a name.

    Outside of a profile it does nothing. `args` is a note that is kept with it.
    Source: https://docs.pytorch.org/docs/stable/generated/torch.autograd.profiler.record_function.html

    >>> with gpunn.profiler.profile() as prof:
    ...     with gpunn.profiler.record_function("my block"):
    ...         x = gpunn.ones(3)
    >>> [event.name for event in prof.events()]
    ['my block', 'aten::ones']
    """

    def __init__(self, name: str, args: str | None = None):
        self.name = name
        self.args = args
        self._open: list[tuple[Any, Range]] = []

    def __enter__(self) -> record_function:
        for recorder in ACTIVE:
            range = recorder.begin(self.name, USER, device=_current_gpu(recorder))
            range.values = None if self.args is None else [self.args]
            self._open.append((recorder, range))
        return self

    def __exit__(self, *exc: object) -> None:
        if self._open:
            recorder, range = self._open.pop()
            recorder.end(range)

    def __call__(self, function: F) -> F:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with record_function(self.name, self.args):
                return function(*args, **kwargs)

        return run  # type: ignore[return-value]


def _current_gpu(recorder: Any) -> Any:
    """The GPU whose time a range of the user has; None where CUDA is not in use."""
    if not recorder.cuda:
        return None
    from gpunn import cuda
    from gpunn.device import Device

    return Device("cuda", cuda.current_device()) if cuda.is_initialized() else None


class emit_nvtx:  # noqa: N801 (PyTorch's name)
    """Marks operations as NVTX ranges, for Nsight Systems: `nsys profile -t nvtx,cuda python ...`.

    Does nothing with `enabled=False`. With `record_shapes` a range's name has the input shapes.
    Raises RuntimeError where it or a profile is on already, and without CUDA.
    Source: https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.profiler.emit_nvtx

    >>> with gpunn.autograd.profiler.emit_nvtx(enabled=gpunn.cuda.is_available()):
    ...     x = gpunn.ones(3)
    """

    def __init__(self, enabled: bool = True, record_shapes: bool = False):
        self.enabled, self.record_shapes = enabled, record_shapes
        self._recorder: Recorder | None = None

    def __enter__(self) -> emit_nvtx:
        if self.enabled:
            if self._recorder is not None:
                raise RuntimeError("NVTX annotation context manager is not reentrant")
            from gpunn import cuda
            from gpunn.profiler.nvtx import NvtxRecorder

            cuda.synchronize()
            recorder = NvtxRecorder(shapes=self.record_shapes)
            recorder.start()
            self._recorder = recorder
        return self

    def __exit__(self, *exc: object) -> None:
        if self._recorder is not None:
            from gpunn import cuda

            cuda.synchronize()
            self._recorder.stop()
            self._recorder = None
