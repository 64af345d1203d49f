"""A linear layer with its cross entropy, in chunks of rows and at once."""

import numpy as np
import pytest
from check import check
from emulated import on_both

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)
X, W, B = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)), rng.normal(size=5)
T = np.array([0, 4, 2, 2, -100, 1, 3])
Options = nn.LinearCrossEntropyOptions


def plain(x, w, b, t, weight, reduction):
    """The definition."""
    z = x @ w.T + b
    each = np.log(np.exp(z).sum(1)) - z[np.arange(len(t)), np.maximum(t, 0)]
    share = np.where(t >= 0, weight[np.maximum(t, 0)], 0)
    each = each * share
    if reduction == "none":
        return each
    return each.sum() / share.sum() if reduction == "mean" else each.sum()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", [None, Options(), Options(batch_chunk_size=3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_definition(reduction, options, weighted):
    weight = rng.random(5) if weighted else None

    def ours(x, w, b):
        made = None if weight is None else gpunn.tensor(weight).to(x.dtype)
        return F.linear_cross_entropy(
            x, w, gpunn.from_numpy(T), linear_bias=b, weight=made, reduction=reduction,
            options=options,
        )  # fmt: skip

    one = np.ones(5) if weight is None else weight
    check(ours, [X, W, B], lambda x, w, b: plain(x, w, b, T, one, reduction), rtol=1e-1)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_on_a_device(emulated, reduction):
    on_both(
        lambda x, w, b: F.linear_cross_entropy(
            x, w, gpunn.from_numpy(T).to(x.device), linear_bias=b, reduction=reduction,
            options=Options(batch_chunk_size=2),
        ),
        [X, W, B], rtol={"float32": 1e-4, "float16": 3e-2, "bfloat16": 2e-1},
    )  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_second_backward(reduction):
    x = gpunn.tensor(X, requires_grad=True)
    loss = F.linear_cross_entropy(
        x, gpunn.tensor(W), gpunn.tensor(T), reduction=reduction, options=Options()
    ).sum()
    loss.backward(retain_graph=True)
    first = x.grad.clone()
    loss.backward()
    assert gpunn.equal(x.grad, first * 2)


def test_one_sample_without_a_batch():
    x, w, t = gpunn.tensor(X[0]), gpunn.tensor(W), gpunn.tensor(2)
    for reduction in ("mean", "none"):
        made = F.linear_cross_entropy(x, w, t, reduction=reduction, options=Options())
        assert made.shape == ()
        assert gpunn.allclose(made, F.cross_entropy(F.linear(x, w), t))


