"""Launchers of kernels/norm.cu; None where the kernels do not serve."""
from typing import Any


def row_norm_forward(*args: Any) -> Any:
    return None


def row_norm_backward(*args: Any) -> Any:
    return None
