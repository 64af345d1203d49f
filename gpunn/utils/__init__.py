"""Helpers around training: PyTorch's `torch.utils`, and `draw_graph`.

Each is imported when it is first asked for: `import gpunn` stays quick.
"""

import importlib as _importlib
import importlib.util as _importlib_util
from typing import Any as _Any


def __getattr__(name: str) -> _Any:
    if name == "draw_graph":
        return _importlib.import_module("gpunn.utils.graphs").draw_graph
    full = f"{__name__}.{name}"
    if name.startswith("_") or _importlib_util.find_spec(full) is None:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return _importlib.import_module(full)
