"""gpunn.backends.cpu."""

import pytest

from gpunn import backends


def test_capability_is_pytorchs():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    assert backends.cpu.get_cpu_capability() == torch.backends.cpu.get_cpu_capability()
