"""Cross entropy and negative log-likelihood against their definitions."""

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import native, nn

rng = np.random.default_rng(0)


@pytest.fixture(params=["native", "numpy"])
def path(request, monkeypatch):
    """Both ways to the same numbers."""
    if request.param == "numpy":
        for name in ("cross_entropy_forward", "cross_entropy_backward"):
            monkeypatch.setattr(native, name, lambda *a, **k: None)


def logs(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def nll(x, t, weight, ignore, reduction):
    """The definition, target by target."""
    x = np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])
    w = np.ones(x.shape[1]) if weight is None else weight
    flat = t.reshape(-1)
    kept = flat != ignore
    safe = np.where(kept, flat, 0)
    each = np.where(kept, -x[np.arange(len(flat)), safe] * w[safe], 0)
    if reduction == "none":
        return each.reshape(t.shape)
    return each.sum() / (w[safe] * kept).sum() if reduction == "mean" else each.sum()


@pytest.mark.parametrize("shape", [(6, 5), (2, 5, 3), (2, 5, 2, 3)])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_of_class_indices(shape, reduction, weighted, path):
    x = rng.normal(size=shape) * 2
    t = rng.integers(0, 5, (shape[0], *shape[2:]))
    t.reshape(-1)[1] = 3
    weight = rng.random(5) if weighted else None
    check(
        lambda x: F.cross_entropy(
            x, gpunn.from_numpy(t), None if weight is None else gpunn.tensor(weight).to(x.dtype),
            ignore_index=3, reduction=reduction,
        ),
        [x], lambda x: nll(logs(x), t, weight, 3, reduction), rtol=6e-2,
    )  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_nll(reduction):
    x, t = logs(rng.normal(size=(6, 5))), rng.integers(0, 5, 6)
    check(lambda x: F.nll_loss(x, gpunn.from_numpy(t), reduction=reduction), [x],
          lambda x: nll(x, t, None, -100, reduction), rtol=5e-2)  # fmt: skip


def test_label_smoothing_is_a_mixture_of_targets():
    x, t = rng.normal(size=(6, 5)), rng.integers(0, 5, 6)
    soft = np.eye(5)[t] * 0.9 + 0.1 / 5
    check(lambda x: F.cross_entropy(x, gpunn.from_numpy(t), label_smoothing=0.1), [x],
          lambda x: -(logs(x) * soft).sum(1).mean(), rtol=5e-2)  # fmt: skip
    a = F.cross_entropy(gpunn.tensor(x), gpunn.tensor(t), label_smoothing=0.1)
    b = F.cross_entropy(gpunn.tensor(x), gpunn.tensor(soft))
    assert abs(a.item() - b.item()) < 1e-12


def test_one_sample_without_a_batch():
    x = gpunn.randn(5)
    a = F.cross_entropy(x, gpunn.tensor(2))
    assert gpunn.allclose(a, F.cross_entropy(x.unsqueeze(0), gpunn.tensor([2])))


def test_nothing_counted_is_nan_and_has_zero_gradient():
    x = gpunn.randn(2, 3, requires_grad=True)
    for options in ({}, {"weight": gpunn.ones(3)}, {"label_smoothing": 0.1}):
        loss = F.cross_entropy(x, gpunn.tensor([-100, -100]), **options)
        (g,) = gpunn.autograd.grad(loss, x)
        assert loss.isnan().item() and (g == 0).all()
    total = F.cross_entropy(x, gpunn.tensor([-100, -100]), reduction="sum")
    total.backward()
    assert total.item() == 0 and (x.grad == 0).all()


def test_a_target_out_of_range_names_itself(path):
    with pytest.raises(IndexError, match="Target 7 is out of bounds"):
        F.cross_entropy(gpunn.zeros(2, 5), gpunn.tensor([0, 7]))


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.cross_entropy(gpunn.zeros(3, 5), gpunn.zeros(2).long()), ValueError,
         "batch_size .3. to match target batch_size .2."),
        (lambda: F.cross_entropy(gpunn.zeros(3, 5), gpunn.zeros(3, 4)), RuntimeError, "shape"),
        (lambda: F.cross_entropy(gpunn.zeros(1, 2), gpunn.tensor([0]), gpunn.ones(3)), RuntimeError,
         "all 2 classes"),
        (lambda: F.cross_entropy(gpunn.zeros(1, 2), gpunn.tensor([0]), label_smoothing=2.0),
         RuntimeError, "between 0.0 and 1.0"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_weights_are_buffers():
    loss = nn.CrossEntropyLoss(weight=gpunn.ones(3))
    assert list(loss.state_dict()) == ["weight"]


@pytest.mark.parametrize(
    "target, message",
    [
        (gpunn.tensor([0.0, 1.0]), "Long or Byte, but got Float .*target.long()"),
        (gpunn.tensor([True, False]), "Long or Byte, but got Bool"),
        (gpunn.tensor([[0], [1]]), r"0D or 1D target .*\[2, 1\] must be \[2\]"),
        (gpunn.ones(2, 3, dtype=gpunn.int64), "Expected floating point type .*got Long"),
        (gpunn.tensor([[0.0], [1.0]]), r"of shape \[2, 3\] for class probabilities, got \[2, 1\]"),
    ],
)
def test_targets_that_are_no_classes_are_refused(target, message):
    with pytest.raises(RuntimeError, match=message):
        F.cross_entropy(gpunn.ones(2, 3), target)
