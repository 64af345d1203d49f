"""Connectionist temporal classification against the sum over all alignments."""

import itertools

import numpy as np
import pytest
from check import check_grad
from emulated import on_both

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)


def collapsed(path, blank):
    """What an alignment says: repeats once, blanks not at all."""
    return [k for k, _ in itertools.groupby(path) if k != blank]


def by_alignments(logs, target, blank):
    """-log of the sum of the probabilities of the alignments that say the target."""
    steps, classes = logs.shape
    total = sum(
        np.exp(sum(logs[t, k] for t, k in enumerate(path)))
        for path in itertools.product(range(classes), repeat=steps)
        if collapsed(path, blank) == list(target)
    )
    return -np.log(total) if total else np.inf


def logs_of(*shape):
    x = rng.normal(size=shape)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


LOGS = logs_of(5, 4, 3)
STEPS = (5, 4, 5, 2)


@pytest.mark.parametrize("blank", [0, 2])
def test_all_alignments(blank):
    labels = [k for k in range(3) if k != blank]
    targets = [(labels[0], labels[0]), (), (labels[1], labels[0], labels[1]), (labels[1],)]
    wanted = [
        by_alignments(LOGS[:s, n], t, blank)
        for n, (s, t) in enumerate(zip(STEPS, targets, strict=True))
    ]
    padded = gpunn.tensor([[*t, *[-1] * (3 - len(t))] for t in targets])
    joined = gpunn.tensor(sum(targets, ()))
    x, lengths = gpunn.from_numpy(LOGS), tuple(len(t) for t in targets)
    for given in (padded, joined, padded.int()):
        for how in (tuple, gpunn.tensor):
            got = F.ctc_loss(x, given, how(STEPS), how(lengths), blank, "none")
            np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-12)
    share = np.maximum(lengths, 1)
    assert np.isclose(F.ctc_loss(x, padded, STEPS, lengths, blank).item(), (wanted / share).mean())
    total = nn.CTCLoss(blank, "sum")(x.float(), joined, STEPS, lengths)
    assert np.isclose(total.item(), sum(wanted), rtol=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_gradient_of_the_logits(reduction):
    targets, lengths = gpunn.tensor([[1, 1], [2, 0], [1, 2], [2, 2]]), (2, 0, 2, 1)
    check_grad(
        lambda x: F.ctc_loss(x.log_softmax(-1), targets, STEPS, lengths, reduction=reduction),
        [rng.normal(size=(5, 4, 3))], second=False,
    )  # fmt: skip


def test_the_gradient_has_none():
    x = gpunn.from_numpy(LOGS).requires_grad_()
    loss = F.ctc_loss(x, gpunn.ones(4, 1).long(), STEPS, (1,) * 4)
    (g,) = gpunn.autograd.grad(loss, x, create_graph=True)
    with pytest.raises(RuntimeError, match="aten::_ctc_loss_backward is not implemented"):
        g.sum().backward()


def test_impossible_targets():
    x = gpunn.from_numpy(LOGS[:2, :2]).requires_grad_()
    target, lengths = gpunn.tensor([[1, 1], [1, 2]]), (2, 2)
    loss = F.ctc_loss(x, target, (2, 2), lengths, reduction="none")
    (g,) = gpunn.autograd.grad(loss.sum(), x)
    assert loss[0].isinf() and g[:, 0].isnan().all() and g[:, 1].isfinite().all()
    zero = nn.CTCLoss(zero_infinity=True, reduction="none")(x, target, (2, 2), lengths)
    (h,) = gpunn.autograd.grad(zero.sum(), x)
    assert zero[0] == 0 and zero[1] == loss[1]
    assert (h[:, 0] == 0).all() and gpunn.equal(h[:, 1], g[:, 1])
    none = F.ctc_loss(x, target[:, :1], (0, 0), (0, 1), reduction="none")
    assert none.tolist() == [0, np.inf]


def test_one_sample_without_a_batch():
    x = gpunn.from_numpy(LOGS[:, 0])
    one = F.ctc_loss(x, gpunn.tensor([1, 2]), gpunn.tensor(5), gpunn.tensor(2), reduction="none")
    assert one.shape == ()
    assert np.isclose(one.item(), by_alignments(LOGS[:, 0], (1, 2), 0))


def test_a_long_sequence_stays_finite():
    x = gpunn.randn(600, 2, 30).log_softmax(-1).requires_grad_()
    loss = F.ctc_loss(x, gpunn.randint(1, 30, (2, 200)), (600, 550), (200, 100))
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all() and (x.grad[550:, 1] == 0).all()
    assert abs(x.grad.sum(-1)).max() < 1e-4


def test_on_a_device(emulated):
    targets = gpunn.tensor([[1, 1], [2, 0], [1, 2], [2, 2]])
    for there in (True, False):
        on_both(
            lambda x, there=there: F.ctc_loss(
                x.log_softmax(-1), targets.to(x.device) if there else targets, STEPS, (2, 0, 2, 1)
            ),
            [rng.normal(size=(5, 4, 3))], dtypes=("float64", "float32"), rtol=1e-4,
        )  # fmt: skip


X, TARGETS = gpunn.from_numpy(LOGS[:, :2]), gpunn.ones(2, 2).long()


@pytest.mark.parametrize(
    "args, error, words",
    [
        ((X.half(), TARGETS, (4, 4), (2, 2)), NotImplementedError, "for 'Half'"),
        ((X, TARGETS, (4, 4), (2,)), RuntimeError, "target_lengths must be of size batch_size"),
        ((X, TARGETS, (4,), (2, 2)), RuntimeError, "input_lengths must be of size batch_size"),
        ((X, TARGETS, (6, 4), (2, 2)), RuntimeError, "value at most 5, but got value 6"),
        ((X, TARGETS, (4, -1), (2, 2)), RuntimeError, "value at least 0, but got value -1"),
        ((X, TARGETS, (4, 4), (-3, 2)), RuntimeError, "value at least 0, but got value -3"),
        ((X, TARGETS, (4, 4), (3, 2)), RuntimeError, "size at least 3 at dimension 1, but got"),
        ((X, TARGETS[:1], (4, 4), (2, 2)), RuntimeError, "size 2 at dimension 0, but got size 1"),
        ((X, TARGETS[0], (4, 4), (2, 2)), RuntimeError, "size 4 at dimension 0, but got size 2"),
        ((X, TARGETS[None], (4, 4), (2, 2)), RuntimeError, "Expected 1 to 2 dimensions, but got 3"),
        ((X, TARGETS, (4, 4), (2, 2), 3), RuntimeError, "blank must be in label range"),
        ((X, TARGETS * 5, (4, 4), (2, 2)), IndexError, "target 5 is out of bounds"),
        ((X, TARGETS, gpunn.ones(2), (2, 2)), RuntimeError, "input_lengths must be integral"),
        ((X, TARGETS, 4, (2, 2)), TypeError, "'input_lengths' must be a Tensor or a tuple"),
        ((X[:0], TARGETS, (0, 0), (0, 0)), RuntimeError, "must not be empty"),
        ((X[0, 0], TARGETS, (4, 4), (2, 2)), RuntimeError, r"\(T, N, C\) or \(T, C\)"),
    ],
)
def test_errors_say_what_is_wrong(args, error, words):
    with pytest.raises(error, match=words):
        F.ctc_loss(*args)
