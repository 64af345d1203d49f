"""Sharing memory with NumPy and with other libraries through DLPack."""

import gc

import ml_dtypes
import numpy as np
import pytest

import gpunn

DTYPES = ["float32", "float64", "float16", "int64", "uint8", "bool", "complex64", "bfloat16"]


def test_functions_of_numpy_give_tensors():
    x = gpunn.tensor([1.0, 4.0])
    assert isinstance(np.sqrt(x), gpunn.Tensor) and np.sqrt(x).tolist() == [1, 2]
    assert np.add(x, np.ones(2)).dtype is gpunn.float64
    assert (np.ones(2, np.float32) + x).tolist() == (x + np.ones(2, np.float32)).tolist() == [2, 5]
    assert isinstance(np.float32(2) * x, gpunn.Tensor)
    assert np.stack([x, x]).shape == (2, 2)
    with pytest.raises(RuntimeError, match="requires grad"):
        np.sqrt(x.requires_grad_())


@pytest.mark.parametrize("dtype", DTYPES)
def test_there_and_back(dtype):
    x = gpunn.tensor([[0, 1, 2], [3, 4, 5]]).to(getattr(gpunn, dtype))
    for view in (x, x.T, x[:, ::2], x[0, 0]):
        back = gpunn.from_dlpack(view)
        assert back.dtype is x.dtype and back.tolist() == view.tolist()
        assert back.data_ptr() == view.data_ptr() and back.stride() == view.stride()
        capsule = gpunn.to_dlpack(view)
        assert gpunn.utils.dlpack.from_dlpack(capsule).tolist() == view.tolist()


def test_numpy_both_ways():
    a = np.arange(3.0)
    t = gpunn.from_dlpack(a)
    t[0] = 7
    b = np.from_dlpack(t)
    assert a[0] == b[0] == 7
    assert t.__dlpack_device__() == (1, 0)


def test_memory_lives_as_long_as_it_is_used():
    capsule = gpunn.to_dlpack(gpunn.full((1000,), 3, dtype=gpunn.bfloat16))
    gc.collect()
    t = gpunn.from_dlpack(capsule)
    del capsule
    gc.collect()
    assert (t == 3).all()


def test_copies_and_devices():
    a = np.zeros(2)
    copied = gpunn.from_dlpack(a, copy=True)
    a[0] = 1
    assert copied.tolist() == [0, 0]
    assert gpunn.from_dlpack(a, device="cpu:1").device.index == 1
    with pytest.raises(ValueError, match="copy=False"):
        gpunn.from_dlpack(a, device="cpu:1", copy=False)


def test_what_cannot_be_shared():
    with pytest.raises(BufferError, match="require gradient, use tensor.detach"):
        gpunn.to_dlpack(gpunn.ones(1, requires_grad=True))
    with pytest.raises(TypeError, match="expected an object with __dlpack__"):
        gpunn.from_dlpack([1])
    capsule = gpunn.to_dlpack(gpunn.ones(1))
    gpunn.from_dlpack(capsule)
    with pytest.raises(RuntimeError, match="capsules can be consumed only once"):
        gpunn.from_dlpack(capsule)

    class Odd:
        """Something whose type nobody knows."""

        def __dlpack__(self, **options):
            return np.zeros(1, ml_dtypes.bfloat16).__dlpack__(**options)

        def __dlpack_device__(self):
            return 1, 0

    with pytest.raises((BufferError, RuntimeError)):
        gpunn.from_dlpack(Odd())


@pytest.mark.parametrize("dtype", DTYPES)
def test_pytorch_both_ways(dtype):
    torch = pytest.importorskip("torch", reason="sharing with PyTorch needs PyTorch")
    theirs = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)).T
    mine = gpunn.from_dlpack(theirs)
    assert str(mine.dtype) == str(theirs.dtype) and mine.tolist() == theirs.tolist()
    assert mine.data_ptr() == theirs.data_ptr() and mine.stride() == theirs.stride()
    back = torch.from_dlpack(mine)
    assert back.data_ptr() == theirs.data_ptr() and back.tolist() == theirs.tolist()
    assert back.dtype is theirs.dtype
