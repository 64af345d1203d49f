"""What this gpunn is made of: PyTorch's `torch.__config__`."""

from __future__ import annotations

import os

from gpunn import __version__, cuda, native, threads


def show() -> str:
    """A text about what gpunn computes with: NumPy and its BLAS, the C++ code, CUDA.

    `gpunn.show_config()` prints it; `gpunn.doctor()` says more.
    Source: https://docs.pytorch.org/docs/stable/config_mod.html

    >>> gpunn.__config__.show().splitlines()[0]
    'gpunn 0.1.0 works with:'
    """
    import numpy

    blas = [f"{lib['internal_api']} {lib['version']}" for lib in threads.blas_libraries()]
    kernels = native.kernels_dir()
    count = {kind: len(list(kernels.glob(f"*.{kind}"))) for kind in ("cpp", "cu")}
    lines = [
        f"NumPy {numpy.__version__}, BLAS: {', '.join(blas) or 'unknown'}",
        f"C++ code: {native.status()}",
        f"CUDA: {cuda.probe().message}",
        f"kernels: {count['cpp']} files of C++ and {count['cu']} of CUDA in {kernels}",
        f"threads: {threads.get_num_threads()}",
    ]
    return "\n".join([f"gpunn {__version__} works with:", *(f"  - {line}" for line in lines), ""])


def parallel_info() -> str:
    """A text about threads: how many an operation may use, and what set that.

    >>> "get_num_threads()" in gpunn.__config__.parallel_info()
    True
    """
    lines = [
        f"gpunn.get_num_threads(): {threads.get_num_threads()}",
        f"cores of this process: {threads.cores()} of {os.cpu_count()}",
        *(f"{lib['internal_api']}: {lib['num_threads']} threads"
          for lib in threads.blas_libraries()),
    ]  # fmt: skip
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GPUNN_NUM_THREADS"):
        lines.append(f"{name}: {os.environ.get(name, '[not set]')}")
    return "\n".join([*lines, ""])


def show_config() -> None:
    """Prints `gpunn.__config__.show()`: what gpunn computes with.

    Source: https://docs.pytorch.org/docs/stable/config_mod.html

    >>> gpunn.show_config()  # doctest: +ELLIPSIS
    gpunn 0.1.0 works with:
      - NumPy ...
    """
    print(show(), end="")
