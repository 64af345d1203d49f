"""Whether this machine can run CUDA, and if not, why and what mends it.

The one place that imports CuPy. Nothing here runs before CUDA is asked about for the first
time: CuPy installed without a driver or without a GPU is an ordinary CPU machine.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import threading
from typing import Any, NamedTuple

from gpunn.device import Device

# CuPy's packages; any two of them overwrite each other's files.
_PACKAGES = (
    "cupy", "cupy-cuda11x", "cupy-cuda12x", "cupy-cuda13x", "cupy-rocm-4-3", "cupy-rocm-5-0",
    "cupy-rocm-7-0", "cupy-rocm-7-1", "amd-cupy",
)  # fmt: skip
_OLDEST_CUPY = (14, 0)
_INSUFFICIENT_DRIVER, _NO_DEVICE = 35, 100  # cudaError_t
_FORKED = (
    "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, you must "
    "use the 'spawn' start method: the parent process has used CUDA before the fork"
)


class Probe(NamedTuple):
    """What was found: `case` is "ok" on a machine that runs CUDA.

    The other cases: "absent" (no CuPy), "several" (CuPy packages), "broken" (CuPy does not
    import), "old" (CuPy), "no driver", "old driver", "no gpu", "hidden" (by
    CUDA_VISIBLE_DEVICES), "no toolkit" (CuPy without CUDA's compiler), "error" (any other).
    `message` says it in words, with the command that mends it. `driver` is the CUDA version
    that the driver supports, 12080 for 12.8, and 0 without a driver.
    """

    case: str
    message: str
    devices: int
    packages: tuple[str, ...]
    driver: int
    cupy: Any


_found: Probe | None = None
_cupy: Any = None  # set once CUDA is in use
_forked = False
_lock = threading.RLock()


def probe() -> Probe:
    """What this machine has for CUDA. Looks once, at the first call; never raises.

    >>> gpunn.cuda.probe().devices == gpunn.cuda.device_count()
    True
    """
    global _found
    if _found is None:
        with _lock:
            if _found is None:
                _found = _look()
    return _found


def is_available() -> bool:
    """Whether there is a GPU that gpunn can use. Never raises.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.cuda.is_available.html

    >>> device = "cuda" if gpunn.cuda.is_available() else "cpu"
    """
    return probe().case == "ok"


def is_initialized() -> bool:
    """Whether this process has used CUDA.

    >>> gpunn.cuda.is_initialized() and not gpunn.cuda.is_available()
    False
    """
    return _cupy is not None


def init() -> None:
    """Starts CUDA now instead of at its first use; RuntimeError, with the reason, if it cannot.

    >>> if gpunn.cuda.is_available():
    ...     gpunn.cuda.init()
    """
    load()


def load() -> Any:
    """The cupy module, ready for use; RuntimeError, with the reason, on a CPU machine."""
    return _cupy if _cupy is not None else _start()


def _start() -> Any:
    global _cupy
    if _forked:
        raise RuntimeError(_FORKED)
    with _lock:
        found = probe()
        if found.case != "ok":
            raise RuntimeError(found.message)
        if _cupy is None:
            from gpunn.cuda import memory
            from gpunn.tensor import ARRAY_TYPES

            ARRAY_TYPES.add(found.cupy.ndarray)
            memory.install(found.cupy)
            _cupy = found.cupy
    return _cupy


def _after_fork() -> None:
    """In a forked child: the parent's CUDA context is unusable there, so every use says so."""
    global _cupy, _forked, _lock
    _lock = threading.RLock()
    if _found is None or _found.case != "ok":
        return
    _forked, _cupy = True, None
    for device in Device._known.values():
        if device.type == "cuda":
            device._xp = None  # the next use asks `load` again


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# --- looking ------------------------------------------------------------------------------


def _look() -> Probe:
    packages = tuple(name for name in _PACKAGES if _is_installed(name))
    driver = _driver_version()
    devices, module = 0, None
    try:
        if len(packages) > 1:
            case = "several"
            reason = _several(packages, driver)
        else:
            module = importlib.import_module("cupy")
            case, reason, devices = _examine(module, packages, driver)
    except ModuleNotFoundError as error:
        absent = error.name == "cupy" and not packages
        case = "absent" if absent else "broken"
        reason = _absent(driver) if absent else _broken(error, packages, driver)
    except Exception as error:  # half an installation fails with anything
        case, reason = "broken", _broken(error, packages, driver)
    return Probe(case, reason, devices, packages, driver, module)


def _examine(cupy: Any, packages: tuple[str, ...], driver: int) -> tuple[str, str, int]:
    """The case, its message and the number of devices, of a CuPy that imports."""
    version = tuple(int(part) for part in cupy.__version__.split(".")[:2] if part.isdigit())
    if version < _OLDEST_CUPY:
        return "old", _old(cupy.__version__, packages, driver), 0
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:
        status = getattr(error, "status", None)
        if status == _INSUFFICIENT_DRIVER:
            return (*_driver_case(cupy, packages, driver), 0)
        if status != _NO_DEVICE:
            return "error", f"CUDA cannot start: {type(error).__name__}: {error}", 0
        devices = 0
    if devices == 0:
        return (*_no_gpu(driver), 0)
    try:
        cupy.cuda.nvrtc.getVersion()
    except Exception as error:
        return "no toolkit", _no_toolkit(error, packages, driver), 0
    return "ok", f"CUDA works: {devices} device{'s' if devices > 1 else ''}", devices


def _is_installed(package: str) -> bool:
    from importlib import metadata  # slow to import, and few scripts come here

    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _driver_version() -> int:
    """The CUDA version that the NVIDIA driver supports, as 12080; 0 without a driver."""
    version = ctypes.c_int(0)
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            if ctypes.CDLL(name).cuDriverGetVersion(ctypes.byref(version)) == 0:
                return version.value
        except (OSError, AttributeError):
            continue
    return 0


# --- saying -------------------------------------------------------------------------------


def _pip(driver: int, remove: tuple[str, ...] = ()) -> str:
    """The command that installs the CuPy that fits the driver, after removing `remove`."""
    first = f"pip uninstall -y {' '.join(remove)} && " if remove else ""
    return f'{first}pip install "gpunn[{"cuda13" if driver >= 13000 else "cuda12"}]"'


def _cuda(version: int) -> str:
    return f"CUDA {version // 1000}.{version % 1000 // 10}"


def _absent(driver: int) -> str:
    if driver:
        return (
            f"CUDA cannot be used: CuPy is not installed. The NVIDIA driver here supports "
            f"{_cuda(driver)}. Install CuPy with: {_pip(driver)}"
        )
    return (
        f"CUDA cannot be used: CuPy is not installed, and there is no NVIDIA driver. "
        f"On a machine with an NVIDIA GPU and its driver, install CuPy with: {_pip(driver)} "
        f'(or "gpunn[cuda13]" where nvidia-smi shows CUDA 13)'
    )


def _several(packages: tuple[str, ...], driver: int) -> str:
    return (
        f"CUDA cannot be used: several CuPy packages are installed, {', '.join(packages)}, and "
        f"each overwrote files of the others. Keep one: {_pip(driver, packages)}"
    )


def _broken(error: Exception, packages: tuple[str, ...], driver: int) -> str:
    lines = [line.strip() for line in str(error).splitlines() if any(map(str.isalpha, line))]
    cause = lines[-1] if lines else "no message"  # CuPy's is long and ends with the cause
    return (
        f"CUDA cannot be used: CuPy is installed but does not import ({type(error).__name__}: "
        f"{cause}). Install it afresh: {_pip(driver, packages or ('cupy',))}"
    )


def _old(version: str, packages: tuple[str, ...], driver: int) -> str:
    return (
        f"CUDA cannot be used: CuPy {version} is too old, gpunn needs "
        f"{'.'.join(map(str, _OLDEST_CUPY))} or newer. Replace it: "
        f"{_pip(driver, packages or ('cupy',))}"
    )


def _driver_case(cupy: Any, packages: tuple[str, ...], driver: int) -> tuple[str, str]:
    if not driver:
        return "no driver", (
            "Found no NVIDIA driver on your system. CuPy is installed, so only the driver is "
            "missing: install it from https://www.nvidia.com/drivers until nvidia-smi lists the "
            "GPU; in a container, start it with --gpus all. Nothing to install with pip"
        )
    needed = cupy.cuda.runtime.runtimeGetVersion()
    mend = "Update the driver from https://www.nvidia.com/drivers"
    if needed >= 13000 > driver >= 12000:
        mend += f", or use a CuPy for CUDA 12: {_pip(driver, packages)}"
    return "old driver", (
        f"The NVIDIA driver on your system is too old (found version {driver}): it supports "
        f"{_cuda(driver)}, the installed CuPy needs {_cuda(needed - needed % 1000)}. {mend}"
    )


def _no_gpu(driver: int) -> tuple[str, str]:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return "hidden", (
            f"No CUDA GPUs are available: CUDA_VISIBLE_DEVICES={visible!r} hides all of them. "
            f"Unset it, or list devices such as 0, before Python starts"
        )
    return "no gpu", (
        f"No CUDA GPUs are available: CuPy and the NVIDIA driver ({_cuda(driver)}) are "
        f"installed, but the driver finds no GPU. Nothing to install with pip; nvidia-smi says "
        f"what the driver sees"
    )


def _no_toolkit(error: Exception, packages: tuple[str, ...], driver: int) -> str:
    extra = "cuda13" if "cupy-cuda13x" in packages else "cuda12"
    return (
        f"CUDA cannot be used: CuPy is installed without CUDA's compiler and headers "
        f'({str(error).strip()}). Add them with: pip install "gpunn[{extra}]"'
    )
