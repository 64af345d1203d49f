"""Launchers of kernels/batch_norm.cu; None where the kernels do not serve."""
from typing import Any


def batch_norm_stats(*args: Any) -> Any:
    return None


def batch_norm_apply(*args: Any) -> Any:
    return None


def batch_norm_forward(*args: Any) -> Any:
    return None


def batch_norm_backward(*args: Any) -> Any:
    return None
