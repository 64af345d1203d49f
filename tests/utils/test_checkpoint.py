"""Checkpointing: the same gradients with less kept, random numbers repeated, its errors."""

import gc
import warnings
import weakref

import numpy as np
import pytest

import gpunn
from gpunn import nn
from gpunn.nn import functional as F
from gpunn.utils.checkpoint import CheckpointError, checkpoint, checkpoint_sequential


def _model():
    gpunn.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)
    )


def _gradients(model):
    return [p.grad.numpy().copy() for p in model.parameters()]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("segments", [1, 2, 3])
def test_sequential_gives_the_gradients_of_the_plain_model(reentrant, segments):
    x = gpunn.randn(5, 4, requires_grad=True)
    results = []
    for run in (lambda m: m(x), lambda m: checkpoint_sequential(m, segments, x, reentrant)):
        model = _model()
        x.grad = None
        gpunn.manual_seed(1)
        y = run(model)
        y.sum().backward()
        results.append([y.detach().numpy(), x.grad.numpy(), *_gradients(model)])
    for plain, kept in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, kept)


@pytest.mark.parametrize("reentrant", [True, False])
def test_random_numbers_are_repeated_and_the_generator_goes_on(reentrant):
    x = gpunn.ones(1000, requires_grad=True)
    gpunn.manual_seed(3)
    y = checkpoint(lambda t: F.dropout(t, 0.5) * 2, x, use_reentrant=reentrant)
    before = gpunn.get_rng_state()
    y.sum().backward()
    assert gpunn.equal(gpunn.get_rng_state(), before)
    np.testing.assert_array_equal(x.grad.numpy() != 0, y.detach().numpy() != 0)


def test_without_repeating_random_numbers_they_differ():
    x = gpunn.ones(1000, requires_grad=True)
    y = checkpoint(
        lambda t: F.dropout(t, 0.5) * t, x, use_reentrant=False, preserve_rng_state=False
    )
    y.sum().backward()
    assert not np.array_equal(x.grad.numpy() != 0, y.detach().numpy() != 0)


def test_closures_and_inputs_without_gradient():
    w = gpunn.tensor([2.0, 3.0], requires_grad=True)
    x = gpunn.tensor([1.0, -1.0])
    y = checkpoint(lambda t, scale: {"y": (t * w).exp() * scale}, x, scale=2, use_reentrant=False)
    y["y"].sum().backward()
    np.testing.assert_allclose(w.grad, 2 * np.exp(x.numpy() * w.detach().numpy()) * x.numpy())


def test_grad_retain_graph_and_create_graph():
    x = gpunn.tensor([0.3, 0.7], dtype=gpunn.float64, requires_grad=True)

    def f(t):
        return checkpoint(lambda u: (u.sin() * u.exp()).cumsum(0), t, use_reentrant=False)

    assert gpunn.autograd.gradcheck(f, (x,))
    assert gpunn.autograd.gradgradcheck(f, (x,))
    y = f(x).sum()
    (first,) = gpunn.autograd.grad(y, x, retain_graph=True)
    (second,) = gpunn.autograd.grad(y, x)
    assert gpunn.equal(first, second)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        y.backward()


def test_nested():
    x = gpunn.tensor([0.3, 0.7], dtype=gpunn.float64, requires_grad=True)

    def inner(t):
        return checkpoint(lambda u: u.sin().exp(), t, use_reentrant=False) * t

    def f(t):
        return checkpoint(lambda u: inner(u).tanh() * inner(u), t, use_reentrant=False)

    assert gpunn.autograd.gradcheck(f, (x,))


class _Twice(gpunn.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x * x
        ctx.save_for_backward(x, y)
        return y

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * 2 * y / x


def test_functions_of_the_user_find_their_saved_tensors():
    x = gpunn.tensor([0.3, 0.7], dtype=gpunn.float64, requires_grad=True)
    assert gpunn.autograd.gradcheck(
        lambda t: checkpoint(lambda u: _Twice.apply(u).sin(), t, use_reentrant=False), (x,)
    )


def test_intermediate_arrays_are_let_go():
    kept = []

    def f(t):
        middle = t.exp()
        kept.append(weakref.ref(middle.array))
        return middle.sin()

    x = gpunn.ones(4, requires_grad=True)
    gc.disable()
    try:
        plain = f(x)
        assert kept[-1]() is not None
        y = checkpoint(f, x, use_reentrant=False)
        assert kept[-1]() is None
        y.sum().backward()
        assert len(kept) == 3 and kept[-1]() is None
    finally:
        gc.enable()
    del plain


def test_another_second_run_is_an_error():
    sizes = iter([2, 3])
    x = gpunn.ones(1, requires_grad=True)
    y = checkpoint(lambda t: (t * gpunn.ones(next(sizes))).exp(), x, use_reentrant=False)
    with pytest.raises(CheckpointError, match="different metadata"):
        y.sum().backward()
    depth = iter([1, 2])
    y = checkpoint(lambda t: t.exp() if next(depth) == 1 else t.exp().exp(), x, use_reentrant=False)
    with pytest.raises(CheckpointError, match="A different number of tensors was saved"):
        y.sum().backward()


def test_contexts_of_both_runs():
    events = []

    class Note:
        def __init__(self, name):
            self.name = name

        def __enter__(self):
            events.append(self.name)

        def __exit__(self, *exc):
            pass

    x = gpunn.ones(1, requires_grad=True)
    y = checkpoint(
        gpunn.exp, x, use_reentrant=False, context_fn=lambda: (Note("first"), Note("second"))
    )
    assert events == ["first"]
    y.backward()
    assert events == ["first", "second"]


def test_reentrant_refuses_what_it_cannot_do():
    x = gpunn.ones(2, requires_grad=True)
    y = checkpoint(gpunn.exp, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match="incompatible with .grad"):
        gpunn.autograd.grad(y.sum(), x)
    with pytest.raises(ValueError, match="Unexpected keyword arguments: scale"):
        checkpoint(gpunn.exp, x, use_reentrant=True, scale=1)
    with pytest.raises(ValueError, match="only supported when use_reentrant=False"):
        checkpoint(gpunn.exp, x, use_reentrant=True, debug=True)
    with pytest.warns(UserWarning, match="None of the inputs have requires_grad=True"):
        checkpoint(gpunn.exp, gpunn.ones(2), use_reentrant=True)
    y = checkpoint(lambda t: t.detach(), x, use_reentrant=True)
    with pytest.raises(RuntimeError, match="none of output has requires_grad=True"):
        y.sum().backward()


def test_the_form_should_be_named():
    x = gpunn.ones(2, requires_grad=True)
    with pytest.warns(UserWarning, match="use_reentrant parameter should be passed explicitly"):
        checkpoint(gpunn.exp, x)
    with pytest.warns(UserWarning, match="checkpoint_sequential: the use_reentrant"):
        checkpoint_sequential([gpunn.exp, gpunn.sin], 2, x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checkpoint(gpunn.exp, x, use_reentrant=False)
    with pytest.raises(ValueError, match="determinism_check"):
        checkpoint(gpunn.exp, x, use_reentrant=False, determinism_check="maybe")


def test_without_recording_it_is_the_function():
    with gpunn.no_grad():
        y = checkpoint(gpunn.exp, gpunn.zeros(2, requires_grad=True), use_reentrant=False)
    assert not y.requires_grad and y.tolist() == [1.0, 1.0]
