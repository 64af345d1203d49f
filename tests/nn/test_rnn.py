"""Recurrent layers over sequences: against PyTorch's, with the same weights."""

import itertools

import numpy as np
import pytest
from both import packages, refused, same
from emulated import on_both

import gpunn
from gpunn import nn
from gpunn.native import rnn as rnn_kernels

rng = np.random.default_rng(0)
KINDS = {
    "lstm": ("LSTM", {}), "projected": ("LSTM", {"proj_size": 2}), "gru": ("GRU", {}),
    "tanh": ("RNN", {}), "relu": ("RNN", {"nonlinearity": "relu"}),
}  # fmt: skip
LENGTHS = {"sorted": [5, 3, 3, 1], "unsorted": [2, 5, 1, 5]}
X, H, C = (rng.normal(size=s) for s in ((5, 4, 3), (4, 4, 6), (4, 4, 6)))


def states(T, kind, lead, options):
    """Leaves for the first states, of which `lead` are wanted."""
    n = options.get("proj_size", 6)
    leaves = [T.from_numpy(H[:lead, :, :n].copy()), T.from_numpy(C[:lead].copy())]
    return [s.requires_grad_() for s in leaves[: 2 if kind == "LSTM" else 1]]


def shown(kind, last):
    return list(last) if kind == "LSTM" else [last]


@pytest.mark.parametrize("form", ["padded", "single", "sorted", "unsorted"])
@pytest.mark.parametrize("name", KINDS)
def test_layers(name, form):
    """Initial weights, names, outputs, states and all gradients under one seed."""
    kind, extra = KINDS[name]
    flags = itertools.product([1, 2], *[[False, True]] * 4)
    for layers, two_ways, batch_first, bias, given in flags:

        def program(T, layers=layers, two_ways=two_ways, bf=batch_first, bias=bias, given=given):
            T.manual_seed(1)
            layer = getattr(T.nn, kind)(
                3, 6, num_layers=layers, bidirectional=two_ways, batch_first=bf, bias=bias,
                dtype=T.float64, **extra,
            )  # fmt: skip
            leaf = T.from_numpy(X.copy()).requires_grad_()
            first = states(T, kind, layers * (1 + two_ways), extra)
            x, hx = leaf.transpose(0, 1) if bf else leaf, first
            if form == "single":
                x, hx = (x[0] if bf else x[:, 0]), [s[:, 0] for s in first]
            elif form != "padded":
                rnn = T.nn.utils.rnn
                x = rnn.pack_padded_sequence(x, LENGTHS[form], bf, enforce_sorted=form == "sorted")
            hx = None if not given else tuple(hx) if kind == "LSTM" else hx[0]
            out, last = layer(x, hx)
            if form in LENGTHS:
                out, _ = T.nn.utils.rnn.pad_packed_sequence(out, bf, total_length=6)
            made = [out, *shown(kind, last)]
            wanted = [leaf, *layer.parameters(), *(first if given else [])]
            loss = sum((k + 1) * (y * y).sum() for k, y in enumerate(made))
            names = [repr(layer), list(layer.state_dict())]
            return [*names, *made, *T.autograd.grad(loss, wanted), list(out.stride())]

        same(program)


@pytest.mark.parametrize("name", ["lstm", "gru", "tanh"])
def test_dropout_between_layers(name):
    """The same stream of random numbers; none at evaluation."""
    kind, extra = KINDS[name]

    def program(T):
        T.manual_seed(2)
        layer = getattr(T.nn, kind)(3, 6, 3, dropout=0.5, bidirectional=True, **extra)
        x = T.from_numpy(X.astype(np.float32))
        return [layer(x)[0], layer.eval()(x)[0]]

    same(program)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("name", KINDS)
def test_weights_of_pytorch_load(name):
    """At a size of whole blocks and more, with equal outputs and gradients."""
    torch, _ = packages()
    kind, extra = KINDS[name]
    theirs = getattr(torch.nn, kind)(20, 70, 2, bidirectional=True, **extra)
    ours = getattr(nn, kind)(20, 70, 2, bidirectional=True, **extra)
    ours.load_state_dict({k: gpunn.from_numpy(v.numpy()) for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(3).normal(size=(12, 9, 20)).astype(np.float32)
    made = [model(T.from_numpy(x))[0] for T, model in ((torch, theirs), (gpunn, ours))]
    np.testing.assert_allclose(*(y.detach().numpy() for y in made), atol=1e-5)
    for y in made:
        y.square().mean().backward()
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), atol=1e-5)


