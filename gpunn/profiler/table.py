"""The table of a profile, in PyTorch's layout."""

from __future__ import annotations

import math
from typing import Any

from gpunn.autograd.profiler_util import _format_memory, _format_time

_UNITS = {"s": (1e6, "s"), "ms": (1e3, "ms"), "us": (1.0, "us")}
_WIDTH = 12  # of a column of numbers


class _Column:
    """A heading, the width, and what a row shows there."""

    def __init__(self, heading: str, cell: Any, width: int = _WIDTH, left: bool = False):
        self.heading, self.cell = heading, cell
        self.form = f"{{:{'<' if left else '>'}{width}}}"
        self.rule = "-" * width


def build_table(
    events: Any, sort_by: str | None, row_limit: int, header: str | None,
    top_level_events_only: bool, time_unit: str | None, widths: tuple[int | None, ...],
    use_device: str | None, profile_memory: bool, with_flops: bool, by_module: bool,
) -> str:  # fmt: skip
    """The rows of events or averages as text; empty without any."""
    if not events:
        return ""
    if time_unit is not None and time_unit not in _UNITS:
        raise ValueError(f'time_unit is "s", "ms", "us" or None, not {time_unit!r}')

    def as_time(us: float) -> str:
        if time_unit is None:
            return _format_time(us)
        size, suffix = _UNITS[time_unit]
        return f"{us / size:.3f}{suffix}"

    device = use_device.upper() if any(e.self_device_time_total > 0 for e in events) else None  # type: ignore[union-attr]
    sums = {
        name: sum(getattr(e, f"self_{name}_time_total") for e in events)
        for name in ("cpu", "device")
    }
    columns = [_name_column(events, widths[0]), *_time_columns(sums, device, as_time)]
    columns += _memory_columns(events, use_device) if profile_memory else []
    columns += [_Column("# of Calls", lambda e: e.count)]
    columns += _place_columns(events, widths[1], by_module)
    columns += _flops_column(events) if with_flops else []
    rows = list(events)
    if sort_by is not None:
        name = sort_by.replace("cuda", "device")
        rows.sort(key=lambda e: getattr(e, name), reverse=True)
    if top_level_events_only:
        rows = [e for e in rows if e.cpu_parent is None]
    rows = rows if row_limit < 0 else rows[:row_limit]
    lines = _lines(columns, rows, _stack_column(events, widths[2]))
    lines += [f"Self CPU time total: {as_time(sums['cpu'])}"]
    lines += [f"Self {device} time total: {as_time(sums['device'])}"] if device else []
    double = "=" * (len(lines[0]) - 2)
    heading = [double, header] if header is not None else []
    if top_level_events_only:
        heading += [double, "This report only display top-level ops statistics"]
    return "\n".join([*heading, *lines]) + "\n"


def _lines(columns: list[_Column], rows: list[Any], stack: _Column | None) -> list[str]:
    """Rules, headings and rows; what is on the stack below its first entry has its own lines."""
    shown = [*columns, stack] if stack else columns
    rule = "".join(c.rule + "  " for c in shown)
    lines = [rule, _line(shown, [c.heading for c in shown]), rule]
    blank = [""] * len(columns)
    for row in rows:
        cells = [c.cell(row) for c in columns]
        if stack is None:
            lines.append(_line(shown, cells))
            continue
        frames = stack.cell(row)
        lines.append(_line(shown, [*cells, frames[0] if frames else ""]))
        lines += [_line(shown, [*blank, frame]) for frame in [*frames[1:], ""]]
    return [*lines, rule]


def _line(columns: list[_Column], cells: list[Any]) -> str:
    return "".join(c.form.format(x) + "  " for c, x in zip(columns, cells, strict=True))


def _width(longest: int, limit: int | None) -> int:
    return longest + 4 if limit is None else min(longest + 4, limit)


def _name_column(events: Any, limit: int | None) -> _Column:
    def cell(e: Any) -> str:
        return e.key if limit is None or len(e.key) < limit - 3 else e.key[: limit - 3] + "..."

    return _Column("Name", cell, _width(max(len(e.key) for e in events), limit))


def _share(part: float, whole: float) -> str:
    return f"{part * 100 / whole:.2f}%" if whole else "NaN"


def _time_columns(sums: dict[str, float], device: str | None, as_time: Any) -> list[_Column]:
    cpu, gpu = sums["cpu"], sums["device"]
    columns = [
        _Column("Self CPU %", lambda e: _share(e.self_cpu_time_total, cpu)),
        _Column("Self CPU", lambda e: as_time(e.self_cpu_time_total)),
        _Column("CPU total %", lambda e: _share(e.cpu_time_total, cpu)),
        _Column("CPU total", lambda e: as_time(e.cpu_time_total)),
        _Column("CPU time avg", lambda e: as_time(e.cpu_time)),
    ]
    if device:
        columns += [
            _Column(f"Self {device}", lambda e: as_time(e.self_device_time_total)),
            _Column(f"Self {device} %", lambda e: _share(e.self_device_time_total, gpu)),
            _Column(f"{device} total", lambda e: as_time(e.device_time_total)),
            _Column(f"{device} time avg", lambda e: as_time(e.device_time)),
        ]
    return columns


def _memory_columns(events: Any, use_device: str | None) -> list[_Column]:
    columns = [
        _Column("CPU Mem", lambda e: _format_memory(e.cpu_memory_usage)),
        _Column("Self CPU Mem", lambda e: _format_memory(e.self_cpu_memory_usage)),
    ]
    if use_device and any(e.self_device_memory_usage > 0 for e in events):
        name = use_device.upper()
        columns += [
            _Column(f"{name} Mem", lambda e: _format_memory(e.device_memory_usage)),
            _Column(f"Self {name} Mem", lambda e: _format_memory(e.self_device_memory_usage)),
        ]
    return columns


def _place_columns(events: Any, limit: int | None, by_module: bool) -> list[_Column]:
    """Where the rows are told apart by input shapes, or by modules."""
    columns = []
    if any(e.input_shapes for e in events):
        width = _width(max(len(str(e.input_shapes)) for e in events), limit)
        columns.append(_Column("Input Shapes", lambda e: str(e.input_shapes)[:width], width))
    if by_module:
        longest = max(len(e.module or "") for e in events)
        columns.append(_Column("Module", lambda e: e.module or "", max(longest + 4, _WIDTH)))
    return columns


def _flops_column(events: Any) -> list[_Column]:
    """Operations in the unit that suits the smallest number of them; none where none is known."""
    known = [e.flops for e in events if e.flops > 0]
    if not known:
        return []
    power = min(int(math.log10(min(known)) / 3), 5)
    heading = f"Total {('', 'K', 'M', 'G', 'T', 'P')[power]}FLOPs"
    return [
        _Column(heading, lambda e: f"{e.flops / 1000**power:8.3f}" if e.flops > 0 else "--")
    ]


def _stack_column(events: Any, limit: int | None) -> _Column | None:
    """The lines of code; their ends where they are too long."""
    longest = max((len(entry) for e in events for entry in e.stack), default=0)
    if not longest:
        return None
    width = _width(longest, limit)

    def cell(e: Any) -> list[str]:
        return [s if len(s) <= width else "..." + s[len(s) - width + 3 :] for s in e.stack]

    return _Column("Source Location", cell, width, left=True)
