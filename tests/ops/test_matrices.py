"""gpunn.linalg under PyTorch's older names."""

import pytest

import gpunn
from gpunn.ops import matrices


def test_functions_and_methods_are_one():
    for name in matrices._METHODS:
        assert getattr(gpunn, name) is getattr(gpunn.Tensor, name)
    assert gpunn.inverse is gpunn.linalg.inv and gpunn.det is gpunn.linalg.det
    x = gpunn.tensor([[2.0, 0.0], [0.0, 4.0]])
    assert x.inverse().tolist() == [[0.5, 0], [0, 0.25]]
    assert x.det().item() == 8 and x.slogdet().sign.item() == 1
    assert x.cholesky().shape == x.qr().Q.shape == x.svd().U.shape == (2, 2)


def test_vander_descends_unless_it_is_told():
    x = gpunn.tensor([2, 3])
    assert gpunn.vander(x).tolist() == [[2, 1], [3, 1]]
    assert gpunn.vander(x, 3).tolist() == [[4, 2, 1], [9, 3, 1]]
    assert gpunn.vander(x, 3, increasing=True).tolist() == [[1, 2, 4], [1, 3, 9]]
    assert gpunn.vander(x, 1).tolist() == [[1], [1]] and gpunn.vander(x, 0).shape == (2, 0)
    with pytest.raises(RuntimeError, match="one-dimensional"):
        gpunn.vander(gpunn.ones(2, 2))
