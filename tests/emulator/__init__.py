"""Runs CUDA kernels without a GPU: the text of a .cu file, compiled for the CPU, on NumPy arrays.

    from emulator import RawModule, settings

    kernel = RawModule(code=text).get_function("add")
    kernel((blocks,), (threads,), (x, y, np.int64(x.size)))
    with settings(check=True):  # every access to memory is looked at
        kernel((blocks,), (threads,), (x, y, np.int64(x.size)))

A fault of a kernel raises EmulatorError, which names the thread and the line; the arrays stay as
they were. Both builds notice barriers and collectives that not all threads reach, reads 16 bytes
past an array and writes to any byte past it, integer division by zero, writes through const
pointers, launches that a GPU refuses, and threads that never end (a time limit). What nothing wrote
in shared memory is NaN. The check build notices as well: races within and between blocks, any
access out of the bounds of an array or of a shared variable, reads of shared memory that nothing
wrote, misaligned accesses, cp.async read before it was waited for. It does not look for races on
__device__ variables.

source.py reads the kernels' names from the text, compiler.py compiles it with cuda.h in front,
loaded.py loads it, arguments.py lays out the arguments, module.py launches; runtime.cpp runs it.
"""

import sys

from .compiler import CompileError, missing
from .module import Function, RawModule
from .settings import EmulatorError, settings

__all__ = ["CompileError", "EmulatorError", "Function", "RawModule", "missing", "settings"]

# Tests import it as `emulator`, others as `tests.emulator`: the same modules under both names.
_other = "emulator" if __name__.startswith("tests.") else f"tests.{__name__}"
for _name, _module in list(sys.modules.items()):
    if _name == __name__ or _name.startswith(__name__ + "."):
        sys.modules.setdefault(_other + _name[len(__name__) :], _module)
