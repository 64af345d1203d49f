"""Values moved between channels and places: against the formula, and there and back."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)


def shuffled(x, r):
    """The formula, element by element."""
    *lead, c, h, w = x.shape
    y = np.empty((*lead, c // (r * r), h * r, w * r))
    for i in range(r):
        for j in range(r):
            y[..., i::r, j::r] = x[..., i * r + j :: r * r, :, :]
    return y


@pytest.mark.parametrize("shape, r", [((8, 2, 3), 2), ((2, 9, 2, 1), 3), ((2, 1, 4, 3, 2), 1)])
def test_pixel_shuffle_and_back(shape, r):
    x = rng.normal(size=shape)
    check(lambda x: F.pixel_shuffle(x, r), [x], lambda x: shuffled(x, r))
    check(lambda x: F.pixel_unshuffle(x, r), [shuffled(x, r)], lambda y: x.astype(y.dtype),
          dtypes=("float64",))  # fmt: skip
    ints = gpunn.arange(x.size).reshape(shape)
    assert F.pixel_unshuffle(F.pixel_shuffle(ints, r), r).equal(ints)


@pytest.mark.parametrize("function", [F.channel_shuffle, gpunn.native_channel_shuffle])
def test_channel_shuffle(function):
    x = rng.normal(size=(2, 6, 2, 3))
    wanted = [0, 2, 4, 1, 3, 5]
    check(lambda x: function(x, 3), [x], lambda x: x[:, wanted])


def test_modules():
    x = gpunn.arange(36.0).reshape(1, 9, 2, 2)
    assert nn.PixelUnshuffle(3)(nn.PixelShuffle(3)(x)).equal(x)
    assert nn.ChannelShuffle(3)(nn.ChannelShuffle(3)(x)).equal(x)
    assert repr(nn.PixelShuffle(3)) == "PixelShuffle(upscale_factor=3)"
    assert repr(nn.PixelUnshuffle(3)) == "PixelUnshuffle(downscale_factor=3)"
    assert repr(nn.ChannelShuffle(3)) == "ChannelShuffle(groups=3)"


def test_the_result_has_memory_of_its_own():
    x = gpunn.zeros(1, 1, 2, 2)
    for y in (F.pixel_shuffle(x, 1), F.pixel_unshuffle(x, 1), F.channel_shuffle(x, 1)):
        y += 1
    assert x.sum() == 0


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.pixel_shuffle(gpunn.ones(2, 2), 1), RuntimeError, "at least 3 dimensions"),
        (lambda: F.pixel_shuffle(gpunn.ones(4, 2, 2), 0), RuntimeError, "positive upscale_factor"),
        (lambda: F.pixel_shuffle(gpunn.ones(5, 2, 2), 2), RuntimeError, "not divisible by 4"),
        (lambda: F.pixel_shuffle(gpunn.ones(4, 2, 2), 2.0), TypeError, "must be int, not float"),
        (lambda: F.pixel_shuffle([1], 2), TypeError, "must be Tensor, not list"),
        (lambda: F.pixel_unshuffle(gpunn.ones(1, 3, 4), 2), RuntimeError, "expects height"),
        (lambda: F.pixel_unshuffle(gpunn.ones(1, 4, 3), 2), RuntimeError, "expects width"),
        (lambda: F.pixel_unshuffle(gpunn.ones(1, 4, 4), -1), RuntimeError, "downscale_factor"),
        (lambda: F.channel_shuffle(gpunn.ones(2, 2), 1), RuntimeError, "input with > 2 dims"),
        (lambda: F.channel_shuffle(gpunn.ones(1, 3, 1), 2), RuntimeError, "divisible by groups"),
        (lambda: F.channel_shuffle(gpunn.ones(1, 3, 1), 0), RuntimeError, "must be positive"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()
