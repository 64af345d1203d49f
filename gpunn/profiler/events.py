"""From what recorders noted to events: times, the tree of calls, backward nodes' places."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from gpunn.autograd.profiler_util import FunctionEvent
from gpunn.profiler.recorder import BACKWARD, FORWARD, USER, Range, Recorder

EVALUATE = "autograd::engine::evaluate_function: "


def events_of(recorders: list[Recorder]) -> list[FunctionEvent]:
    """The events of recorders that have stopped, in the order in which they began."""
    found: list[FunctionEvent] = []
    for recorder in recorders:
        found += _events(recorder, recorders[0].started, len(found))
    return found


def _events(recorder: Recorder, origin: int, first: int) -> list[FunctionEvent]:
    ranges = sorted(recorder.ranges, key=lambda r: r.start)
    children: dict[Range, list[Range]] = {}
    for r in ranges:
        if r.parent is not None:
            children.setdefault(r.parent, []).append(r)
    same = _repeated(ranges, children)
    ranges = [r for r in ranges if r not in same]
    _place_backward(ranges)
    spans = device_spans(recorder)
    made: dict[Range, FunctionEvent] = {}
    for r in ranges:
        event = made[r] = _event(recorder, r, origin, first + len(made))
        parent = r.parent
        while parent in same:
            parent = parent.parent  # type: ignore[union-attr]
        if parent in made:
            made[parent].append_cpu_child(event)
    for r in reversed(ranges):  # children before their parents
        if r in spans:
            event = made[r]
            own = spans[r][1] - sum(c.device_time_total for c in event.cpu_children)
            if own > 0:
                event.append_kernel(event.name, r.device.index, own)
    for event in made.values():
        if event.flops and any(p.flops for p in _ancestors(event)):
            event.flops = 0  # the operation around it has counted it
    return list(made.values())


def _ancestors(event: FunctionEvent) -> Any:
    while event.cpu_parent is not None:
        event = event.cpu_parent
        yield event


def _repeated(ranges: list[Range], children: dict[Range, list[Range]]) -> set[Range]:
    """Calls that are all that a call of the same name does: `+` is `add`."""
    same: set[Range] = set()
    for r in ranges:
        inside = children.get(r, ())
        while r not in same and len(inside) == 1 and inside[0].name == r.name:
            same.add(inside[0])
            r.flops = max(r.flops, inside[0].flops)
            inside = children.get(inside[0], ())
    return same


def _place_backward(ranges: list[Range]) -> None:
    """Gives backward nodes the module and the lines of code of the operations that made them.

    An operation's own node is the last of those that it makes (casts and broadcasts come before).
    """
    makers: dict[int, Range] = {}
    for r in ranges:
        if r.seq >= 0 and r.scope == FORWARD:
            makers.setdefault(r.seq, r)
    numbers = sorted(makers)
    last: dict[int, Range] = {}
    for r in ranges:
        if r.scope != BACKWARD:
            continue
        if r.seq >= 0:
            at = bisect_left(numbers, r.seq)
            maker = makers[numbers[at]] if at < len(numbers) else None
        else:  # gradients are added to leaves after the node that gave them
            maker = last.get(r.thread)
        r.module, r.stack = (maker.module, maker.stack) if maker else (None, None)
        if maker is not None:
            last[r.thread] = maker
        else:
            last.pop(r.thread, None)


def device_spans(recorder: Recorder) -> dict[Range, tuple[float, float]]:
    """Where on the GPU the ranges were: start and length in microseconds from the base mark.

    Waits for the GPU. The length includes what the GPU waited for the CPU.
    """
    marked = [r for r in recorder.ranges if r.marks is not None and r.marks[1] is not None]
    spans = {}
    for r in marked:
        start, end = r.marks  # type: ignore[misc]
        base = recorder.base[r.device.index][0]
        for mark in (base, start, end):
            mark.synchronize()
        spans[r] = base.elapsed_time(start) * 1e3, start.elapsed_time(end) * 1e3
    return spans


def _event(recorder: Recorder, r: Range, origin: int, number: int) -> FunctionEvent:
    end = recorder.stopped if r.end is None else r.end
    cpu, gpu = r.allocated if r.end is not None else (0, 0)
    shapes = None
    if r.shapes is not None:  # as PyTorch: a list of tensors has no shape here
        shapes = [s if not s or type(s[0]) is int else [] for s in r.shapes]
    return FunctionEvent(
        number, r.name, r.thread, (r.start - origin) / 1e3, (end - origin) / 1e3,
        input_shapes=shapes if shapes is not None or not recorder.shapes else [], stack=r.stack,
        scope=r.scope, use_device="cuda" if recorder.cuda else None, cpu_memory_usage=cpu,
        device_memory_usage=gpu, sequence_nr=r.seq, flops=r.flops, module=r.module,
        concrete_inputs=r.values, structured_input_shapes=r.shapes,
        is_user_annotation=r.scope == USER,
    )  # fmt: skip
