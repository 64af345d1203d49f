"""Compiles kernels/*.cpp into one shared library; standard library only, so a build can use it.

One text is compiled for several instruction sets; the file name says which:
`gpunn-x86_64-v3.so`. Without a prebuilt file the library is compiled at first use and kept in the
user's cache directory, named by the hash of all that went into it.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# The instruction sets of each machine, best last.
LEVELS: dict[str, dict[str, list[str]]] = {
    "x86_64": {
        "v2": ["-msse4.2"],
        "v3": ["-mavx2", "-mfma"],
        "v4": [
            "-mavx2", "-mfma", "-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl",
            "-mprefer-vector-width=512",
        ],
    },
    "aarch64": {"v8": []},
}  # fmt: skip
FLAGS = [
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-tree-loop-distribute-patterns",  # short loops stay loops: a call of memset costs more
    "-pthread",
]


class BuildError(RuntimeError):
    """The compiler refused: the message is what it said."""


def machine() -> str:
    """The processor family under one name: x86_64, aarch64, or what the system calls it."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name, name)


def compiler() -> str | None:
    """The C++ compiler to use: $CXX, or the first of c++, g++, clang++ that is installed."""
    for name in (os.environ.get("CXX"), "c++", "g++", "clang++"):
        if name and sys.platform != "win32" and shutil.which(name.split()[0]):
            return name
    return None


def version(cxx: str) -> str:
    """The first line of what the compiler says of itself; BuildError where it cannot run."""
    lines = _run([*cxx.split(), "--version"]).splitlines()
    return lines[0].strip() if lines else cxx


def key(sources: Path, level: str, cxx: str) -> str:
    """A hash of the source text, the compiler and its flags."""
    digest = hashlib.sha256(repr((FLAGS, LEVELS, machine(), level, cxx, version(cxx))).encode())
    for path in sorted([*sources.glob("*.cpp"), *sources.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:24]


def build(sources: Path, level: str, target: Path, cxx: str) -> None:
    """Compiles kernels/*.cpp for `level` into the file `target`, which appears whole or not at all.

    BuildError with the compiler's words where it fails; OSError where target cannot be written.
    """
    flags = FLAGS + LEVELS.get(machine(), {}).get(level, [])
    files = sorted(sources.glob("*.cpp"))
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=target.parent) as folder:
        objects = [os.path.join(folder, f"{path.stem}.o") for path in files]
        started = [
            subprocess.Popen(
                [*cxx.split(), *flags, "-c", str(path), "-o", object_file],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace",
            )
            for path, object_file in zip(files, objects, strict=True)
        ]  # fmt: skip
        said = [process.communicate()[0] for process in started]
        for process, text in zip(started, said, strict=True):
            if process.returncode != 0:
                raise BuildError(text.strip() or f"{cxx} ended with code {process.returncode}")
        whole = os.path.join(folder, target.name)
        _run([*cxx.split(), "-shared", "-pthread", *objects, "-o", whole])
        os.replace(whole, target)


def cached(sources: Path, level: str, cxx: str) -> Path:
    """The library for `level`, compiled now unless the cache has it; BuildError if that fails.

    Where the cache directory cannot be written, a private temporary directory that lives as long
    as the process takes its place.
    """
    name = f"gpunn-{machine()}-{level}-{key(sources, level, cxx)}.so"
    path = cache_dir() / name
    if path.exists():
        return path
    print("gpunn: compiling the C++ code for this machine, once ...", file=sys.stderr, flush=True)
    try:
        build(sources, level, path, cxx)
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="gpunn-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = folder / name
        build(sources, level, path, cxx)
    return path


def cache_dir() -> Path:
    """Where compiled libraries are kept: $XDG_CACHE_HOME/gpunn, or ~/.cache/gpunn."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path(os.path.expanduser("~")) / ".cache") / "gpunn"


def _run(command: list[str]) -> str:
    """What the command printed; BuildError if it failed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", check=False,
        )  # fmt: skip
    except OSError as error:
        raise BuildError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode != 0:
        raise BuildError(done.stdout.strip() or f"{command[0]} ended with code {done.returncode}")
    return done.stdout
