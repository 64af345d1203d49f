"""What the row normalisations share: both ways to the same numbers, dtypes, halves, empties."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import native
from gpunn.nn import row_norm

rng = np.random.default_rng(0)


@pytest.fixture(params=["native", "numpy"], autouse=True)
def path(request, monkeypatch):
    if request.param == "numpy":
        for name in ("row_norm_forward", "row_norm_backward"):
            monkeypatch.setattr(native, name, lambda *a, **k: None)


def grouped(x, w, b, groups, rms=False, eps=1e-5):
    parts = x.reshape(x.shape[0], groups, -1)
    mean = 0 if rms else parts.mean(2, keepdims=True)
    unit = (parts - mean) / np.sqrt(((parts - mean) ** 2).mean(2, keepdims=True) + eps)
    along = (1, -1) + (1,) * (x.ndim - 2)
    return unit.reshape(x.shape) * w.reshape(along) + b.reshape(along)


@pytest.mark.parametrize("shape, groups", [((3, 4, 5), 2), ((2, 6), 3), ((2, 4, 3, 2), 1)])
def test_groups_with_weights_of_channels(shape, groups):
    arrays = [rng.normal(size=shape) + 1, rng.normal(size=shape[1]), rng.normal(size=shape[1])]
    check(lambda x, w, b: F.group_norm(x, groups, w, b), arrays,
          lambda x, w, b: grouped(x, w, b, groups), rtol=8e-2)  # fmt: skip


def test_rows_with_weights_of_their_numbers():
    arrays = [rng.normal(size=(3, 5)) + 1, rng.normal(size=5), rng.normal(size=5)]
    check(lambda x, w, b: F.layer_norm(x, (5,), w, b), arrays,
          lambda x, w, b: grouped(x, w, b, 1), rtol=8e-2)  # fmt: skip
    check(lambda x, w: F.rms_norm(x, (5,), w, 1e-5), arrays[:2],
          lambda x, w: grouped(x, w, np.zeros(5), 1, rms=True), rtol=8e-2)  # fmt: skip


@pytest.mark.parametrize("weight, bias", [(False, False), (True, False), (False, True)])
def test_without_some_parameters(weight, bias):
    x, w, b = rng.normal(size=(4, 6)), rng.normal(size=6), rng.normal(size=6)

    def f(x, *rest):
        rest = list(rest)
        made = [rest.pop(0) if has else None for has in (weight, bias)]
        return F.layer_norm(x, (6,), *made)

    given = [a for a, has in ((w, weight), (b, bias)) if has]
    w, b = w if weight else np.ones(6), b if bias else np.zeros(6)
    check(f, [x, *given], lambda x, *_: grouped(x, w, b, 1), rtol=8e-2)


@pytest.mark.parametrize("dtype", [gpunn.float16, gpunn.bfloat16])
def test_float32_parameters_of_half_inputs(dtype):
    x, w, b = (gpunn.from_numpy(rng.normal(size=s)) for s in ((3, 8), (8,), (8,)))
    leaves = [x.to(dtype), w.float(), b.float()]
    for leaf in leaves:
        leaf.requires_grad_()
    for create_graph in (False, True):
        y = F.layer_norm(leaves[0], (8,), *leaves[1:])
        gs = gpunn.autograd.grad(y.float().sum(), leaves, create_graph=create_graph)
        assert [y.dtype] + [g.dtype for g in gs] == [dtype, dtype, gpunn.float32, gpunn.float32]
        unit = F.layer_norm(leaves[0].detach().double(), (8,)).sum(0)
        np.testing.assert_allclose(gs[1].detach().numpy(), unit.numpy(), rtol=2e-2, atol=2e-2)


def test_a_row_of_equal_numbers():
    x = gpunn.full((2, 4), 7.0, requires_grad=True)
    y = F.layer_norm(x, (4,))
    y.sum().backward()
    assert y.tolist() == [[0.0] * 4] * 2 and x.grad.tolist() == [[0.0] * 4] * 2


def test_changed_in_place_before_the_backward_pass():
    x = gpunn.randn(2, 4, requires_grad=True) * 1
    y = F.layer_norm(x, (4,))
    x += 1
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_the_eps_of_halves_is_float32_s():
    assert row_norm.finfo_eps(np.ones(1, np.float16)) == np.finfo(np.float32).eps
    assert row_norm.finfo_eps(np.ones(1)) == np.finfo(np.float64).eps
