"""kernels/rnn.cpp against NumPy in float64."""

import numpy as np
import pytest

import gpunn
from gpunn import native
from gpunn.native import rnn
from gpunn.nn.rnn_sequence import KINDS, Steps
from gpunn.nn.rnn_step import gru_composed, lstm_composed

both = pytest.mark.parametrize("dtype", [np.float32, np.float64])
kinds = pytest.mark.parametrize("kind", KINDS)
# Batch sizes of each step: none of them, and none of the sizes, is a whole number of blocks alone.
SIZES = {"one": [1], "even": [7, 7, 7], "falling": [61, 50, 50, 4, 1], "wide": [100, 100]}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def draw(kind, sizes, n, dtype=np.float64):
    """gi, the two biases, w, h0, c0."""
    rng, k, batch = np.random.default_rng(n), KINDS[kind][0] * n, sizes[0]
    shapes = [(sum(sizes), k), k, k, (k, n), (batch, n), (batch, n)]
    made = [rng.normal(size=s).astype(dtype) for s in shapes]
    made[3] /= dtype(np.sqrt(n))
    return made[:5] + [made[5] if kind == "LSTM" else None]


def step(kind, gi, gh, h, c):
    """The new (h, c)."""
    if kind == "LSTM":
        i, f, g, o = np.split(gi + gh, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    if kind == "GRU":
        (ri, zi, mi), (rh, zh, mh) = np.split(gi, 3, -1), np.split(gh, 3, -1)
        z = sigmoid(zi + zh)
        m = np.tanh(mi + sigmoid(ri + rh) * mh)
        return (1 - z) * m + z * h, None
    return (np.tanh if kind == "RNN_TANH" else lambda x: np.maximum(x, 0))(gi + gh), None


def exact(kind, sizes, gi, b_ih, b_hh, w, h0, c0):
    """All states, in NumPy."""
    h, c, start = h0, c0, 0
    hs, cs = [h0], [c0]
    for count in sizes:
        h, c = h[:count], None if c is None else c[:count]
        h, c = step(kind, gi[start : start + count] + b_ih, h @ w.T + b_hh, h, c)
        hs.append(h)
        cs.append(c)
        start += count
    return np.concatenate(hs), None if c0 is None else np.concatenate(cs)


def bias_of(kind, b_ih, b_hh):
    if kind != "GRU":
        return b_ih + b_hh
    n = len(b_ih) // 3
    return np.concatenate([(b_ih + b_hh)[: 2 * n], b_ih[2 * n :], b_hh[2 * n :]])


def forward(kind, sizes, gi, b_ih, b_hh, w, h0, c0, keep=True):
    starts = Steps(sizes).offsets
    given = gi.copy(), bias_of(kind, b_ih, b_hh), w, h0, c0
    return rnn.recurrent_forward(kind, starts, *given, keep)


@both
@kinds
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("n", [1, 7, 16, 33, 150])
def test_states(kind, sizes, n, dtype):
    given = draw(kind, sizes, n, dtype)
    hs, cs, acts = forward(kind, sizes, *given)
    want = exact(kind, sizes, *(None if a is None else a.astype(np.float64) for a in given))
    atol = 1e-12 if dtype is np.float64 else 2e-5 if kind == "RNN_RELU" else 4e-6
    tolerance = {"rtol": 0, "atol": atol}
    np.testing.assert_allclose(hs, want[0], **tolerance)
    assert hs.dtype == dtype and (acts is None) == kind.startswith("RNN")
    if kind == "LSTM":
        np.testing.assert_allclose(cs, want[1], **tolerance)
        assert acts.min() >= -1 and acts.max() <= 1
    again = forward(kind, sizes, *given, keep=False)
    np.testing.assert_array_equal(again[0], hs)
    assert again[2] is None


@both
@kinds
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("n", [3, 16, 47])
def test_gradients(kind, sizes, n, dtype):
    """Against those of plain operations in float64."""
    steps, given = Steps(sizes), draw(kind, sizes, n, dtype)
    gi, b_ih, b_hh, w, h0, c0 = given
    hs, cs, acts = forward(kind, sizes, *given)
    rng = np.random.default_rng(1)
    dout, dh, dc = (rng.normal(size=s) for s in ((len(gi), n), h0.shape, h0.shape))
    leaves = [gpunn.from_numpy(a.astype(np.float64)).requires_grad_() for a in (h0, gi, w)]
    cell = None if c0 is None else gpunn.from_numpy(c0.astype(np.float64)).requires_grad_()
    # The inputs' part is made of the identity, so that the gradient of x is that of all gates.
    one = gpunn.eye(gi.shape[1], dtype=gpunn.float64)
    b = [gpunn.from_numpy(b.astype(np.float64)).requires_grad_() for b in (b_ih, b_hh)]
    made = KINDS[kind][2].composed(leaves[1], leaves[0], cell, one, leaves[2], *b, None, steps)
    weights = (dout, dh, dc)[: len(made)]
    loss = sum((y * gpunn.from_numpy(g)).sum() for y, g in zip(made, weights, strict=True))
    wanted = [leaves[0], leaves[1], *b, *([] if cell is None else [cell])]
    want = [g.numpy() for g in gpunn.autograd.grad(loss, wanted)]

    dout, dh, dc = (g.astype(dtype) for g in (dout, dh, dc))
    dc = None if c0 is None else dc
    d, db = rnn.recurrent_backward(kind, steps.offsets, w, hs, cs, acts, dout, dh, dc)
    db_ih = db_hh = db.reshape(-1)
    if kind == "GRU":  # m, r, z, and m's part of the old state
        np.testing.assert_array_equal(d[:, 3 * n :], d[:, :n] * acts[:, :n])
        d = np.concatenate([d[:, n : 3 * n], d[:, :n]], 1)
        db_ih, db_hh = np.concatenate([db_ih[n : 3 * n], db_ih[:n]]), db_ih[n:]
    got = [dh, d, db_ih, db_hh, *([] if dc is None else [dc])]
    scale = 2e-5 if dtype is np.float32 else 1e-13
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=scale, atol=scale * abs(b).max() * 4)


