"""What a profile is made of: events, averages of events, and the table that shows them.

Source: https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.profiler_util.EventList
"""

from __future__ import annotations

import enum
import html
import os
import warnings
from collections import namedtuple
from typing import Any

__all__ = [
    "DeviceType", "EventList", "FormattedTimesMixin", "FunctionEvent", "FunctionEventAvg",
    "Interval", "Kernel",
]  # fmt: skip


class DeviceType(enum.Enum):
    """Where an event ran.

    >>> from gpunn.autograd.profiler_util import DeviceType
    >>> DeviceType.CUDA.value
    1
    """

    CPU = 0
    CUDA = 1


Kernel = namedtuple("Kernel", ["name", "device", "duration"])  # duration in microseconds


class Interval:
    """From `start` to `end`, in microseconds.

    >>> from gpunn.autograd.profiler_util import Interval
    >>> Interval(1.0, 3.5).elapsed_us()
    2.5
    """

    def __init__(self, start: float, end: float):
        self.start = start
        self.end = end

    def elapsed_us(self) -> float:
        """The length in microseconds."""
        return self.end - self.start


def _format_time(us: float) -> str:
    if us >= 1e6:
        return f"{us / 1e6:.3f}s"
    return f"{us / 1e3:.3f}ms" if us >= 1e3 else f"{us:.3f}us"


def _format_memory(count: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("KB", 1 << 10)):
        if abs(count) >= size:
            return f"{count / size:.2f} {unit}"
    return f"{count} B"


def _as_text(name: str) -> property:
    return property(lambda self: _format_time(getattr(self, name)))


def _older_name(old: str, new: str) -> property:
    def get(self: Any) -> Any:
        warnings.warn(
            f"`{old}` is deprecated, please use `{new}` instead.", FutureWarning, stacklevel=2
        )
        return getattr(self, new)

    return property(get)


class FormattedTimesMixin:
    """Means, and times as text, for what has `count` and totals in microseconds."""

    count: int
    cpu_time_total: Any
    device_time_total: Any

    cpu_time_str = _as_text("cpu_time")
    device_time_str = _as_text("device_time")
    cpu_time_total_str = _as_text("cpu_time_total")
    device_time_total_str = _as_text("device_time_total")
    self_cpu_time_total_str = _as_text("self_cpu_time_total")
    self_device_time_total_str = _as_text("self_device_time_total")
    cuda_time = _older_name("cuda_time", "device_time")
    cuda_time_total = _older_name("cuda_time_total", "device_time_total")
    self_cuda_time_total = _older_name("self_cuda_time_total", "self_device_time_total")
    cuda_memory_usage = _older_name("cuda_memory_usage", "device_memory_usage")
    self_cuda_memory_usage = _older_name("self_cuda_memory_usage", "self_device_memory_usage")

    @property
    def cpu_time(self) -> float:
        """Microseconds on the CPU of one call."""
        return self.cpu_time_total / self.count if self.count else 0.0

    @property
    def device_time(self) -> float:
        """Microseconds on the GPU of one call."""
        return self.device_time_total / self.count if self.count else 0.0


