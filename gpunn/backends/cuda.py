"""CUDA: `allow_tf32`, `benchmark`, `matmul`, `is_built()`, and which attention may be used.

Source: https://docs.pytorch.org/docs/stable/backends.html#torch-backends-cuda
"""

from __future__ import annotations

import sys
from typing import Any

from gpunn.backends.switches import Switchboard, shared


class _Module(Switchboard):
    allow_tf32 = shared("allow_tf32")
    benchmark = shared("benchmark")


class _Matmul:
    """How matrix products are computed: `allow_tf32` is the switch of `backends.cuda`.

    Sums of float16 and bfloat16 products are made in float32 here, whatever the other two say.
    """

    __slots__ = ()
    allow_tf32 = shared("allow_tf32")
    allow_fp16_reduced_precision_reduction = shared("reduced_float16", None)
    allow_bf16_reduced_precision_reduction = shared("reduced_bfloat16", None)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"Unknown attribute {name}")

    def __setattr__(self, name: str, value: Any) -> None:
        if not isinstance(getattr(type(self), name, None), property):
            raise AttributeError(f"Unknown attribute {name}")
        super().__setattr__(name, value)


matmul = _Matmul()


def is_built() -> bool:
    """Whether the library can use CUDA at all, on a machine that has it: always.

    Source: https://docs.pytorch.org/docs/stable/backends.html#torch.backends.cuda.is_built

    >>> gpunn.backends.cuda.is_built()
    True
    """
    return True


_attention = {"flash": True, "math": True, "mem_efficient": True, "cudnn": True}


def flash_sdp_enabled() -> bool:
    """What `enable_flash_sdp` set."""
    return _attention["flash"]


def enable_flash_sdp(enabled: bool) -> None:
    """Kept and returned: there is one attention, which is exact either way."""
    _attention["flash"] = bool(enabled)


def math_sdp_enabled() -> bool:
    """What `enable_math_sdp` set."""
    return _attention["math"]


def enable_math_sdp(enabled: bool) -> None:
    """Kept and returned: there is one attention, which is exact either way."""
    _attention["math"] = bool(enabled)


def mem_efficient_sdp_enabled() -> bool:
    """What `enable_mem_efficient_sdp` set."""
    return _attention["mem_efficient"]


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Kept and returned: there is one attention, which is exact either way."""
    _attention["mem_efficient"] = bool(enabled)


def cudnn_sdp_enabled() -> bool:
    """What `enable_cudnn_sdp` set."""
    return _attention["cudnn"]


def enable_cudnn_sdp(enabled: bool) -> None:
    """Kept and returned: there is one attention, which is exact either way."""
    _attention["cudnn"] = bool(enabled)


sys.modules[__name__].__class__ = _Module
