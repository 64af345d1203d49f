"""Operands: one dtype, one device."""

import numpy as np
import pytest

import gpunn
from gpunn import dtypes
from gpunn.ops import _operands as operands


def test_all_kinds_of_operands_become_tensors_of_one_dtype():
    values = (gpunn.ones(2), 3, np.arange(2.0), gpunn.tensor(1))
    tensors, d = operands.operands("f", values, False)
    assert d == np.float64 and all(t.array.dtype == d for t in tensors)
    assert [t.tolist() for t in tensors] == [[1, 1], 3, [0, 1], 1]
    with pytest.raises(TypeError, match=r"f\(\): argument 'other' \(position 2\) must be Tensor"):
        operands.operands("f", (gpunn.ones(1), None), False)


@pytest.mark.parametrize(
    "number, of_int, of_half",
    [(True, "int64", "float16"), (1, "int64", "float16"), (1.5, "float32", "float16"),
     (1j, "complex64", "complex64")],
)  # fmt: skip
def test_a_number_counts_only_in_a_higher_category(number, of_int, of_half):
    x = gpunn.arange(2)
    assert operands.dtype_with_number(x, number, False) == of_int
    if of_half == "float16":
        assert operands.dtype_with_number(x.half(), number, False) == of_half


def test_the_default_dtype_is_that_of_integers_made_floating():
    x = gpunn.arange(2)
    assert operands.common_dtype([(x.dtype, 2)], True) == np.float32
    gpunn.set_default_dtype(gpunn.float64)
    try:
        assert operands.common_dtype([(x.dtype, 2)], True) == np.float64
        assert (x + 0.5).dtype is gpunn.float64
    finally:
        gpunn.set_default_dtype(gpunn.float32)


def test_the_device_of_operands():
    one = gpunn.ones(1, device="cpu:1")
    assert operands.same_device("f", (1, one, gpunn.tensor(2.0))) is one.device
    assert operands.same_device("f", (1, gpunn.tensor(2.0))).type == "cpu"
    with pytest.raises(RuntimeError, match=r"cpu:1 and cpu! \(f\)"):
        operands.same_device("f", (one, gpunn.ones(1)))


def test_casting_is_recorded_and_drops_imaginary_parts():
    x = gpunn.ones(2, requires_grad=True)
    y = operands.cast(x, np.dtype(np.complex64))
    assert operands.cast(x, np.dtype(np.float32)) is x
    (y * (3 + 4j)).sum().abs().backward()
    assert x.grad.dtype is gpunn.float32
    np.testing.assert_allclose(x.grad.numpy(), [5, 5], rtol=1e-6)
    assert operands.cast_array(np.array([1 + 2j]), np.float32).tolist() == [1]


def test_conjugates():
    real = np.ones(2)
    assert operands.conjugate(real) is not None and operands.conjugate(2 - 1j) == 2 + 1j
    assert operands.conjugate(gpunn.tensor([1j])).tolist() == [-1j]


def test_size_errors_name_the_last_dimension_that_differs():
    error = operands.size_error((2, 3, 4), (5, 4))
    assert str(error).startswith("The size of tensor a (3) must match the size of tensor b (5) at")
    assert "dimension 1" in str(error)


def test_names_of_dtypes_in_errors():
    assert operands.proper(dtypes.complex128) == "ComplexDouble"
    assert "'Long'" in str(operands.refusal("f", np.dtype(np.int64)))
    assert operands.half(dtypes.BF16) and not operands.half(dtypes.F32)


def test_a_loss_wants_two_tensors():
    x = gpunn.ones(2)
    with pytest.raises(TypeError, match=r"mse_loss\(\): argument 'input' \(position 1\) .* tuple"):
        operands.check_tensors("mse_loss", (x, x), x)
    with pytest.raises(TypeError, match=r"'target' \(position 2\) must be Tensor, not numpy.nd"):
        operands.check_tensors("mse_loss", x, x.numpy())
    operands.check_tensors("mse_loss", x, x)


def test_only_a_missing_array_of_an_argument_is_worded_anew():
    def failed(f, *args):
        with pytest.raises(AttributeError) as caught:
            f(*args)
        return operands.no_array(caught.value, "Owner")

    def helper(a, input):
        return input.array

    assert str(failed(helper, 1, [2])) == (
        "Owner(): argument 'input' (position 1) must be Tensor, not list"
    )
    assert failed(lambda x: x.shape, [2]) is None
    assert failed(lambda x: x.absent, gpunn.ones(1)) is None
    assert operands.no_array(ValueError("array"), "Owner") is None
