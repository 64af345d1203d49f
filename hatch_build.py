"""Compiles kernels/*.cpp into the wheel, for every instruction set of this machine's processor.

With no C++ compiler, or with GPUNN_BUILD_NATIVE=0, the wheel is a pure Python one: its code is
compiled at first use where there is a compiler, and NumPy does the work where there is none. An
editable install compiles nothing either.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """Adds gpunn/_native/*.so, and the platform to the wheel's name."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or version == "editable":
            return
        build = _build_module(Path(self.root))
        cxx = build.compiler()
        levels = build.LEVELS.get(build.machine())
        if cxx is None or levels is None or os.environ.get("GPUNN_BUILD_NATIVE") == "0":
            return
        self._folder = tempfile.TemporaryDirectory(prefix="gpunn-build-")
        for level in levels:
            name = f"gpunn-{build.machine()}-{level}.so"
            path = Path(self._folder.name) / name
            try:
                build.build(Path(self.root) / "kernels", level, path, cxx)
            except build.BuildError as error:
                print(f"gpunn: not compiled for {level}: {error}", file=sys.stderr)
                continue
            build_data["force_include"][str(path)] = f"gpunn/_native/{name}"
            platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if hasattr(self, "_folder"):
            self._folder.cleanup()


def _build_module(root: Path) -> Any:
    """gpunn/native/build.py alone: gpunn itself needs NumPy, which a build does not have."""
    path = root / "gpunn" / "native" / "build.py"
    spec = importlib.util.spec_from_file_location("gpunn_native_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
