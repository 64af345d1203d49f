"""Launching a kernel: its arguments checked against its own text, the errors said in words.

CuPy's RawKernel believes everything that it is told: a view is read as if it were contiguous, a
Python float arrives as a double where the kernel has a float. Here the parameter list in the
kernel's text is the declared signature, and every argument is checked against it.
"""

from __future__ import annotations

import functools
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from gpunn.cuda import detect
from gpunn.cuda.kernels import faults
from gpunn.dtypes import BF16

_UNASKED = 48 << 10  # bytes of shared memory, a kernel's own included, that need no asking
_SURE = 32 << 10  # of dynamic memory that fits in with what kernels have of their own
_TABLE = 64  # entries of Pointers in common.cuh
_TABLE_DTYPE = np.dtype([("at", np.uint64, (_TABLE,))])
_NULL = np.uint64(0)  # the null pointer: of None older CuPys make a wild address
most_blocks: int | None = None  # of a grid; None: 32 for each multiprocessor

_DTYPES = {
    "__half": np.dtype(np.float16), "half": np.dtype(np.float16), "__nv_bfloat16": BF16,
    "float": np.dtype(np.float32), "double": np.dtype(np.float64), "bool": np.dtype(np.bool_),
    "char": np.dtype(np.int8), "signed char": np.dtype(np.int8),
    "unsigned char": np.dtype(np.uint8), "short": np.dtype(np.int16),
    "unsigned short": np.dtype(np.uint16), "int": np.dtype(np.int32),
    "unsigned": np.dtype(np.uint32), "unsigned int": np.dtype(np.uint32),
    "long long": np.dtype(np.int64), "unsigned long long": np.dtype(np.uint64),
    "size_t": np.dtype(np.uint64),
}  # fmt: skip
_TYPEDEF = re.compile(
    r"\b(?:typedef\s+([\w ]+?)\s+(\w+)|using\s+(\w+)\s*=\s*([\w ]+?))\s*;"
)
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.S)
_FILE = re.compile(r'^#line 1 "(.+?)"', re.M)


# --- arrays for launchers -----------------------------------------------------------------


def empty(shape: Any, dtype: Any) -> Any:
    """An array of any contents on the current device."""
    return detect.load().empty(shape, dtype)


def zeros(shape: Any, dtype: Any) -> Any:
    """An array of zeros on the current device."""
    return detect.load().zeros(shape, dtype)


def empty_like(x: Any) -> Any:
    """A C-contiguous array of any contents, of x's shape and dtype."""
    return detect.load().empty(x.shape, x.dtype)


def contiguous(x: Any) -> Any:
    """x, C-contiguous: itself where it is."""
    return x if x._c_contiguous else detect.load().ascontiguousarray(x)


# --- the device ---------------------------------------------------------------------------

_limits: dict[Any, dict[str, int]] = {}


def _limit(name: str) -> int:
    cupy = detect.load()
    device = cupy.cuda.runtime.getDevice()
    found = _limits.get((cupy, device))
    if found is None:
        found = _limits[cupy, device] = cupy.cuda.runtime.getDeviceProperties(device)
    return int(found[name])


def multiprocessors() -> int:
    """How many the current device has: 132 on an H100."""
    return _limit("multiProcessorCount")


def shared_limit() -> int:
    """The bytes of shared memory that a block may ask for on the current device."""
    return _limit("sharedMemPerBlockOptin")


def capability() -> tuple[int, int]:
    """The compute capability of the current device: (9, 0) on an H100."""
    return _limit("major"), _limit("minor")


