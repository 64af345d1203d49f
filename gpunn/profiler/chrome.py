"""Traces for chrome://tracing and ui.perfetto.dev.

Format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from gpunn.autograd.profiler_util import FunctionEvent
from gpunn.profiler.events import EVALUATE, device_spans
from gpunn.profiler.recorder import BACKWARD, USER, Recorder


def write_trace(
    path: str | os.PathLike[str], events: list[FunctionEvent],
    metadata: dict[str, Any] | None = None, recorders: list[Recorder] | None = None,
) -> None:  # fmt: skip
    """Writes the trace of events, with the GPU's and the memory's from their recorders."""
    import json

    pid = os.getpid()
    trace: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": pid, "tid": 0, "args": {"name": "python"}}
    ]
    for event in events:
        trace.append(_call(event, pid))
    trace += _arrows(events, pid)
    for recorder in recorders or ():
        origin = recorders[0].started  # type: ignore[index]
        trace += _on_gpu(recorder, origin)
        trace += _memory(recorder, origin, pid)
    whole = {
        "schemaVersion": 1, "deviceProperties": [], **(metadata or {}), "displayTimeUnit": "ms",
        "traceName": os.fspath(path), "traceEvents": trace,
    }  # fmt: skip
    write_text(path, json.dumps(whole, default=str))


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a whole file or none; gzipped for a path in .gz."""
    from gpunn.serialization import _replacing

    data = text.encode()
    if os.fspath(path).endswith(".gz"):
        import gzip

        data = gzip.compress(data)
    with _replacing(os.fspath(path)) as temporary, open(temporary, "wb") as file:
        file.write(data)


def _call(event: FunctionEvent, pid: int) -> dict[str, Any]:
    args: dict[str, Any] = {"External id": event.id + 1}
    if event.sequence_nr >= 0:
        args["Sequence number"] = event.sequence_nr
        args["Fwd thread id"] = event.fwd_thread or 0
    if event.structured_input_shapes:
        args["Input Dims"] = event.structured_input_shapes
    if event.concrete_inputs:
        args["Concrete Inputs"] = [str(v) for v in event.concrete_inputs]
    if event.module:
        args["Module"] = event.module
    if event.stack:
        args["Call stack"] = ";".join(reversed(event.stack))
    if event.flops:
        args["flops"] = event.flops
    category = "user_annotation" if event.scope == USER else "cpu_op"
    return {
        "ph": "X", "cat": category, "name": event.trace_name, "pid": pid, "tid": event.thread,
        "ts": event.time_range.start, "dur": event.time_range.elapsed_us(), "args": args,
    }  # fmt: skip


def _arrows(events: list[FunctionEvent], pid: int) -> Iterator[dict[str, Any]]:
    """From operations to their backward nodes."""
    made: dict[int, FunctionEvent] = {}
    for event in events:
        if event.sequence_nr >= 0 and event.scope != BACKWARD:
            made.setdefault(event.sequence_nr, event)
    for event in events:
        maker = made.get(event.sequence_nr)
        if maker is not None and event.name.startswith(EVALUATE):
            for phase, at in (("s", maker), ("f", event)):
                yield {
                    "ph": phase, "cat": "fwdbwd", "name": "fwdbwd", "id": event.id, "pid": pid,
                    "tid": at.thread, "ts": at.time_range.start, "bp": "e",
                }  # fmt: skip


def _on_gpu(recorder: Recorder, origin: int) -> Iterator[dict[str, Any]]:
    """The spans of operations on the GPUs, each a process of the trace."""
    for index in recorder.base:
        yield {
            "ph": "M", "name": "process_name", "pid": f"GPU {index}", "tid": 0,
            "args": {"name": f"GPU {index}"},
        }  # fmt: skip
    for r, (start, length) in device_spans(recorder).items():
        index = r.device.index
        yield {
            "ph": "X", "cat": "gpu_user_annotation", "name": r.name, "pid": f"GPU {index}",
            "tid": 0, "ts": (recorder.base[index][1] - origin) / 1e3 + start, "dur": length,
            "args": {"device": index},
        }  # fmt: skip


def _memory(recorder: Recorder, origin: int, pid: int) -> Iterator[dict[str, Any]]:
    """Each array that came or went."""
    for when, thread, count, device, total in recorder.memory.events if recorder.memory else ():
        args = {
            "Bytes": count, "Total Allocated": total, "Device Type": int(device.type == "cuda"),
            "Device Id": device.index if device.type == "cuda" else -1,
        }  # fmt: skip
        yield {
            "ph": "i", "s": "t", "cat": "cpu_instant_event", "name": "[memory]", "pid": pid,
            "tid": thread, "ts": (when - origin) / 1e3, "args": args,
        }  # fmt: skip
