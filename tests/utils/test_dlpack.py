"""PyTorch's import path of the DLPack functions."""

import gpunn
from gpunn.utils.dlpack import from_dlpack, to_dlpack


def test_they_are_the_same_functions():
    assert from_dlpack is gpunn.from_dlpack and to_dlpack is gpunn.to_dlpack
    assert from_dlpack(to_dlpack(gpunn.ones(2))).tolist() == [1, 1]
