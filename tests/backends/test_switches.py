"""The state behind gpunn.backends."""

import pytest

from gpunn import backends
from gpunn.backends import switches


@pytest.fixture(autouse=True)
def restore(monkeypatch):
    for name in ("allow_tf32", "benchmark", "deterministic", "cudnn_enabled", "benchmark_limit"):
        monkeypatch.setattr(switches, name, getattr(switches, name))


def test_every_name_of_tf32_is_the_same_switch_and_it_is_off():
    places = (backends.cuda, backends.cudnn, backends.cuda.matmul)
    assert not any(place.allow_tf32 for place in places)
    for chosen in places:
        chosen.allow_tf32 = True
        assert switches.allow_tf32 and all(place.allow_tf32 for place in places)
        chosen.allow_tf32 = False


def test_benchmark_is_one_switch():
    backends.cudnn.benchmark = True
    assert switches.benchmark and backends.cuda.benchmark
    backends.cuda.benchmark = False
    assert not backends.cudnn.benchmark


@pytest.mark.parametrize("place", [backends.cuda, backends.cudnn, backends.cuda.matmul])
def test_a_switch_takes_a_bool(place):
    with pytest.raises(RuntimeError, match="expects a bool, but got str"):
        place.allow_tf32 = "yes"
    assert switches.allow_tf32 is False


def test_dir_shows_the_switches():
    assert {"allow_tf32", "benchmark", "is_built"} <= set(dir(backends.cuda))
