"""Jacobians, Hessians and their products, against PyTorch where it is installed."""

import numpy as np
import pytest

import gpunn
from gpunn.autograd import functional

A, B = np.array([0.3, -0.7, 1.1]), np.array([1.2, 0.4])


def _two(x, y):
    return (x.exp() * y[0]).reshape(3, 1), (x[:2] * y).sum()


def _number(x, y):
    return (x**3).sum() * (y**2).sum() + (x[:2] * y).sum()


def _flat(value):
    if isinstance(value, (tuple, list)):
        return [a for v in value for a in _flat(v)]
    return [value.detach().numpy()]


CASES = {
    "vjp": (_two, ([[1.0], [2.0], [3.0]], 0.5)),
    "jvp": (_two, (list(A * 2), list(B * 3))),
    "jacobian": (_two, None),
    "hessian": (_number, None),
    "hvp": (_number, (list(A * 2), list(B * 3))),
    "vhp": (_number, (list(A * 2), list(B * 3))),
}


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_pytorch(name):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    f, v = CASES[name]
    results = []
    for t, module in ((gpunn, functional), (torch, torch.autograd.functional)):
        inputs = t.tensor(A), t.tensor(B)
        vs = () if v is None else (tuple(t.tensor(x, dtype=t.float64) for x in v),)
        results.append(_flat(getattr(module, name)(f, inputs, *vs)))
    assert [r.shape for r in results[0]] == [r.shape for r in results[1]]
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(got, want)


@pytest.mark.parametrize("name", CASES)
def test_with_create_graph_results_can_be_differentiated(name):
    f, v = CASES[name]
    vs = () if v is None else (tuple(gpunn.tensor(x, dtype=gpunn.float64) for x in v),)
    inputs = tuple(gpunn.tensor(a, requires_grad=True) for a in (A, B))

    def results(*xs):
        return tuple(_leaves(getattr(functional, name)(f, xs, *vs, create_graph=True)))

    assert gpunn.autograd.gradcheck(results, inputs)
    plain = _leaves(getattr(functional, name)(f, inputs, *vs))
    assert not any(t.requires_grad for t in plain)
    assert inputs[0].grad is None


def _leaves(value):
    return [t for v in value for t in _leaves(v)] if isinstance(value, tuple) else [value]


def test_a_single_tensor_gives_single_tensors():
    x = gpunn.tensor([1.0, 2.0])
    assert functional.jacobian(lambda t: t.sum(), x).tolist() == [1.0, 1.0]
    assert functional.jacobian(lambda t: gpunn.ones(2), x).tolist() == [[0.0, 0.0]] * 2
    assert functional.jacobian(lambda t: t[:0], x).shape == (0, 2)
    value, product = functional.vjp(lambda t: t.sum(), x)
    assert (value.item(), product.tolist()) == (3.0, [1.0, 1.0])


def test_strict_refuses_what_does_not_depend():
    x = gpunn.tensor([1.0, 2.0])
    with pytest.raises(RuntimeError, match="independent of input 0. This is not allowed in stri"):
        functional.jacobian(lambda t: gpunn.ones(2), x, strict=True)
    with pytest.raises(RuntimeError, match="are not supported together"):
        functional.jacobian(gpunn.exp, x, strict=True, vectorize=True)


def test_wrong_arguments():
    x = gpunn.tensor([1.0, 2.0])
    with pytest.raises(TypeError, match="must be either a Tensor or a tuple of Tensors but the gi"):
        functional.jacobian(gpunn.exp, [x])
    with pytest.raises(TypeError, match="the value at index 1 has type <class 'int'>"):
        functional.vjp(gpunn.add, (x, 1))
    with pytest.raises(RuntimeError, match="The vector v can only be None if"):
        functional.vjp(gpunn.exp, x)
    with pytest.raises(RuntimeError, match=r"v has invalid size: should be torch.Size\(\[2\]\)"):
        functional.vjp(gpunn.exp, x, gpunn.ones(3))
    with pytest.raises(RuntimeError, match="v is a tuple of invalid length: should be 2 but got 1"):
        functional.jvp(gpunn.add, (x, x), (x,))
    with pytest.raises(RuntimeError, match="should contain a single element"):
        functional.hessian(gpunn.exp, x)
    with pytest.raises(RuntimeError, match="given to vhp should return a single Tensor"):
        functional.vhp(lambda t: (t, t), x, x)
    with pytest.raises(ValueError, match="the only strategy is 'reverse-mode'"):
        functional.jacobian(gpunn.exp, x, strategy="forward-mode")
