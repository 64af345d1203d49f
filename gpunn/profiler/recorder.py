"""What a profiler notes while it is on: one Range for each call, nested as the calls are."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from types import FunctionType
from typing import Any

from gpunn.autograd.graph import Output
from gpunn.profiler.flops import flops_of
from gpunn.profiler.memory import Memory, array_of, keys
from gpunn.profiler.switches import FILE, Observer, Switches
from gpunn.profiler.switches import twin as twin
from gpunn.tensor import Tensor

_ACCUMULATE = "torch::autograd::AccumulateGrad"
FORWARD, BACKWARD, USER = 0, 1, 7  # PyTorch's RecordScope
clock = time.perf_counter_ns
ACTIVE: list[Any] = []  # the recorder that is on, if one is
_starting = threading.Lock()


def _stop_in_child() -> None:
    """A forked process, a worker of a DataLoader, is not profiled: nobody would read it."""
    for recorder in list(ACTIVE):
        recorder.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stop_in_child)


class Range:
    """One call. Times are nanoseconds; `marks` its start and end on the GPU."""

    __slots__ = (
        "name", "scope", "parent", "thread", "start", "end", "shapes", "values", "stack", "seq",
        "module", "allocated", "marks", "device", "flops",
    )  # fmt: skip
    name: str
    scope: int
    parent: Range | None
    thread: int
    start: int
    end: int | None
    shapes: list[Any] | None
    values: list[Any] | None
    stack: list[str] | None
    seq: int
    module: str | None
    allocated: tuple[int, int]
    marks: tuple[Any, Any] | None
    device: Any
    flops: int


class _Thread(threading.local):
    """Where a thread is, and the bytes that it allocated on the CPU and on GPUs."""

    current: Range | None = None
    module: str | None = None
    paths: dict[int, str] = {}  # of the modules in the outermost one that is being called

    def __init__(self) -> None:
        self.id = threading.get_ident()
        self.native_id = threading.get_native_id()
        self.allocated = [0, 0]


class Recorder:
    """Notes calls from `start` to `stop`. RuntimeError where another one is on already."""

    def __init__(
        self, *, cpu: bool = True, cuda: bool = False, shapes: bool = False, memory: bool = False,
        stack: bool = False, modules: bool = False, flops: bool = False,
    ):  # fmt: skip
        self.cpu, self.cuda, self.shapes, self.stack = cpu, cuda, shapes, stack
        self.modules, self.flops = modules, flops
        self.ranges: list[Range] = []
        self.local = _Thread()
        self.memory = Memory(self.local) if memory else None
        self.switches = Switches()
        self.roots: dict[int, tuple[Any, dict[int, str]]] = {}
        self.base: dict[int | None, tuple[Any, int]] = {}  # a mark on each GPU, and its time here

    def start(self) -> None:
        from gpunn.profiler.targets import install

        with _starting:
            if ACTIVE:
                raise RuntimeError(
                    "Profiler is already enabled: one profiler, or emit_nvtx, is on at a time. "
                    "Leave it before another one starts."
                )
            ACTIVE.append(self)
        self.started = self.stopped = clock()
        try:
            install(self)
        except BaseException:
            self.stop()
            raise
        self.started = clock()

    def stop(self) -> None:
        self.stopped = clock()
        self.switches.off()
        if self in ACTIVE:  # not where a forked child has taken it out
            ACTIVE.remove(self)
        if self.memory is not None:
            self.memory.stop()
        self.roots.clear()

    # --- ranges -----------------------------------------------------------------------------

    def begin(
        self, name: str, scope: int = USER, args: Any = (), kwargs: Any = None, device: Any = None
    ) -> Range:
        """Starts a range inside of this thread's current one. `device`: the GPU it works on."""
        local = self.local
        r = Range()
        r.name, r.scope, r.parent, r.thread = name, scope, local.current, local.native_id
        r.end = r.shapes = r.values = r.stack = r.marks = None
        r.device, r.seq, r.flops, r.module = device, -1, 0, local.module
        if self.shapes and scope == FORWARD:
            r.shapes, r.values = _described((*args, *(kwargs or {}).values()))
        if self.stack:
            r.stack = _stack(sys._getframe(1))
        if device is not None and self.cuda:
            mark = self._mark(device)
            r.marks, r.device = (mark, None), mark.device  # with its index
        r.allocated = (local.allocated[0], local.allocated[1])
        local.current = r
        r.start = clock()
        self.ranges.append(r)  # whole: another thread may be reading them
        return r

    def end(self, r: Range) -> None:
        """Ends a range. `allocated` becomes what it allocated."""
        now_ns, local = clock(), self.local
        now, before = local.allocated, r.allocated
        r.allocated = (now[0] - before[0], now[1] - before[1])
        if r.marks is not None:
            r.marks = (r.marks[0], self._mark(r.device))
        r.end = now_ns
        local.current = r.parent

    def _mark(self, device: Any) -> Any:
        """An event of CUDA on the current stream of a device."""
        from gpunn.cuda.streams import Event, current_stream

        stream = current_stream(device)
        if stream.device.index not in self.base:
            base = Event(enable_timing=True)
            base.record(stream)
            self.base[stream.device.index] = base, clock()
        event = Event(enable_timing=True)
        event.record(stream)
        return event

    # --- observers --------------------------------------------------------------------------

    def operation(self, function: FunctionType, name: Any, skip: int = 0) -> Observer:
        """Notes calls of an operation, whose inputs begin after `skip` arguments; `name` may be a
        function of the arguments."""
        begin, end, cuda, memory = self.begin, self.end, self.cuda, self.memory
        flops, call, find = self.flops, twin(function), callable(name)

        def observe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            called = name(args, kwargs) if find else name
            inputs = args[skip:] if skip else args
            device = gpu_of(inputs, kwargs) if cuda else None
            r = begin(called, FORWARD, inputs, kwargs, device)
            try:
                out = call(*args, **kwargs)
                if memory is not None:
                    memory.returned(inputs, kwargs, out)
            finally:
                end(r)
            r.seq = _sequence_nr(out)
            if flops:
                r.flops = flops_of(called, inputs, kwargs, out)
            return out

        return observe

    def span(self, function: FunctionType, name: Any, device: Any = None) -> Observer:
        """Notes calls of what is no operation: steps of optimizers and the like."""
        call = twin(function)

        def observe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            called = name(args, kwargs)
            if called is None:
                return call(*args, **kwargs)
            r = self.begin(called, device=device(args) if device and self.cuda else None)
            try:
                return call(*args, **kwargs)
            finally:
                self.end(r)

        return observe

    def module(self, function: FunctionType) -> Observer:
        """Notes calls of modules by their paths, which the calls inside of them then carry."""
        call, local = twin(function), self.local

        def observe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            module, outer = args[0], local.module
            if outer is None:
                local.paths = self._paths(module)
            kind = type(module).__name__
            path = local.paths.get(id(module)) or f"{outer}.{kind}"  # kept outside of the model
            local.module = path
            device = gpu_of(args, kwargs) if self.cuda else None
            r = self.begin(f"nn.Module: {path}", device=device)
            r.values = [kind]
            try:
                return call(*args, **kwargs)
            finally:
                self.end(r)
                local.module = outer

        return observe

    def _paths(self, root: Any) -> dict[int, str]:
        """The paths of the modules in `root`, each with the root's class in front."""
        found = self.roots.get(id(root))
        if found is None:
            top = type(root).__name__
            paths = {id(m): f"{top}.{n}" if n else top for n, m in root.named_modules()}
            found = self.roots[id(root)] = root, paths
        return found[1]

    def backward(self, function: FunctionType) -> Observer:
        """Notes the nodes of a backward pass: PyTorch's two ranges for each."""
        call, memory, cuda = twin(function), self.memory, self.cuda

        def observe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            node = args[1]
            name, device = node.name(), node.device
            device = device if cuda and device.type == "cuda" else None
            outer = self.begin(f"autograd::engine::evaluate_function: {name}", BACKWARD)
            inner = self.begin(name, BACKWARD, device=device)
            outer.seq = inner.seq = node.seq
            old = keys((args[2], node.saved)) if memory is not None else ()
            try:
                gs = call(*args, **kwargs)
                if memory is not None:
                    memory.computed(old, gs, node.device)
                return gs
            finally:
                self.end(inner)
                self.end(outer)

        return observe

    def accumulation(self, function: FunctionType, owners: int) -> Observer:
        """Notes where gradients are added to leaves; `owners`: references that observing adds."""
        call, memory, cuda = twin(function), self.memory, self.cuda

        def observe(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            leaf = args[1]
            device = leaf.device if cuda and leaf.device.type == "cuda" else None
            old = keys(args[2:3]) if memory is not None else set()
            outer = self.begin(f"autograd::engine::evaluate_function: {_ACCUMULATE}", BACKWARD)
            inner = self.begin(_ACCUMULATE, BACKWARD, device=device)
            try:
                call(args[0], leaf, args[2], args[3] + owners)
                if memory is not None:
                    memory.computed(old, leaf._grad, leaf.device)
            finally:
                self.end(inner)
                self.end(outer)

        return observe


def gpu_of(args: Any, kwargs: Any) -> Any:
    """The GPU that a call works on: that of its first tensor, or the one asked for."""
    for value in args:
        if isinstance(value, Tensor):
            return value.device if value.device.type == "cuda" else None
        if type(value) in (list, tuple) and value and isinstance(value[0], Tensor):
            return value[0].device if value[0].device.type == "cuda" else None
    for value in kwargs.values():
        if isinstance(value, Tensor):
            return value.device if value.device.type == "cuda" else None
    return _asked_for(kwargs["device"]) if kwargs.get("device") is not None else None


def _asked_for(device: Any) -> Any:
    from gpunn.device import Device

    with contextlib.suppress(Exception):  # the operation says what is wrong with it
        made = Device(device)
        return made if made.type == "cuda" else None
    return None


def _sequence_nr(out: Any) -> int:
    """The number of the node that was recorded last for the results."""
    if type(out) in (list, tuple) and out:
        out = out[0]
    node = out.node if isinstance(out, Tensor) else None
    if node is None:
        return -1
    return (node.node if type(node) is Output else node).seq


def _described(values: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """The shapes of the arguments, [] for what has none, and the values of those."""
    shapes: list[Any] = []
    plain: list[Any] = []
    for v in values:
        several = type(v) in (list, tuple) and v and isinstance(v[0], Tensor)
        if isinstance(v, Tensor):
            shapes.append(_shape(v))
        else:
            shapes.append([_shape(t) for t in v if isinstance(t, Tensor)] if several else [])
        plain.append("" if several or isinstance(v, Tensor) else v if _is_plain(v) else str(v))
    return shapes, plain


def _shape(t: Tensor) -> list[int]:
    array = array_of(t)
    if array is not None:
        return list(array.shape)
    return list(t.shape) if t.is_sparse else []


def _is_plain(value: Any) -> bool:
    if type(value) in (list, tuple):
        return all(type(v) in (bool, int, float) for v in value)
    return value is None or type(value) in (bool, int, float, str)


_HERE = os.path.dirname(os.path.abspath(__file__)) + os.sep
_ABOVE = os.path.dirname(os.path.dirname(os.path.dirname(_HERE))) + os.sep


def _stack(frame: Any) -> list[str]:
    """The lines of code that lead to a call, innermost first, without the profiler's own."""
    lines = []
    while frame is not None:
        code = frame.f_code
        file = code.co_filename
        if file != FILE and not file.startswith(_HERE):
            lines.append(f"{_short(file)}({frame.f_lineno}): {code.co_name}")
        frame = frame.f_back
    return lines


def _short(file: str) -> str:
    if file.startswith(_ABOVE):
        return file[len(_ABOVE) :]
    here = os.getcwd() + os.sep
    return file[len(here) :] if file.startswith(here) else file
