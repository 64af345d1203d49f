"""The paths under which PyTorch has its layers: `gpunn.nn.modules.batchnorm` is `gpunn.nn.norm`.

>>> nn.modules.module.Module is nn.modules.Module is nn.Module
True
"""

import sys
from types import ModuleType
from typing import Any

from gpunn import nn

_HOMES = {
    "activation": ["activation", "rectifier", "smooth", "gate", "softmax", "softmin", "multihead"],
    "adaptive": ["adaptive"],
    "batchnorm": ["norm", "sync_norm", "switchable_norm"],
    "channelshuffle": ["pixel_shuffle"],
    "container": ["container", "parameter_container"],
    "conv": ["conv_modules", "conv_transpose"],
    "distance": ["distance"],
    "dropout": ["dropout", "feature_dropout"],
    "flatten": ["shape"],
    "fold": ["fold"],
    "instancenorm": ["instance_norm"],
    "lazy": ["lazy"],
    "linear": ["linear"],
    "linear_cross_entropy_options": ["linear_cross_entropy"],
    "loss": [
        "loss", "cross_entropy", "likelihood_loss", "margin_loss", "triplet", "ctc_loss",
        "linear_cross_entropy",
    ],
    "module": ["module"],
    "normalization": ["layer_norm", "group_norm", "local_response_norm"],
    "padding": ["pad"],
    "pixelshuffle": ["pixel_shuffle"],
    "pooling": ["pool", "adaptive_pool", "lp_pool", "unpool", "fractional_pool"],
    "rnn": ["rnn", "rnn_cell"],
    "sparse": ["embedding", "embedding_bag"],
    "transformer": ["transformer"],
    "upsampling": ["interpolate"],
}  # fmt: skip


def _at(path: str, homes: list[str]) -> ModuleType | None:
    """Our file, or what several of ours have together."""
    names = [f"gpunn.nn.{home}" for home in homes]
    found = [sys.modules[name] for name in names if name in sys.modules]
    if len(found) < 2:
        return found[0] if found else None
    joined = ModuleType(path)
    for module in found:
        joined.__dict__.update({k: v for k, v in vars(module).items() if k[:2] != "__"})
    return joined


for _name, _homes in _HOMES.items():
    _module = _at(f"{__name__}.{_name}", _homes)
    if _module is not None:
        globals()[_name] = sys.modules[f"{__name__}.{_name}"] = _module

from gpunn.nn.modules import utils as utils  # noqa: E402  (PyTorch's file, not `nn.utils`)


def __getattr__(name: str) -> Any:
    return getattr(nn, name)
