"""The paths under which PyTorch has its layers: `gpunn.nn.modules.flatten` is `gpunn.nn.shape`.

>>> nn.modules.module.Module is nn.modules.Module is nn.Module
True
"""

import sys
from importlib import import_module
from typing import Any

from gpunn import nn

_HOMES = {
    "container": "container",
    "flatten": "shape",
    "lazy": "lazy",
    "module": "module",
}

for _name, _home in _HOMES.items():
    _module = import_module(f"gpunn.nn.{_home}")
    globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _module


def __getattr__(name: str) -> Any:
    return getattr(nn, name)
