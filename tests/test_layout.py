"""Layouts and memory formats."""

import copy
import importlib
import pickle

import numpy as np
import pytest

import gpunn

layout = importlib.import_module("gpunn.layout")  # gpunn.layout itself is the class


def test_names():
    assert repr(gpunn.strided) == "torch.strided" and isinstance(gpunn.strided, gpunn.layout)
    assert repr(gpunn.channels_last) == "torch.channels_last"
    assert isinstance(gpunn.preserve_format, gpunn.memory_format)
    for name in layout.__all__:
        constant = getattr(gpunn, name)
        if not isinstance(constant, type):
            assert pickle.loads(pickle.dumps(constant)) is constant is copy.deepcopy(constant)
    assert gpunn.zeros(1).layout is gpunn.strided
    assert gpunn.eye(2).to_sparse().layout is gpunn.sparse_coo


@pytest.mark.parametrize(
    "wanted, shape, strides",
    [
        (layout.channels_last, (2, 3, 4, 5), (60, 1, 15, 3)),
        (layout.channels_last_3d, (2, 3, 4, 5, 6), (360, 1, 90, 18, 3)),
        (layout.contiguous_format, (2, 3), (3, 1)),
    ],
)
def test_orders_in_memory(wanted, shape, strides):
    a = np.arange(np.prod(shape)).reshape(shape).swapaxes(0, 1).copy().swapaxes(0, 1)
    assert not layout.fits(a, wanted) and not layout.stays(a, layout.channels_last)
    laid = layout.lay_out(a, wanted)
    np.testing.assert_array_equal(laid, a)
    assert tuple(s // 8 for s in laid.strides) == strides
    assert layout.fits(laid, wanted) and layout.lay_out(laid, wanted) is laid
    assert layout.stays(laid, wanted)


def test_formats_that_do_not_fit():
    a = np.zeros((2, 3))
    assert not layout.fits(a, layout.channels_last)
    with pytest.raises(RuntimeError, match="required rank 4 tensor to use channels_last format"):
        layout.lay_out(a, layout.channels_last)
    with pytest.raises(RuntimeError, match="preserve memory format is unsupported"):
        layout.fits(a, layout.preserve_format)
    assert layout.stays(a, None) and layout.stays(a, layout.preserve_format)
