"""What each module of a model costs, forward and backward."""

from __future__ import annotations

import html
from typing import Any

from gpunn.autograd.profiler_util import EventList, FunctionEvent, _format_memory, _format_time
from gpunn.profiler.events import EVALUATE

PREFIX = "nn.Module: "


class ModuleTimes:
    """One module: times in microseconds and memory in bytes, with those of the modules in it.

    `path` is the root's class and the dotted name in it, `kind` the module's class. `backward`
    is the time of the backward nodes that the module's operations recorded.
    """

    def __init__(self, path: str, kind: str):
        self.path, self.kind, self.count = path, kind, 0
        self.forward = self.backward = self.device_forward = self.device_backward = 0.0
        self.cpu_memory_usage = self.device_memory_usage = 0

    @property
    def total(self) -> float:
        """Microseconds on the CPU, forward and backward."""
        return self.forward + self.backward

    @property
    def device_total(self) -> float:
        """Microseconds on the GPU, forward and backward."""
        return self.device_forward + self.device_backward

    def __repr__(self) -> str:
        return (
            f"<ModuleTimes {self.path} ({self.kind}) forward={_format_time(self.forward)} "
            f"backward={_format_time(self.backward)} count={self.count}>"
        )


class ModuleList(list):
    """The modules of a profile in the order of their first calls.

    >>> with gpunn.profiler.profile(with_modules=True) as prof:
    ...     y = nn.Sequential(nn.Linear(2, 3), nn.ReLU())(gpunn.ones(1, 2))
    >>> [(module.path, module.kind) for module in prof.module_averages()]
    [('Sequential', 'Sequential'), ('Sequential.0', 'Linear'), ('Sequential.1', 'ReLU')]
    """

    profile_memory = False

    def table(self, sort_by: str | None = None, row_limit: int = 100) -> str:
        """The rows as text, those with the largest `sort_by` ("total", "forward", "backward",
        "device_total", "cpu_memory_usage", "count") first, at most `row_limit` (-1: all)."""
        rows = list(self)
        if sort_by is not None:
            rows.sort(key=lambda m: getattr(m, sort_by), reverse=True)
        rows = rows if row_limit < 0 else rows[:row_limit]
        cells = [self._heading(), *(self._row(m) for m in rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        rule = "  ".join("-" * width for width in widths)
        lines = [
            "  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(row))
            for row in (list(zip(line, widths, strict=True)) for line in cells)
        ]
        return "\n".join([rule, lines[0], rule, *lines[1:], rule]) + "\n"

    def _heading(self) -> list[str]:
        return [
            "Module", "Class", "Forward", "Backward",
            *(["CUDA forward", "CUDA backward"] if self._gpu() else []),
            *(["CPU Mem"] if self.profile_memory else []),
            *(["CUDA Mem"] if self.profile_memory and self._gpu() else []), "# of Calls",
        ]  # fmt: skip

    def _row(self, m: ModuleTimes) -> list[str]:
        gpu = [_format_time(m.device_forward), _format_time(m.device_backward)]
        return [
            m.path, m.kind, _format_time(m.forward), _format_time(m.backward),
            *(gpu if self._gpu() else []),
            *([_format_memory(m.cpu_memory_usage)] if self.profile_memory else []),
            *([_format_memory(m.device_memory_usage)] if self.profile_memory and self._gpu()
              else []), str(m.count),
        ]  # fmt: skip

    def _gpu(self) -> bool:
        return any(m.device_total > 0 for m in self)

    __str__ = table

    def _repr_html_(self) -> str:
        return f'<pre style="line-height: 1.2">{html.escape(self.table())}</pre>'


def module_times(events: EventList, profile_memory: bool) -> ModuleList:
    """Sums over the calls of each module, and over the backward nodes of its operations."""
    found: dict[str, ModuleTimes] = {}
    for event in events:
        if event.name.startswith(PREFIX):
            path = event.name[len(PREFIX) :]
            if path not in found:
                found[path] = ModuleTimes(path, event.concrete_inputs[0])
            _add_call(found[path], event)
    for event in events:
        if event.name.startswith(EVALUATE) and event.module:
            parts = event.module.split(".")
            for i in range(1, len(parts) + 1):
                times: Any = found.get(".".join(parts[:i]))
                if times is not None:
                    times.backward += event.cpu_time_total
                    times.device_backward += event.device_time_total
    modules = ModuleList(found.values())
    modules.profile_memory = profile_memory
    return modules


def _add_call(times: ModuleTimes, event: FunctionEvent) -> None:
    times.count += 1
    times.forward += event.cpu_time_total
    times.device_forward += event.device_time_total
    times.cpu_memory_usage += event.cpu_memory_usage
    times.device_memory_usage += event.device_memory_usage