@pytest.mark.parametrize("dtype", [gpunn.float32, gpunn.float64, gpunn.float16, gpunn.bfloat16])
@pytest.mark.parametrize("form", ["padded", "unsorted"])
@pytest.mark.parametrize("name", KINDS)
def test_compiled_code_and_numpy_agree(monkeypatch, name, form, dtype):
    """Outputs and gradients, training and not; the same results where no gradient is kept."""
    kind, extra = KINDS[name]
    gpunn.manual_seed(0)
    model = getattr(nn, kind)(3, 37, 2, bidirectional=True, dtype=dtype, **extra)
    x = gpunn.from_numpy(X).to(dtype).requires_grad_()

    def run():
        given = x
        if form != "padded":
            given = nn.utils.rnn.pack_padded_sequence(x, LENGTHS[form], enforce_sorted=False)
        out, last = model(given)
        made = [out if form == "padded" else out.data, *shown(kind, last)]
        loss = sum((k + y.float()).square().mean() for k, y in enumerate(made))
        grads = gpunn.autograd.grad(loss, [x, *model.parameters()])
        with gpunn.no_grad():
            again = model(given)[0]
        assert gpunn.equal(again if form == "padded" else again.data, made[0])
        return [t.detach().double().numpy() for t in (*made, *grads)]

    fast = run()
    monkeypatch.setattr(rnn_kernels, "available", lambda: False)
    near = {gpunn.float64: 1e-12, gpunn.float32: 1e-5, gpunn.float16: 1e-2}.get(dtype, 8e-2)
    for a, b in zip(fast, run(), strict=True):
        np.testing.assert_allclose(a, b, atol=near * max(1, abs(b).max()))


@pytest.mark.parametrize("name", KINDS)
def test_a_later_step_changes_nothing_before_it(name):
    """Neither outputs nor gradients of a network in one direction look ahead; NaN neither."""
    kind, extra = KINDS[name]
    gpunn.manual_seed(0)
    layer = getattr(nn, kind)(3, 21, 2, **extra)
    x = gpunn.from_numpy(X.astype(np.float32)).requires_grad_()
    y = layer(x)[0]
    for t in range(5):
        slope = gpunn.autograd.grad(y[t].sum(), x, retain_graph=True)[0]
        assert (slope[: t + 1] != 0).all() and not slope[t + 1 :].any()
        changed = x.detach().clone()
        changed[t:] = np.nan
        out = layer(changed)[0]
        assert gpunn.equal(out[:t], y[:t]) and out[t:].isnan().all()
        changed = x.detach().clone()
        changed[t, 2] += 1  # one sequence only
        out = layer(changed)[0]
        assert (out[t:, 2] != y[t:, 2]).any()
        others = [0, 1, 3]
        assert gpunn.equal(out[:, others], y[:, others])


@pytest.mark.parametrize("name", KINDS)
def test_gradients(name):
    """Of the whole module, by finite differences: input, first states and all parameters."""
    kind, extra = KINDS[name]
    gpunn.manual_seed(0)
    model = getattr(nn, kind)(3, 6, 2, bidirectional=True, dtype=gpunn.float64, **extra)
    names = [k for k, _ in model.named_parameters()]
    first = states(gpunn, kind, 4, extra)

    def f(x, *rest):
        hx, params = rest[: len(first)], rest[len(first) :]
        hx = tuple(hx) if kind == "LSTM" else hx[0]
        named = dict(zip(names, params, strict=True))
        out, last = gpunn.func.functional_call(model, named, (x, hx))
        return (out, *shown(kind, last))

    x = gpunn.from_numpy(X[:3].copy()).requires_grad_()
    leaves = [p.detach().clone().requires_grad_() for p in model.parameters()]
    assert gpunn.autograd.gradcheck(f, [x, *first, *leaves], fast_mode=True)


