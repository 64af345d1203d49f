"""The arguments of convolutions: numbers for each dimension, padding by name, errors."""

import numpy as np
import pytest

import gpunn
import gpunn.nn.functional as F
from gpunn.nn.conv_arguments import pads, spread


def test_a_number_stands_for_every_dimension():
    assert spread(2, 3, "stride") == (2, 2, 2) == spread(np.int64(2), 3, "stride")
    assert spread([2], 2, "stride") == (2, 2) and spread(gpunn.Size((1, 2)), 2, "stride") == (1, 2)


@pytest.mark.parametrize(
    "value, error, words",
    [
        ((1, 1, 1), RuntimeError, "expected stride to be a single integer value or a list of 2"),
        ("same", TypeError, "'stride' must be tuple of ints, not str"),
        (1.5, TypeError, "'stride' must be tuple of ints, not float"),
        ((1, 1.5), TypeError, "float"),
    ],
)
def test_what_is_no_number_for_each(value, error, words):
    with pytest.raises(error, match=words):
        spread(value, 2, "stride")


def test_same_pads_more_behind():
    assert pads("same", (3, 4), (1, 1), (1, 1)) == ((1, 1), (1, 2))
    assert pads("same", (2,), (1,), (3,)) == ((1,), (2,))
    assert pads("valid", (3, 4), (2, 2), (1, 1)) == ((0, 0), (0, 0))
    assert pads((1, 2), (3, 4), (1, 1), (1, 1)) == ((1, 2), (1, 2))


X, W = gpunn.zeros(1, 4, 5, 5), gpunn.zeros(4, 2, 3, 3)
ERRORS = {  # what both kinds of convolution refuse
    "Expected 3D .unbatched. or 4D .batched. input to conv": (X[0, 0], W),
    "non-positive groups is not supported": (X, W, {"groups": 0}),
    "weight should have at least three dimensions": (X, W[0, 0]),
    "Expected 3-dimensional input for 3-dimensional weight": (X, W[0]),
    "non-positive stride is not supported": (X, W, {"stride": 0}),
    "negative padding is not supported": (X, W, {"padding": -1}),
    "dilation should be greater than zero": (X, W, {"dilation": 0}),
    "expected weight to be at least 5 at dimension 0": (X, W, {"groups": 5}),
    "expected weight to be divisible by 3 at dimension 0": (X, W, {"groups": 3}),
    "channels, but got 3 channels instead": (X[:, :3], W),
    "expected bias to be 1-dimensional with": (X, W, {"bias": gpunn.zeros(3), "groups": 2}),
    "kernel size should be greater than zero": (X, W[..., :0], {"groups": 2}),
    "Only zero batch or zero channel inputs": (X[..., :0], W, {"groups": 2}),
    "expected scalar type Float but found Double": (X, W.double(), {"groups": 2}),
    "not implemented for 'Bool'": (X.bool(), W.bool(), {"groups": 2}),
}


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
@pytest.mark.parametrize("words", ERRORS)
def test_errors_of_both_kinds(words, name):
    x, w, options = (*ERRORS[words], {})[:3]
    with pytest.raises(RuntimeError, match=words):
        getattr(F, name)(x, w, **options)


@pytest.mark.parametrize("name", ["conv2d", "conv_transpose2d"])
def test_one_device_for_all(name):
    with pytest.raises(RuntimeError, match="same device"):
        getattr(F, name)(X, W.to("cpu:1"), groups=2)
