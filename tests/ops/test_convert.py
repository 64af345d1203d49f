"""Moving and copying."""

import numpy as np
import pytest

import gpunn


def test_to():
    x = gpunn.ones(2)
    assert x.to(gpunn.float32) is x and x.to("cpu") is x and x.to(None) is x and x.to() is x
    assert x.to(x, True) is x and x.to(gpunn.float32, copy=True) is not x
    for args in (
        (gpunn.float64,), ("cpu", gpunn.float64), (None, gpunn.float64), (float,),
        (gpunn.ones(1).double(),), ("cpu", float, True, True),
    ):  # fmt: skip
        assert x.to(*args).dtype is gpunn.float64
    assert x.to(int).dtype is gpunn.int64
    assert x.to("cpu:1").device == gpunn.device("cpu:1")
    assert x.to(device="cpu:1", dtype=gpunn.int8).dtype is gpunn.int8
    for bad in ({"foo": 1}, {"dtype": "float"}):
        with pytest.raises(TypeError):
            x.to(**bad)
    with pytest.raises(TypeError, match=r"to\(\) received an invalid combination of arguments"):
        x.to(1.5)
    with pytest.raises(RuntimeError, match="Invalid device string: 'foo'"):
        x.to("foo")


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("float", "float32"), ("double", "float64"), ("half", "float16"), ("int", "int32"),
        ("bfloat16", "bfloat16"), ("long", "int64"), ("short", "int16"), ("char", "int8"),
        ("byte", "uint8"), ("bool", "bool"), ("cfloat", "complex64"), ("cdouble", "complex128"),
    ],
)  # fmt: skip
def test_casts(name, dtype):
    x = gpunn.tensor([0.0, 1.0, 3.0], dtype=gpunn.float64 if name != "double" else gpunn.float32)
    made = getattr(x, name)()
    assert made.dtype is getattr(gpunn, dtype) and getattr(made, name)() is made
    assert made.tolist() == ([False, True, True] if name == "bool" else [0, 1, 3])


def test_gradients_flow_back_through_dtype_and_device():
    x = gpunn.ones(3, requires_grad=True)
    y = x.double().to("cpu:1").clone() * 2
    y.sum().backward()
    assert x.grad.tolist() == [2, 2, 2] and x.grad.dtype is gpunn.float32
    assert x.grad.device == gpunn.device("cpu")
    (g,) = gpunn.autograd.grad((x.double().to("cpu:1") ** 3).sum(), x, create_graph=True)
    (second,) = gpunn.autograd.grad(g.sum(), x)
    assert second.tolist() == [6, 6, 6]


def test_clone_and_contiguous():
    x = gpunn.arange(6).reshape(2, 3).T
    assert x.clone().stride() == (1, 3) and x.clone().data_ptr() != x.data_ptr()
    assert x.clone(memory_format=gpunn.contiguous_format).stride() == (2, 1)
    assert x.contiguous().stride() == (2, 1) and x.T.contiguous() is not None
    y = gpunn.ones(2, 3)
    assert y.contiguous() is y and y.is_contiguous() and not x.is_contiguous()
    with pytest.raises(RuntimeError, match="preserve memory format is unsupported"):
        y.contiguous(memory_format=gpunn.preserve_format)


def test_channels_last():
    x = gpunn.rand(2, 3, 4, 5, requires_grad=True)
    last = x.contiguous(memory_format=gpunn.channels_last)
    assert last.stride() == (60, 1, 15, 3) and last.tolist() == x.tolist()
    assert last.is_contiguous(memory_format=gpunn.channels_last) and not last.is_contiguous()
    assert last.contiguous(memory_format=gpunn.channels_last) is last
    for other in (
        x.to(memory_format=gpunn.channels_last), x.clone(memory_format=gpunn.channels_last),
        x.double(memory_format=gpunn.channels_last), gpunn.zeros_like(last), last * 2,
        gpunn.empty(2, 3, 4, 5, memory_format=gpunn.channels_last), last.double(),
    ):  # fmt: skip
        assert other.stride() == (60, 1, 15, 3)
    assert last.to(memory_format=gpunn.contiguous_format).is_contiguous()
    assert gpunn.zeros_like(last, memory_format=gpunn.contiguous_format).is_contiguous()
    last.sum().backward()
    assert x.grad.tolist() == gpunn.ones(2, 3, 4, 5).tolist()
    with pytest.raises(RuntimeError, match="required rank 4"):
        gpunn.empty(2, 3, memory_format=gpunn.channels_last)


def test_cpu_cuda_and_type_as():
    x = gpunn.ones(2)
    assert x.cpu() is x and x.type_as(gpunn.ones(1).long()).dtype is gpunn.int64
    assert x.to("cpu:1").cpu().device == gpunn.device("cpu")
    if not gpunn.cuda.is_available():
        with pytest.raises(RuntimeError):
            x.cuda()


def test_set():
    x, y = gpunn.zeros(4), gpunn.arange(6.0)
    assert x.set_(y) is x
    y[0] = 7
    assert x.tolist() == [7, 1, 2, 3, 4, 5]
    assert x.set_(y.untyped_storage(), 1, (2, 2), (3, 1)).tolist() == [[1, 2], [4, 5]]
    assert x.set_(y, 2, (2,)).tolist() == [2, 3]
    assert gpunn.zeros(2).set_(y.untyped_storage()).tolist() == y.tolist()
    assert x.set_().shape == (0,)
    with pytest.raises(RuntimeError, match="Could not set tensor of type torch.int64"):
        x.set_(gpunn.ones(2).long())
    with pytest.raises(RuntimeError, match="out of bounds for storage of size 24"):
        x.set_(y.untyped_storage(), 5, (2,))
    with pytest.raises(TypeError, match="expected a tensor or a storage"):
        x.set_([1.0])


def test_a_complex_tensor_loses_its_imaginary_part():
    assert gpunn.tensor([1 + 2j]).float().tolist() == [1]
    assert gpunn.tensor([2j]).bool().tolist() == [True]
    np.testing.assert_array_equal(gpunn.ones(2).cfloat().numpy(), [1 + 0j, 1 + 0j])
