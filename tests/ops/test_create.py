"""Tensors of constants, or of memory as it comes."""

import numpy as np
import pytest

import gpunn


@pytest.mark.parametrize("name, value", [("zeros", 0), ("ones", 1), ("empty", None)])
def test_filled(name, value):
    make = getattr(gpunn, name)
    for made in (
        make(2, 3), make((2, 3)), make([2, 3]), make(size=(2, 3)), make(gpunn.Size([2, 3])),
        make(np.int64(2), gpunn.tensor(3)), make(2, 3, dtype=gpunn.float32, layout=gpunn.strided),
    ):  # fmt: skip
        assert made.shape == (2, 3) and made.dtype is gpunn.float32
        assert value is None or (made == value).all()
    assert make(()).shape == () and make(0).shape == (0,)
    assert make(2, dtype=gpunn.int8, device="cpu:1").device.index == 1
    assert make(2, requires_grad=True).requires_grad
    assert make(2, dtype=bool).dtype is gpunn.bool and make(2, dtype=float).dtype is gpunn.float64
    out = gpunn.full((2,), 7.0)
    assert make(2, out=out) is out


def test_sizes_that_are_none():
    for args, kwargs, error, message in (
        ((), {}, TypeError, 'missing 1 required positional arguments: "size"'),
        ((2.5,), {}, TypeError, "must be tuple of ints, not float"),
        (("a",), {}, TypeError, "must be tuple of ints, not str"),
        (((2,),), {"size": (2,)}, TypeError, "multiple values for argument 'size'"),
        ((2,), {"foo": 1}, TypeError, "unexpected keyword argument 'foo'"),
        ((2,), {"dtype": "float32"}, TypeError, "dtype must be"),
        ((2,), {"layout": gpunn.sparse_coo}, RuntimeError, "only the layout torch.strided"),
        ((-1,), {}, RuntimeError, r"negative dimension -1: \[-1\]"),
        ((2,), {"dtype": gpunn.int64, "requires_grad": True}, RuntimeError, "floating point and"),
    ):
        with pytest.raises(error, match=message):
            gpunn.zeros(*args, **kwargs)


def test_likeness():
    x = gpunn.arange(6, dtype=gpunn.int16).reshape(2, 3).T
    for name, value in (("zeros_like", 0), ("ones_like", 1), ("empty_like", None)):
        make = getattr(gpunn, name)
        made = make(x)
        assert made.shape == (3, 2) and made.dtype is gpunn.int16 and made.stride() == (1, 3)
        assert value is None or (made == value).all()
        assert make(x, memory_format=gpunn.contiguous_format).stride() == (2, 1)
        assert make(x, dtype=gpunn.float64, device="cpu:1", requires_grad=True).requires_grad
        with pytest.raises(TypeError, match="must be Tensor, not list"):
            make([1])
    full = gpunn.full_like(x, 3.7)
    assert full.tolist() == [[3, 3]] * 3 and full.stride() == (1, 3)
    assert gpunn.full_like(x, 3.5, dtype=gpunn.float32)[0, 0].item() == 3.5


def test_full():
    assert gpunn.full((2,), 7).dtype is gpunn.int64
    assert gpunn.full((2,), True).dtype is gpunn.bool
    assert gpunn.full((2,), 1.0).dtype is gpunn.float32
    assert gpunn.full((2,), 1j).dtype is gpunn.complex64
    assert gpunn.full((), 3).shape == () and gpunn.full(size=(1,), fill_value=2).tolist() == [2]
    assert gpunn.full((2,), gpunn.tensor(3.0)).tolist() == [3, 3]
    assert gpunn.full((1,), 1.9, dtype=gpunn.int64).item() == 1
    assert gpunn.full((1,), -5, dtype=gpunn.uint8).item() == 251
    for args, kwargs, error, message in (
        ((2, 1), {}, TypeError, "must be tuple of ints, not int"),
        (((2,), gpunn.ones(2)), {}, TypeError, "must be Number, not Tensor"),
        (((2,), 300), {"dtype": gpunn.uint8}, RuntimeError, "without overflow"),
        (((2,), 1j), {"dtype": gpunn.float32}, RuntimeError, "without overflow"),
        (((2,), "x"), {"dtype": gpunn.float32}, TypeError, "must be Number, not str"),
    ):
        with pytest.raises(error, match=message):
            gpunn.full(*args, **kwargs)


def test_strides():
    x = gpunn.empty_strided((2, 3), (1, 2))
    assert x.shape == (2, 3) and x.stride() == (1, 2)
    x.fill_(3)
    assert x.sum().item() == 18
    assert gpunn.empty_strided((2, 3), (0, 1)).stride() == (0, 1)
    assert gpunn.empty_strided((0,), (5,)).shape == (0,)
    with pytest.raises(RuntimeError, match=r"dimensionality of sizes \(1\) must match"):
        gpunn.empty_strided((2,), (1, 2))
    with pytest.raises(RuntimeError, match="must not be negative"):
        gpunn.empty_strided((2,), (-1,))
    assert gpunn.empty_permuted((2, 3, 4), (0, 2, 1)).stride() == (12, 1, 3)
    for size, order, message in (
        ((2,), (0, 1), r"len\(size\) = 1 is not equal to len\(physical_layout\) = 2"),
        ((2,), (3,), "between 0 and 0, but got 3 at index 0"),
        ((2, 3), (0, 0), "Duplicate dim not allowed"),
    ):
        with pytest.raises(RuntimeError, match=message):
            gpunn.empty_permuted(size, order)


def test_new():
    x = gpunn.tensor([1, 2], dtype=gpunn.int8).to("cpu:1")
    for made in (x.new_zeros(2), x.new_ones((2,)), x.new_empty(size=(2,)), x.new_full((2,), 3),
                 x.new_tensor([1.5, 2]), x.new_empty_strided((2,), (3,))):  # fmt: skip
        assert made.dtype is gpunn.int8 and made.device is x.device and made.shape == (2,)
    assert x.new_full((1,), 3.5, dtype=gpunn.float64).item() == 3.5
    assert x.new_tensor(3.5).item() == 3
    assert x.new_ones(2, dtype=gpunn.float32, requires_grad=True).requires_grad


def test_the_default_dtype():
    gpunn.set_default_dtype(gpunn.float64)
    try:
        assert gpunn.zeros(1).dtype is gpunn.full((1,), 0.5).dtype is gpunn.float64
    finally:
        gpunn.set_default_dtype(gpunn.float32)
