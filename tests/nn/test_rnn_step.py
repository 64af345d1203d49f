"""The point-wise steps: against plain operations, in values and gradients of any order."""

import numpy as np
import pytest
from check import check, check_grad

import gpunn
from gpunn.nn.rnn_step import (
    gru_backward,
    gru_composed,
    gru_forward,
    gru_step,
    lstm_backward,
    lstm_composed,
    lstm_forward,
    lstm_step,
)  # fmt: skip

rng = np.random.default_rng(0)
PAIRS = [(lambda *p: lstm_step(*p)[0], lambda *p: lstm_composed(*p)[0], 4),
         (lambda *p: lstm_step(*p)[1], lambda *p: lstm_composed(*p)[1], 4),
         (lambda *p: sum(lstm_step(*p)), lambda *p: sum(lstm_composed(*p)), 4),
         (gru_step, gru_composed, 3)]  # fmt: skip


def inputs(gates, rows=3, n=5):
    return [rng.normal(size=(rows, k * n)) for k in (gates, gates, 1)]


@pytest.mark.parametrize("step, composed, gates", PAIRS, ids=["h", "c", "both", "gru"])
def test_steps(step, composed, gates):
    check(step, inputs(gates), lambda *a: composed(*map(gpunn.from_numpy, a)).numpy())


@pytest.mark.parametrize("step, composed, gates", PAIRS, ids=["h", "c", "both", "gru"])
def test_gradients_are_those_of_plain_operations(step, composed, gates):
    arrays = inputs(gates)

    def slopes(f, order):
        leaves = [gpunn.from_numpy(a.copy()).requires_grad_() for a in arrays]
        total = f(*leaves).square().sum()
        for _ in range(order):
            total = sum(
                g.square().sum() for g in gpunn.autograd.grad(total, leaves, create_graph=True)
            )
        return [g.numpy() for g in gpunn.autograd.grad(total, leaves)]

    for order in (0, 1, 2):
        for mine, plain in zip(slopes(step, order), slopes(composed, order), strict=True):
            np.testing.assert_allclose(mine, plain, rtol=1e-9, atol=1e-9)


def test_the_gates_memory_may_be_used_again():
    gi, gh, c = inputs(4)
    wanted = lstm_forward(gi, gh, c)
    found = lstm_forward(gi, gh, c, into=gi)
    assert found[2] is gi
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)
    halves = [a.astype(np.float16) for a in inputs(4)]
    assert lstm_forward(*halves, into=halves[0])[2] is halves[0]
    assert lstm_forward(*halves, keep=False)[2] is None and gru_forward(
        *(a.astype(np.float16) for a in inputs(3)), keep=False)[1] is None  # fmt: skip


def test_gradients_leave_what_they_read():
    gi, gh, c = inputs(4)
    h, c_new, acts = lstm_forward(gi, gh, c)
    given = [h, h, acts, c, c_new]
    before = [a.copy() for a in given]
    lstm_backward(*given)
    for a, b in zip(given, before, strict=True):
        np.testing.assert_array_equal(a, b)
    gi, gh, h = inputs(3)
    acts = gru_forward(gi, gh, h)[1]
    before = acts.copy(), h.copy()
    gru_backward(h, acts, h)
    np.testing.assert_array_equal(acts, before[0])
    np.testing.assert_array_equal(h, before[1])


def test_gates_in_another_order_of_memory():
    """Strided and Fortran-ordered arrays, and 16-bit ones with nothing kept."""
    gi, gh, c = inputs(4, 5, 7)
    wanted = lstm_forward(gi, gh, c)
    for turn in (np.asfortranarray, lambda a: np.repeat(a, 2, 1)[:, ::2]):
        found = lstm_forward(turn(gi), turn(gh), turn(c))
        back = lstm_backward(turn(c), turn(c), turn(found[2]), turn(c), turn(found[1]))
        for a, b in zip((*found, *back), (*wanted, *lstm_backward(c, c, wanted[2], c, wanted[1])),
                        strict=True):  # fmt: skip
            np.testing.assert_array_equal(a, b)
        gru = turn(gi[:, :21]), turn(gh[:, :21]), turn(c)
        plain = gru_forward(gi[:, :21], gh[:, :21], c)
        made = gru_forward(*gru)
        for a, b in zip((*made, *gru_backward(turn(c), turn(made[1]), turn(c))),
                        (*plain, *gru_backward(c, plain[1], c)), strict=True):  # fmt: skip
            np.testing.assert_array_equal(a, b)
    halves = [a.astype(np.float16) for a in (gi, gh, c)]
    assert lstm_forward(*halves, keep=False)[0].dtype == np.float16


def test_dtypes_that_differ_promote():
    gi, gh, c = map(gpunn.from_numpy, inputs(4))
    assert lstm_step(gi.float(), gh.float(), c)[1].dtype is gpunn.float64
    gi, gh, h = map(gpunn.from_numpy, inputs(3))
    assert gru_step(gi.float(), gh.float(), h).dtype is gpunn.float64


def test_large_gates():
    for step, gates in ((lambda *p: lstm_step(*p)[0], 4), (gru_step, 3)):
        arrays = [1e3 * a for a in inputs(gates)]
        arrays[2] /= 1e3
        check_grad(step, arrays, second=False)
