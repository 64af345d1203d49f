"""Attention through kernels/attention.cu and kernels/attention_backward.cu."""

from __future__ import annotations

from typing import Any


def threshold(keep: float) -> int:
    """The number that a random 32-bit word must be below for its weight to be kept."""
    return min(round(keep * 2**32), 2**32)


def attention_forward(q: Any, k: Any, v: Any, mask: Any, drop: Any, call: Any) -> Any:
    return None


def attention_backward(*args: Any) -> Any:
    return None