@pytest.mark.parametrize("name", KINDS)
def test_on_a_device(emulated, name):
    """The emulated device against the CPU, packed and backwards too."""
    kind, extra = KINDS[name]
    gpunn.manual_seed(0)
    model = getattr(nn, kind)(3, 6, 2, bidirectional=True, **extra)

    def f(x, *params):
        named = dict(zip([n for n, _ in model.named_parameters()], params, strict=True))
        packed = nn.utils.rnn.pack_padded_sequence(x, [2, 5, 1, 5], enforce_sorted=False)
        out, last = gpunn.func.functional_call(model, named, (packed,))
        return [out.data, *shown(kind, last), gpunn.func.functional_call(model, named, (x,))[0]]

    weights = [p.detach().numpy().astype(np.float64) for p in model.parameters()]
    model.double()
    on_both(f, [X, *weights], dtypes=("float64", "float32"), layouts=(np.ascontiguousarray,))


def test_half_on_the_cpu_is_near():
    gpunn.manual_seed(0)
    for kind, extra in KINDS.values():
        layer = getattr(nn, kind)(3, 6, **extra)
        x = gpunn.from_numpy(X.astype(np.float32))
        want = layer(x)[0]
        for dtype, near in ((gpunn.float16, 5e-3), (gpunn.bfloat16, 5e-2)):
            got = layer.to(dtype)(x.to(dtype))[0]
            got.sum().backward()
            assert got.dtype is dtype and layer.weight_hh_l0.grad.dtype is dtype
            assert (got.float() - want).abs().max().item() < near
            layer.float()


# --- the module ---------------------------------------------------------------------------


def test_weights_can_be_replaced():
    layer = nn.LSTM(3, 2)
    layer.weight_ih_l0 = nn.Parameter(gpunn.zeros(8, 3))
    assert layer._flat_weights[0] is layer.weight_ih_l0 is layer.all_weights[0][0]
    assert layer._flat_weights_names == layer._all_weights[0] == list(layer.state_dict())
    layer.flatten_parameters()
    assert layer.double()._flat_weights[0].dtype is gpunn.float64


def test_an_output_may_be_changed_in_place():
    """What the gradient reads is not the output's memory."""
    for kind in ("GRU", "RNN"):

        def program(T, kind=kind):
            T.manual_seed(0)
            layer = getattr(T.nn, kind)(3, 6, dtype=T.float64)
            out, h = layer(T.from_numpy(X.copy()))
            out.mul_(2)
            return list(T.autograd.grad(out.sum() + h.sum(), list(layer.parameters())))

        same(program)


def test_it_learns_to_remember():
    """An LSTM tells, after six steps, which bit came first."""
    gpunn.manual_seed(0)
    layer, head = nn.LSTM(1, 8), nn.Linear(8, 1)
    optimizer = gpunn.optim.Adam([*layer.parameters(), *head.parameters()], lr=0.03)
    x = gpunn.randint(0, 2, (6, 64, 1)).float()
    for _ in range(120):
        _, (h, _) = layer(x)
        loss = nn.functional.binary_cross_entropy_with_logits(head(h[0]), x[0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


# --- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("make, words", [
    (lambda n: n.LSTM(4, 5, proj_size=5), "proj_size has to be smaller than hidden_size"),
    (lambda n: n.LSTM(4, 5, proj_size=-1), "proj_size should be a positive integer or zero"),
    (lambda n: n.GRU(4, 5, proj_size=2), "proj_size argument is only supported for LSTM"),
    (lambda n: n.RNN(4, 5, proj_size=2), "proj_size argument is only supported for LSTM"),
    (lambda n: n.LSTM(4, 0), "hidden_size must be greater than zero"),
    (lambda n: n.LSTM(0, 4), "input_size must be greater than zero"),
    (lambda n: n.LSTM(4.0, 4), "input_size should be of type int, got: float"),
    (lambda n: n.LSTM(4, 4, 0), "num_layers must be greater than zero"),
    (lambda n: n.LSTM(4, 4, bias=1), "bias should be of type bool, got: int"),
    (lambda n: n.LSTM(4, 4, batch_first=1), "batch_first should be of type bool, got: int"),
    (lambda n: n.LSTM(4, 4, dropout=2), r"dropout should be a number in range \[0, 1\]"),
    (lambda n: n.LSTM(4, 4, dropout=True), r"dropout should be a number in range \[0, 1\]"),
    (lambda n: n.LSTM(4, 4, dropout=0.5), "dropout option adds dropout after all but last"),
    (lambda n: n.RNN(4, 4, nonlinearity="gelu"), "Unknown nonlinearity 'gelu'. Select from"),
    (lambda n: n.RNNBase("X", 4, 4), "Unrecognized RNN mode: X"),
])  # fmt: skip
def test_arguments_are_checked(make, words):
    refused(lambda T: make(T.nn), words)


