"""The `emulated` fixture for the kernels' tests."""

from emulated import emulated  # noqa: F401
