"""NVIDIA's run-time compiler without a driver: machine code, registers and spills for a text.

It is the library of the nvidia-cuda-nvrtc wheel, or of a CUDA toolkit, called through ctypes.
"""

from __future__ import annotations

import ctypes
import functools
import glob
import os
import re
import sysconfig


class CompileError(RuntimeError):
    """The compiler's words about a text that it refuses."""


def _folders(inside: str) -> list[str]:
    packages = sysconfig.get_paths()["purelib"]
    roots = glob.glob(os.path.join(packages, "nvidia", "cu1*"))
    roots += glob.glob(os.path.join(packages, "nvidia", "cuda_*"))
    roots += [os.environ.get("CUDA_PATH", ""), "/usr/local/cuda"]
    return [os.path.join(root, inside) for root in roots if root]


@functools.cache
def library() -> ctypes.CDLL | None:
    """libnvrtc, or None where there is none."""
    for folder in _folders("lib") + _folders("lib64"):
        for path in sorted(glob.glob(os.path.join(folder, "libnvrtc.so.*")), reverse=True):
            try:
                return ctypes.CDLL(path)
            except OSError:
                continue
    return None


@functools.cache
def includes() -> list[str]:
    """The folder of CUDA's headers, with what they include themselves."""
    for folder in _folders("include"):
        if os.path.exists(os.path.join(folder, "cuda_fp16.h")):
            return [folder, os.path.join(folder, "cccl")]
    return []


def missing() -> str | None:
    """What is lacking, as a sentence; None when everything is there."""
    if library() is None or not includes():
        return (
            "no NVRTC and CUDA headers: pip install nvidia-cuda-nvrtc nvidia-cuda-runtime "
            "nvidia-cuda-cccl nvidia-cuda-crt"
        )
    return None


def version() -> str:
    major, minor = ctypes.c_int(), ctypes.c_int()
    library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def compile(text: str, arch: int, name: str = "kernel.cu") -> dict[str, tuple[int, int]]:
    """{kernel: (registers, bytes spilled)} of a text for sm_<arch>.

    CompileError for an error and for a warning.
    """
    nvrtc, program = library(), ctypes.c_void_p()
    _call("nvrtcCreateProgram", ctypes.byref(program), text.encode(), name.encode(), 0, None, None)
    options = [f"-arch=sm_{arch}", "-std=c++17", "-ftz=true", "--ptxas-options=-v"]
    options += [f"-I{folder}" for folder in includes()]
    words = (ctypes.c_char_p * len(options))(*(o.encode() for o in options))
    try:
        status = nvrtc.nvrtcCompileProgram(program, len(options), words)
        log = _text("nvrtcGetProgramLog", program)
        if status or re.search(r"\bwarning\b", log):
            raise CompileError(f"sm_{arch}: {log.strip()}")
        return _measured(log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _call(name: str, *args: object) -> None:
    status = getattr(library(), name)(*args)
    if status:
        library().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"{name}: {library().nvrtcGetErrorString(status).decode()}")


def _text(name: str, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _call(f"{name}Size", program, ctypes.byref(size))
    buffer = ctypes.create_string_buffer(size.value)
    _call(name, program, buffer)
    return buffer.value.decode()


def _measured(log: str) -> dict[str, tuple[int, int]]:
    """Registers and spilled bytes of each kernel, from ptxas's lines."""
    found: dict[str, tuple[int, int]] = {}
    kernel, spilled = "", 0
    for line in log.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            kernel, spilled = match[1], 0
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spilled = int(match[1]) + int(match[2])
        elif (match := re.search(r"Used (\d+) registers", line)) and kernel:
            found[kernel] = (int(match[1]), spilled)
            kernel = ""
    return found
