"""Which tile a convolution kernel works with: estimated, or measured once and remembered.

A tile is the block of results that a thread block computes. Large ones read less for each
multiplication, small ones leave fewer multiprocessors idle and waste less at the edges. `choose`
estimates from the shapes; with `gpunn.backends.cuda.benchmark = True` it times every tile at the
first call with a shape and keeps the quickest in the user's cache folder, by device, shape, dtype
and the kernels' text.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from gpunn.backends import switches
from gpunn.cuda import detect
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels.conv_geometry import Sizes
from gpunn.cuda.streams import Event
from gpunn.native.loader import source as read


class Tile(NamedTuple):
    """A tile of bm x bn results and how the threads share it."""

    family: str
    names: tuple[str, ...]
    values: tuple[int, ...]
    threads: int
    resident: int  # blocks that share a multiprocessor
    cost: float  # of a result, relative to the best tile's

    @property
    def bm(self) -> int:
        """The rows: channels of the result."""
        return self.values[0]

    @property
    def bn(self) -> int:
        """The columns: places."""
        return self.values[1]

    @property
    def constants(self) -> dict[str, int]:
        """As the kernel file names them."""
        return dict(zip(self.names, self.values, strict=True))

    def count(self, sizes: Sizes) -> int:
        """The tiles of a forward product."""
        blocks = sizes.groups * sizes.classes
        return blocks * -(-sizes.rows // self.bm) * -(-sizes.places // self.bn)

    def count_weights(self, sizes: Sizes, width: int) -> int:
        """The tiles of a weight gradient, whose rows have `width` columns of taps and channels."""
        return sizes.groups * -(-sizes.rows // self.bm) * -(-width // self.bn)


PLAIN_NAMES = ("BM", "BN", "BK", "TM", "TN")
PLAIN = {
    (128, 128, 8, 8, 8): (2, 1.0),
    (64, 64, 16, 4, 4): (4, 1.3),
    (32, 128, 16, 4, 4): (4, 1.4),
}
TENSOR_NAMES = ("BM", "BN", "WM", "WN")
TENSOR = {
    (128, 128, 64, 64): (2, 1.0),
    (128, 128, 64, 32): (2, 1.05),
    (64, 128, 32, 64): (3, 1.15),
    (64, 64, 32, 32): (4, 1.4),
    (32, 128, 32, 32): (4, 1.5),
}
TILES = {
    "plain": [
        Tile("plain", PLAIN_NAMES, v, v[0] // v[3] * (v[1] // v[4]), *rest)
        for v, rest in PLAIN.items()
    ],
    "tensor": [
        Tile("tensor", TENSOR_NAMES, v, v[0] // v[2] * (v[1] // v[3]) * 32, *rest)
        for v, rest in TENSOR.items()
    ],
    "direct": [Tile("direct", (), (1, 1024), 256, 4, 1.0)],
}
_STEP = 32  # places that a weight gradient's tile takes at a time, or a multiple of what it takes
_LEAST_STEPS = 8  # that are worth a block of their own
_MOST_BYTES = 1 << 28  # of the shares of a weight gradient


def estimated(tile: Tile, blocks: int) -> float:
    """The time of that many blocks: rounds of all multiprocessors times a round's results."""
    rounds = -(-blocks // (launch.multiprocessors() * tile.resident))
    return rounds * tile.resident * tile.bm * tile.bn * tile.cost


def splits(sizes: Sizes, tile: Tile, width: int) -> int:
    """Among how many blocks the places of a weight gradient's tile are shared."""
    tiles = tile.count_weights(sizes, width)
    wanted = -(-2 * launch.multiprocessors() * tile.resident // tiles)
    useful = sizes.places // (_STEP * _LEAST_STEPS)
    return max(1, min(wanted, useful, _MOST_BYTES // (8 * sizes.groups * sizes.rows * width)))


def choose(
    family: str, kind: str, sizes: Sizes, dtype: Any, run: Callable[[Tile], None]
) -> Tile:
    """The tile for a product of a kind, "forward" or "weight_grad"; `run(tile)` computes it."""
    tiles = TILES[family]
    if len(tiles) == 1:
        return tiles[0]
    key = (family, kind, dtype, launch.multiprocessors(), switches.benchmark)
    tile = sizes.chosen.get(key)
    if tile is None:
        if switches.benchmark:
            tile = _measured(tiles, f"{family} {kind} {dtype} {sizes.name}", run)
        elif kind == "forward":
            tile = min(tiles, key=lambda t: estimated(t, t.count(sizes)))
        else:
            tile = min(tiles, key=lambda t: _waste(t, sizes.rows, sizes.taps * sizes.depth))
        sizes.chosen[key] = tile
    return tile


def _waste(tile: Tile, rows: int, width: int) -> float:
    """The cost of a weight gradient, whose blocks are as many as wanted: the results computed."""
    return -(-rows // tile.bm) * tile.bm * -(-width // tile.bn) * tile.bn * tile.cost


# --- measuring ----------------------------------------------------------------------------

_known: dict[Path, dict[str, int]] = {}


def _measured(tiles: list[Tile], key: str, run: Callable[[Tile], None]) -> Tile:
    """The quickest tile, from the file of this device or by timing each."""
    path = cache_file()
    known = _known.get(path)
    if known is None:
        known = _known[path] = _load(path)
    if known.get(key, len(tiles)) >= len(tiles):
        times = [milliseconds(partial(run, tile)) for tile in tiles]
        known[key] = times.index(min(times))
        _save(path, known)
    return tiles[known[key]]


def milliseconds(run: Callable[[], None], rounds: int = 5) -> float:
    """The least time of a call on the GPU, by events, after a first one that may compile."""
    run()
    times = []
    for _ in range(rounds):
        start, end = Event(enable_timing=True), Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return min(times)


def cache_file() -> Path:
    """The file, in the user's cache folder, of the current device and of these kernels' text."""
    from gpunn.native.build import cache_dir

    runtime = detect.load().cuda.runtime
    name = runtime.getDeviceProperties(runtime.getDevice())["name"]
    name = name.decode() if isinstance(name, bytes) else str(name)
    words = "".join(c if c.isalnum() else "-" for c in name)
    return cache_dir() / f"conv-{words}-{_text_hash()}.json"


@cache
def _text_hash() -> str:
    import hashlib

    names = ("common.cuh", "mma.cuh", "conv.cuh", "conv.cu", "conv_tensor.cu")
    tiles = repr((tuple(PLAIN), tuple(TENSOR)))  # the file has their numbers
    return hashlib.sha256("".join((*map(read, names), tiles)).encode()).hexdigest()[:16]


def _load(path: Path) -> dict[str, int]:
    """What the file says; nothing where it is missing or no such file."""
    import json

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {k: v for k, v in found.items() if type(v) is int and v >= 0}


def _save(path: Path, known: dict[str, int]) -> None:
    """Writes the file whole, or leaves it: what cannot be written, a full disk, is no error."""
    import json
    import tempfile

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
    except OSError:
        return
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(_load(path) | known, file, indent=0)
        os.replace(name, path)
    except OSError:
        os.unlink(name)
