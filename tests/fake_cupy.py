"""A CuPy that needs no GPU: the parts that gpunn.cuda uses, failing as CuPy 14.2 fails.

`make()` builds the module, `installed()` is a context in which `import cupy` gives it and gpunn
has not looked for CUDA yet. Arrays are NumPy arrays that hold a block of a pool of limited size.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import sys
import threading
import types
from types import SimpleNamespace

import numpy as np

GIB = 1 << 30
ERRORS = {
    2: "cudaErrorMemoryAllocation: out of memory",
    3: "cudaErrorInitializationError: initialization error",
    35: "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version",
    100: "cudaErrorNoDevice: no CUDA-capable device is detected",
    101: "cudaErrorInvalidDevice: invalid device ordinal",
}


class CUDARuntimeError(RuntimeError):
    def __init__(self, status):
        self.status = status
        super().__init__(ERRORS[status])


class OutOfMemoryError(MemoryError):
    def __init__(self, size, total):
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,})")


class Block:
    """Memory of the pool; gives itself back when the last array that holds it is gone."""

    def __init__(self, pool, size, device):
        self.pool, self.size, self.device_id = pool, size, device
        pool.used[device] = pool.used.get(device, 0) + size

    def __del__(self):
        self.pool.used[self.device_id] -= self.size
        self.pool.ready[self.device_id] = self.pool.ready.get(self.device_id, 0) + self.size


class MemoryPool:
    """CuPy's pool for sizes only: multiples of 512, three tries, MemoryError."""

    def __init__(self, runtime, capacity):
        self.runtime, self.capacity, self.limit = runtime, capacity, None
        self.used: dict[int, int] = {}
        self.ready: dict[int, int] = {}
        self.looks = 0

    def malloc(self, size):
        size, device = -(-size // 512) * 512, self.runtime.getDevice()
        for give_way in (lambda: None, self.free_all_blocks, gc.collect, self.free_all_blocks):
            give_way()
            kept = self.ready.get(device, 0)
            grown = self.used.get(device, 0) + kept + max(0, size - kept)
            if grown <= (self.limit or self.capacity):
                self.ready[device] = max(0, kept - size)
                return Block(self, size, device)
        raise OutOfMemoryError(size, self.total_bytes())

    def used_bytes(self):
        self.looks += 1
        return self.used.get(self.runtime.getDevice(), 0)

    def free_bytes(self):
        return self.ready.get(self.runtime.getDevice(), 0)

    def total_bytes(self):
        device = self.runtime.getDevice()
        return self.used.get(device, 0) + self.ready.get(device, 0)

    def free_all_blocks(self):
        self.ready[self.runtime.getDevice()] = 0

    def set_limit(self, size=None, fraction=None):
        self.limit = size if fraction is None else int(fraction * self.capacity)


class ndarray(np.ndarray):  # noqa: N801
    def __array_finalize__(self, source):
        self.block = getattr(source, "block", None)

    @property
    def data(self):
        return SimpleNamespace(mem=self.block, ptr=id(self.block))

    def get(self):
        return np.array(self)

    def copy(self, order="C"):
        return self.module.array(self, order=order)


class Runtime:
    """cupy.cuda.runtime; `status` makes every call fail with this cudaError_t."""

    CUDARuntimeError = CUDARuntimeError

    def __init__(self, devices, status, version, capacity):
        self.devices, self.status, self.version, self.capacity = devices, status, version, capacity
        self.local, self.log = threading.local(), []

    def check(self):
        if self.status:
            raise CUDARuntimeError(self.status)

    def getDeviceCount(self):
        self.check()
        return self.devices

    def runtimeGetVersion(self):
        return self.version

    def getDevice(self):
        self.check()
        return getattr(self.local, "device", 0)

    def setDevice(self, index):
        self.check()
        if not 0 <= index < self.devices:
            raise CUDARuntimeError(101)
        self.local.device = index

    def deviceSynchronize(self):
        self.log.append(("synchronize", self.getDevice()))

    def deviceCanAccessPeer(self, one, other):
        return int(one != other)

    def memGetInfo(self):
        return self.capacity - self.pool.total_bytes(), self.capacity

    def getDeviceProperties(self, index):
        names = (
            "warpSize maxThreadsPerMultiProcessor regsPerMultiprocessor sharedMemPerBlock "
            "sharedMemPerBlockOptin sharedMemPerMultiprocessor l2CacheSize integrated "
            "isMultiGpuBoard"
        )
        return dict.fromkeys(names.split(), 32) | {
            "name": f"Fake GPU {index}".encode(),
            "major": 9,
            "minor": 0,
            "totalGlobalMem": self.capacity,
            "multiProcessorCount": 132,
        }


def _streams(runtime):
    """Stream, Event and get_current_stream that write what they are told to `runtime.log`."""
    handles, local = itertools.count(1), threading.local()

    def current():
        """The streams of this thread by device."""
        return local.__dict__.setdefault("streams", {})

    class Event:
        def __init__(self, block=False, disable_timing=False, interprocess=False):
            runtime.check()
            self.ptr, self.done, self.disable_timing = next(handles), False, disable_timing

        def record(self, stream):
            stream.record(self)

        def synchronize(self):
            self.done = True

    class Stream:
        def __init__(self, null=False, non_blocking=False, ptds=False, priority=None):
            runtime.check()
            self.ptr = 0 if null else next(handles)
            self.device_id = -1 if null else runtime.getDevice()
            self.non_blocking, self.priority, self.done = non_blocking, priority, True
            self.before = []

        def __eq__(self, other):
            return self.ptr == other.ptr

        __hash__ = None

        def record(self, event=None):
            event = event or Event()
            runtime.log.append(("record", runtime.getDevice(), self.ptr, event.ptr))
            return event

        def wait_event(self, event):
            runtime.log.append(("wait", runtime.getDevice(), self.ptr, event.ptr))

        def synchronize(self):
            runtime.log.append(("stream synchronize", self.ptr))

        def use(self):
            current()[runtime.getDevice()] = self

        def __enter__(self):
            if self.device_id not in (-1, runtime.getDevice()):
                raise RuntimeError("The device that the stream is created on does not match")
            self.before.append(get_current_stream())
            self.use()

        def __exit__(self, *exc):
            self.before.pop().use()

        def is_capturing(self):
            return False

    def get_current_stream(device_id=-1):
        index = runtime.getDevice() if device_id == -1 else device_id
        return current().get(index, Stream.null)

    status, runtime.status = runtime.status, 0
    Stream.null = Stream(null=True)
    runtime.status = status
    return Stream, Event, get_current_stream


def make(devices=1, status=0, runtime=12090, version="14.2.0", nvrtc=None, capacity=GIB):
    """The module `cupy`; `status`: of every CUDA call, `nvrtc`: what loading it raises."""
    cupy = types.ModuleType("cupy")
    cupy.__version__ = version
    run = Runtime(devices, status, runtime, capacity)
    pool = run.pool = MemoryPool(run, capacity)
    allocator = [pool.malloc]

    def get_version():
        if nvrtc is not None:
            raise nvrtc
        return 12, 9

    def array(source, dtype=None, order="K"):
        values = np.array(source, dtype, order=order, subok=False)
        out = values.view(cupy.ndarray)
        out.block = allocator[0](values.nbytes)
        return out

    stream, event, get_current_stream = _streams(run)
    cupy.cuda = SimpleNamespace(
        runtime=run,
        nvrtc=SimpleNamespace(getVersion=get_version),
        Stream=stream,
        Event=event,
        get_current_stream=get_current_stream,
        get_elapsed_time=lambda start, end: float(end.ptr - start.ptr),
        get_allocator=lambda: allocator[0],
        set_allocator=lambda function: allocator.__setitem__(0, function),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    )
    cupy.pinned = SimpleNamespace(freed=0)
    cupy.pinned.free_all_blocks = lambda: setattr(cupy.pinned, "freed", cupy.pinned.freed + 1)
    cupy.get_default_memory_pool = lambda: pool
    cupy.get_default_pinned_memory_pool = lambda: cupy.pinned
    cupy.array = cupy.asarray = array
    cupy.zeros = lambda shape, dtype=np.float32: array(np.zeros(shape, dtype))
    cupy.ndarray = type("ndarray", (ndarray,), {"module": cupy})
    return cupy


@contextlib.contextmanager
def installed(cupy=None, packages=("cupy-cuda12x",), driver=12080):
    """A context with this `cupy` (None: not installed), these packages and this driver."""
    from gpunn.cuda import current, detect, memory
    from gpunn.device import Device
    from gpunn.generator import defaults
    from gpunn.tensor import ARRAY_TYPES

    def forget_devices():
        for device in Device._known.values():
            if device.type == "cuda":
                device._xp = None
        for device in [d for d in defaults if d.type == "cuda"]:
            del defaults[device]

    kept = {name: vars(detect)[name] for name in ("_found", "_cupy", "_forked")}
    kept |= {name: vars(detect)[name] for name in ("_is_installed", "_driver_version")}
    kept_memory = {name: vars(memory)[name] for name in ("_pool", "_peaks", "_bounds")}
    kept_memory["_reserved_peaks"] = memory._reserved_peaks
    kept_types, kept_module = set(ARRAY_TYPES), sys.modules.get("cupy")
    try:
        forget_devices()
        vars(detect).update(_found=None, _cupy=None, _forked=False)
        detect._is_installed = lambda name: name in packages
        detect._driver_version = lambda: driver
        vars(memory).update(_pool=None, _peaks={}, _bounds={}, _reserved_peaks={})
        sys.modules["cupy"] = cupy
        yield cupy
    finally:
        current.unfollow()
        forget_devices()
        vars(detect).update(kept)
        vars(memory).update(kept_memory)
        ARRAY_TYPES.clear()
        ARRAY_TYPES.update(kept_types)
        sys.modules.pop("cupy", None)
        if kept_module is not None:
            sys.modules["cupy"] = kept_module
