"""The NumPy body: equal to the C++ code, and linear in memory."""

import math
import tracemalloc

import numpy as np
import pytest

from gpunn import native
from gpunn.device import CPU
from gpunn.nn import attention_numpy
from gpunn.nn.attention import Call
from gpunn.nn.attention_dropout import draw_kept


def run(q, k, v, dy, mask, drop, call):
    out, stats = attention_numpy.attention_forward(q, k, v, mask, drop, call)
    grads = attention_numpy.attention_backward(dy, q, k, v, out, stats, mask, drop, call)
    return out, stats, *grads


def operands(batch, heads, group, rows, columns, width):
    rng = np.random.default_rng(0)
    shapes = (heads * group, rows), (heads, columns), (heads, columns), (heads * group, rows)
    return [rng.standard_normal((batch, *s, width)) for s in shapes]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", ["", "bool", "numbers"])
@pytest.mark.parametrize("sizes", [(2, 2, 2, 5, 7, 4), (1, 1, 2, 700, 600, 3)], ids=str)
def test_it_gives_what_the_c_code_gives(sizes, causal, masked):
    batch, heads, group, rows, columns, width = sizes
    arrays = operands(*sizes)
    mask = None
    if masked:
        mask = np.random.default_rng(1).random((heads * group, rows, columns)) < 0.5
        mask[:, 3] = False
        mask = mask if masked == "bool" else np.where(mask, 0.5, -np.inf)
    if causal and masked:
        mask = mask[..., :1]
    shape = batch, heads * group
    for keep in (1.0, 0.6, 0.0):
        call = Call(shape, group, 1 / math.sqrt(width), causal, keep)
        drop = draw_kept((*shape, rows, columns), keep, CPU)
        marks = getattr(drop, "marks", drop)
        found = native.attention_forward(*arrays[:3], mask, marks, call)
        if found is None:
            pytest.skip("no C++ library")
        out, stats = found
        grads = native.attention_backward(
            arrays[3], *arrays[:3], out, stats, mask, marks, call, (True, True, True)
        )
        ours = run(*arrays, mask, drop, call)
        for a, b in zip(ours, (out, stats, *grads), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-11)


def test_infinite_scores_and_nan_warn_of_nothing():
    q, k, v, dy = operands(1, 1, 1, 4, 6, 2)
    q[0, 0, 0], q[0, 0, 1], k[0, 0, 2] = np.inf, np.nan, -np.inf
    out, *_ = run(q, k, v, dy, None, None, Call((1, 1), 1, 1.0, False, 1.0))
    assert np.isnan(out[0, 0, :2]).all()


@pytest.mark.parametrize("kind", ["plain", "causal", "mask", "dropout"])
def test_memory_is_linear_in_the_length(kind):
    """Peaks grow by at most the 4 of the length; a matrix of weights would grow by 16."""
    peaks = []
    for length in (1024, 4096):
        arrays = operands(1, 1, 1, length, length, 4)
        mask = np.arange(length) < length - 100 if kind == "mask" else None
        keep = 0.9 if kind == "dropout" else 1.0
        call = Call((1, 1), 1, 0.5, kind == "causal", keep)
        tracemalloc.start()
        drop = draw_kept((1, 1, length, length), keep, CPU)
        run(*arrays, mask, drop, call)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 4.5 * peaks[0]
    assert peaks[1] < 4096 * 4096 * 8 / 4
