"""Compiles kernels for the CPU, once for each text, and keeps the libraries in a cache."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .settings import EmulatorError
from .source import Kernel

HERE = Path(__file__).parent
HEADERS = ("cuda_fp16.h", "vector_types.h", "crt/host_defines.h", "nv/target")
RUNTIME = "libgpunn-emulator.so"
RED_ZONE = 256  # bytes after each shared variable, in the check build
DYNAMIC = (227 << 10) + (1 << 10)  # bytes of dynamic shared memory, with its red zone
A_MONTH = 30 * 24 * 3600  # seconds
_CHECKS = "-fsanitize=thread,bounds,alignment,integer-divide-by-zero"
_HOOKS = ["--param", "tsan-distinguish-volatile=1", "--param", "tsan-instrument-func-entry-exit=0"]
_COPIES = ("memcpy", "memmove", "memset")


class CompileError(EmulatorError):
    """The compiler refused a kernel; the message is the compiler's."""


@functools.cache
def missing() -> str | None:
    """What must be installed before kernels can be emulated, or None."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return "the CUDA emulator runs on Linux, on x86-64 or aarch64"
    if not shutil.which(_compiler()):
        return f"the CUDA emulator needs a C++ compiler: install g++ ({_compiler()} was not found)"
    if not shutil.which("readelf"):
        return "the CUDA emulator needs readelf: install binutils"
    if not headers():
        return (
            "the CUDA emulator needs NVIDIA's headers (cuda_fp16.h): "
            "pip install nvidia-cuda-runtime nvidia-cuda-cccl nvidia-cuda-crt"
        )
    return None


def _compiler() -> str:
    """$CXX if that is a g++: no other compiler has the hooks of the check build."""
    named = os.environ.get("CXX", "")
    return named if re.search(r"(^|[/-])g\+\+(-\d+)?$", named) else "g++"


def _header_folders() -> list[Path]:
    """Where CUDA's headers may lie: in NVIDIA's wheels, or in a toolkit."""
    wheels = ("cu13", "cuda_runtime", "cuda_nvcc", "cuda_cccl")
    found = [Path(p) / "nvidia" / wheel / "include" for p in sys.path for wheel in wheels]
    if "CUDA_PATH" in os.environ:
        found.append(Path(os.environ["CUDA_PATH"]) / "include")
    found.append(Path("/usr/local/cuda/include"))
    nvcc = shutil.which("nvcc")
    if nvcc:
        found.append(Path(nvcc).resolve().parent.parent / "include")
    return [folder for whole in found for folder in (whole, whole / "cccl") if folder.is_dir()]


@functools.cache
def headers() -> tuple[Path, ...]:
    """The folders of cuda_fp16.h and of what it includes; none if something is not found."""
    folders = _header_folders()
    for first in folders:
        holders = [
            next((f for f in [first, *folders] if (f / name).is_file()), None) for name in HEADERS
        ]
        if holders[0] == first and all(holders):
            return tuple(dict.fromkeys(holders))
    return ()


def _flags() -> list[str]:
    includes = [part for folder in (HERE, *headers()) for part in ("-I", str(folder))]
    shadow_stack = ["-fcf-protection=none"] if platform.machine() == "x86_64" else []
    return [
        # undefined behaviour that kernels have and a GPU shows is not to be optimised away
        *("-fno-strict-aliasing", "-fwrapv", "-fno-aggressive-loop-optimizations"),
        "-fno-delete-null-pointer-checks",
        *("-std=c++17", "-march=native", "-fPIC", "-w", "-g1", "-gdwarf-4"),
        *("-U_FORTIFY_SOURCE", "-fno-stack-protector"),  # stacks change by hand
        *shadow_stack,
        *includes,
    ]


def run(*command, **options) -> str:
    """A command's output; CompileError with its words where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise CompileError(f"{Path(command[0]).name} failed:\n{done.stdout}{done.stderr}".strip())
    return done.stdout


@functools.cache
def cache_folder() -> Path:
    """Where libraries are kept; GPUNN_EMULATOR_CACHE names another place."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gpunn" / "emulator"
    folder = Path(os.environ.get("GPUNN_EMULATOR_CACHE", default))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    folder = Path(tempfile.gettempdir()) / f"gpunn-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@functools.cache
def _surroundings() -> str:
    """All that decides what a compilation of kernels gives, but for the text."""
    if missing():
        raise EmulatorError(missing())
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line for line in cpuinfo if line.startswith(("flags", "Features"))), "")
    version = run(_compiler(), "--version")
    sources = [f.read_text() for f in sorted([*HERE.glob("*.h"), Path(__file__)])]
    return "\0".join([*sources, version, cpu, str(headers())])


def _key(*parts: str) -> str:
    text = "\0".join([_surroundings(), *parts])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _forget_old_files():
    """Deletes from the cache what has not been used for a month."""
    for path in cache_folder().iterdir():
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_mtime < time.time() - A_MONTH:
                path.unlink()


def _cached(name: str, build) -> Path:
    """The file of that name in the cache; build(folder) makes it, among others, where it is not."""
    path = cache_folder() / name
    if path.exists():
        with contextlib.suppress(OSError):
            os.utime(path)
            os.utime(path.with_suffix(".json"))
    else:
        with tempfile.TemporaryDirectory(dir=cache_folder()) as temporary:
            build(Path(temporary))
            for made in sorted(Path(temporary).glob(path.stem + ".*")):  # .json before .so
                os.replace(made, path.with_name(made.name))
    return path


def runtime() -> Path:
    """The runtime's library. Kernels find it, loaded, by its other name, whatever version it is."""
    sources = sorted([HERE / "runtime.cpp", *HERE.glob("runtime/*")])
    name = f"runtime-{_key(*(f.read_text() for f in sources))}.so"

    def build(folder):
        _forget_old_files()
        run(
            *(_compiler(), *_flags(), "-O2", "-shared", f"-Wl,-soname,{RUNTIME}", "-pthread"),
            *("-o", str(folder / name), str(HERE / "runtime.cpp"), "-lrt", "-ldl"),
        )

    return _cached(name, build)


