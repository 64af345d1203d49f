"""Muon against PyTorch."""

import numpy as np
import pytest

import gpunn
from gpunn.optim.muon import _orthogonal

CONFIGS = [
    {"lr": 0.1},
    {"lr": 0.1, "nesterov": False, "momentum": 0.5},
    {"lr": 0.1, "weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"},
    {"lr": 0.1, "ns_steps": 3, "ns_coefficients": (3.0, -4.0, 2.0), "adjust_lr_fn": "original"},
    {"lr": np.array(0.1)},
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("kwargs", CONFIGS, ids=str)
def test_steps_equal_pytorchs(twins, kwargs, dtype):
    pair = twins("Muon", kwargs, dtype=dtype, shapes=((3, 5), (6, 4), (4, 4)))
    close = {"rtol": 1e-2, "atol": 3e-3}  # a different rounding of a sum to bfloat16
    pair.step(3).check(**close).exchange_states().step(3).check(**close)
    assert repr(pair.mine) == repr(pair.theirs)


def test_the_step_is_nearly_orthogonal():
    rng = np.random.default_rng(0)
    for shape in [(6, 20), (20, 6)]:
        x = rng.standard_normal(shape).astype(np.float32)
        q = _orthogonal(np, x, (3.4445, -4.775, 2.0315), 5, 1e-7)
        s = np.linalg.svd(q, compute_uv=False)
        assert q.shape == shape and s.min() > 0.6 and s.max() < 1.3
        u, _, vt = np.linalg.svd(x, full_matrices=False)
        assert np.abs(np.diag(u.T @ q @ vt.T) - s.mean()).max() < 0.4


def test_errors():
    p = gpunn.ones(2, 2)
    for kwargs, message in [
        ({"lr": -1}, "Learning rate should be >= 0 but is: -1"),
        ({"lr": gpunn.ones(2)}, "Tensor lr must be 1-element"),
        ({"momentum": -1}, "momentum should be >= 0 but is: -1"),
        ({"weight_decay": -1}, "weight decay should be >= 0 but is: -1"),
        ({"adjust_lr_fn": "x"}, "Adjust learning rate function x is not supported"),
    ]:
        with pytest.raises(ValueError, match=message):
            gpunn.optim.Muon([p], **kwargs)
    with pytest.raises(ValueError, match="Muon only supports 2D parameters whereas we found"):
        gpunn.optim.Muon([gpunn.ones(2)])
    p.grad = gpunn.ones(2, 2)
    with pytest.raises(ValueError, match="Number of steps must be less than 100"):
        gpunn.optim.Muon([p], ns_steps=100).step()
    with pytest.raises(ValueError, match="Coefficients must be a tuple of exactly 3 values"):
        gpunn.optim.Muon([p], ns_coefficients=(1.0, 2.0)).step()
    z = gpunn.ones(2, 2, dtype=gpunn.complex64)
    z.grad = z.clone()
    with pytest.raises(RuntimeError, match="Muon does not support complex parameters"):
        gpunn.optim.Muon([z]).step()
