"""Gradient clipping against PyTorch."""

import math

import numpy as np
import pytest

import gpunn
from gpunn.nn.utils import clip_grad

NORMS = [2, 1, 3, 0.5, math.inf, -math.inf, 0, -1.5]


def twins(dtype="float32", seed=0, scale=1.0):
    """Parameters with gradients in both libraries."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    rng = np.random.default_rng(seed)
    params: list = [[], []]
    for shape in [(3, 4), (5,), (), (0,), (2, 2)]:
        g = rng.standard_normal(shape) * scale
        if "complex" in dtype:
            g = g + 1j * rng.standard_normal(shape)
        for library, found in zip((gpunn, torch), params, strict=True):
            d = getattr(library, dtype)
            p = library.zeros(shape, dtype=d, requires_grad=True)
            if shape != (2, 2):
                p.grad = library.tensor(g, dtype=d)
            found.append(p)
    return torch, params


def check_grads(params, **tolerance):
    for mine, theirs in zip(*params, strict=True):
        assert (mine.grad is None) == (theirs.grad is None)
        if mine.grad is not None:
            a, b = mine.grad, theirs.grad
            if a.dtype is gpunn.bfloat16:
                a, b = a.float(), b.float()
            np.testing.assert_allclose(a.numpy(), b.numpy(), **tolerance)


@pytest.mark.parametrize("max_norm", [0.5, 1e6, 0.0])
@pytest.mark.parametrize("norm_type", NORMS)
def test_the_norm_and_the_clipped_gradients_equal_pytorchs(norm_type, max_norm):
    torch, params = twins()
    if norm_type < 0 or norm_type == math.inf:  # PyTorch has no such norm of an empty tensor
        params = [[p for p in ps if p.numel()] for ps in params]
    mine, theirs = (
        library.nn.utils.clip_grad_norm_(ps, max_norm, norm_type)
        for library, ps in zip((gpunn, torch), params, strict=True)
    )
    assert str(mine.dtype) == str(theirs.dtype) and mine.shape == ()
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-6)
    check_grads(params, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16", "complex64"])
def test_other_dtypes(dtype):
    torch, params = twins(dtype)
    mine, theirs = (
        library.nn.utils.clip_grad_norm_(ps, 0.5)
        for library, ps in zip((gpunn, torch), params, strict=True)
    )
    assert str(mine.dtype) == str(theirs.dtype)
    rel = {"float64": 1e-12, "complex64": 1e-6}.get(dtype, 1e-2)
    assert mine.item() == pytest.approx(theirs.item(), rel=rel)
    check_grads(params, rtol=rel, atol=rel)


def test_half_precision_is_summed_in_float32():
    p = gpunn.zeros(65536, dtype=gpunn.bfloat16, requires_grad=True)
    p.grad = gpunn.ones(65536, dtype=gpunn.bfloat16)
    assert gpunn.nn.utils.clip_grad_norm_([p], 1e9).item() == 256.0


@pytest.mark.parametrize("norm_type", NORMS)
@pytest.mark.parametrize("order", ["C", "F"])
def test_large_gradients_are_summed_in_chunks(monkeypatch, norm_type, order):
    g = np.asarray(np.random.default_rng(0).standard_normal((7, 9)), order=order)
    whole = clip_grad.get_total_norm(gpunn.as_tensor(g), norm_type).item()
    monkeypatch.setattr(clip_grad, "CHUNK", 10)
    assert clip_grad.get_total_norm([gpunn.as_tensor(g)], norm_type).item() == pytest.approx(whole)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_norms_that_are_not_finite(bad):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    params = []
    for library in (gpunn, torch):
        p = library.zeros(3, requires_grad=True)
        p.grad = library.tensor([1.0, bad, 2.0])
        with pytest.raises(RuntimeError, match="is non-finite, so it cannot be clipped"):
            library.nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
        library.nn.utils.clip_grad_norm_([p], 1.0)
        params.append([p])
    check_grads(params)


def test_one_tensor_generators_and_nothing():
    p = gpunn.zeros(2, requires_grad=True)
    p.grad = gpunn.tensor([3.0, 4.0])
    assert gpunn.nn.utils.clip_grad_norm_(p, 1.0).item() == 5.0
    assert gpunn.nn.utils.clip_grad_norm_((q for q in [p]), 1.0).item() == pytest.approx(1.0)
    assert gpunn.nn.utils.clip_grad_norm_([], 1.0).item() == 0.0
    with pytest.warns(UserWarning, match="`parameters` is an empty generator") as found:
        assert gpunn.nn.utils.clip_grad_norm_((q for q in []), 1.0).item() == 0.0
    assert found[0].filename == __file__


def test_the_old_name_warns():
    p = gpunn.zeros(1, requires_grad=True)
    p.grad = gpunn.tensor([2.0])
    with pytest.warns(FutureWarning, match="is now deprecated in favor of"):
        assert gpunn.nn.utils.clip_grad_norm(p, 1.0).item() == 2.0
    assert p.grad.item() == pytest.approx(1.0)


def test_a_given_norm():
    p = gpunn.zeros(1, requires_grad=True)
    p.grad = gpunn.tensor([2.0])
    gpunn.nn.utils.clip_grads_with_norm_(p, 1.0, gpunn.tensor(8.0))
    assert p.grad.item() == pytest.approx(0.25)
    gpunn.nn.utils.clip_grads_with_norm_([p], 1.0, gpunn.tensor(0.5))
    assert p.grad.item() == pytest.approx(0.25)


def test_several_devices():
    params = []
    for name in ("cpu", "cpu:1"):
        p = gpunn.zeros(1, device=name, requires_grad=True)
        p.grad = gpunn.tensor([3.0 if name == "cpu" else 4.0], device=name)
        params.append(p)
    assert gpunn.nn.utils.clip_grad_norm_(params, 2.5).item() == 5.0
    assert [p.grad.item() for p in params] == pytest.approx([1.5, 2.0])


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_clipped_values_equal_pytorchs(dtype):
    torch, params = twins(dtype, scale=3.0)
    for library, ps in zip((gpunn, torch), params, strict=True):
        library.nn.utils.clip_grad_value_(ps, 1.1)
    check_grads(params)
    p = params[0][0]
    gpunn.nn.utils.clip_grad_value_(p, 0.5)
    assert p.grad.abs().max().item() == 0.5


def test_clipping_is_noticed_by_a_backward_that_needs_the_gradient():
    p = gpunn.zeros(2, requires_grad=True)
    p.grad = gpunn.tensor([3.0, 4.0])
    x = gpunn.ones(2, requires_grad=True)
    loss = (x * p.grad).sum()
    gpunn.nn.utils.clip_grad_norm_(p, 1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_sparse_gradients_are_refused():
    table = gpunn.nn.Embedding(3, 2, sparse=True)
    table(gpunn.tensor([0])).sum().backward()
    with pytest.raises(NotImplementedError, match="sparse"):
        gpunn.nn.utils.clip_grad_norm_(table.parameters(), 1.0)


def test_the_cpp_sum_equals_the_numpy_sum(monkeypatch):
    if gpunn.native.lib() is None:
        pytest.skip(f"no C++ library: {gpunn.native.status()}")
    rng = np.random.default_rng(0)
    tensors = [gpunn.as_tensor(rng.standard_normal(s).astype(np.float32)) for s in [(40, 3), (7,)]]
    expected = clip_grad.get_total_norm(tensors).item()
    monkeypatch.setattr(clip_grad, "NATIVE_SIZE", 1)
    asked = []
    square_sum = gpunn.native.square_sum
    monkeypatch.setattr(gpunn.native, "square_sum", lambda x: asked.append(1) or square_sum(x))
    assert clip_grad.get_total_norm(tensors).item() == pytest.approx(expected, rel=1e-6)
    mixed = [*tensors, gpunn.ones(2, dtype=gpunn.float64)]
    assert clip_grad.get_total_norm(mixed).item() == pytest.approx((expected**2 + 2) ** 0.5)
    assert asked == [1, 1]
