"""OpenMP, which is not used: kernels/threads.cpp has its own threads.

Source: https://docs.pytorch.org/docs/stable/backends.html#torch-backends-openmp
"""

from __future__ import annotations


def is_available() -> bool:
    """False.

    >>> gpunn.backends.openmp.is_available()
    False
    """
    return False
