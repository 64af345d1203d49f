"""LBFGS against PyTorch, and on problems with known minima."""

import numpy as np
import pytest

import gpunn

from .conftest import assert_same, converted


def rosenbrock(library, kwargs, dtype="float64", start=(-1.2, 1.0)):
    x = library.nn.Parameter(library.tensor(start[:1], dtype=getattr(library, dtype)))
    y = library.nn.Parameter(library.tensor(start[1:], dtype=getattr(library, dtype)))
    optimizer = library.optim.LBFGS([x, y], **kwargs)

    def closure():
        optimizer.zero_grad()
        loss = ((1 - x) ** 2 + 100 * (y - x**2) ** 2).sum()
        loss.backward()
        return loss

    return (x, y), optimizer, closure


@pytest.mark.parametrize(
    "kwargs",
    [
        {"lr": 1e-3},
        {"lr": 1e-3, "max_iter": 7, "history_size": 3},
        {"line_search_fn": "strong_wolfe"},
        {"line_search_fn": "strong_wolfe", "max_iter": 5, "history_size": 2},
        {"line_search_fn": "strong_wolfe", "max_eval": 4},
        {"line_search_fn": "strong_wolfe", "lr": 0.05},
        {"line_search_fn": "strong_wolfe", "tolerance_change": 1e-2},
        {"lr": 1e-3, "tolerance_grad": 100.0},
        {"lr": 1e-3, "tolerance_grad": 300.0},
        {"lr": 1e-3, "max_iter": 1},
    ],
    ids=str,
)
def test_the_path_is_pytorchs(kwargs):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    runs = [rosenbrock(library, kwargs) for library in (gpunn, torch)]
    close = {"rtol": 1e-6, "atol": 1e-9}
    for _ in range(3):
        losses = [optimizer.step(closure) for _, optimizer, closure in runs]
        assert_same(*losses, **close)
        (params, mine, _), (their_params, theirs, _) = runs
        assert_same(list(params), list(their_params), **close)
        states = [o.state_dict()["state"][0] for o in (mine, theirs)]
        for key in ("func_evals", "n_iter"):
            assert states[0][key] == states[1][key]
        assert list(states[0]) == list(states[1])
    assert repr(mine) == repr(theirs)


def test_the_state_goes_through_pytorch_and_back():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    kwargs = {"lr": 1e-3, "max_iter": 4}
    runs = [rosenbrock(library, kwargs) for library in (gpunn, torch)]
    for _, optimizer, closure in runs:
        optimizer.step(closure)
    states = [optimizer.state_dict() for _, optimizer, _ in runs]
    runs[0][1].load_state_dict(converted(states[1], torch, gpunn))
    runs[1][1].load_state_dict(converted(states[0], torch, torch))
    for _, optimizer, closure in runs:
        optimizer.step(closure)
    assert_same(list(runs[0][0]), list(runs[1][0]), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_minimum_is_found(dtype):
    params, optimizer, closure = rosenbrock(
        gpunn, {"line_search_fn": "strong_wolfe", "max_iter": 200, "max_eval": 400}, dtype
    )
    optimizer.step(closure)
    assert [p.item() for p in params] == pytest.approx([1.0, 1.0], abs=1e-2)


def test_half_precision_and_missing_gradients():
    p = gpunn.tensor([2.0, -3.0], dtype=gpunn.bfloat16, requires_grad=True)
    idle = gpunn.ones(2, dtype=gpunn.bfloat16, requires_grad=True)
    optimizer = gpunn.optim.LBFGS([p, idle], lr=0.5)

    def closure():
        optimizer.zero_grad()
        loss = (p * p).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert p.dtype is gpunn.bfloat16 and abs(p.float()).max().item() < 0.1
    assert idle.tolist() == [1.0, 1.0]


def test_complex_parameters():
    z = gpunn.tensor([1 + 2j, -3j], dtype=gpunn.complex128, requires_grad=True)
    optimizer = gpunn.optim.LBFGS([z], line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = (z - (2 - 1j)).abs().pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(z.detach().numpy(), [2 - 1j, 2 - 1j], atol=1e-6)


def test_a_line_without_a_minimum_ends():
    p = gpunn.tensor([1.0], requires_grad=True)
    optimizer = gpunn.optim.LBFGS([p], line_search_fn="strong_wolfe", max_eval=30)

    def closure():
        optimizer.zero_grad()
        loss = -p.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert p.item() > 1


def test_errors():
    p, q = gpunn.ones(1, requires_grad=True), gpunn.ones(1, requires_grad=True)
    with pytest.raises(ValueError, match="Invalid learning rate: -1"):
        gpunn.optim.LBFGS([p], lr=-1)
    with pytest.raises(ValueError, match="doesn't support per-parameter options"):
        gpunn.optim.LBFGS([{"params": [p]}, {"params": [q]}])
    optimizer = gpunn.optim.LBFGS([p], line_search_fn="golden")
    with pytest.raises(RuntimeError, match="only 'strong_wolfe' is supported"):
        optimizer.step(lambda: 0)
