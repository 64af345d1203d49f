"""The Tensor: attributes, protocols, errors."""

import copy
import pickle

import numpy as np
import pytest

import gpunn


def test_shape_prints_as_pytorchs():
    x = gpunn.zeros(2, 3)
    assert repr(x.shape) == "torch.Size([2, 3])" and x.shape == (2, 3) and x.size(1) == 3
    assert x.shape.numel() == 6 and isinstance(x.shape[:1], gpunn.Size)
    assert (x.shape + (4,)) == gpunn.Size([2, 3, 4]) and isinstance(x.shape + (4,), gpunn.Size)
    with pytest.raises(IndexError, match=r"expected to be in range of \[-2, 1\], but got 2"):
        x.size(2)


def test_strides_and_offsets_count_elements():
    x = gpunn.arange(12.0).reshape(3, 4)
    y = x[1:, ::2]
    assert y.stride() == (4, 2) and y.storage_offset() == 4 and not y.is_contiguous()
    assert y.contiguous().stride() == (2, 1) and x.data_ptr() + 16 == y.data_ptr()


def test_legacy_constructor():
    assert gpunn.Tensor([1, 2]).dtype is gpunn.float32 and gpunn.Tensor(2, 3).shape == (2, 3)
    assert gpunn.Tensor().shape == (0,)


def test_requires_grad():
    with pytest.raises(RuntimeError, match="floating point and complex dtype"):
        gpunn.tensor([1], requires_grad=True)
    x = gpunn.ones(2, requires_grad=True)
    y = x * 2
    assert x.is_leaf and not y.is_leaf and y.grad_fn.name() == "MulBackward0"
    with pytest.raises(RuntimeError, match="leaf variables"):
        y.requires_grad = False
    assert not y.detach().requires_grad and y.detach().data_ptr() == y.data_ptr()


def test_grad_must_fit():
    x = gpunn.ones(2, requires_grad=True)
    for wrong, error in (
        (gpunn.ones(3), RuntimeError), (gpunn.ones(2).double(), RuntimeError), ([1, 2], TypeError),
        (gpunn.ones(2, device="cpu:1"), RuntimeError), (x, RuntimeError),
    ):  # fmt: skip
        with pytest.raises(error):
            x.grad = wrong
    x.grad = gpunn.ones(2)
    del x.grad
    assert x.grad is None


def test_python_numbers():
    assert int(gpunn.tensor(3)) == 3 and float(gpunn.tensor([2.5])) == 2.5 and bool(gpunn.ones(1))
    assert [10, 20][gpunn.tensor(1)] == 20 and f"{gpunn.tensor(0.12345):.2f}" == "0.12"
    assert gpunn.tensor(1.5, dtype=gpunn.bfloat16).item() == 1.5
    with pytest.raises(RuntimeError, match="more than one value is ambiguous"):
        bool(gpunn.ones(2))
    with pytest.raises(RuntimeError, match="2 elements cannot be converted to Scalar"):
        gpunn.ones(2).item()
    with pytest.raises(TypeError, match="0-d tensor"):
        len(gpunn.tensor(1))
    with pytest.raises(TypeError):
        [1][gpunn.tensor(0.0)]


def test_numpy_of_a_tensor_with_gradient_says_what_to_do():
    with pytest.raises(RuntimeError, match="tensor.detach"):
        gpunn.ones(1, requires_grad=True).numpy()
    assert gpunn.ones(1, requires_grad=True).numpy(force=True).tolist() == [1]


def test_arrays_and_tensors_mix():
    x = gpunn.ones(2)
    a = np.array([1.0, 2.0], np.float32)
    assert isinstance(x + a, gpunn.Tensor) and (a + x).tolist() == [2, 3]
    assert np.asarray(x, dtype=np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.array(x), [1, 1])


def test_iteration_and_membership():
    assert [t.tolist() for t in gpunn.arange(4).reshape(2, 2)] == [[0, 1], [2, 3]]
    assert 3 in gpunn.arange(4) and 9 not in gpunn.arange(4)
    with pytest.raises(TypeError, match="0-d"):
        list(gpunn.tensor(1))


def test_equality_is_element_wise_and_hash_is_identity():
    x = gpunn.tensor([1, 2])
    assert (x == 1).tolist() == [True, False] and len({x, x, gpunn.tensor([1, 2])}) == 2
    assert (x == "a") is False and (x != None) is True  # noqa: E711


def test_copies():
    x = gpunn.ones(2, requires_grad=True)
    x.note = "kept"
    y = copy.deepcopy(x)
    assert y.requires_grad and y.data_ptr() != x.data_ptr()
    assert pickle.loads(pickle.dumps(x)).tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(x * 2)


def test_data_shares_memory_and_can_be_replaced():
    x = gpunn.ones(2, requires_grad=True)
    x.data.mul_(3)
    assert x.tolist() == [3, 3]
    x.data = gpunn.zeros(4)
    assert x.shape == (4,) and x.requires_grad
