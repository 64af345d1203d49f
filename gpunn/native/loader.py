"""Finds, loads and describes the C++ library; the other files of this package call it.

`lib()` is lazy: nothing is searched, compiled or loaded before the first call that could use it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_PACKAGE = Path(__file__).resolve().parents[1]
_lock = threading.Lock()
_library: ctypes.CDLL | None = None
_searched = False
_found = "not looked for yet"
_threads: int | None = None
_KEPT = 1 << 29  # bytes of freed memory that stay with the process (kernels/threads.cpp)
_MEMORY_WISHES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def lib() -> ctypes.CDLL | None:
    """The loaded library, or None where there is none and NumPy does the work.

    The environment variable GPUNN_NATIVE=0 turns it off; GPUNN_NATIVE=v2 (v3, v4) asks for one
    instruction set. Loading never raises: `status()` says what went wrong. Under glibc the process
    keeps up to 512 MiB of freed memory from then on, which the next step asks for again, unless
    MALLOC_TRIM_THRESHOLD_, MALLOC_MMAP_THRESHOLD_ or GLIBC_TUNABLES say otherwise.
    """
    global _library, _searched
    if not _searched:
        with _lock:
            if not _searched:
                _library = _load()
                _searched = True
    return _library


def status() -> str:
    """One line for a person: which library is in use, or why there is none.

    >>> text = gpunn.native.status()
    """
    library = lib()
    return _found if library is None else f"{_found}, {get_num_threads()} threads"


def set_num_threads(n: int) -> None:
    """Makes the C++ code use at most n threads, at once or as soon as it is loaded."""
    global _threads
    _threads = n
    if _library is not None:
        _library.gpunn_set_num_threads(n)


def get_num_threads() -> int:
    """The threads for the C++ code: what was set, else $OMP_NUM_THREADS, else the cores."""
    if _threads is not None:
        return _threads
    wanted = os.environ.get("GPUNN_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted) > 0:
        return int(wanted)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def source(name: str) -> str:
    """The text of a file of kernels/: `source("conv.cu")`. FileNotFoundError if there is none.

    >>> "conv_forward" in gpunn.native.source("conv.cpp")
    True
    """
    return (kernels_dir() / name).read_text(encoding="utf-8")


def kernels_dir() -> Path:
    """The directory of the kernels' text: in an installed package, or beside it in a checkout."""
    inside = _PACKAGE / "kernels"
    return inside if inside.is_dir() else _PACKAGE.parent / "kernels"


def levels() -> list[str]:
    """The instruction sets that this processor can run, best first.

    >>> levels = gpunn.native.levels()
    """
    from gpunn.native import build  # it imports subprocess and its like: only where needed

    known = build.LEVELS.get(build.machine())
    if known is None:
        return ["any"]
    if build.machine() != "x86_64":
        return list(reversed(known))
    has = _cpu_features()
    able = {
        "v2": bool(has.get("SSE42", True)),
        "v3": bool(has.get("X86_V3") or (has.get("AVX2") and has.get("FMA3"))),
        "v4": bool(has.get("X86_V4") or has.get("AVX512_SKX")),
    }
    return [level for level in reversed(known) if able[level]]


def _cpu_features() -> dict[str, bool]:
    """What NumPy found out of the processor, operating system's consent included."""
    try:
        from numpy._core._multiarray_umath import __cpu_features__
    except ImportError:
        return {}
    return __cpu_features__


def _load() -> ctypes.CDLL | None:
    from gpunn.native import build

    global _found
    wish = os.environ.get("GPUNN_NATIVE", "")
    if wish == "0":
        _found = "off (GPUNN_NATIVE=0); NumPy does the work"
        return None
    choice = [level for level in levels() if wish in ("", "1", level)]
    if not choice:
        _found = f"GPUNN_NATIVE={wish} is none of {levels()}; NumPy does the work"
        return None
    try:
        path, how = _find(choice)
        library = ctypes.CDLL(str(path))
        for argument in library.gpunn_set_num_threads, library.gpunn_get_num_threads:
            argument.restype = ctypes.c_int
        library.gpunn_set_num_threads(get_num_threads())
        if not any(name in os.environ for name in _MEMORY_WISHES):
            library.gpunn_keep_freed(ctypes.c_int64(_KEPT))
    except (build.BuildError, OSError, AttributeError) as error:
        text = str(error).strip()
        _found = f"none: {text[:500]}; NumPy does the work"
        return None
    _found = f"{build.machine()} {choice[0]}, {how} {path}"
    return library


def _find(choice: list[str]) -> tuple[Path, str]:
    """A prebuilt library for the best instruction set, or one compiled for it."""
    from gpunn.native import build

    for level in choice:
        path = _PACKAGE / "_native" / f"gpunn-{build.machine()}-{level}.so"
        if path.exists():
            choice[:] = [level]
            return path, "prebuilt in"
    cxx = build.compiler()
    if cxx is None:
        raise build.BuildError("no C++ compiler found (c++, g++, clang++ or $CXX)")
    return build.cached(kernels_dir(), choice[0], cxx), "compiled into"


def address(array: np.ndarray) -> int:
    """Where a C-contiguous array's data begins; a third of the cost of `array.ctypes.data`."""
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):  # read-only, empty, or bfloat16
        return array.__array_interface__["data"][0]


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array itself where it is C-contiguous, else a copy that is."""
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def optional(array: np.ndarray | None) -> int | None:
    """The address of an array that may be None."""
    return None if array is None else address(array)


def alike(*arrays: np.ndarray | None) -> bool:
    """Whether all arrays that are not None have one dtype."""
    return len({a.dtype for a in arrays if a is not None}) == 1


_functions: dict[tuple[str, Any], Callable[..., int] | None] = {}
_SUFFIX = {
    np.dtype(np.float32): "f32",
    np.dtype(np.float64): "f64",
    np.dtype(np.int64): "i64",
    np.dtype(np.int32): "i32",
}
_TYPES = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "d": ctypes.c_double}


def function(name: str, types: str, *dtypes: np.dtype) -> Callable[..., int] | None:
    """The library's `name` for dtypes, or None where there is none; kept for the next call.

    `types` has a letter for each argument: p an address, i an integer, d a double.
    """
    key = (name, dtypes)
    try:
        return _functions[key]
    except KeyError:
        pass
    library, found = lib(), None
    if library is not None and all(d in _SUFFIX for d in dtypes):
        found = getattr(library, "_".join([name, *(_SUFFIX[d] for d in dtypes)]), None)
    if found is not None:
        found.argtypes = [_TYPES[letter] for letter in types]
        found.restype = ctypes.c_int64
    _functions[key] = found
    return found
