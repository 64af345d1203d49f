"""Tensors from data, copied or sharing its memory."""

import array
import pickle

import ml_dtypes
import numpy as np
import pytest

import gpunn


@pytest.mark.parametrize(
    "data, dtype",
    [
        (1, "int64"), (1.5, "float32"), (True, "bool"), (1j, "complex64"), ([], "float32"),
        ([1, 2], "int64"), ([1, 2.5], "float32"), ([True, 1], "int64"), ([1, 2j], "complex64"),
        ([[1], [2]], "int64"), (((1, 2), (3, 4)), "int64"), (range(3), "int64"),
        ([[], []], "float32"), (np.float64(1), "float64"), (np.int8(1), "int8"),
        ([np.float64(1), 2], "float64"), (np.bool_(True), "bool"), (bytearray(b"ab"), "int64"),
    ],
)  # fmt: skip
def test_inferred_dtypes(data, dtype):
    made = gpunn.tensor(data)
    assert made.dtype is getattr(gpunn, dtype)
    wanted = list(data) if isinstance(data, (range, bytearray)) else data
    np.testing.assert_array_equal(made.numpy(), np.array(wanted))


@pytest.mark.parametrize(
    "data, error, message",
    [
        (None, RuntimeError, "Could not infer dtype of NoneType"),
        ([None], RuntimeError, "Could not infer dtype of NoneType"),
        ({1}, RuntimeError, "Could not infer dtype of set"),
        ({1: 2}, RuntimeError, "Could not infer dtype of dict"),
        ("a", TypeError, "invalid data type 'str'"),
        (["a"], ValueError, "too many dimensions 'str'"),
        ([1, "a"], TypeError, "invalid data type 'str'"),
        ([[1], [2, 3]], ValueError, r"expected sequence of length 1 at dim 1 \(got 2\)"),
        ([[1, 2], 3], TypeError, "not a sequence"),
        ([1, [2]], TypeError, "not a number"),
        ([[1.0], [2.0, 3.0]], ValueError, r"expected sequence of length 1 at dim 1 \(got 2\)"),
        (2**63, ValueError, "Overflow when unpacking long long"),
        ([2**64], ValueError, "Overflow when unpacking long long"),
        (np.array(["a"]), TypeError, "can't convert np.ndarray of type"),
    ],
)
def test_data_that_is_none(data, error, message):
    with pytest.raises(error, match=message):
        gpunn.tensor(data)


def test_a_dtype_that_is_given():
    assert gpunn.tensor([1.7, -1.7], dtype=gpunn.int64).tolist() == [1, -1]
    assert gpunn.tensor([-1], dtype=gpunn.uint8).tolist() == [255]
    assert gpunn.tensor(3.5, dtype=bool).item() is True
    assert gpunn.tensor([1, 2], dtype=gpunn.bfloat16).dtype is gpunn.bfloat16
    assert gpunn.tensor([2**64 - 1], dtype=gpunn.uint64).item() == 2**64 - 1
    for data, dtype in ((300, "uint8"), ([2**31], "int32"), ([float("inf")], "int64"),
                        ([1e10], "int32"), ([float("nan")], "int64")):  # fmt: skip
        with pytest.raises(RuntimeError, match=f"to type {dtype} without overflow"):
            gpunn.tensor(data, dtype=getattr(gpunn, dtype))
    with pytest.raises(TypeError, match="complex"):
        gpunn.tensor(1j, dtype=gpunn.float32)
    with pytest.raises(RuntimeError, match="floating point and complex dtype can require"):
        gpunn.tensor([1], requires_grad=True)


def test_tensors_in_lists():
    x = [gpunn.tensor(1), gpunn.tensor([2.5])]
    assert gpunn.tensor(x).tolist() == [1, 2.5]
    with pytest.raises(ValueError, match="only one element tensors can be converted"):
        gpunn.tensor([gpunn.ones(2), gpunn.ones(2)])


def test_copies():
    a = np.ones(2)
    t = gpunn.tensor(a)
    with pytest.warns(UserWarning, match="To copy construct from a tensor, it is recommended"):
        x = gpunn.tensor(t)
    a[0] = t[1] = 7
    assert t.tolist() == [1, 7] and x.tolist() == [1, 1]
    leaf = gpunn.ones(2, requires_grad=True)
    with pytest.warns(UserWarning, match="To copy construct"):
        assert not gpunn.tensor(leaf).requires_grad
    with pytest.warns(UserWarning, match="To copy construct"):
        assert gpunn.tensor(leaf, requires_grad=True).is_leaf
    assert gpunn.tensor(np.ones(4)[::-2]).tolist() == [1, 1]
    assert gpunn.tensor(np.array([1], ">f4")).item() == 1
    assert gpunn.tensor([1], device="cpu:1").device.index == 1


