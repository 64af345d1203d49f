"""gpunn.backends.mkldnn: the question that scripts ask."""

from gpunn import backends


def test_it_is_not_used():
    assert backends.mkldnn.is_available() is False
