"""Rows: the quick path and the general one agree; what is recorded; what is refused."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import gpunn
from gpunn.ops import _rows as rows

SHAPES = hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=3, max_side=3)


@given(SHAPES, st.data())
def test_broadcasting_and_its_gradients(pair, data):
    arrays = [
        data.draw(hnp.arrays(np.float64, s, elements=st.floats(-4, 4))) for s in pair.input_shapes
    ]
    a, b = (gpunn.from_numpy(x).requires_grad_() for x in arrays)
    y = a * b
    assert tuple(y.shape) == pair.result_shape
    np.testing.assert_array_equal(y.detach().numpy(), arrays[0] * arrays[1])
    y.sum().backward()
    ones = np.ones(pair.result_shape)
    for x, other, leaf in ((*arrays, a), (*arrays[::-1], b)):
        wanted = _summed_to(ones * other, x.shape)
        assert leaf.grad.shape == x.shape
        np.testing.assert_allclose(leaf.grad.numpy(), wanted, atol=1e-12)


def _summed_to(g, shape):
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and g.shape[i] != 1)
    return g.sum(axis=axes, keepdims=True)


@pytest.mark.parametrize("numbers", [(2.5, 3), (np.float64(0.1), 1)])
@pytest.mark.parametrize("d", ["float32", "float64", "float16", "bfloat16", "complex64"])
def test_numbers_do_not_change_a_floating_dtype(d, numbers):
    x = gpunn.tensor([1.0, 2.0], dtype=getattr(gpunn, d))
    for number in numbers:
        for y in (x * number, number * x, x + number, number - x, number / x):
            assert y.dtype is x.dtype


def test_a_number_is_rounded_once():
    x = gpunn.tensor([3.0], dtype=gpunn.float64)
    assert (x * 0.1).item() == 3.0 * 0.1
    assert gpunn.lerp(x, x + 1, 0.1).item() == 3.1
    half = gpunn.tensor([3.0], dtype=gpunn.bfloat16)
    assert (half * 0.3).item() == float(np.float32(0.9).astype(ml_dtypes.bfloat16))
    assert (half * np.float64(0.3)).dtype is gpunn.bfloat16


def test_half_precision_is_computed_in_float32_and_rounded_once():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 100)).astype(np.float16)
    got = gpunn.from_numpy(a) / gpunn.from_numpy(b)
    np.testing.assert_array_equal(
        got.numpy(), (a.astype(np.float32) / b.astype(np.float32)).astype(np.float16)
    )
    exact = gpunn.nextafter(gpunn.tensor([1.0]).half(), gpunn.tensor([2.0]).half())
    assert exact.item() == 1 + 2**-10


def test_promotion_follows_categories():
    i, f = gpunn.arange(3), gpunn.tensor(2.0)
    assert (i + 1).dtype is gpunn.int64 and (i + 0.5).dtype is gpunn.float32
    assert (i + f).dtype is gpunn.float32 and (i.to(gpunn.uint8) + 300).tolist() == [44, 45, 46]
    assert (f.double() + gpunn.ones(2)).dtype is gpunn.float32  # a 0-dim tensor counts less
    assert (i / 2).dtype is gpunn.float32 and gpunn.exp(i).dtype is gpunn.float32
    assert (gpunn.ones(2) * 1j).dtype is gpunn.complex64
    assert gpunn.add(2, 3).item() == 5


def test_a_gradient_comes_back_in_the_dtype_of_its_operand():
    x = gpunn.ones(2, dtype=gpunn.float16, requires_grad=True)
    w = gpunn.ones(2, requires_grad=True)
    y = x * w
    assert y.dtype is gpunn.float32
    y.sum().backward()
    assert x.grad.dtype is gpunn.float16 and w.grad.dtype is gpunn.float32
    z = gpunn.ones(2, requires_grad=True)
    (z * (2 + 1j)).real.sum().backward()
    assert z.grad.dtype is gpunn.float32 and z.grad.tolist() == [2, 2]


def test_sizes_that_do_not_fit():
    with pytest.raises(RuntimeError, match=r"tensor a \(2\) must match .* tensor b \(3\) at non-s"):
        gpunn.ones(2) + gpunn.ones(3)
    with pytest.raises(RuntimeError, match="dimension 0"):
        gpunn.ones(2, 4).half() * gpunn.ones(3, 4)
    with pytest.raises(RuntimeError, match=r"tensor a \(2\) must match .* tensor b \(4\)"):
        gpunn.addcmul(gpunn.ones(1), gpunn.ones(2), gpunn.ones(4))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: gpunn.exp(2.0), TypeError, r"exp\(\): argument 'input' .* must be Tensor, not fl"),
        (lambda: gpunn.mul(gpunn.ones(1), "a"), TypeError, r"argument 'other' \(position 2\)"),
        (lambda: gpunn.add([1], 2), TypeError, "must be Tensor, not list"),
        (lambda: gpunn.clamp([1], 2), TypeError, r"clamp\(\): argument 'input' .* not list"),
        (lambda: gpunn.where(True, 1, 2), TypeError, "argument 'condition' .* not bool"),
        (lambda: gpunn.nan_to_num(1.0), TypeError, "must be Tensor, not float"),
        (lambda: gpunn.real(1.0), TypeError, "must be Tensor, not float"),
        (lambda: gpunn.floor(gpunn.ones(1) * 1j), RuntimeError, "not implemented for 'ComplexFloa"),
        (lambda: gpunn.erf(gpunn.ones(1).cdouble()), RuntimeError, "for 'ComplexDouble'"),
        (lambda: gpunn.maximum(gpunn.ones(1), gpunn.ones(1) * 1j), RuntimeError, "complex tensors"),
        (lambda: gpunn.gcd(gpunn.ones(1), gpunn.ones(1)), RuntimeError, "for 'Float'"),
        (lambda: gpunn.ones(1) & 1, RuntimeError, "\"bitwise_and_cpu\" not implemented for 'Floa"),
    ],
)  # fmt: skip
def test_refusals(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_devices_are_not_mixed_but_0_dim_tensors_go_along():
    x = gpunn.ones(2, device="cpu:1")
    assert (x * gpunn.tensor(2.0)).device is x.device and (x * 2).tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="on the same device"):
        x + gpunn.ones(2)


def test_no_derivative():
    x = gpunn.ones(2, requires_grad=True)
    y = x // 2
    assert y.requires_grad and y.grad_fn.name() == "NotImplemented"
    with pytest.raises(RuntimeError, match="derivative for aten::floor_divide is not implemented"):
        y.sum().backward()


def test_names_of_nodes():
    x = gpunn.ones(2, requires_grad=True)
    for y, name in ((x + 1, "Add"), (-x, "Neg"), (x**3, "Pow"), (x.exp2(), "Exp2"), (x / 2, "Div"),
                    (gpunn.special.ndtri(x / 2), "SpecialNdtri")):  # fmt: skip
        assert y.grad_fn.name() == f"{name}Backward0"


def test_a_row_works_on_arrays_for_vjps():
    x = np.array([0.5, 1.0])
    np.testing.assert_array_equal(gpunn.exp.on_array(x), np.exp(x))
    np.testing.assert_array_equal(rows.on(gpunn.exp, gpunn.from_numpy(x)).numpy(), np.exp(x))
    np.testing.assert_array_equal(gpunn.mul.on_arrays(x, x), x * x)


def test_several_takes_numbers_and_tensors():
    y = rows.several("sum3", (gpunn.ones(2), 2, gpunn.ones(3, 1)), lambda a, b, c, xp: a + b + c,
                     None)  # fmt: skip
    assert y.shape == (3, 2) and y.dtype is gpunn.float32 and (y == 4).all()