def test_no_targets_that_count():
    x = gpunn.tensor(X, requires_grad=True)
    loss = F.linear_cross_entropy(
        x, gpunn.tensor(W), gpunn.full((7,), 4), ignore_index=4, options=Options()
    )
    loss.backward()
    assert loss.isnan() and (x.grad == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_losses_of_several_outputs(smoothing):
    x, w, b = (gpunn.tensor(v) for v in (X, rng.normal(size=(5, 2, 3)), rng.normal(size=(5, 2))))
    t = gpunn.from_numpy(rng.integers(0, 5, (7, 2)))
    made = F.linear_cross_entropy(x, w, t, linear_bias=b, label_smoothing=smoothing)
    logits = gpunn.einsum("ni,coi->nco", x, w) + b
    assert gpunn.allclose(made, F.cross_entropy(logits, t, label_smoothing=smoothing))
    with pytest.warns(UserWarning, match=r"``options`` ignored.*out_features=\(2,\)"):
        again = F.linear_cross_entropy(
            x, w, t, linear_bias=b, label_smoothing=smoothing, options=Options()
        )
    assert gpunn.equal(again, made)


def test_rows_of_a_chunk():
    assert Options(batch_chunk_size=3).rows(7, 3, 5, False) == 3
    assert Options(batch_chunk_size=9).rows(7, 3, 5, False) == 7
    assert Options(chunking_method=None).rows(7, 3, 5, False) == 7
    assert Options(chunking_method="aspect_ratio").rows(1000, 64, 1024, False) == 64
    assert Options(chunking_method="aspect_ratio:4").rows(1000, 64, 1024, False) == 16
    assert Options().rows(1000, 64, 1024, False) == 1000  # few logits
    assert Options().rows(9000, 64, 1024, False) == 4096
    assert Options().rows(1 << 16, 512, 1 << 16, False) == 256
    assert Options().rows(1 << 16, 512, 1 << 16, True) == 512
    with pytest.raises(ValueError, match="give different chunk sizes .3 vs 64."):
        Options(batch_chunk_size=3, chunking_method="aspect_ratio").rows(1000, 64, 1024, False)


@pytest.mark.parametrize(
    "given, words",
    [
        ({"acc_policy": "best"}, "invalid acc_policy: 'best'"),
        ({"chunking_method": "halves"}, "invalid chunking_method: 'halves'"),
        ({"chunking_method": "aspect_ratio:0"}, "invalid chunking_method"),
        ({"batch_chunk_size": 0}, "must be positive int or None, got 0"),
        ({"acc_dtype": gpunn.int32}, "acc_dtype must be one of"),
    ],
)
def test_options_that_there_are_not(given, words):
    with pytest.raises(ValueError, match=words):
        Options(**given)


ONES = gpunn.ones(2, 3)


@pytest.mark.parametrize(
    "args, options, error, words",
    [
        ((gpunn.ones(2, 3, 3), ONES, ONES), {}, RuntimeError, "dimensionality 1 or 2, got 3"),
        ((ONES, gpunn.ones(2), ONES), {}, RuntimeError, "dimensionality at least 2, got 1"),
        ((ONES, gpunn.ones(2, 4), ONES), {}, RuntimeError, "in_features.*got 3 and 4"),
        ((ONES, ONES, gpunn.ones(2, 2)), {"ignore_index": 0}, RuntimeError, "probabilities"),
        ((ONES[0], gpunn.ones(2, 4, 3), ONES), {}, RuntimeError, "requires batched input"),
        ((ONES, ONES, ONES[:, 0]), {"linear_bias": gpunn.ones(3)}, RuntimeError, "shape .2,., got"),
        ((ONES, ONES, gpunn.zeros(3).long()), {"options": Options()}, ValueError,
         "batch_size .2. to match target batch_size .3."),
        ((ONES, ONES, ONES.long()), {"options": Options()}, RuntimeError, "Expected target size"),
        ((ONES, ONES, gpunn.tensor([0, 2])), {"options": Options()}, IndexError,
         "Target 2 is out of bounds"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(args, options, error, words):
    with pytest.raises(error, match=words):
        F.linear_cross_entropy(*args, **options)


def test_module():
    loss = nn.LinearCrossEntropyLoss(3, 5, bias=True, weight=gpunn.ones(5), options=Options())
    assert sorted(loss.state_dict()) == ["linear.bias", "linear.weight", "weight"]
    t = gpunn.from_numpy(T)
    wanted = F.cross_entropy(loss.linear(gpunn.tensor(X).float()), t)
    assert gpunn.allclose(loss(gpunn.tensor(X).float(), t), wanted)
    many = nn.LinearCrossEntropyLoss(3, 5, out_features=(2,))
    assert many(ONES, gpunn.zeros(2, 2).long()).shape == ()
    assert "num_classes=5, out_features=(2,), bias=False, reduction=mean" in repr(many)
    with pytest.raises(RuntimeError, match=r"expected weight shape to be \(5,\), got \(3,\)"):
        nn.LinearCrossEntropyLoss(3, 5, weight=gpunn.ones(3))
    with pytest.raises(RuntimeError, match=r"in range \[0, 1\], got 2"):
        nn.LinearCrossEntropyLoss(3, 5, label_smoothing=2)
