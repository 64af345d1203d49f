"""What all tests share."""

import pytest
from emulated import emulated, two_gpus  # noqa: F401

from gpunn import cuda

from .parity.summary import pytest_terminal_summary  # noqa: F401


def pytest_runtest_setup(item):
    """Tests that need GPUs are skipped where there are none, and the reason says why."""
    needed = 2 if item.get_closest_marker("multi_gpu") else bool(item.get_closest_marker("gpu"))
    if needed and not cuda.is_available():
        pytest.skip(cuda.probe().message)
    if cuda.device_count() < needed:
        pytest.skip(f"needs {needed} GPUs, there are {cuda.device_count()}")