@kinds
@pytest.mark.parametrize("sizes", [[37, 37], [60, 30, 5]], ids=["even", "falling"])
def test_threads_change_nothing(kind, sizes):
    given, steps = draw(kind, sizes, 150, np.float32), Steps(sizes)
    results = []
    for threads in (1, 2, 5, 64):
        before = native.get_num_threads()
        native.set_num_threads(threads)
        try:
            hs, cs, acts = forward(kind, sizes, *given)
            dh, dc = np.ones_like(given[4]), None if cs is None else np.ones_like(given[4])
            dout = hs[sizes[0] :]
            made = rnn.recurrent_backward(
                kind, steps.offsets, given[3], hs, cs, acts, dout, dh, dc
            )
        finally:
            native.set_num_threads(before)
        results.append([a for a in (hs, cs, acts, dh, dc, *made) if a is not None])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@both
@pytest.mark.parametrize("rows, n", [(1, 1), (3, 5), (2, 16), (40, 130), (0, 4)])
def test_steps(rows, n, dtype):
    """The point-wise parts alone, and their gradients against those of plain operations."""
    rng = np.random.default_rng(0)
    tight = {"rtol": 2e-5, "atol": 2e-6} if dtype is np.float32 else {"rtol": 1e-12, "atol": 1e-13}
    for gates, composed in ((4, lstm_composed), (3, gru_composed)):
        arrays = [rng.normal(size=(rows, k * n)).astype(dtype) for k in (gates, gates, 1)]
        leaves = [gpunn.from_numpy(a.astype(np.float64)).requires_grad_() for a in arrays]
        dh, dc = rng.normal(size=(2, rows, n)).astype(dtype)
        y = composed(*leaves)
        if gates == 4:
            acts = np.empty((rows, 4 * n), dtype)
            made = rnn.lstm_step_forward(*arrays, acts)
            for a, b in zip(made, y, strict=True):
                np.testing.assert_allclose(a, b.detach().numpy(), **tight)
            loss = (y[0] * gpunn.from_numpy(dh)).sum() + (y[1] * gpunn.from_numpy(dc)).sum()
            got = rnn.lstm_step_backward(dh, dc, acts, arrays[2], made[1])
            got = [got[0], got[0], got[1]]
        else:
            made = rnn.gru_step_forward(*arrays, True)
            np.testing.assert_allclose(made[0], y.detach().numpy(), **tight)
            np.testing.assert_array_equal(rnn.gru_step_forward(*arrays, False)[0], made[0])
            loss = (y * gpunn.from_numpy(dh)).sum()
            got = rnn.gru_step_backward(dh, made[1], arrays[2])
        for a, b in zip(got, gpunn.autograd.grad(loss, leaves), strict=True):
            np.testing.assert_allclose(a, b.numpy(), **tight)


