"""Intel's MKL, which is not used: NumPy's own BLAS is.

Source: https://docs.pytorch.org/docs/stable/backends.html#torch-backends-mkl
"""

from __future__ import annotations


def is_available() -> bool:
    """False.

    >>> gpunn.backends.mkl.is_available()
    False
    """
    return False
