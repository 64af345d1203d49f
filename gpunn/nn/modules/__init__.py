"""The paths under which PyTorch has its layers: `gpunn.nn.modules.batchnorm` is `gpunn.nn.norm`.

>>> nn.modules.module.Module is nn.modules.Module is nn.Module
True
"""

import sys
from typing import Any

from gpunn import nn

_HOMES = {
    "activation": "activation",
    "adaptive": "loss",
    "batchnorm": "norm",
    "channelshuffle": "shape",
    "container": "container",
    "conv": "conv",
    "distance": "loss",
    "dropout": "dropout",
    "flatten": "shape",
    "fold": "fold",
    "instancenorm": "norm",
    "lazy": "lazy",
    "linear": "linear",
    "loss": "loss",
    "module": "module",
    "normalization": "norm",
    "padding": "pad",
    "pixelshuffle": "shape",
    "pooling": "pool",
    "rnn": "rnn",
    "sparse": "embedding",
    "transformer": "transformer",
    "upsampling": "upsample",
}

for _name, _home in _HOMES.items():
    _module = sys.modules.get(f"gpunn.nn.{_home}")
    if _module is not None:
        globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _module


def __getattr__(name: str) -> Any:
    return getattr(nn, name)
