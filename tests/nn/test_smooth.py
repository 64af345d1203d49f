"""Smooth activations against their formulas and PyTorch."""

import pickle

import numpy as np
import pytest
from both import refused, same, same_in_place
from check import check
from emulated import on_both

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

x = np.random.default_rng(0).normal(size=(4, 5)) * 3


def _unit(x, alpha, scale=1.0):
    return scale * np.where(x > 0, x, alpha * np.expm1(x))


FORMULAS = {
    "elu": (lambda x: F.elu(x, 0.7), lambda x: _unit(x, 0.7)),
    "selu": (F.selu, lambda x: _unit(x, 1.6732632423543772, 1.0507009873554805)),
    "celu": (lambda x: F.celu(x, 1.7), lambda x: np.where(x > 0, x, 1.7 * np.expm1(x / 1.7))),
    "softplus": (lambda x: F.softplus(x, 2.0), lambda x: np.log1p(np.exp(2 * x)) / 2),
    "logsigmoid": (F.logsigmoid, lambda x: -np.log1p(np.exp(-x))),
    "mish": (F.mish, lambda x: x * np.tanh(np.log1p(np.exp(x)))),
    "softsign": (F.softsign, lambda x: x / (1 + abs(x))),
    "tanhshrink": (F.tanhshrink, lambda x: x - np.tanh(x)),
}


@pytest.mark.parametrize("size", [20, 3000], ids=["numpy", "native"])
@pytest.mark.parametrize("name", FORMULAS)
def test_values_and_gradients(name, size):
    f, formula = FORMULAS[name]
    check(f, [np.resize(x, (2, size // 2)) + np.linspace(0, 1e-3, size // 2)], formula, rtol=1e-2)


@pytest.mark.parametrize("name", FORMULAS)
def test_large_and_infinite_numbers(name):
    def program(T):
        x = T.tensor([-1e20, -800.0, -60.0, 0.0, 60.0, 800.0, 1e20], requires_grad=True)
        y = getattr(T.nn.functional, name)(x)
        y.sum().backward()
        ends = getattr(T.nn.functional, name)(T.tensor([float("inf"), -float("inf")]))
        return y, x.grad, ends.nan_to_num(7, 8, 9)

    same(program)


def test_softplus_is_straight_from_its_threshold_on():
    def program(T):
        x = T.tensor([0.5, 1.0, 1.5], requires_grad=True)
        y = T.nn.functional.softplus(x, beta=2, threshold=2)
        y.sum().backward()
        return y, x.grad

    same(program)


def test_16_bits_are_rounded_once():
    for name in ("elu", "selu", "softplus", "mish", "logsigmoid"):
        z = gpunn.linspace(-3, 3, 40).half()
        f = getattr(F, name)
        assert gpunn.equal(f(z), f(z.float()).half())


def test_complex_and_integers():
    same(lambda T: T.nn.functional.softsign(T.tensor([3, -4])))
    same(lambda T: T.nn.functional.tanhshrink(T.tensor([1 + 1j])).imag)
    refused(lambda T: T.nn.functional.softsign(T.tensor([True])), "abs.*'Bool'|abs_cpu")
    refused(lambda T: T.nn.functional.tanhshrink(T.tensor([True])), "bool tensor is not supported")


def test_what_is_refused():
    for name, kernel in (
        ("elu", "elu_cpu"), ("selu", "elu_cpu"), ("celu", "elu_cpu"), ("mish", "mish_cpu"),
        ("softplus", "softplus_cpu"), ("logsigmoid", "log_sigmoid_cpu"),
    ):  # fmt: skip
        refused(lambda T, name=name: getattr(T.nn.functional, name)(T.arange(3)),
                f"{kernel}.*'Long'")  # fmt: skip
    refused(lambda T: T.celu(T.ones(1), 0.0), "alpha cannot be 0 for CELU")
    refused(lambda T: T.nn.functional.elu(2.0), "must be Tensor, not float")
    refused(lambda T: T.nn.functional.mish(T.ones(1), beta=2), "beta")


def test_parameters_are_numbers():
    same(lambda T: T.nn.functional.elu(T.tensor([-1.0]), T.tensor(0.5)))
    same(lambda T: T.nn.functional.elu(T.tensor([-1.0]), np.float32(0.5)))
    for value in ("a", None):
        refused(lambda T, v=value: T.nn.functional.elu(T.ones(1), v), "'alpha'.* must be Number")
    refused(lambda T: T.nn.functional.celu(T.ones(1), T.ones(1)), "must be Number, not Tensor")


def test_in_place_forms_change_the_input_and_keep_the_gradient():
    same_in_place(lambda F, T: [
        lambda y: F.elu_(y, 0.5), lambda y: F.elu(y, inplace=True), T.selu_, T.celu_,
        lambda y: F.celu(y, 0.5, True), lambda y: F.mish(y, inplace=True),
    ])  # fmt: skip


def test_a_negative_slope_in_place_has_its_right_gradient():
    leaf = gpunn.tensor([-1.0, 2.0], requires_grad=True)
    F.elu(leaf * 1, -1.0, inplace=True).sum().backward()
    other = leaf.detach().requires_grad_()
    F.elu(other, -1.0).sum().backward()
    assert gpunn.equal(leaf.grad, other.grad)


def test_out_and_names():
    out = gpunn.zeros(2)
    assert F.softplus(input=gpunn.zeros(2), out=out) is out
    assert gpunn.equal(out, F.softplus(gpunn.zeros(2), beta=1))
    same(lambda T: T.nn.functional.elu(input=T.tensor([-1.0]), alpha=2.0))
    same(lambda T: T.nn.functional.elu(T.tensor([-1.0], requires_grad=True)).grad_fn.name())


def test_modules_say_what_they_are():
    same(lambda T: [repr(m) for m in (
        T.nn.ELU(), T.nn.ELU(0.5, True), T.nn.SELU(), T.nn.SELU(inplace=True), T.nn.CELU(2.0),
        T.nn.Softplus(), T.nn.Softplus(2, 10), T.nn.LogSigmoid(), T.nn.Mish(True),
        T.nn.Softsign(), T.nn.Tanhshrink(),
    )])  # fmt: skip
    refused(lambda T: T.nn.ELU(1.0, False, 3), "argument")


def test_modules_are_pickled_and_changed():
    m = pickle.loads(pickle.dumps(nn.ELU(0.5)))
    assert type(m) is nn.ELU and m.alpha == 0.5
    m.alpha = 3.0
    assert m(gpunn.tensor([-1e9])).tolist() == [-3.0]


def test_docs_name_the_function():
    assert F.elu.__name__ == "elu" and F.elu.__module__ == "gpunn.nn.smooth"
    assert "torch.nn.functional.elu.html" in F.elu.__doc__ and "torch.nn.ELU" in nn.ELU.__doc__


@pytest.mark.parametrize("name", FORMULAS)
def test_on_a_gpu(emulated, name):
    on_both(FORMULAS[name][0], [x], dtypes=("float32", "bfloat16"))
