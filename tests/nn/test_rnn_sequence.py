"""One recurrent layer in one direction: its gradient, against finite differences and the same layer
in plain operations."""

import numpy as np
import pytest

import gpunn
from gpunn.autograd import gradcheck, gradgradcheck
from gpunn.nn.rnn_sequence import KINDS, Steps, layer

rng = np.random.default_rng(0)
SIZES = {"even": [2, 2, 2], "falling": [3, 2, 2, 1]}


def inputs(kind, batch, rows, projected=False):
    """Leaves: x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr."""
    k, p = 4 * KINDS[kind][0], 3 if projected else 4
    shapes = [(rows, 2), (batch, p), (batch, 4), (k, 2), (k, p), k, k, (p, 4)]
    made = [gpunn.from_numpy(rng.normal(size=s)).requires_grad_() for s in shapes]
    made[2] = made[2] if kind == "LSTM" else None
    made[7] = made[7] if projected else None
    return made


def call(kind, steps, leaves):
    """The layer as a function of the leaves that there are."""
    found = [x for x in leaves if x is not None]

    def f(*given):
        rest = iter(given)
        return tuple(layer(kind, steps, *[None if x is None else next(rest) for x in leaves]))

    return f, found


CASES = [(kind, False) for kind in KINDS] + [("LSTM", True)]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind, projected", CASES)
def test_gradient(kind, projected, sizes, reverse):
    steps = Steps(SIZES[sizes], reverse)
    f, leaves = call(kind, steps, inputs(kind, steps.batch, steps.rows, projected))
    assert gradcheck(f, leaves)


@pytest.mark.parametrize("kind, projected", CASES)
def test_second_order(kind, projected):
    steps = Steps([2, 1], reverse=True)
    f, leaves = call(kind, steps, inputs(kind, 2, 3, projected))
    assert gradgradcheck(f, leaves)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("kind, projected", CASES)
def test_against_plain_operations(kind, projected, sizes, reverse):
    """Values, gradients by both ways, and without either bias."""
    steps = Steps(SIZES[sizes], reverse)
    leaves = inputs(kind, steps.batch, steps.rows, projected)
    for biased in (True, False):
        if not biased:
            leaves[5] = leaves[6] = None
        found = [x for x in leaves if x is not None]
        made = layer(kind, steps, *leaves)
        plain = KINDS[kind][2].composed(*leaves, steps)
        assert len(made) == len(plain) == (3 if kind == "LSTM" else 2)
        losses = [sum((i + y).square().sum() for i, y in enumerate(ys)) for ys in (made, plain)]
        want = gpunn.autograd.grad(losses[1], found)
        for create in (False, True):
            got = gpunn.autograd.grad(losses[0], found, create_graph=create, retain_graph=True)
            for a, b in zip([*made, *got], [*plain, *want], strict=True):
                np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_only_what_is_asked_for(kind):
    """Outputs of which some are not used, and inputs of which some need no gradient."""
    steps = Steps([2, 2])
    leaves = inputs(kind, 2, 4)
    whole = layer(kind, steps, *leaves)
    for y in whole:
        want = gpunn.autograd.grad(y.sum(), leaves[0], retain_graph=True)[0]
        for x in leaves[1:]:
            if x is not None:
                x.requires_grad_(False)
        part = layer(kind, steps, *leaves)[[o is y for o in whole].index(True)]
        np.testing.assert_allclose(gpunn.autograd.grad(part.sum(), leaves[0])[0], want)
        for x in leaves[1:]:
            if x is not None:
                x.requires_grad_()
    with gpunn.no_grad():
        assert all(y.node is None for y in layer(kind, steps, *leaves))


def test_steps():
    """The rows of each step, the last of each sequence, and the order from the end."""
    steps = Steps([3, 2, 1], reverse=True)
    assert steps.spans == [(0, 3, 0), (3, 5, 3), (5, 6, 6)]
    assert steps.last.tolist() == [5, 4, 2]
    assert steps.old.tolist() == [0, 1, 2, 3, 4, 6]
    assert steps.turned.tolist() == [5, 4, 2, 3, 1, 0]
    assert steps.turned[steps.turned].tolist() == list(range(6))


def test_a_changed_weight_is_noticed():
    leaves = inputs("GRU", 2, 4)
    out, _ = layer("GRU", Steps([2, 2]), *leaves)
    with gpunn.no_grad():
        leaves[4].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
