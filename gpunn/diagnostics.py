"""`gpunn.doctor()`: what this machine offers to gpunn, and what is missing.

From a shell: `python -m gpunn.diagnostics`.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable

from gpunn import __version__, cuda, native, threads
from gpunn.cuda.memory import human

_SETTINGS = (
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "GPUNN_NATIVE", "GPUNN_NUM_THREADS", "CUPY_CACHE_DIR", "CUPY_GPU_MEMORY_LIMIT",
)  # fmt: skip


class Report(dict[str, str]):
    """What the doctor found, by title; `str(report)` is the text that it printed."""

    def __str__(self) -> str:
        width = max(map(len, self))
        gap = "\n" + " " * (width + 2)
        return "\n".join(
            f"{title:{width}}  {gap.join(text.splitlines())}" for title, text in self.items()
        )

    def __repr__(self) -> str:  # short, because the prompt shows it after the printed text
        return f"<Report of {len(self)} findings>"


def doctor() -> Report:
    """Prints and returns what this machine offers: versions, BLAS, C++ code, CUDA, memory.

    Where CUDA cannot be used, it says why, and the command that mends it. Never raises.

    >>> report = gpunn.doctor()  # doctest: +ELLIPSIS
    gpunn...
    >>> "numpy" in report
    True
    """
    sections: dict[str, Callable[[], str]] = {
        "gpunn": lambda: f"{__version__} in {os.path.dirname(os.path.abspath(__file__))}",
        "python": lambda: f"{platform.python_version()} ({sys.executable})",
        "system": lambda: f"{platform.platform()}, {_cpu()}",
        "memory": _memory,
        "numpy": lambda: _version("numpy"),
        "BLAS": _blas,
        "ml_dtypes": lambda: _version("ml_dtypes"),
        "safetensors": lambda: _version("safetensors"),
        "C++ code": native.status,
        "CUDA": lambda: cuda.probe().message,
        "CuPy": _cupy,
        "NVIDIA driver": _driver,
        "devices": _devices,
        "environment": _environment,
    }
    report = Report({title: _tried(find) for title, find in sections.items()})
    print(report)
    return report


def _tried(find: Callable[[], str]) -> str:
    try:
        return find()
    except Exception as error:  # a sick machine is what the doctor is for
        return f"cannot be found out: {type(error).__name__}: {error}"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed as a package"


def _cpu() -> str:
    return f"{platform.machine()}, {threads.cores()} of {os.cpu_count()} cores"


def _memory() -> str:
    if not hasattr(os, "sysconf"):
        return "unknown on this system"
    page, names = os.sysconf("SC_PAGE_SIZE"), os.sysconf_names
    total = human(page * os.sysconf("SC_PHYS_PAGES"))
    if "SC_AVPHYS_PAGES" not in names:
        return total
    return f"{total}, {human(page * os.sysconf('SC_AVPHYS_PAGES'))} unused"


def _blas() -> str:
    found = [
        f"{lib['internal_api']} {lib['version']} ({lib.get('architecture', 'any CPU')}), "
        f"{lib['num_threads']} threads, {lib['filepath']}"
        for lib in threads.blas_libraries()
    ]
    return "\n".join(found) or "none that threadpoolctl knows: its threads cannot be set"


def _cupy() -> str:
    packages = [f"{name} {_version(name)}" for name in cuda.probe().packages]
    return ", ".join(packages) or "not installed"


def _driver() -> str:
    version = cuda.probe().driver
    return f"for CUDA {version // 1000}.{version % 1000 // 10}" if version else "not found"


def _devices() -> str:
    lines = ["cpu"]
    for index in range(cuda.device_count()):
        found = cuda.get_device_properties(index)
        free, total = cuda.mem_get_info(index)
        lines.append(
            f"cuda:{index} {found.name}, compute capability {found.major}.{found.minor}, "
            f"{human(free)} of {human(total)} free"
        )
    return "\n".join(lines)


def _environment() -> str:
    found = [f"{name}={os.environ[name]}" for name in _SETTINGS if name in os.environ]
    return ", ".join(found) or "nothing set that matters"


if __name__ == "__main__":
    doctor()