def blocks(n: int, per_block: int) -> int:
    """The grid for n items, `per_block` in each block; kernels walk on by the grid beyond it."""
    cap = 32 * multiprocessors() if most_blocks is None else most_blocks
    return max(1, min(-(-n // per_block), cap))


def fault(name: str) -> faults.Slot:
    """The `Fault*` of an operation that may meet an index out of range: see faults.py."""
    return faults.slot(name)


# --- signatures ---------------------------------------------------------------------------


class Parameter:
    """One parameter of a kernel: its name, what kind it is, and its dtype where that is known."""

    __slots__ = ("name", "kind", "dtype", "words", "writes")

    def __init__(self, text: str, types: dict[str, str]):
        words = re.sub(r"__restrict__|__grid_constant__|\bvolatile\b", " ", text)
        match = re.fullmatch(r"(.*?)(\w+)\s*", words, re.S)
        assert match, text
        kind, self.name = " ".join(match[1].split()), match[2]
        self.words = f"{kind} {self.name}"
        self.writes = "*" in kind and not re.search(r"\bconst\b", kind.split("*")[0])
        plain = re.sub(r"\bconst\b", " ", kind)
        table = re.fullmatch(r"\s*Pointers\s*<(.+)>\s*", plain)
        self.kind = "table" if table else "array" if "*" in plain else "value"
        base = " ".join((table[1] if table else plain).replace("*", " ").split())
        for _ in types:  # a name may stand for another; a circle ends, too
            base = types.get(base, base)
        if base == "Fault" and self.kind == "array":
            self.kind = "fault"
        self.dtype = _DTYPES.get(base)


def signature(name: str, text: str) -> list[Parameter]:
    """The parameters of `extern "C" __global__ void name(...)` in the text."""
    text = _COMMENT.sub(" ", text)
    found = re.search(rf"__global__[^;{{]*?\b{re.escape(name)}\s*\(", text)
    if found is None:
        kernels = re.findall(r"__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\([^)]*\)\s*)?"
                             r"(?:void\s+)?(\w+)\s*\(", text)  # fmt: skip
        raise ValueError(f"there is no kernel named {name} in {_file(text)}, only {kernels}")
    depth, end = 1, found.end()
    while depth:
        depth += {"(": 1, ")": -1}.get(text[end], 0)
        end += 1
    types = {m[2] or m[3]: (m[1] or m[4]) for m in _TYPEDEF.finditer(text)}
    parts = _split(text[found.end() : end - 1])
    return [Parameter(part, types) for part in parts if part.strip() not in ("", "void")]


def _split(text: str) -> list[str]:
    """The text cut at its commas, those inside <> left alone."""
    parts, depth = [""], 0
    for c in text:
        depth += {"<": 1, ">": -1}.get(c, 0)
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def _file(text: str) -> str:
    found = _FILE.findall(text)
    return found[0] if found else "the source"


# --- kernels ------------------------------------------------------------------------------


class PointerTable(np.ndarray):
    """The addresses of up to 64 arrays, a kernel's `Pointers<T*>` by value; `arrays` keeps them."""

    arrays: list[Any]


class Kernel:
    """A kernel, compiled for the current device at its first launch.

    Call it with grid and block (ints or tuples of up to three), the arguments, and the bytes of
    dynamic shared memory. TypeError and ValueError name an argument that does not fit; a launch
    that fails is a RuntimeError with kernel, grid, block and shapes.
    """

    def __init__(self, name: str, text: str):
        self.name, self.text, self.file = name, text, _file(text)
        self.parameters = signature(name, text)
        self._functions: dict[Any, Any] = {}  # by device: a function belongs to one context

    def __repr__(self) -> str:
        words = ", ".join(p.words for p in self.parameters)
        return f"<kernel {self.name}({words}) of {self.file}>"

    def __call__(self, grid: Any, block: Any, args: Any, shared: int = 0) -> None:
        cupy = detect.load()
        device = cupy.cuda.runtime.getDevice()
        function = self._functions.get((cupy, device))
        if function is None:
            function = self._functions[cupy, device] = compiled(self.name, self.text)
        if len(args) != len(self.parameters):
            raise TypeError(
                f"{self.name}() takes {len(self.parameters)} arguments "
                f"({', '.join(p.words for p in self.parameters)}), got {len(args)}"
            )
        ready = [self._ready(i, arg, device) for i, arg in enumerate(args)]
        if shared > _SURE:
            wanted = max(shared, _UNASKED + 1)  # more than any default: it has been asked for
            if function.max_dynamic_shared_size_bytes < wanted:
                function.max_dynamic_shared_size_bytes = wanted
        try:
            function(_three(grid), _three(block), tuple(ready), shared_mem=shared)
        except Exception as error:
            raise RuntimeError(self._failure(error, grid, block, args, shared)) from error
        if faults.eager and any(p.kind == "fault" for p in self.parameters):
            cupy.cuda.get_current_stream().synchronize()
            faults.raise_pending()

    def _ready(self, i: int, arg: Any, device: int) -> Any:
        """The argument as CuPy passes it on; TypeError or ValueError if it does not fit."""
        parameter = self.parameters[i]
        if parameter.kind == "value":
            if parameter.dtype is not None:
                return parameter.dtype.type(arg)
            return arg  # a struct, as a 0-dim structured array
        if parameter.kind == "array":
            return _NULL if arg is None else self._array(parameter, arg, device)
        if parameter.kind == "fault":
            return _NULL if arg is None else arg.pointer()
        return self._table(parameter, arg, device)

    def _array(self, parameter: Parameter, arg: Any, device: int) -> Any:
        if not isinstance(arg, detect.load().ndarray):
            raise TypeError(
                f"{self.name}: '{parameter.words}' takes an array on the GPU, got "
                f"{'a NumPy array on the host' if type(arg) is np.ndarray else type(arg).__name__}"
            )
        if parameter.dtype is not None and arg.dtype != parameter.dtype:
            raise TypeError(
                f"{self.name}: '{parameter.words}' takes {parameter.dtype}, got {arg.dtype}"
            )
        if not arg._c_contiguous:  # CuPy makes an object for `flags`, 25 times as slow
            raise ValueError(
                f"{self.name}: '{parameter.words}' must be C-contiguous, got shape {arg.shape} "
                f"with strides {arg.strides}: a kernel reads memory in order, so copy it first"
            )
        if arg.data.device_id != device:
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, "
                f"cuda:{arg.data.device_id} and cuda:{device}! ({self.name} runs on cuda:{device}, "
                f"'{parameter.words}' lies elsewhere)"
            )
        return arg

    def _table(self, parameter: Parameter, arrays: Any, device: int) -> PointerTable:
        if len(arrays) > _TABLE:
            raise ValueError(
                f"{self.name}: '{parameter.words}' holds {_TABLE} arrays, got {len(arrays)}"
            )
        table = np.zeros((), _TABLE_DTYPE).view(PointerTable)
        table.arrays = [self._array(parameter, a, device) for a in arrays]
        table["at"][: len(arrays)] = [a.data.ptr for a in arrays]
        return table

    def _failure(self, error: Any, grid: Any, block: Any, args: Any, shared: int) -> str:
        words = []
        for parameter, arg in zip(self.parameters, args, strict=True):
            if hasattr(arg, "shape") and hasattr(arg, "dtype"):
                words.append(f"{parameter.name} {arg.dtype}{list(arg.shape)}")
            elif isinstance(arg, (int, float)):
                words.append(f"{parameter.name} {arg}")
        return (
            f"kernel {self.name} of {self.file} failed with grid {_three(grid)}, block "
            f"{_three(block)}, {shared} bytes of shared memory, {', '.join(words)}: {error}"
        )


def _three(size: Any) -> tuple[int, ...]:
    return (size,) if isinstance(size, int) else tuple(size)


@functools.cache
def mind_cache() -> None:
    """Keeps compiled kernels in memory where CuPy cannot write its cache, and says so once."""
    folder = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable and "CUPY_CACHE_IN_MEMORY" not in os.environ:
        os.environ["CUPY_CACHE_IN_MEMORY"] = "1"
        warnings.warn(
            f"CuPy cannot write its kernel cache, {folder}: kernels are compiled anew in each "
            "process. Point CUPY_CACHE_DIR to a folder that can be written.", stacklevel=2,
        )  # fmt: skip


def compiled(name: str, text: str) -> Any:
    """The function `name` of a text, compiled for the current device (CuPy keeps it on disk)."""
    from gpunn.utils import progress

    cupy = detect.load()
    mind_cache()
    module = cupy.RawModule(code=text, options=("-std=c++17",), backend="nvrtc")
    try:
        with progress.said(f"compiling {name} of {_file(text)}"):
            function = module.get_function(name)
            _ = function.max_dynamic_shared_size_bytes  # compiles, which CuPy puts off
        return function
    except Exception as error:
        if "CompileException" not in type(error).__name__:
            raise
        words = getattr(error, "_msg", None) or str(error)
        raise RuntimeError(f"{_file(text)} does not compile:\n{words}") from None


# --- kernels of users ---------------------------------------------------------------------


class UserKernel:
    """A kernel of a user's own: see `gpunn.cuda.kernel`."""

    def __init__(self, kernel: Kernel):
        self._kernel = kernel

    def __repr__(self) -> str:
        return repr(self._kernel)

    def __call__(self, grid: Any, block: Any, args: Any, shared: int = 0) -> None:
        from gpunn.autograd.graph import touch
        from gpunn.tensor import Tensor

        raw = [a.array if isinstance(a, Tensor) else a for a in args]
        self._kernel(grid, block, raw, shared)
        for parameter, arg in zip(self._kernel.parameters, args, strict=True):
            if parameter.writes and isinstance(arg, Tensor):
                touch(arg)  # a gradient that saved the old values says so


def kernel(source: str, name: str, **types: Any) -> UserKernel:
    """A CUDA kernel of your own, to launch on Tensors.

    `source` is CUDA C++ (or the path of a .cu file) with `extern "C" __global__ void name(...)`;
    `types` are names it uses: a dtype becomes a type, an int a constant. `#include "common.cuh"`
    gives the library's own helpers. The result is called with grid, block, the arguments (Tensors,
    C-contiguous and of the dtype that the kernel's parameter has, ints and floats) and `shared`,
    bytes of dynamic shared memory. It is compiled at the first launch. For a gradient, launch it in
    a `gpunn.autograd.Function`. ValueError for a name that is not in the source; a compile error
    is a RuntimeError with the compiler's words.

    >>> double = gpunn.cuda.kernel('''
    ... extern "C" __global__ void twice(const T* x, T* y, long long n) {
    ...     long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    ...     if (i < n) y[i] = x[i] + x[i];
    ... }''', "twice", T=gpunn.float32)
    >>> if gpunn.cuda.is_available():
    ...     x = gpunn.ones(1000, device="cuda")
    ...     y = gpunn.empty_like(x)
    ...     double(4, 256, (x, y, 1000))
    """
    from gpunn.cuda.kernels import loader

    file = "your kernel"
    if source.endswith(".cu") and "\n" not in source:
        file, source = source, Path(source).read_text(encoding="utf-8")
    choice = {key: getattr(value, "numpy", value) for key, value in types.items()}
    return UserKernel(Kernel(name, loader.prelude(choice) + loader.pasted(file, source)))
