"""Losses with a margin against their definitions."""

import numpy as np
import pytest
from check import check
from emulated import on_both

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)
x, y = rng.normal(size=(6, 5)), rng.normal(size=(6, 5))
sign = np.array([1, -1, 1, -1, 1, -1])
REDUCE = {"mean": np.mean, "sum": np.sum, "none": lambda x: x}
each_reduction = pytest.mark.parametrize("reduction", list(REDUCE))
F64 = {"dtypes": ["float64", "float32"], "rtol": 1e-4}


def signs(shape=(6, 1)):
    return gpunn.from_numpy(sign.reshape(shape))


@each_reduction
def test_ranking(reduction):
    check(
        lambda a, b: F.margin_ranking_loss(a, b, signs(), 0.3, reduction=reduction), [x, y],
        lambda a, b: REDUCE[reduction](np.maximum(-sign[:, None] * (a - b) + 0.3, 0)), rtol=8e-2,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match=r"same dimension but got sizes: input1: .*\[2\]"):
        F.margin_ranking_loss(gpunn.ones(2), gpunn.ones(2), gpunn.ones(2, 1))


@each_reduction
def test_hinge(reduction):
    check(
        lambda x: F.hinge_embedding_loss(x, signs(), 0.7, reduction=reduction), [x],
        lambda x: REDUCE[reduction](np.where(sign[:, None] == 1, x, np.maximum(0.7 - x, 0))),
        rtol=8e-2,
    )  # fmt: skip
    both = F.hinge_embedding_loss(gpunn.tensor([0.25]), gpunn.tensor([0.5]))  # neither 1 nor -1
    assert both.item() == 1


@each_reduction
def test_soft(reduction):
    check(
        lambda x, t: F.soft_margin_loss(x, t, reduction=reduction), [x, np.sign(y)],
        lambda x, t: REDUCE[reduction](np.log1p(np.exp(-x * t))), rtol=6e-2,
    )  # fmt: skip
    far = gpunn.tensor([-1000.0, 1000.0], requires_grad=True)
    loss = F.soft_margin_loss(far, gpunn.ones(2), reduction="sum")
    loss.backward()
    assert loss.item() == 1000 and far.grad.tolist() == [-1, 0]


@each_reduction
@pytest.mark.parametrize("weighted", [False, True])
def test_soft_of_labels(reduction, weighted):
    t, w = rng.random((6, 5)), rng.random(5) if weighted else None
    module = nn.MultiLabelSoftMarginLoss(reduction=reduction)

    def ours(x, t, *w):
        module.weight = w[0] if w else None
        return module(x, t)

    def reference(x, t, w=1):
        each = t * np.log1p(np.exp(-x)) + (1 - t) * np.log1p(np.exp(x))
        return REDUCE[reduction]((each * w).mean(1))

    check(ours, [x, t, w] if weighted else [x, t], reference, rtol=6e-2)


@each_reduction
def test_cosine(reduction):
    def reference(x, y):
        cos = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        return REDUCE[reduction](np.where(sign == 1, 1 - cos, np.maximum(cos + 0.2, 0)))

    module = nn.CosineEmbeddingLoss(-0.2, reduction=reduction)
    check(lambda x, y: module(x, y, signs(6)), [x, y], reference, rtol=8e-2)
    one = F.cosine_embedding_loss(gpunn.ones(3), -gpunn.ones(3), gpunn.tensor(1))
    assert abs(one.item() - 2) < 1e-6


def multi_margin(x, t, p, margin, w):
    """The definition, class by class."""
    out = np.zeros(len(x))
    for n, own in enumerate(t):
        for i in range(x.shape[1]):
            if i != own:
                out[n] += w[own] * max(margin - x[n, own] + x[n, i], 0) ** p / x.shape[1]
    return out


@each_reduction
@pytest.mark.parametrize("p", [1, 2])
def test_one_class(reduction, p):
    t, w = rng.integers(0, 5, 6), rng.random(5)
    check(
        lambda x, w: F.multi_margin_loss(x, gpunn.from_numpy(t), p, 0.6, w, reduction=reduction),
        [x, w], lambda x, w: REDUCE[reduction](multi_margin(x, t, p, 0.6, w)), **F64,
    )  # fmt: skip
    module = nn.MultiMarginLoss(p, 0.6, gpunn.from_numpy(w), reduction=reduction)
    assert np.allclose(module(gpunn.from_numpy(x), gpunn.from_numpy(t)).numpy(),
                       REDUCE[reduction](multi_margin(x, t, p, 0.6, w)))  # fmt: skip


