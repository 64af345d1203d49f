"""PyTorch's older way with types."""

import numpy as np
import pytest

import gpunn


def test_the_constructor():
    assert gpunn.Tensor(2, 3).shape == gpunn.Tensor(size=(2, 3)).shape == (2, 3)
    assert gpunn.Tensor(gpunn.Size([2, 3])).shape == (2, 3)
    assert gpunn.Tensor(gpunn.Size([])).shape == () and gpunn.Tensor().shape == (0,)
    assert gpunn.Tensor(np.int64(3)).shape == (3,)
    for data in ([1, 2], (1, 2), np.array([1, 2])):
        assert gpunn.Tensor(data).tolist() == [1.0, 2.0]
        assert gpunn.Tensor(data).dtype is gpunn.float32
    x = gpunn.ones(2)
    assert gpunn.Tensor(x).data_ptr() == x.data_ptr()
    assert gpunn.Tensor(x.untyped_storage()).tolist() == [1, 1]
    for args, error, message in (
        ((3.5,), TypeError, r"data must be a sequence \(got float\)"),
        ((None,), TypeError, r"data must be a sequence \(got NoneType\)"),
        (("a",), TypeError, "invalid data type 'str'"),
        ((2, 1.5), TypeError, "invalid combination of arguments"),
        ((-1,), RuntimeError, "negative dimension -1"),
    ):
        with pytest.raises(error, match=message):
            gpunn.Tensor(*args)


def test_subclasses():
    class Mine(gpunn.Tensor):
        pass

    x = Mine([1, 2])
    assert type(x) is Mine and x.tolist() == [1, 2] and isinstance(x, gpunn.Tensor)


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("Float", "float32"), ("Double", "float64"), ("Half", "float16"), ("Long", "int64"),
        ("BFloat16", "bfloat16"), ("Int", "int32"), ("Short", "int16"), ("Char", "int8"),
        ("Byte", "uint8"), ("Bool", "bool"),
    ],
)  # fmt: skip
def test_types(name, dtype):
    kind, wanted = getattr(gpunn, name + "Tensor"), getattr(gpunn, dtype)
    x = kind([1, 0])
    assert x.dtype is kind.dtype is wanted and kind(2, 3).shape == (2, 3)
    assert isinstance(x, kind) and not isinstance(x.to("cpu:1").cfloat(), kind)
    assert not isinstance([1], kind)
    assert repr(kind) == f"<class 'torch.{name}Tensor'>" and x.type() == f"torch.{name}Tensor"
    assert gpunn.zeros(2).type(kind).dtype is wanted
    assert gpunn.zeros(2).type(f"torch.{name}Tensor").dtype is wanted


def test_types_that_do_not_fit():
    with pytest.raises(TypeError, match="expected a tensor of torch.int64"):
        gpunn.LongTensor(gpunn.ones(2))
    with pytest.raises(ValueError, match="invalid type: 'foo'"):
        gpunn.zeros(2).type("foo")
    with pytest.raises(RuntimeError, match="expects device type: cpu but device type: cuda"):
        gpunn.FloatTensor(1, device="cuda")
    assert gpunn.zeros(2).type(gpunn.int8).dtype is gpunn.int8


def test_cuda_types():
    kind = gpunn.cuda.FloatTensor
    assert kind.is_cuda and str(kind) == "torch.cuda.FloatTensor"
    assert not isinstance(gpunn.ones(1), kind)
    with pytest.raises(AttributeError, match="no attribute 'Foo'"):
        gpunn.cuda.Foo  # noqa: B018


def test_new():
    x = gpunn.tensor([1, 2])
    assert x.new(3).dtype is gpunn.int64 and x.new(3).shape == (3,)
    assert x.new([3, 4]).tolist() == [3, 4] and x.new().shape == (0,)
    assert x.to("cpu:1").new(2, 3).device.index == 1


def test_functions_of_python_on_elements():
    x = gpunn.tensor([[1.0, 2.0]])
    assert x.apply_(lambda v: v + 1) is x and x.tolist() == [[2, 3]]
    assert x.map_(gpunn.tensor(2.0), lambda a, b: a * b).tolist() == [[4, 6]]
    for call in (lambda t: t.apply_(abs), lambda t: t.map_(x, max)):
        with pytest.raises(RuntimeError, match="on Variable that requires grad"):
            call(gpunn.ones(1, 2, requires_grad=True))


def test_as_subclass():
    class Mine(gpunn.Tensor):
        pass

    x = gpunn.ones(2, requires_grad=True)
    y = (x * 2).as_subclass(Mine)
    assert type(y) is Mine and y.data_ptr() != x.data_ptr()
    y.sum().backward()
    assert x.grad.tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="no subclass of Tensor"):
        x.as_subclass(list)


def test_the_default_type():
    try:
        gpunn.set_default_tensor_type(gpunn.DoubleTensor)
        assert gpunn.zeros(1).dtype is gpunn.float64
        gpunn.set_default_tensor_type("torch.FloatTensor")
        assert gpunn.zeros(1).dtype is gpunn.float32
    finally:
        gpunn.set_default_dtype(gpunn.float32)
    with pytest.raises(TypeError, match="invalid type object"):
        gpunn.set_default_tensor_type(float)
