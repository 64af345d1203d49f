"""Modules as functions of their parameters; `tests/nn/utils/test_stateless.py` has the details."""

import numpy as np
import pytest

import gpunn
from gpunn import func, nn


def test_several_dictionaries():
    norm = nn.BatchNorm1d(2).eval()
    given = {"weight": gpunn.tensor([2.0, 3.0])}, {"running_mean": gpunn.tensor([1.0, 1.0])}
    out = func.functional_call(norm, given, gpunn.tensor([[2.0, 3.0]]))
    np.testing.assert_allclose(out.detach().numpy(), [[2.0, 6.0]], rtol=1e-4)


def test_gradients_of_a_loss_as_a_function_of_the_parameters():
    model, x = nn.Linear(3, 1), gpunn.randn(4, 3)
    params = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    loss = func.functional_call(model, params, x).square().sum()
    grads = gpunn.autograd.grad(loss, list(params.values()))
    model(x).square().sum().backward()
    for grad, p in zip(grads, model.parameters(), strict=True):
        np.testing.assert_allclose(grad.numpy(), p.grad.numpy(), rtol=1e-5)


def test_stacked_states():
    models = [nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)) for _ in range(4)]
    params, buffers = func.stack_module_state(models)
    assert params["0.weight"].shape == (4, 2, 3) and params["0.weight"].is_leaf
    assert params["0.weight"].requires_grad and not buffers["1.running_mean"].requires_grad
    assert gpunn.equal(params["0.bias"][2], models[2][0].bias)
    assert buffers["1.num_batches_tracked"].shape == (4,)


def test_errors():
    layer = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="Expected at least one model, got 0"):
        func.stack_module_state([])
    with pytest.raises(RuntimeError, match="same training/eval mode"):
        func.stack_module_state([layer, nn.Linear(2, 2).eval()])
    with pytest.raises(RuntimeError, match="to be of the same class"):
        func.stack_module_state([layer, nn.Identity()])
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(RuntimeError, match="weight from each model to have the same .requires_gr"):
        func.stack_module_state([layer, frozen])


def test_batch_norm_without_running_statistics():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    found = []
    for lib in (gpunn, torch):
        model = lib.nn.Sequential(lib.nn.BatchNorm1d(2), lib.nn.Linear(2, 2))
        bare = lib.nn.BatchNorm1d(2, track_running_stats=False)
        model.append(bare)
        assert lib.func.replace_all_batch_norm_modules_(model) is model
        out = model[0].eval()(lib.tensor([[1.0, 2.0], [3.0, 6.0]]))
        found.append((out.tolist(), list(model.state_dict()), repr(model)))
    assert found[0][1:] == found[1][1:]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
