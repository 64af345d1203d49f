"""The geometry of pooling windows."""

from itertools import product

import numpy as np
import pytest

import gpunn
import gpunn.nn.functional as F
from gpunn.nn.windows import Windows


def windows(size, kernel, stride=None, padding=0, dilation=1, ceil=False):
    return Windows("pool", size, kernel, stride, padding, dilation, ceil)


@pytest.mark.parametrize("size, kernel, stride, padding, dilation, ceil, out", [
    ((7,), 2, None, 0, 1, False, (3,)), ((7,), 2, None, 0, 1, True, (4,)),
    ((7, 8), 3, (2, 1), 1, 1, False, (4, 8)), ((9,), 3, 1, 0, 3, False, (3,)),
    ((5,), 2, 3, 1, 1, True, (2,)),  # no window may begin in the padding behind
])  # fmt: skip
def test_sizes(size, kernel, stride, padding, dilation, ceil, out):
    assert windows(size, kernel, stride, padding, dilation, ceil).out == out


def test_taps_read_each_place_of_each_window():
    w = windows((5, 6), (2, 3), (2, 1), (1, 0))
    x = np.arange(30.0).reshape(5, 6)
    padded = w.padded(x, -1)
    assert w.unpadded(padded).tolist() == x.tolist()
    assert padded.shape == w.padded_shape(())
    for tap in w.taps():
        for place, value in np.ndenumerate(padded[w.place(tap)]):
            row, column = place[0] * 2 - 1 + tap[0], place[1] + tap[1]
            assert value == (x[row, column] if 0 <= row < 5 else -1)


def test_counts():
    w = windows((4,), 3, 2, 1)
    assert w.counts(True).tolist() == [3, 3] and w.counts(False).tolist() == [2, 3]


@pytest.mark.parametrize("options, words", [
    ({"kernel": 0}, "kernel size should be greater"), ({"stride": 0}, "stride should not be zero"),
    ({"dilation": 0}, "dilation should be greater"), ({"padding": -1}, "must be non-negative"),
    ({"padding": 2}, "at most half"), ({"kernel": 9}, "Output size is too small"),
    ({"kernel": (2, 2)}, "tuple of 1 ints"),
])  # fmt: skip
def test_errors_say_what_is_wrong(options, words):
    with pytest.raises(RuntimeError, match=words):
        windows(**{"size": (6,), "kernel": 3, **options})


def _size(F, pool, x, *args, **options):
    """The length of a pooling's result, or the type of what it raises."""
    try:
        return getattr(F, pool)(x, *args, **options).shape[-1]
    except (RuntimeError, ValueError) as error:
        return type(error).__name__


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_every_size_is_pytorchs(kernel, ceil_mode):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    for n, stride, padding in product(range(1, 12), (1, 2, 3, 5), (0, 1, 2)):
        ours, theirs = gpunn.zeros(1, 1, n), torch.zeros(1, 1, n)
        args = (kernel, stride, padding)
        for dilation in (1, 2, 3):
            sizes = [
                _size(f, "max_pool1d", x, *args, dilation, ceil_mode)
                for f, x in ((F, ours), (torch.nn.functional, theirs))
            ]
            assert sizes[0] == sizes[1], (n, *args, dilation, sizes)
        sizes = [
            _size(f, "avg_pool1d", x, *args, ceil_mode)
            for f, x in ((F, ours), (torch.nn.functional, theirs))
        ]
        assert sizes[0] == sizes[1], (n, *args, sizes)
