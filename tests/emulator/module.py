"""RawModule: kernels from text, in the shape of cupy.RawModule, on NumPy arrays."""

from __future__ import annotations

import functools
import threading
from ctypes import c_uint, pointer

from . import compiler
from .arguments import Arguments, parameters
from .loaded import Library, Request
from .settings import ORDERS, EmulatorError, now
from .source import kernels

DEFAULT_SHARED = 48 << 10  # bytes of shared memory that a block may have unasked
MOST_SHARED = 227 << 10  # and asked
MOST_BLOCKS = (2**31 - 1, 65535, 65535)
MOST_THREADS = (1024, 1024, 64)

_one_at_a_time = threading.RLock()


@functools.cache
def _library(text: str, check: bool) -> Library:
    return Library(*compiler.compiled(text, kernels(text), check))


class RawModule:
    """The kernels of one CUDA C++ text.

    code: the text of a .cu file with all that it includes; `#line` directives in it name the lines
    of messages. options: ignored, as are other keywords of cupy.RawModule. The text is compiled at
    the first launch, once for each build (see settings), and cached on disk.
    """

    def __init__(self, code: str, options=(), backend="nvrtc", **ignored):
        self.code = code
        self.kernels = kernels(code)

    def get_function(self, name: str) -> Function:
        """The kernel of that name."""
        if name not in self.kernels:
            known = ", ".join(self.kernels) or "none"
            raise EmulatorError(f"no kernel {name!r} in the text, which has {known}")
        return Function(self, name)

    def compile(self):
        """Compiles the text now."""
        with _one_at_a_time:
            _library(self.code, now().check)


class Function:
    """A kernel; call it to launch it: kernel(grid, block, arguments, shared_mem=bytes)."""

    def __init__(self, module: RawModule, name: str):
        self.name = name
        self.max_dynamic_shared_size_bytes = DEFAULT_SHARED
        self._code = module.code
        self._names = module.kernels[name].parameters
        self._builds = {}

    def _build(self, check: bool):
        """The library, the thread function's address, the parameters and the limits."""
        if check not in self._builds:
            library = _library(self._code, check)
            wanted = parameters(library.signature(self.name), self._names)
            limits = library.bound(self.name), library.static_shared(self.name)
            self._builds[check] = library, library.thread(self.name), wanted, limits
        return self._builds[check]

    def _check_shape(self, grid, block, shared, bound, static):
        most = self.max_dynamic_shared_size_bytes
        unasked = most <= DEFAULT_SHARED
        problem = None
        if any(not 1 <= g <= n for g, n in zip(grid, MOST_BLOCKS)):
            problem = f"a grid of {grid} blocks; the limits are 1 to {MOST_BLOCKS}"
        elif grid[0] * grid[1] * grid[2] >= 2**32:
            problem = f"a grid of {grid} blocks, more than the emulator counts (2^32)"
        elif any(not 1 <= b <= n for b, n in zip(block, MOST_THREADS)):
            problem = f"a block of {block} threads; the limits are 1 to {MOST_THREADS}"
        elif block[0] * block[1] * block[2] > bound:
            problem = f"a block of {block} threads, more than its launch bound of {bound}"
        elif shared + static > MOST_SHARED or static > DEFAULT_SHARED:
            problem = f"{shared} bytes of dynamic shared memory beside {static} of static"
            problem += f"; the limit is {MOST_SHARED}, of static {DEFAULT_SHARED}"
        elif not 0 <= shared <= (DEFAULT_SHARED - static if unasked else most):
            problem = f"{shared} bytes of dynamic shared memory beside {static} of static"
            problem += f", and max_dynamic_shared_size_bytes is {most}"
        if problem:
            raise EmulatorError(f"{self.name}: launched with {problem}")

    def __call__(self, grid, block, args, shared_mem=0, **ignored):
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        with _one_at_a_time:
            how = now()
            library, thread, wanted, limits = self._build(how.check)
            self._check_shape(grid, block, shared_mem, *limits)
            arguments = Arguments(self.name, wanted, args)
            request = Request(
                pointer(library.module),
                thread,
                arguments.pointers,
                (c_uint * 3)(*grid),
                (c_uint * 3)(*block),
                shared_mem,
                how.check,
                ORDERS.index(how.order),
                how.seed & 0xFFFFFFFF,
                int(how.timeout),
                arguments.buffers,
                arguments.buffer_count,
                arguments.patches,
                arguments.patch_count,
            )
            problem = library.launch(request)
        if problem:
            raise EmulatorError(f"{self.name}: {problem}")
