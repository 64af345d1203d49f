"""PyTorch's switch of a second way through attention; gpunn has one way, whatever it says.

Source: https://docs.pytorch.org/docs/stable/backends.html
"""

from __future__ import annotations

_enabled = True


def get_fastpath_enabled() -> bool:
    """What `set_fastpath_enabled` was last told; True at first.

    >>> gpunn.backends.mha.get_fastpath_enabled()
    True
    """
    return _enabled


def set_fastpath_enabled(value: bool) -> None:
    """Remembered for `get_fastpath_enabled`; evaluation gives the values of training either way.

    >>> gpunn.backends.mha.set_fastpath_enabled(True)
    """
    global _enabled
    _enabled = value
