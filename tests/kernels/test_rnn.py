"""kernels/rnn.cu: the point-wise steps of an LSTM and of a GRU."""

import numpy as np
import pytest
from emulated import Function, check_build, on_both, same_bits

import gpunn
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels import rnn as kernels
from gpunn.nn.rnn_step import gru_step, lstm_composed, lstm_step

rng = np.random.default_rng(0)
PLAIN = (np.ascontiguousarray,)
F32 = ("float32",)
STEPS = {"lstm": (lstm_step, 4), "gru": (gru_step, 3)}


def inputs(gates, rows, n):
    return [rng.normal(size=(rows, k * n)) for k in (gates, gates, 1)]


@pytest.fixture(autouse=True)
def grid_of_three(monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 3)
    monkeypatch.setattr(kernels, "BLOCK", 64)


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(
    "rows, n", [(1, 1), (2, 31), (3, 32), (2, 33), (40, 12), (33, 6), (5, 130)]
)
def test_steps(emulated, name, rows, n):
    """Odd lengths go one column at a time; of 6, float64 goes in twos."""
    step, gates = STEPS[name]
    on_both(step, inputs(gates, rows, n))
    assert set(Function.launches) == {f"{name}_forward", f"{name}_backward"}


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("n", [1, 4])
def test_saturated_gates(emulated, name, n):
    """Large gates overflow nowhere."""
    step, gates = STEPS[name]
    on_both(step, [1e4 * x for x in inputs(gates, 3, n)[:2]] + [rng.normal(size=(3, n))],
            dtypes=("float64", "float32", "bfloat16"))  # fmt: skip


def test_one_of_the_two_gradients(emulated):
    """Where only h, or only c, is used."""
    for k in (0, 1):
        on_both(lambda a, b, c, k=k: lstm_step(a, b, c)[k], inputs(4, 3, 8), layouts=PLAIN)
    assert Function.launches.count("lstm_backward") == 8


def test_without_gradients_nothing_is_kept(emulated):
    gi, gh, c = (gpunn.from_numpy(a).cuda() for a in inputs(4, 3, 8))
    wanted = lstm_composed(gi, gh, c)
    for y, w in zip(lstm_step(gi, gh, c), wanted, strict=True):
        np.testing.assert_allclose(y.cpu().numpy(), w.cpu().numpy(), rtol=1e-12)
        assert not y.requires_grad
    assert kernels.lstm_forward(gi.array, gh.array, c.array, keep=False)[2] is None


def test_the_gates_memory_may_be_used_again(emulated):
    gi, gh, c = (gpunn.from_numpy(a).cuda() for a in inputs(4, 3, 8))
    wanted = [a.get() for a in kernels.lstm_forward(gi.array, gh.array, c.array)]
    found = kernels.lstm_forward(gi.array, gh.array, c.array, into=gi.array)
    assert found[2] is gi.array
    for a, w in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a.get(), w)


def test_empty(emulated):
    for name, (step, gates) in STEPS.items():
        for rows, n in ((0, 4), (4, 0)):
            parts = [gpunn.from_numpy(a).cuda().requires_grad_() for a in inputs(gates, rows, n)]
            y = step(*parts)
            y = y[0] if name == "lstm" else y
            assert y.shape == (rows, n)
            assert gpunn.autograd.grad(y.sum(), parts)[0].shape == (rows, gates * n)
    assert not Function.launches


def test_gradients_of_gradients(emulated):
    for step, gates in STEPS.values():

        def slope(gi, gh, state, step=step):
            made = step(gi, gh, state)
            total = (made * made).sum() if step is gru_step else (made[0] * made[1]).sum()
            found = gpunn.autograd.grad(total, (gi, gh, state), create_graph=True)
            return sum((g * g).sum() for g in found)

        on_both(slope, inputs(gates, 2, 3), dtypes=("float64",))


def test_the_same_bits_in_every_order(emulated):
    arrays = {name: inputs(gates, 9, 12) for name, (_, gates) in STEPS.items()}

    def run():
        found = []
        for name, (step, _) in STEPS.items():
            parts = [gpunn.from_numpy(a.astype(np.float32)).cuda() for a in arrays[name]]
            y = step(*(p.requires_grad_() for p in parts))
            y = y[0] if name == "lstm" else y
            found += [y, *gpunn.autograd.grad(y.sum(), parts)]
        return found

    same_bits(run)


def test_no_races_and_no_bad_accesses(emulated):
    with check_build():
        for step, gates in STEPS.values():
            for rows, n in ((3, 5), (3, 8), (70, 4)):
                on_both(step, inputs(gates, rows, n), dtypes=F32, layouts=PLAIN)


@pytest.mark.gpu
def test_rnn_on_the_gpu():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    for step, gates in STEPS.values():
        for rows, n in ((1, 1), (3, 32), (2, 33), (300, 1200)):
            on_both(step, inputs(gates, rows, n))
    if not torch.cuda.is_available():
        pytest.skip("PyTorch is built without CUDA")
    for name, gates in (("LSTMCell", 4), ("GRUCell", 3)):
        x, h = rng.normal(size=(64, 100)), rng.normal(size=(64, 96))
        weights = [0.1 * rng.normal(size=s) for s in ((gates * 96, 100), (gates * 96, 96))]
        weights += [0.1 * rng.normal(size=gates * 96) for _ in range(2)]
        found = []
        for T in (gpunn, torch):
            cell = getattr(T.nn, name)(100, 96, dtype=T.float64).to("cuda")
            with T.no_grad():
                for p, w in zip(cell.parameters(), weights, strict=True):
                    p.copy_(T.from_numpy(w).to("cuda"))
            state = T.from_numpy(h).to("cuda").requires_grad_()
            y = cell(T.from_numpy(x).to("cuda"), (state, state) if gates == 4 else state)
            y = y[0] if gates == 4 else y
            grads = T.autograd.grad((y * y).sum(), [state, *cell.parameters()])
            found.append([a.detach().cpu().numpy() for a in (y, *grads)])
        for mine, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