@pytest.mark.parametrize("call, words", [
    (lambda T, o: T.nn.LSTM(4, 5)(o(3, 2, 4), (o(1, 3, 5), o(1, 2, 5))),
     r"Expected hidden\[0\] size \(1, 2, 5\), got \[1, 3, 5\]"),
    (lambda T, o: T.nn.LSTM(4, 5)(o(3, 2, 4), (o(1, 2, 5), o(1, 3, 5))),
     r"Expected hidden\[1\] size \(1, 2, 5\), got \[1, 3, 5\]"),
    (lambda T, o: T.nn.LSTM(4, 5)(o(3, 2, 4), (o(2, 5), o(2, 5))), "For batched 3-D input, hx and"),
    (lambda T, o: T.nn.LSTM(4, 5)(o(3, 4), (o(1, 2, 5), o(2, 5))), "For unbatched 2-D input, hx a"),
    (lambda T, o: T.nn.GRU(4, 5)(o(3, 2, 4), o(2, 5)), "For batched 3-D input, hx should also be"),
    (lambda T, o: T.nn.GRU(4, 5)(o(3, 4), o(1, 2, 5)), "For unbatched 2-D input, hx should also"),
    (lambda T, o: T.nn.GRU(4, 5)(o(3, 2, 4), o(1, 2, 6)), r"Expected hidden size \(1, 2, 5\), got"),
    (lambda T, o: T.nn.GRU(4, 5)(o(3, 2, 3)), r"input.size\(-1\) must be equal to input_size"),
    (lambda T, o: T.nn.GRU(4, 5)(o(3, 2, 4).double()), r"RNN input dtype \(torch.float64\) does"),
    (lambda T, o: T.nn.GRU(4, 5)(o(3, 2, 4), o(1, 2, 5).double()), "must have the same dtype, but"),
    (lambda T, o: T.nn.GRU(4, 5)(o(3)), "GRU: Expected input to be 2D or 3D, got 1D instead"),
    (lambda T, o: T.nn.RNN(4, 5)(o(3)), "RNN: Expected input to be 2D or 3D, got 1D tensor inst"),
    (lambda T, o: T.nn.GRU(4, 5)(o(0, 2, 4)), "Expected sequence length to be larger than 0"),
    (lambda T, o: T.nn.GRU(4, 5)(T.nn.utils.rnn.pack_sequence([o(2)])),
     "input must have 2 dimensions, got 1"),
    (lambda T, o: T.nn.LSTM(4, 5)((o(3, 2, 4),)), "'tuple' object has no attribute"),
])  # fmt: skip
def test_errors_are_pytorchs(call, words):
    refused(lambda T: call(T, T.ones), words)


def test_batch_sizes_must_fit():
    packed = nn.utils.rnn.PackedSequence(gpunn.ones(3, 4), gpunn.tensor([2, 2]))
    with pytest.raises(RuntimeError, match="must not rise and must add up to the 3 rows"):
        nn.GRU(4, 5)(packed)


def test_no_sequences_at_all():
    same(lambda T: [*T.nn.GRU(4, 5)(T.ones(3, 0, 4))])


def test_states_on_another_device():
    with pytest.raises(RuntimeError, match="not at the same device, found input tensor at cpu and"):
        nn.GRU(4, 5)(gpunn.ones(3, 2, 4), gpunn.ones(1, 2, 5, device="cpu:1"))


def test_names():
    for name in ("RNNBase", "RNN", "LSTM", "GRU"):
        assert getattr(nn.modules.rnn, name) is getattr(nn, name)
    with pytest.warns(FutureWarning, match="`apply_permutation` is deprecated, please use"):
        turned = nn.modules.rnn.apply_permutation(gpunn.eye(2), gpunn.tensor([1, 0]))
    assert turned.tolist() == [[0, 1], [1, 0]]