def multilabel(x, t):
    """The definition, label by label."""
    out = np.zeros(len(x))
    for n, row in enumerate(t):
        labels = list(row[: list(row).index(-1)] if -1 in row else row)
        for j in labels:
            for i in set(range(x.shape[1])) - set(labels):
                out[n] += max(1 - x[n, j] + x[n, i], 0) / x.shape[1]
    return out


LABELS = np.array([
    [0, 3, -1, 1, 1], [-1, 0, 1, 2, 3], [4, 3, 2, 1, 0], [2, -1, -1, -1, -1], [1, 1, -1, 0, 0],
    [0, 1, 2, 3, -1],
])  # fmt: skip


@each_reduction
def test_several_labels(reduction):
    module = nn.MultiLabelMarginLoss(reduction=reduction)
    check(lambda x: module(x, gpunn.from_numpy(LABELS)), [x],
          lambda x: REDUCE[reduction](multilabel(x, LABELS)), **F64)  # fmt: skip
    one = F.multilabel_margin_loss(gpunn.from_numpy(x[0]), gpunn.from_numpy(LABELS[0]))
    assert one.shape == () and abs(one.item() - multilabel(x, LABELS)[0]) < 1e-12


def test_classes_on_a_device(emulated):
    how = {"dtypes": ("float64", "float32"), "rtol": 1e-4}
    on_both(lambda x: F.multilabel_margin_loss(x, gpunn.from_numpy(LABELS).to(x.device)), [x],
            **how)  # fmt: skip
    t = gpunn.from_numpy(LABELS[:, 0] % 5)
    on_both(lambda x, w: F.multi_margin_loss(x, t.to(x.device), 2, weight=w), [x, y[0]], **how)


def test_one_sample_without_a_batch():
    x = gpunn.tensor([0.0, 0.5, 2.0])
    assert F.multi_margin_loss(x, gpunn.tensor(1)).item() == 1
    assert F.multi_margin_loss(x, gpunn.tensor([1]), reduction="none").tolist() == [1]
    assert F.multilabel_margin_loss(gpunn.tensor(3.0), gpunn.tensor(0)).item() == 0


ONES, T = gpunn.ones(2, 3), gpunn.tensor([0, 1])


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.multi_margin_loss(ONES, T + 2), RuntimeError, "target out of range"),
        (lambda: F.multi_margin_loss(ONES, T[:1]), RuntimeError, r"target size \[2\], but got .1."),
        (lambda: F.multi_margin_loss(ONES, T.int()), RuntimeError, "type Long but found Int"),
        (lambda: F.multi_margin_loss(ONES, T, p=3), ValueError, "only p == 1 and p == 2"),
        (lambda: F.multi_margin_loss(ONES, T, weight=ONES), ValueError, "one-dimensional"),
        (lambda: F.multi_margin_loss(ONES, T, weight=ONES[0, :2]), RuntimeError, "expected 3"),
        (lambda: F.multi_margin_loss(ONES[:, :0], T), RuntimeError, "Expected non-empty vector"),
        (lambda: F.multi_margin_loss(ONES.half(), T), NotImplementedError, "for 'Half'"),
        (lambda: nn.MultiMarginLoss(p=3), ValueError, "only p == 1 and p == 2"),
        (lambda: nn.MultiMarginLoss(weight=ONES), ValueError, "got 2D instead"),
        (lambda: F.multilabel_margin_loss(ONES, T), RuntimeError, "inconsistent target size"),
        (lambda: F.multilabel_margin_loss(ONES, ONES.long() * 3), RuntimeError, "out of range"),
        (lambda: F.multilabel_margin_loss(ONES, -2 * ONES.long()), RuntimeError, "out of range"),
        (lambda: F.cosine_embedding_loss(ONES, ONES, ONES), RuntimeError, "0D or 1D target"),
        (lambda: F.cosine_embedding_loss(ONES[0], ONES[0], T), RuntimeError, "expects 2D input"),
        (lambda: F.soft_margin_loss(ONES.long(), ONES), RuntimeError, "output type Long"),
        (lambda: F.multilabel_soft_margin_loss(ONES.long(), ONES), NotImplementedError, "Long"),
        (lambda: F.multilabel_soft_margin_loss(ONES, ONES, reduction="x"), ValueError, "x is not"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    "kind, args, wanted",
    [
        (nn.MarginRankingLoss, ([1.0], [3.0], [1.0]), 2.0),
        (nn.HingeEmbeddingLoss, ([0.25], [-1.0]), 0.75),
        (nn.SoftMarginLoss, ([0.0], [1.0]), np.log(2)),
    ],
)
def test_modules(kind, args, wanted):
    assert abs(kind()(*(gpunn.tensor(a) for a in args)).item() - wanted) < 1e-6
    assert repr(kind()) == f"{kind.__name__}()"
