"""Apple's GPUs, which are not supported.

Source: https://docs.pytorch.org/docs/stable/backends.html#torch-backends-mps
"""

from __future__ import annotations


def is_available() -> bool:
    """False.

    >>> gpunn.backends.mps.is_available()
    False
    """
    return False


def is_built() -> bool:
    """False.

    >>> gpunn.backends.mps.is_built()
    False
    """
    return False