def _unit(text: str, kernels: dict[str, Kernel]) -> str:
    """The text as one C++ file that exports its kernels."""
    exports = [f"EMULATOR_KERNEL({k.name}, ({k.bound}))" for k in kernels.values()]
    return "\n".join(
        ['#include "cuda.h"', '#line 1 "kernel.cu"', text, '#line 1 "exports"', "EMULATOR_MODULE()"]
        + exports
        + [""]
    )


def _with_red_zones(assembly: str) -> str:
    """Unused bytes after each thread-local variable: no two shared arrays touch."""
    lines, inside = [], False
    for line in assembly.splitlines():
        if line.startswith(("\t.section", "\t.text", "\t.data", "\t.bss")):
            inside = line.startswith("\t.section\t.tbss")
        lines.append(line)
        if inside and line.startswith("\t.zero\t"):
            lines.append(f"\t.zero\t{RED_ZONE}")
    return "\n".join([*lines, ""])


def _compile(unit: str, check: bool, folder: Path) -> Path:
    flags = ["-x", "c++", *_flags(), "-fvisibility=hidden", "-fno-extern-tls-init"]
    target = folder / "kernel.o"
    if not check:
        run(_compiler(), *flags, "-O1", "-c", "-", "-o", str(target), input=unit, cwd=folder)
        return target
    flags += ["-DGPUNN_EMULATOR_CHECK", _CHECKS, *_HOOKS]
    assembly = run(_compiler(), *flags, "-O1", "-S", "-", "-o", "-", input=unit, cwd=folder)
    assembly = _with_red_zones(assembly)
    run(_compiler(), "-x", "assembler", "-c", "-", "-o", str(target), input=assembly, cwd=folder)
    return target


def _symbols(path: Path) -> list[list[str]]:
    """Rows of a symbol table: number, value, size, kind, binding, visibility, section, name."""
    rows = (line.split(None, 7) for line in run("readelf", "-sW", str(path)).splitlines())
    return [row for row in rows if len(row) == 8 and row[0][:-1].isdigit()]


def _dynamic_buffer(target: Path) -> str:
    """Assembly text: one buffer under every name that `extern __shared__` has in the kernels."""
    undefined = {row[7] for row in _symbols(target) if row[3] == "TLS" and row[6] == "UND"}
    lines = ['.section .tbss, "awT", @nobits', ".balign 128"]
    for name in sorted(undefined | {"emulator_dynamic_shared"}):
        lines += [f".globl {name}", f".hidden {name}", f".type {name}, @object", f"{name}:"]
    return "\n".join([*lines, f".zero {DYNAMIC}", '.section .note.GNU-stack, "", @progbits', ""])


def _facts(library: Path) -> dict:
    """What the runtime must know: where shared variables lie in the thread-local storage."""
    storage = [row for row in _symbols(library) if row[3] == "TLS" and row[6] != "UND"]
    dynamic = next(int(row[1], 16) for row in storage if row[7] == "emulator_dynamic_shared")
    names = run("c++filt", *(row[7] for row in storage)).splitlines()
    shared = [
        (name, int(row[1], 16), int(row[2], 0)) for name, row in zip(names, storage)
    ]
    return {
        "dynamic": dynamic,
        "storage": max([dynamic + DYNAMIC] + [place + size for _, place, size in shared]),
        "shared": [variable for variable in shared if variable[2]],
    }


def compiled(text: str, kernels: dict[str, Kernel], check: bool) -> tuple[Path, dict]:
    """The library of a text's kernels, compiled if it is not in the cache, and facts of it."""
    unit, needs = _unit(text, kernels), runtime()
    name = f"kernel-{_key(unit, str(check))}.so"

    def build(folder):
        target, made = _compile(unit, check, folder), folder / name
        stub = folder / "dynamic.s"
        stub.write_text(_dynamic_buffer(target))
        wrap = [f"-Wl,--wrap={f}" for f in _COPIES] if check else []
        run(
            *(_compiler(), "-shared", "-Wl,-z,now", *wrap, "-o", str(made)),
            *(str(target), str(stub), str(needs), "-lm"),
        )
        made.with_suffix(".json").write_text(json.dumps(_facts(made)))

    path = _cached(name, build)
    return path, json.loads(path.with_suffix(".json").read_text())
