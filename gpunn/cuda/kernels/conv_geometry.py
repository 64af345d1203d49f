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


def _with(fields: dict[str, Any], per_tap: int) -> np.ndarray:
    """The structure; `per_tap` entries of the (tap, channel) axis belong to a tap."""
    places = fields["places"]
    conv = np.zeros((), CONV)
    for name, value in fields.items():
        conv[name] = value
    for name, by in (
        ("per_sample", math.prod(places)), ("per_plane", places[1] * places[2]),
        ("per_row", places[2]), ("per_tap", per_tap),
    ):  # fmt: skip
        conv[name] = division(max(by, 1))
    return conv


@lru_cache(maxsize=4096)
def forward(
    x: Ints, w: Ints, out: Ints, stride: Ints, before: Ints, dilation: Ints, groups: int,
    per_tap: int = 0,
) -> np.ndarray:  # fmt: skip
    """The convolution of x (N, C, *size) with w (O, C / groups, *kernel), or its weight gradient.

    `per_tap`: how many entries of the (tap, channel) axis belong to a tap, the channels by default.
    """
    ones = (1, 1, 1)
    steps, reach = _three(stride, 1), _three(dilation, 1)
    fields = {
        "samples": x[0], "groups": groups, "rows": w[0] // groups, "depth": w[1],
        "source": _three(x[2:], 1), "result": _three(out, 1), "kernel": _three(w[2:], 1),
        "places": _three(out, 1), "step": steps, "phases": ones,
        "origin": tuple(-p for p in _three(before, 0)), "reach": reach, "tap_step": ones,
        "stretch": reach,
    }  # fmt: skip
    return _with(fields, per_tap or w[1])


@lru_cache(maxsize=4096)
def input_grad(
    dy: Ints, w: Ints, size: Ints, stride: Ints, before: Ints, dilation: Ints, groups: int,
    per_tap: int = 0,
) -> np.ndarray:  # fmt: skip
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
    return _with(fields, per_tap or w[0] // groups)


def fits(conv: np.ndarray) -> bool:
    """Whether the kernels' 32-bit counts hold: places of all samples, taps with their channels."""
    taps = math.prod(map(int, conv["kernel"]))
    places = int(conv["samples"]) * math.prod(map(int, conv["places"]))
    entries = taps * max(int(conv["depth"]), int(conv["per_tap"]["by"]))
    extents = [int(n) for name in ("source", "result") for n in conv[name]]
    return (
        max(places, entries, int(conv["rows"])) < (1 << 31) - (1 << 16)
        and taps < MOST_TAPS and max(extents) < LIMIT
        and all(math.prod(map(int, conv[name])) < 1 << 31 for name in ("source", "result"))
    )  # fmt: skip
