"""oneDNN, which is not used: kernels/*.cpp are.

Source: https://docs.pytorch.org/docs/stable/backends.html#torch-backends-mkldnn
"""

from __future__ import annotations


def is_available() -> bool:
    """False.

    >>> gpunn.backends.mkldnn.is_available()
    False
    """
    return False
