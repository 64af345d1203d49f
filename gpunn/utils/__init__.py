"""Helpers around training: PyTorch's `torch.utils`.

Each is imported when it is first asked for: `import gpunn` stays quick.
"""

import importlib as _importlib
import importlib.util as _importlib_util
from types import ModuleType as _ModuleType


def __getattr__(name: str) -> _ModuleType:
    full = f"{__name__}.{name}"
    if name.startswith("_") or _importlib_util.find_spec(full) is None:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return _importlib.import_module(full)
