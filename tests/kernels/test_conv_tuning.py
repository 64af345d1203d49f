"""Choosing a convolution's tile: by estimate, by measuring once, from the file."""

import json

import numpy as np
import pytest

from gpunn.backends import switches
from gpunn.cuda.kernels import conv as kernels
from gpunn.cuda.kernels import conv_tuning as tuning
from gpunn.cuda.kernels.conv_geometry import forward
from gpunn.native import build

ONE = ((1, 1), (0, 0), (1, 1), 1)


def sizes(samples, channels, side, rows, kernel=1):
    out = side - kernel + 1
    w = (rows, channels, kernel, kernel)
    return forward((samples, channels, side, side), w, (out, out), *ONE)


@pytest.mark.parametrize("family", ["plain", "tensor"])
def test_large_products_get_large_tiles_and_small_ones_small(emulated, family):
    def chosen(*shape, kind="forward"):
        return tuning.choose(family, kind, sizes(*shape), np.dtype("f4"), lambda tile: None)

    assert chosen(64, 256, 56, 256).values[:2] == (128, 128)
    assert chosen(1, 64, 16, 64).bm * chosen(1, 64, 16, 64).bn < 128 * 128
    assert chosen(64, 256, 56, 32).bm == 32
    assert chosen(64, 64, 56, 256, 3, kind="weight_grad").values[:2] == (128, 128)


def test_shares_of_a_weight_gradient(emulated):
    tile = tuning.TILES["plain"][0]
    assert tuning.splits(sizes(1, 8, 4, 8), tile, 8) == 1  # too few places to share
    assert tuning.splits(sizes(64, 64, 56, 64), tile, 64) == 16  # two rounds of 4 x 2 blocks
    assert tuning.splits(sizes(64, 2048, 56, 1 << 14), tile, 2048) == 1


def forget(monkeypatch):
    """As another process starts."""
    forward.cache_clear()
    monkeypatch.setattr(tuning, "_known", {})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "cache_dir", lambda: tmp_path / "new")
    monkeypatch.setattr(switches, "benchmark", True)
    forget(monkeypatch)
    yield tmp_path / "new"
    forward.cache_clear()


def product(xp):
    x, w = (xp.asarray(np.ones(s, np.float32)) for s in ((1, 3, 6, 6), (4, 3, 3, 3)))
    return kernels.conv_forward(x, w, None, *ONE, (4, 4))


def test_benchmark_times_every_tile_once_and_remembers(emulated, folder, monkeypatch):
    timed = []

    def milliseconds(run):
        run()
        timed.append(run.args[-1])
        return float(len(timed) != 2)  # the second is the quickest

    monkeypatch.setattr(tuning, "milliseconds", milliseconds)
    np.testing.assert_array_equal(product(emulated.xp).get(), np.full((1, 4, 4, 4), 27))
    assert timed == tuning.TILES["plain"]
    (path,) = folder.iterdir()
    assert path == tuning.cache_file() and list(json.loads(path.read_text()).values()) == [1]
    product(emulated.xp)
    forget(monkeypatch)
    product(emulated.xp)
    assert len(timed) == 3


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"a": "b"}', '{"KEY": 99}', '{"KEY": -1}'])
def test_a_file_that_makes_no_sense_is_measured_anew(emulated, folder, monkeypatch, text):
    monkeypatch.setattr(tuning, "milliseconds", lambda run: 1.0)
    product(emulated.xp)
    (key,) = json.loads(tuning.cache_file().read_text())
    tuning.cache_file().write_text(text.replace("KEY", key))
    forget(monkeypatch)
    product(emulated.xp)
    assert json.loads(tuning.cache_file().read_text())[key] == 0


def test_a_folder_that_cannot_be_made_is_no_error(emulated, folder, monkeypatch):
    folder.write_text("a file")
    monkeypatch.setattr(tuning, "milliseconds", lambda run: 1.0)
    np.testing.assert_array_equal(product(emulated.xp).get(), np.full((1, 4, 4, 4), 27))


def test_a_full_disk_is_no_error(emulated, folder, monkeypatch):
    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tuning, "milliseconds", lambda run: 1.0)
    monkeypatch.setattr(json, "dump", full)
    np.testing.assert_array_equal(product(emulated.xp).get(), np.full((1, 4, 4, 4), 27))
    assert list(folder.iterdir()) == []


class Event:
    """Times that are 3, 1, 4, ... milliseconds."""

    times = iter((3.0, 1.0, 4.0))

    def __init__(self, enable_timing):
        assert enable_timing

    def record(self):
        pass

    synchronize = record

    def elapsed_time(self, end):
        return next(self.times)


def test_milliseconds_is_the_least_time_without_the_first_call(monkeypatch):
    monkeypatch.setattr(tuning, "Event", Event)
    calls = []
    assert tuning.milliseconds(lambda: calls.append(1), rounds=3) == 1
    assert len(calls) == 4
