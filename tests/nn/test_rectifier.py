"""Activations of straight pieces against their formulas and PyTorch."""

import numpy as np
import pytest
from both import refused, same, same_in_place
from check import check
from emulated import on_both

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

x = np.random.default_rng(0).normal(size=(4, 5)) * 3

FORMULAS = {
    "relu6": (F.relu6, lambda x: np.clip(x, 0, 6)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.5, 2.0), lambda x: np.clip(x, -0.5, 2)),
    "hardsigmoid": (F.hardsigmoid, lambda x: np.clip(x + 3, 0, 6) / 6),
    "hardswish": (F.hardswish, lambda x: x * np.clip(x + 3, 0, 6) / 6),
    "hardshrink": (lambda x: F.hardshrink(x, 1.3), lambda x: x * (abs(x) > 1.3)),
    "softshrink": (F.softshrink, lambda x: np.sign(x) * np.maximum(abs(x) - 0.5, 0)),
    "threshold": (lambda x: F.threshold(x, 0.3, 20.0), lambda x: np.where(x > 0.3, x, 20)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), lambda x: np.maximum(x, 0.2 * x)),
    "rrelu": (F.rrelu, lambda x: np.where(x > 0, x, x * 11 / 48)),
}


@pytest.mark.parametrize("size", [20, 3000], ids=["numpy", "native"])
@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_gradients(name, size):
    f, formula = FORMULAS[name]
    check(f, [np.resize(x, (2, size // 2)) + np.linspace(0, 1e-3, size // 2)], formula, rtol=1e-2)


def test_prelu():
    w = np.array([0.5, -1.0, 0.25, 2.0, 3.0])
    check(F.prelu, [x, w], lambda x, w: np.where(x > 0, x, x * w), rtol=2e-2)
    check(F.prelu, [x[..., None], w[:1]], lambda x, w: np.where(x > 0, x, x * w), rtol=2e-2)


def test_where_two_pieces_meet():
    def slopes(T, name, *args):
        x = T.tensor([-3.0, -1, -0.5, 0, 0.5, 1, 3, 6], requires_grad=True)
        getattr(T.nn.functional, name)(x, *args).sum().backward()
        return x.grad

    for name in FORMULAS:
        args = (0.5, 20.0) if name == "threshold" else ()
        same(lambda T, name=name, args=args: slopes(T, name, *args))


def test_infinities_and_nan():
    for name in FORMULAS:
        args = (0.5, 20.0) if name == "threshold" else ()
        same(lambda T, name=name, args=args: getattr(T.nn.functional, name)(
            T.tensor([float("nan"), float("inf"), -float("inf")]), *args).nan_to_num(7, 8, 9))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_rrelu_draws_pytorchs_slopes(training, dtype):
    def program(T):
        T.manual_seed(3)
        x = T.linspace(-4, 4, 30).to(getattr(T, dtype)).requires_grad_()
        y = T.nn.functional.rrelu(x, 0.1, 0.9, training)
        y.sum().backward()
        return y, x.grad, T.rand(2)

    same(program)


def test_rrelu_of_16_bits_while_training_is_refused_as_by_pytorch():
    refused(lambda T: T.rrelu(T.ones(2).half(), training=True), "rrelu_with_noise_out_cpu.*'Half'")


def test_integers():
    same(lambda T: T.nn.functional.relu6(T.tensor([-2, 3, 9])))
    same(lambda T: T.nn.functional.relu6(T.tensor([200, 3], dtype=T.uint8)))
    same(lambda T: T.nn.functional.hardtanh(T.tensor([-2, 0, 9]), -1.5, 1.5))
    same(lambda T: T.threshold(T.tensor([-2, 1, 9]), 1.5, 20.7))


def test_what_is_refused():
    def call(name, *args, dtype="float32", **named):
        return lambda T: getattr(T.nn.functional, name)(
            T.ones(2, 3).to(getattr(T, dtype)), *args, **named
        )

    refused(call("leaky_relu", dtype="int64"), "leaky_relu_cpu.*'Long'")
    refused(call("hardswish", dtype="complex64"), "hardswish_cpu.*'ComplexFloat'")
    refused(call("threshold", 0.0, 0.0, dtype="bool"), "threshold_cpu.*'Bool'")
    refused(call("hardtanh", dtype="bool"), "Bool inputs not supported for hardtanh")
    refused(call("hardtanh", dtype="uint8"), "hardtanh on an unsigned type with negative limits")
    refused(call("hardtanh", dtype="complex64"), "clamp is not supported for complex types")
    refused(call("hardtanh", 2.0, 1.0), "min_val cannot be greater than max_val")
    refused(call("softshrink", -1.0), r"lambda must be in range \[0, 3.40282e\+38\] for input")
    refused(call("softshrink", dtype="int32"), "softshrink_check.*'Int'")
    refused(call("rrelu", 0.5, 0.1), "Lower bound should be less than or equal to the upper bound")
    refused(call("rrelu", 0.5, float("inf")), "upper bound must be finite, got inf")
    refused(call("threshold"), "missing")
    refused(call("leaky_relu", 0.1, slope=1), "slope")
    for name in ("relu6", "rrelu", "hardshrink"):
        refused(lambda T, name=name: getattr(T.nn.functional, name)(1.0), "Tensor, not float")


def test_what_prelu_refuses():
    def call(shape, *weight):
        return lambda T: T.prelu(T.ones(shape), T.ones(weight))

    refused(call((2, 3), 2), "parameter numbers = 2 and channel size = 3")
    refused(call((3,), 3), "parameter numbers = 3 and channel size = 1")
    refused(call((), 2), "Not allow zero-dim input tensor")
    refused(call((2, 3), 3, 1), "to be a scalar or 1D tensor, but got: ndim = 2")
    refused(lambda T: T.prelu(T.ones(3), T.ones(1).double()), "Got Float and Double")
    refused(lambda T: T.prelu(T.ones(3), 0.25), "'weight' .position 2. must be Tensor, not float")
    refused(lambda T: T.prelu(T.ones(3).long(), T.ones(1).long()), "prelu_cpu.*'Long'")


def test_in_place_forms_change_the_input_and_keep_the_gradient():
    same_in_place(lambda F, T: [
        lambda y: F.leaky_relu_(y, 0.2), F.hardtanh_, lambda y: T.threshold_(y, 0.5, 2.0),
        lambda y: F.rrelu_(y, 0.25, 0.75), lambda y: F.relu6(y, True),
        lambda y: F.hardswish(y, inplace=True), lambda y: F.hardsigmoid(y, inplace=True),
    ])  # fmt: skip
    refused(lambda T: T.nn.functional.relu6(T.ones(1, requires_grad=True), True), "a leaf Variable")


def test_out():
    out = gpunn.zeros(2)
    for f in (F.hardshrink, F.softshrink):
        assert f(gpunn.tensor([0.25, 2.0]), out=out) is out
    assert out.tolist() == [0.0, 1.5]


def test_modules_say_what_they_are():
    same(lambda T: [repr(m) for m in (
        T.nn.Hardtanh(), T.nn.Hardtanh(-2, 2, True), T.nn.ReLU6(), T.nn.ReLU6(True),
        T.nn.Hardsigmoid(True), T.nn.Hardswish(), T.nn.Hardshrink(0.3), T.nn.Softshrink(),
        T.nn.Threshold(0.1, 20, True), T.nn.LeakyReLU(), T.nn.LeakyReLU(inplace=True),
        T.nn.PReLU(3), T.nn.RReLU(), T.nn.RReLU(0.1, 0.2, True),
    )])  # fmt: skip
    refused(lambda T: T.nn.Hardtanh(2.0, 1.0), r"max_val .1\.0. must be greater than min_val .2\.0")
    refused(lambda T: T.nn.Threshold(1.0), "value")
    assert issubclass(nn.ReLU6, nn.Hardtanh)


def test_old_names_of_hardtanh_warn():
    with pytest.warns(FutureWarning, match="`min_value` is deprecated and renamed to `min_val`"):
        assert nn.Hardtanh(min_value=-2.0).min_val == -2.0


def test_rrelu_draws_only_while_training():
    m = nn.RReLU(0.25, 0.75)
    z = gpunn.full((50,), -1.0)
    assert m(z).unique().numel() == 50 and (m(z) >= -0.75).all() and (m(z) <= -0.25).all()
    assert m.eval()(z).unique().tolist() == [-0.5]


def test_methods_of_tensors():
    same(lambda T: T.tensor([-1.0, 0.25]).prelu(T.tensor([0.5])))
    same(lambda T: T.tensor([-1.0, 0.25]).hardshrink(0.75))


@pytest.mark.parametrize("name", FORMULAS)
def test_on_a_gpu(emulated, name):
    on_both(FORMULAS[name][0], [x], dtypes=("float32", "bfloat16"))


def test_prelu_on_a_gpu(emulated):
    on_both(F.prelu, [x, np.linspace(-1, 1, 5)], dtypes=("float32", "float16"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_gradient_of_one_weight_is_summed_in_32_bits(dtype):
    w = gpunn.ones(1, dtype=getattr(gpunn, dtype), requires_grad=True)
    F.prelu(-gpunn.ones(4096).to(w.dtype), w).sum().backward()
    assert w.grad.tolist() == [-4096.0]


def test_rrelu_draws_on_a_gpu(emulated):
    z = gpunn.full((4, 50), -1.0, device="cuda", requires_grad=True)
    y = F.rrelu(z, 0.25, 0.75, training=True)
    y.sum().backward()
    assert y.unique().numel() > 190 and (y >= -0.75).all() and (y <= -0.25).all()
    assert gpunn.equal(z.grad, -y.detach())
    assert gpunn.equal(F.rrelu(-z.detach(), training=True), -z.detach())
