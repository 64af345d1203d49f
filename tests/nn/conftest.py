"""Fixtures for the tests of modules."""

import pytest

import gpunn


def _error(call, *args, **kwargs):
    """The type and message of the error that a call raises; None if it raises none."""
    try:
        call(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, str(error)
    return None


@pytest.fixture
def error():
    return _error


@pytest.fixture
def same_as_torch():
    """Runs a scenario, a function of the library that returns plain data, on both libraries."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def compare(scenario):
        ours = scenario(gpunn)
        assert ours == scenario(torch)
        return ours

    return compare
