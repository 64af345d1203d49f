"""gpunn.backends.cudnn: flags for a while."""

import pytest

import gpunn.backends.cudnn as cudnn
from gpunn import cuda


def now():
    names = ("enabled", "benchmark", "benchmark_limit", "deterministic", "allow_tf32")
    return tuple(getattr(cudnn, name) for name in names)


def test_flags_hold_inside_and_are_undone():
    before = now()
    with cudnn.flags(benchmark=True, deterministic=True, allow_tf32=True):
        assert now() == (False, True, 10, True, True)
    assert now() == before
    with pytest.raises(KeyError), cudnn.flags(enabled=True, benchmark=True):
        raise KeyError
    assert now() == before


def test_set_flags_returns_what_was():
    before = cudnn.set_flags(_benchmark=True)
    assert before == (True, False, 10, False, False)
    assert cudnn.set_flags(*before)[1] is True
    assert now() == before


def test_availability():
    assert cudnn.is_available() == cuda.is_available()
    assert cudnn.version() is None