class FunctionEvent(FormattedTimesMixin):
    """One call of one operation, module, backward node or range.

    Times are microseconds, memory is bytes. `cpu_time_total` and `cpu_memory_usage` include what
    was called inside (`cpu_children`); their `self_` forms do not. `module` is the path of the
    module that the call was made in (with_modules), `scope` 1 in a backward pass, 7 for ranges
    of users, modules and optimizers. `sequence_nr` ties a backward node to its operation.
    Source: https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.profiler_util.FunctionEvent

    >>> with gpunn.profiler.profile() as prof:
    ...     x = gpunn.ones(2, 3) @ gpunn.ones(3, 4)
    >>> [event.name for event in prof.events()]
    ['aten::ones', 'aten::ones', 'aten::matmul']
    """

    def __init__(
        self, id: int, name: str, thread: int, start_us: float, end_us: float,
        overload_name: str | None = None, fwd_thread: int | None = None,
        input_shapes: Any = None, stack: list[str] | None = None, scope: int = 0,
        use_device: str | None = None, cpu_memory_usage: int = 0, device_memory_usage: int = 0,
        is_async: bool = False, is_remote: bool = False, sequence_nr: int = -1,
        node_id: int = -1, device_type: DeviceType = DeviceType.CPU, device_index: int = 0,
        is_legacy: bool = True, flops: int = 0, trace_name: str | None = None,
        concrete_inputs: Any = None, structured_input_shapes: Any = None,
        is_user_annotation: bool = False, module: str | None = None,
    ):  # fmt: skip
        self.id, self.name, self.thread, self.fwd_thread = id, name, thread, fwd_thread
        self.time_range = Interval(start_us, end_us)
        self.overload_name, self.trace_name = overload_name, trace_name or name
        self.input_shapes, self.concrete_inputs = input_shapes, concrete_inputs
        self.structured_input_shapes = structured_input_shapes
        self.stack, self.scope, self.use_device = stack or [], scope, use_device
        self.cpu_memory_usage, self.device_memory_usage = cpu_memory_usage, device_memory_usage
        self.is_async, self.is_remote, self.is_legacy = is_async, is_remote, is_legacy
        self.sequence_nr, self.node_id, self.flops = sequence_nr, node_id, flops
        self.device_type, self.device_index = device_type, device_index
        self.is_user_annotation, self.module = is_user_annotation, module
        self.count = 1
        self.kernels: list[Kernel] = []
        self.cpu_children: list[FunctionEvent] = []
        self.cpu_parent: FunctionEvent | None = None

    def append_kernel(self, name: str, device: int, duration: float) -> None:
        """Adds time on a GPU, in microseconds, beyond that of the children."""
        self.kernels.append(Kernel(name, device, duration))

    def append_cpu_child(self, child: FunctionEvent) -> None:
        """Adds an event that ran inside of this one."""
        self.cpu_children.append(child)
        child.cpu_parent = self

    @property
    def key(self) -> str:
        """The name; the steps of a profiler share one."""
        return "ProfilerStep*" if self.name.startswith("ProfilerStep#") else self.name

    @property
    def cpu_time_total(self) -> float:
        """Microseconds on the CPU."""
        return 0.0 if self.is_async else self.time_range.elapsed_us()

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds on the CPU outside of the children."""
        return self.cpu_time_total - sum(c.cpu_time_total for c in self.cpu_children)

    @property
    def device_time_total(self) -> float:
        """Microseconds on the GPU."""
        own = sum(kernel.duration for kernel in self.kernels)
        return own + sum(c.device_time_total for c in self.cpu_children)

    @property
    def self_device_time_total(self) -> float:
        """Microseconds on the GPU outside of the children."""
        return sum(kernel.duration for kernel in self.kernels)

    @property
    def self_cpu_memory_usage(self) -> int:
        """Bytes allocated in host memory outside of the children, less the bytes freed."""
        return self.cpu_memory_usage - sum(c.cpu_memory_usage for c in self.cpu_children)

    @property
    def self_device_memory_usage(self) -> int:
        """Bytes allocated in GPU memory outside of the children, less the bytes freed."""
        return self.device_memory_usage - sum(c.device_memory_usage for c in self.cpu_children)

    def __repr__(self) -> str:
        device = self.use_device
        return (
            f"<FunctionEvent id={self.id} name={self.name} device_type={self.device_type} "
            f"node_id={self.node_id} cpu_time={self.cpu_time_str} "
            f"start_us={self.time_range.start} end_us={self.time_range.end} "
            f"cpu_children={[child.id for child in self.cpu_children]} "
            f"{device}_time={self.device_time_str} thread={self.thread} "
            f"input_shapes={self.input_shapes} cpu_memory_usage={self.cpu_memory_usage} "
            f"{device}_memory_usage={self.device_memory_usage} sequence_nr={self.sequence_nr}>"
        )


_SUMS = (
    "cpu_time_total", "self_cpu_time_total", "device_time_total", "self_device_time_total",
    "cpu_memory_usage", "self_cpu_memory_usage", "device_memory_usage",
    "self_device_memory_usage", "flops",
)  # fmt: skip
_SHARED = (
    "key", "node_id", "is_async", "is_remote", "is_legacy", "input_shapes", "overload_name",
    "stack", "scope", "use_device", "device_type", "cpu_parent", "cpu_children",
    "is_user_annotation", "module",
)  # fmt: skip


class FunctionEventAvg(FormattedTimesMixin):
    """The sums over events of one key: `cpu_time` and `device_time` are the means of a call.

    Source: https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.profiler_util.EventList

    >>> with gpunn.profiler.profile() as prof:
    ...     x = gpunn.ones(3).exp().exp()
    >>> average = next(a for a in prof.key_averages() if a.key == "aten::exp")
    >>> average.count, average.cpu_time_total == 2 * average.cpu_time
    (2, True)
    """

    key: Any = None
    flops: int
    self_cpu_time_total: float
    self_device_time_total: float
    cpu_memory_usage: int
    device_memory_usage: int
    use_device: str | None
    input_shapes: Any

    def __init__(self) -> None:
        self.count = 0
        for name in _SHARED:
            setattr(self, name, None)
        for name in _SUMS:
            setattr(self, name, 0)

    def add(self, other: Any) -> FunctionEventAvg:
        """Adds an event, or another average of the same key; returns itself."""
        if self.count == 0:
            for name in _SHARED:
                setattr(self, name, getattr(other, name))
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.count += other.count
        return self

    __iadd__ = add

    def __repr__(self) -> str:
        device = self.use_device or "cuda"
        return (
            f"<FunctionEventAvg key={self.key} self_cpu_time={self.self_cpu_time_total_str} "
            f"cpu_time={self.cpu_time_str}  self_{device}_time={self.self_device_time_total_str} "
            f"{device}_time={self.device_time_str} input_shapes={self.input_shapes} "
            f"cpu_memory_usage={self.cpu_memory_usage} "
            f"{device}_memory_usage={self.device_memory_usage}>"
        )


class EventList(list):
    """Events or averages of them, as a table, sums by key, or files.

    Source: https://docs.pytorch.org/docs/stable/autograd.html#torch.autograd.profiler_util.EventList

    >>> with gpunn.profiler.profile() as prof:
    ...     x = gpunn.ones(3).exp()
    >>> print(prof.events().table().splitlines()[1].split("  ")[-2].strip())
    # of Calls
    """

    def __init__(
        self, *args: Any, use_device: str | None = None, profile_memory: bool = False,
        with_flops: bool = False, by_module: bool = False,
    ):  # fmt: skip
        super().__init__(*args)
        self._options: dict[str, Any] = dict(
            use_device=use_device, profile_memory=profile_memory, with_flops=with_flops
        )
        self._by_module = by_module

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds on the CPU of all events, each counted once."""
        return sum(event.self_cpu_time_total for event in self)

    def table(
        self, sort_by: str | None = None, row_limit: int = 100, max_src_column_width: int = 75,
        max_name_column_width: int | None = 55, max_shapes_column_width: int | None = 80,
        header: str | None = None, top_level_events_only: bool = False,
        time_unit: str | None = None,
    ) -> str:  # fmt: skip
        """The rows as text, those with the largest `sort_by` first, at most `row_limit` (-1: all).

        `sort_by` is the name of an attribute: "cpu_time_total", "self_cpu_time_total",
        "cpu_time", "cuda_time_total", "self_cuda_time_total", "cpu_memory_usage", "count" and
        the like; without it rows are in the order of their first call. `time_unit` "s", "ms" or
        "us" holds for all times. AttributeError for a name that rows have not.

        >>> with gpunn.profiler.profile() as prof:
        ...     x = gpunn.ones(3).exp()
        >>> text = prof.key_averages().table(sort_by="cpu_time_total", row_limit=1)
        >>> text.splitlines()[-1].split(":")[0]
        'Self CPU time total'
        """
        from gpunn.profiler.table import build_table

        return build_table(
            self, sort_by, row_limit, header, top_level_events_only, time_unit,
            widths=(max_name_column_width, max_shapes_column_width, max_src_column_width),
            by_module=self._by_module, **self._options,
        )  # fmt: skip

    __str__ = table

    def _repr_html_(self) -> str:
        return f'<pre style="line-height: 1.2">{html.escape(self.table())}</pre>'

    def key_averages(
        self, group_by_input_shapes: bool = False, group_by_stack_n: int = 0,
        group_by_overload_name: bool = False, group_by_module: bool = False,
    ) -> EventList:  # fmt: skip
        """Sums over the events of one name, and on request of one input shape, of one place in
        the code (its innermost `group_by_stack_n` lines) and of one module.

        >>> with gpunn.profiler.profile(record_shapes=True) as prof:
        ...     x = gpunn.ones(3).exp(), gpunn.ones(2).exp()
        >>> len(prof.events().key_averages()), len(prof.events().key_averages(True))
        (2, 3)
        """
        sums: dict[Any, FunctionEventAvg] = {}
        for event in self:
            key = (
                event.key, event.device_type, event.is_legacy, event.is_user_annotation,
                str(event.input_shapes) if group_by_input_shapes else "",
                event.overload_name if group_by_overload_name else "",
                event.module if group_by_module else "",
                tuple(event.stack[:group_by_stack_n]) if group_by_stack_n > 0 else (),
            )  # fmt: skip
            sums.setdefault(key, FunctionEventAvg()).add(event)
        found = EventList(sums.values(), **self._options, by_module=group_by_module)
        for average in found:
            average.stack = (average.stack or [])[: max(group_by_stack_n, 0)]
            if not group_by_input_shapes:
                average.input_shapes = ""
            if not group_by_overload_name:
                average.overload_name = ""
        return found

    def total_average(self) -> FunctionEventAvg:
        """The sum over all events, under the key "Total".

        >>> with gpunn.profiler.profile() as prof:
        ...     x = gpunn.ones(3).exp()
        >>> prof.events().total_average().count
        2
        """
        total = FunctionEventAvg()
        for event in self:
            total.add(event)
        total.key = "Total"
        return total

    def export_chrome_trace(self, path: str | os.PathLike[str]) -> None:
        """Writes a trace for chrome://tracing or ui.perfetto.dev; gzipped for a path in .gz."""
        from gpunn.profiler.chrome import write_trace

        write_trace(path, self)

    def supported_export_stacks_metrics(self) -> list[str]:
        """What `export_stacks` can write."""
        return ["self_cpu_time_total", "self_cuda_time_total"]

    def export_stacks(self, path: str | os.PathLike[str], metric: str) -> None:
        """Writes a line for each place in the code, for flame graphs: `outer;inner microseconds`.

        ValueError for a metric that is not one of `supported_export_stacks_metrics()`.
        """
        if metric not in self.supported_export_stacks_metrics():
            raise ValueError(
                f"metric should be one of: {self.supported_export_stacks_metrics()}, not {metric}"
            )
        from gpunn.profiler.chrome import write_text

        plain = str.maketrans(" ;\t\n", "____")
        name = metric.replace("cuda", "device")
        lines = []
        for event in self:
            value = int(getattr(event, name))
            if event.stack and value > 0:
                frames = ";".join(entry.translate(plain) for entry in reversed(event.stack))
                lines.append(f"{frames} {value}\n")
        write_text(path, "".join(lines))