def test_shared_memory():
    a = np.zeros(3, np.float32)
    for share in (gpunn.from_numpy, gpunn.as_tensor, gpunn.asarray):
        t = share(a)
        a[0] += 1
        assert t[0].item() == a[0]
        t[1] += 1
        assert a[1] == t[1].item()
    x = gpunn.ones(2, requires_grad=True)
    assert gpunn.as_tensor(x) is x and gpunn.asarray(x) is x
    assert gpunn.as_tensor(a, dtype=gpunn.float64).dtype is gpunn.float64
    assert gpunn.as_tensor(a, device="cpu:1").device.index == 1
    assert gpunn.as_tensor([1, 2]).tolist() == [1, 2]
    assert gpunn.from_numpy(np.zeros(2, ml_dtypes.bfloat16)).dtype is gpunn.bfloat16


def test_arrays_that_cannot_be_shared():
    for a, error, message in (
        ([1], TypeError, r"expected np.ndarray \(got list\)"),
        (np.array(["a"]), TypeError, "can't convert np.ndarray of type"),
        (np.zeros(4)[::-1], ValueError, "At least one stride in the given numpy array is negative"),
        (np.zeros(2, ">f4"), ValueError, "byte order different from the native"),
        (np.zeros(2, [("a", "i1"), ("b", "f4")])["b"], ValueError, "not a multiple of the element"),
    ):
        with pytest.raises(error, match=message):
            gpunn.from_numpy(a)


def test_asarray():
    a = np.ones(2)
    assert gpunn.asarray(a, copy=True).data_ptr() != a.ctypes.data
    for obj, kwargs, message in (
        ([1], {}, "can't alias arbitrary sequence"),
        (a, {"dtype": gpunn.float32}, "can't alias tensor with dtype 'Double' into dtype 'Float'"),
        (a, {"device": "cpu:1"}, "can't alias tensor from device 'cpu' to 'cpu:1'"),
    ):
        with pytest.raises(ValueError, match=message):
            gpunn.asarray(obj, copy=False, **kwargs)
    leaf = gpunn.ones(2, requires_grad=True)
    assert not gpunn.asarray(leaf, requires_grad=False).requires_grad
    assert gpunn.asarray([1.0], requires_grad=True).requires_grad
    assert gpunn.asarray(leaf * 2, requires_grad=True).requires_grad
    assert gpunn.asarray(bytearray(b"\0\0\x80?")).tolist() == [1]
    assert gpunn.asarray(np.float64(2)).dtype is gpunn.float64


def test_frombuffer():
    buffer = bytearray(b"\1\2\3\4")
    t = gpunn.frombuffer(buffer, dtype=gpunn.uint8)
    buffer[0] = 9
    assert t.tolist() == [9, 2, 3, 4]
    assert gpunn.frombuffer(buffer, dtype=gpunn.uint8, count=2, offset=1).tolist() == [2, 3]
    assert gpunn.frombuffer(array.array("d", [1.5]), dtype=gpunn.float64).tolist() == [1.5]
    for kwargs, message in (
        ({"offset": 5}, r"offset \(5 bytes\) must be non-negative and no greater than buffer"),
        ({"offset": 1}, "must be a multiple of element size"),
        ({"count": 3}, r"requested buffer length \(3 \* 2 bytes\) after offset"),
        ({"count": 0}, "must not be 0"),
    ):
        with pytest.raises(ValueError, match=message):
            gpunn.frombuffer(buffer, dtype=gpunn.int16, **kwargs)
    with pytest.raises(ValueError, match="does not implement Python buffer protocol"):
        gpunn.frombuffer(3, dtype=gpunn.int16)


def test_scalar_tensor():
    assert gpunn.scalar_tensor(3).dtype is gpunn.float32
    assert gpunn.scalar_tensor(3j).dtype is gpunn.complex64
    assert gpunn.scalar_tensor(3, dtype=gpunn.int64).item() == 3


@pytest.mark.parametrize("make", [gpunn.from_numpy, gpunn.tensor, gpunn.as_tensor, gpunn.asarray])
def test_arrays_from_a_pickle_are_like_any_other(make):
    array = pickle.loads(pickle.dumps(np.ones((2, 3), np.float32)))
    assert array.dtype is not np.dtype("float32")  # NumPy makes a dtype object of their own
    x = make(array)
    assert x.array.dtype is np.dtype("float32")
    assert gpunn.nn.Linear(3, 2)(x).shape == (2, 2)
    assert (make is gpunn.tensor) != np.shares_memory(x.array, array)
