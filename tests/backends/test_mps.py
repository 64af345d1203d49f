"""gpunn.backends.mps: the question that scripts ask."""

from gpunn import backends


def test_it_is_not_used():
    assert backends.mps.is_available() is False
    assert backends.mps.is_built() is False