@both
@pytest.mark.parametrize("rows, n, depth", [(1, 1, 1), (5, 50, 7), (33, 49, 300), (40, 96, 16),
                                            (70, 130, 100), (0, 3, 2)])  # fmt: skip
def test_gates(rows, n, depth, dtype):
    rng = np.random.default_rng(0)
    x, w, b = (rng.normal(size=s).astype(dtype) for s in ((rows, depth), (n, depth), n))
    for bias in (b, None):
        y = rnn.gates(x, w, bias)
        assert y.dtype == dtype and y.flags.c_contiguous
        want = x.astype(np.float64) @ w.T.astype(np.float64) + (0 if bias is None else bias)
        np.testing.assert_allclose(y, want, atol=2e-4 if dtype is np.float32 else 1e-12)
        before = native.get_num_threads()
        native.set_num_threads(7)
        try:
            np.testing.assert_array_equal(rnn.gates(x, w, bias), y)
        finally:
            native.set_num_threads(before)
    np.testing.assert_array_equal(rnn.gates(np.asfortranarray(x), w[:, ::-1], b),
                                  rnn.gates(x, w[:, ::-1].copy(), b))  # fmt: skip
    assert rnn.gates(x, w, np.ones(n + 1, dtype)) is None


def test_shapes_that_do_not_belong_together():
    """They are never read past their ends: NumPy refuses them."""
    gi, b_ih, b_hh, w, h0, c0 = draw("LSTM", [2, 2], 3)
    starts, bias = Steps([2, 2]).offsets, b_ih + b_hh
    assert rnn.recurrent_forward("LSTM", starts, gi.copy(), bias, w, h0, c0, True) is not None
    for bad in ((gi[:, 1:], bias, w, h0, c0), (gi, bias[1:], w, h0, c0), (gi, bias, w[1:], h0, c0),
                (gi, bias, w[:, 1:], h0, c0), (gi, bias, w, h0[1:], c0[1:]),
                (gi, bias, w, h0, c0[1:])):  # fmt: skip
        assert rnn.recurrent_forward("LSTM", starts, *bad, True) is None
    x, h = np.ones((2, 12)), np.ones((2, 3))
    assert rnn.lstm_step_forward(x, x[:, 1:], h, None) is None
    assert rnn.lstm_step_forward(x[1:], x[1:], h, None) is None
    assert rnn.gru_step_forward(x, x[:, :9], h, True) is None


def test_numbers_that_are_none():
    """NaN and infinities stay where they are: in their own sequence."""
    for kind in KINDS:
        given = draw(kind, [3, 3], 5, np.float32)
        whole = forward(kind, [3, 3], *given)[0].copy()
        given[0][1, 2] = np.nan
        hs = forward(kind, [3, 3], *given)[0]
        assert np.isnan(hs[4]).any() and np.isnan(hs[7]).all()
        others = [0, 1, 2, 3, 5, 6, 8]
        np.testing.assert_array_equal(hs[others], whole[others])


def test_no_answer():
    """Another dtype, or several, are NumPy's."""
    given = draw("LSTM", [2], 3, np.float64)
    half = [None if a is None else a.astype(np.float16) for a in given]
    assert forward("LSTM", [2], *half) is None
    assert forward("LSTM", [2], *given[:3], given[3].astype(np.float32), *given[4:]) is None
    x = np.ones((2, 4), np.float16)
    assert rnn.gru_step_forward(x[:, :3], x[:, :3], x[:, :1], True) is None
    assert rnn.gru_step_backward(x[:, :1], x, x[:, :1]) is None
    assert rnn.lstm_step_forward(x, x, x[:, :1], None) is None
    assert rnn.lstm_step_backward(x[:, :1], None, x, x[:, :1], x[:, :1]) is None
    d = np.zeros((2, 3))
    hs = np.zeros((4, 3))
    assert rnn.recurrent_backward("GRU", np.array([0, 2]), d, hs.astype(np.float32), None, None,
                                  None, d, None) is None  # fmt: skip
