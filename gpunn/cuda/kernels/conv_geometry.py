"""The sizes of a convolution as kernels/conv.cuh reads them: `struct Conv`.

The text at the top of conv.cuh says what the numbers mean.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

Ints = tuple[int, ...]
_DIVISION = np.dtype([("times", "u4"), ("shift", "i4"), ("by", "i4")])
_TRIPLES = ("source", "result", "kernel", "places", "step", "phases", "origin", "reach",
            "tap_step", "stretch")  # fmt: skip
CONV = np.dtype(
    [(name, "i4") for name in ("samples", "groups", "rows", "depth")]
    + [(name, "i4", (3,)) for name in _TRIPLES]
    + [(name, _DIVISION) for name in ("per_sample", "per_plane", "per_row", "per_tap")]
)
LIMIT = 1 << 29  # of a size, so that sums of two coordinates stay far from 2^31
MOST_TAPS = 1 << 20


def division(by: int) -> tuple[int, int, int]:
    """(times, shift, by) with (high half of n * times + n) >> shift == n // by, for n < 2^31."""
    shift = (by - 1).bit_length()
    return ((1 << 32) * ((1 << shift) - by) // by + 1) & 0xFFFFFFFF, shift, by


def _three(values: Ints, fill: int) -> Ints:
    return (fill,) * (3 - len(values)) + values


class Sizes:
    """What one convolution's sizes say, made once for them.

    `rows` and `depth`: the channels of the result and of the source in a group; `places`: those of
    all samples in one class of results, of which there are `classes`; `plane`: the places of a
    sample of the source; `fits`: whether the kernels' 32-bit counts hold; `square`: the side of a
    square kernel with a single class, else 0; `pointwise`: 1x1, stride 1, no padding; `chosen`:
    the tiles, kept by tuning; `name`: all the numbers in words.
    """

    __slots__ = ("samples", "groups", "rows", "depth", "taps", "places", "classes", "plane", "fits",
                 "square", "pointwise", "chosen", "name", "_fields", "_structs")  # fmt: skip

    def __init__(self, fields: dict[str, Any]):
        self._fields = fields
        self._structs: dict[int, np.ndarray] = {}
        self.chosen: dict[Any, Any] = {}
        self.samples, self.groups = fields["samples"], fields["groups"]
        self.rows, self.depth = fields["rows"], fields["depth"]
        self.taps, self.classes = math.prod(fields["kernel"]), math.prod(fields["phases"])
        self.places = self.samples * math.prod(fields["places"])
        self.plane = math.prod(fields["source"])
        high, wide = fields["kernel"][1:]
        self.square = high if high == wide and self.classes == 1 else 0
        still = self.taps == self.classes == math.prod(fields["step"]) == 1
        same = fields["source"] == fields["result"] and not any(fields["origin"])
        self.pointwise = still and same
        self.fits = self._fit()
        self.name = "-".join("x".join(map(str, np.atleast_1d(v))) for v in fields.values())

    def _fit(self) -> bool:
        entries = self.taps * (self.depth + 8)  # channels are padded to 16 bytes
        planes = [self._fields[name] for name in ("source", "result")]
        return (
            max(self.places, entries, self.rows) < (1 << 31) - (1 << 16)
            and self.taps < MOST_TAPS
            and all(max(p) < LIMIT and math.prod(p) < 1 << 31 for p in planes)
        )

    def struct(self, per_tap: int = 0) -> np.ndarray:
        """`struct Conv`, a tap being `per_tap` entries of the (tap, channel) axis (0: `depth`)."""
        found = self._structs.get(per_tap)
        if found is None:
            found = self._structs[per_tap] = self._made(per_tap or self.depth)
        return found

    def _made(self, per_tap: int) -> np.ndarray:
        conv, places = np.zeros((), CONV), self._fields["places"]
        for name, value in self._fields.items():
            conv[name] = value
        for name, by in (
            ("per_sample", math.prod(places)), ("per_plane", places[1] * places[2]),
            ("per_row", places[2]), ("per_tap", per_tap),
        ):  # fmt: skip
            conv[name] = division(max(by, 1))
        return conv


@lru_cache(maxsize=4096)
def forward(
    x: Ints, w: Ints, out: Ints, stride: Ints, before: Ints, dilation: Ints, groups: int
) -> Sizes:
    """The convolution of x (N, C, *size) with w (O, C / groups, *kernel); its weight gradient."""
    ones = (1, 1, 1)
    steps, reach = _three(stride, 1), _three(dilation, 1)
    fields = {
        "samples": x[0], "groups": groups, "rows": w[0] // groups, "depth": w[1],
        "source": _three(x[2:], 1), "result": _three(out, 1), "kernel": _three(w[2:], 1),
        "places": _three(out, 1), "step": steps, "phases": ones,
        "origin": tuple(-p for p in _three(before, 0)), "reach": reach, "tap_step": ones,
        "stretch": reach,
    }  # fmt: skip
    return Sizes(fields)


@lru_cache(maxsize=4096)
def input_grad(
    dy: Ints, w: Ints, size: Ints, stride: Ints, before: Ints, dilation: Ints, groups: int
) -> Sizes:
    """The transposed convolution of dy (N, O, *out) with w (O, C / groups, *kernel)."""
    phases, reach = _three(stride, 1), _three(dilation, 1)
    size = _three(size, 1)
    tap_step = tuple(s // math.gcd(s, d) for s, d in zip(phases, reach, strict=True))
    fields = {
        "samples": dy[0], "groups": groups, "rows": w[1], "depth": w[0] // groups,
        "source": _three(dy[2:], 1), "result": size, "kernel": _three(w[2:], 1),
        "places": tuple(-(-n // s) for n, s in zip(size, phases, strict=True)),
        "step": (1, 1, 1), "phases": phases, "origin": _three(before, 0),
        "reach": tuple(-d for d in reach), "tap_step": tap_step,
        "stretch": tuple(
            -d * t // s for d, t, s in zip(reach, tap_step, phases, strict=True)
        ),
    }  # fmt: skip
    return Sizes(fields)
