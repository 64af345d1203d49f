"""Fixtures for the tests of parallel training."""

import pytest

import gpunn.distributed as dist


@pytest.fixture
def alone():
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()
