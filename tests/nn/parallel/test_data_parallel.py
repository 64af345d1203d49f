"""DataParallel on several CPU devices, against the same model on one."""

import copy
import gc
import threading
import warnings
import weakref

import numpy as np
import pytest

import gpunn
from gpunn import nn
from gpunn.nn import functional as F
from gpunn.nn.utils.rnn import pack_sequence, pad_packed_sequence
from tests.nn.parallel.models import (
    CPUS,
    Attention,
    Checkpointed,
    Fails,
    Net,
    Packed,
    Perceptron,
    Recurrent,
    Slope,
    close,
    drawn,
    recurrent_loss,
    same_training,
    sequences,
)

DEVICES = [CPUS[:1], CPUS[:2], CPUS, ["cpu:0", "cpu:0"], ["cpu:1", "cpu:0"]]


@pytest.fixture(params=DEVICES, ids=lambda d: "+".join(name[-1] for name in d))
def devices(request):
    return request.param


# --- the same training --------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8])
def test_perceptron(devices, rows):
    same_training(
        Perceptron, lambda i: (drawn(rows, 5, seed=i),), lambda y: (y**2).mean(), devices
    )


def test_lstm_that_packs_inside(devices):
    lengths = gpunn.tensor([2, 6, 1, 3, 6])
    same_training(
        Recurrent, lambda i: (drawn(5, 6, 3, seed=i), lengths), recurrent_loss, devices
    )


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("sort", [False, True])
def test_packed_input_and_output(devices, kind, sort):
    counts = [6, 4, 4, 2, 1] if sort else [2, 6, 1, 4, 4]

    def inputs(step):
        return (pack_sequence(sequences(counts, step), enforce_sorted=sort),)

    def loss(found):
        made, padded, lengths, h = found
        assert lengths.tolist() == counts and padded.shape == (5, 6, 8)
        assert made.batch_sizes.tolist() == [sum(n > t for n in counts) for t in range(6)]
        again, _ = pad_packed_sequence(made, batch_first=True)
        close(again, padded)
        return (made.data**2).mean() + h.sum() + padded.sum()

    same_training(lambda: Packed(kind), inputs, loss, devices)


def test_attention_with_tied_weights(devices):
    def inputs(step):
        tokens = np.random.default_rng(step).integers(1, 11, (5, 7))
        mask = np.arange(7) < np.array([7, 3, 5, 1, 7])[:, None]
        return gpunn.from_numpy(tokens), gpunn.from_numpy(mask)

    one, several = same_training(Attention, inputs, lambda y: y.log_softmax(-1)[..., 3].mean(),
                                 devices)  # fmt: skip
    assert several.module.out.weight is several.module.embed.weight


def test_convolution_with_batch_norm_normalises_each_part(devices):
    gpunn.manual_seed(0)
    one = Net().double()
    several = nn.DataParallel(copy.deepcopy(one).to(devices[0]), devices)
    sizes = [7 // len(devices) + (i < 7 % len(devices)) for i in range(len(devices))]
    for step in range(3):
        x = drawn(7, 2, 5, 5, seed=step)
        parts, running = [], None
        for i, part in enumerate(x.split(sizes)):
            kept = copy.deepcopy(dict(one.named_buffers()))
            parts.append(one(part))
            if i == 0:
                running = copy.deepcopy(dict(one.named_buffers()))
            else:  # only the first part's statistics are kept
                one.load_state_dict(kept, strict=False)
        one.load_state_dict(running, strict=False)
        wanted, found = gpunn.cat(parts), several(x)
        close(wanted, found)
        for model, y in ((one, wanted), (several, found)):
            model.zero_grad()
            (y**2).mean().backward()
        for p, q in zip(one.parameters(), several.parameters(), strict=True):
            close(p.grad, q.grad)
    for a, b in zip(one.buffers(), several.buffers(), strict=True):
        close(a, b)
    assert several.module.norm.num_batches_tracked.item() == 3
    one.eval(), several.eval()
    x = drawn(7, 2, 5, 5)
    close(one(x), several(x))


def test_transformer(devices):
    layer = getattr(nn, "TransformerEncoderLayer", None)
    assert layer is not None

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            one = layer(8, 2, 16, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(one, 2, enable_nested_tensor=False)

        def forward(self, x, padding):
            return self.encoder(x, src_key_padding_mask=padding)

    padding = gpunn.from_numpy(np.arange(6) >= np.array([6, 3, 5, 1, 6])[:, None])
    same_training(
        Encoder, lambda i: (drawn(5, 6, 8, seed=i), padding), lambda y: (y**2).mean(), devices
    )


def test_weights_computed_from_others(devices):
    class Shaped(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
            self.b = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4))
            self.c = nn.utils.weight_norm(nn.Linear(4, 4))
            self.d = nn.utils.spectral_norm(nn.Linear(4, 4))
            self.list = nn.ParameterList([gpunn.ones(4), gpunn.ones(4) * 2])
            self.table = nn.ParameterDict({"shift": gpunn.ones(4)})

        def forward(self, x):
            for layer in (self.a, self.b, self.c, self.d):
                x = gpunn.tanh(layer(x))
            for factor in self.list:
                x = x * factor
            return x * self.list[-1] + self.table["shift"]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        same_training(Shaped, lambda i: (drawn(5, 4, seed=i),), lambda y: (y**2).mean(), devices)


def test_second_derivatives(devices):
    gpunn.manual_seed(0)
    one = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    several = nn.DataParallel(copy.deepcopy(one).to(devices[0]), devices)
    found = []
    for model in (one, several):
        x = drawn(5, 3).requires_grad_()
        (g,) = gpunn.autograd.grad(model(x).sum(), x, create_graph=True)
        ((g**2).sum(1) - 1).pow(2).mean().backward()
        found.append([g, x.grad, *(p.grad for p in model.parameters())])
    for a, b in zip(*found, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            close(a, b)


@pytest.mark.parametrize("make", [Slope, Checkpointed])
def test_walks_inside_of_forward_and_forward_inside_of_walks(devices, make):
    same_training(make, lambda i: (drawn(5, 3, seed=i),), lambda y: (y**2).sum(), devices)


def test_sparse_gradients_of_an_embedding():
    one = nn.Embedding(6, 3, sparse=True).double()
    several = nn.DataParallel(copy.deepcopy(one), CPUS)
    tokens = gpunn.tensor([[1, 2], [2, 3], [0, 0], [2, 5]])
    for model in (one, several):
        (model(tokens) ** 2).sum().backward()
    assert several.module.weight.grad.is_sparse
    close(one.weight.grad.to_dense(), several.module.weight.grad.to_dense())


def test_accumulated_gradients_and_frozen_parameters(devices):
    one = Perceptron().double()
    one.layers[0].weight.requires_grad_(False)
    several = nn.DataParallel(copy.deepcopy(one).to(devices[0]), devices)
    for model in (one, several):
        for step in range(3):
            model(drawn(5, 5, seed=step)).sum().backward()
    for p, q in zip(one.parameters(), several.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            close(p.grad, q.grad)
    assert one.layers[0].weight.grad is None


# --- inputs -------------------------------------------------------------------------------


class Sizes(nn.Module):
    """Returns the rows that each replica got of its arguments."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, *args, **kwargs):
        self.calls.append((args, kwargs))  # the list is shared by the replicas
        return gpunn.zeros(1)


def parts_of(*args, devices=CPUS, **kwargs):
    net = nn.DataParallel(Sizes(), devices)
    net(*args, **kwargs)
    return sorted(net.module.calls, key=lambda call: -sum(t.numel() for t in leaves(call)))


def leaves(obj):
    if isinstance(obj, gpunn.Tensor):
        return [obj]
    if isinstance(obj, dict):
        obj = list(obj.values())
    return [t for v in obj for t in leaves(v)] if isinstance(obj, (tuple, list)) else []


@pytest.mark.parametrize(
    ("rows", "sizes"), [(1, [1]), (2, [1, 1]), (4, [2, 1, 1]), (5, [2, 2, 1]), (6, [2, 2, 2])]
)
def test_sizes_of_parts(rows, sizes):
    calls = parts_of(gpunn.ones(rows, 2), y=gpunn.ones(rows))
    assert [(len(a[0]), len(k["y"])) for a, k in calls] == [(n, n) for n in sizes]


def test_keyword_tensors_are_split_into_as_many_parts_as_positional_ones():
    # PyTorch's parts differ in number here: "missing 1 required positional argument"
    calls = parts_of(gpunn.ones(2, 2), "name", flag=True, table=gpunn.ones(5))
    assert [(len(a[0]), a[1], k["flag"], len(k["table"])) for a, k in calls] == [
        (1, "name", True, 3), (1, "name", True, 2)
    ]  # fmt: skip


def test_no_row_is_lost_to_a_short_tensor():
    calls = parts_of(gpunn.ones(7, 2), gpunn.ones(1, 3))
    assert [(len(x), len(y)) for (x, y), _ in calls] == [(7, 1)]
    calls = parts_of(gpunn.ones(7, 2), gpunn.ones(2, 3))
    assert [(len(x), len(y)) for (x, y), _ in calls] == [(4, 1), (3, 1)]


def test_empty_batch_and_empty_tensor():
    assert [len(a[0]) for a, _ in parts_of(gpunn.ones(0, 2))] == [0]
    calls = parts_of(gpunn.ones(3), gpunn.ones(0))
    assert [(len(x), len(y)) for (x, y), _ in calls] == [(1, 0)] * 3


def test_no_inputs_at_all():
    class Constant(nn.Linear):
        def forward(self):
            return self.weight.sum(0)

    net = nn.DataParallel(Constant(2, 3).double(), CPUS)
    net().sum().backward()
    assert (net.module.weight.grad == 1).all()


def test_only_keyword_arguments_and_no_tensors():
    assert len(parts_of(x=gpunn.ones(2))) == 2
    assert parts_of("a", b=1) == [(("a",), {"b": 1})] * 3


def test_along_another_dimension():
    layer = nn.Linear(4, 3).double()
    net = nn.DataParallel(layer, CPUS, dim=1)
    x = drawn(2, 5, 4)
    close(net(x), layer(x))


def test_inputs_of_another_device_and_output_device():
    layer = nn.Linear(4, 3).to("cpu:1")
    net = nn.DataParallel(layer, ["cpu:1", "cpu:2"], output_device="cpu:2")
    y = net(gpunn.ones(3, 4, device="cpu:2"))
    assert y.device == gpunn.device("cpu:2")
    y.sum().backward()
    assert layer.weight.grad.device == gpunn.device("cpu:1")
    assert nn.DataParallel(nn.Linear(4, 3), CPUS, "cpu:1")(gpunn.ones(3, 4)).device.index == 1


# --- outputs ------------------------------------------------------------------------------


class Loss(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 1)

    def forward(self, x, y):
        return F.mse_loss(self.layer(x)[:, 0], y), {"rows": gpunn.tensor(len(x))}


def test_scalars_become_a_vector():
    net = nn.DataParallel(Loss().double(), CPUS)
    with pytest.warns(UserWarning, match="all input tensors were scalars; will instead unsqueeze"):
        loss, found = net(drawn(5, 3), drawn(5))
    assert loss.shape == (3,) and found["rows"].tolist() == [2, 2, 1]


def test_scalars_become_the_mean_weighted_by_rows():
    one = Loss().double()
    net = nn.DataParallel(copy.deepcopy(one), CPUS, reduce_scalars="mean")
    x, y = drawn(5, 3), drawn(5)
    with pytest.warns(UserWarning, match="scalars"):  # of the integer
        loss, found = net(x, y=y)
    wanted, _ = one(x, y)
    close(loss, wanted)
    assert loss.shape == () and found["rows"].tolist() == [2, 2, 1]
    loss.backward(), wanted.backward()
    close(one.layer.weight.grad, net.module.layer.weight.grad)
    with pytest.raises(ValueError, match="reduce_scalars must be None or"):
        nn.DataParallel(one, CPUS, reduce_scalars="sum")


def test_the_mean_where_a_tensor_is_empty_or_all_are():
    class Mean(nn.Module):
        def forward(self, nothing, x):
            return x.mean()

    net = nn.DataParallel(Mean(), CPUS, reduce_scalars="mean")
    assert net(gpunn.ones(0), gpunn.arange(5.0)).item() == 2
    assert net(gpunn.ones(0), gpunn.ones(0)).isnan()


def test_none_tuples_and_dictionaries():
    class Several(nn.Module):
        def forward(self, x):
            return None, {"a": x, "b": [x + 1, (x.sum(1),)]}

    nothing, found = nn.DataParallel(Several(), CPUS)(gpunn.ones(5, 2))
    assert nothing is None and found["a"].shape == (5, 2)
    assert type(found["b"]) is list and found["b"][1][0].shape == (5,)


# --- modes, hooks, errors -----------------------------------------------------------------


def test_modes_reach_the_threads():
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            seen.append((gpunn.is_grad_enabled(), gpunn.is_inference_mode_enabled(), self.training,
                         gpunn.get_default_device(), threading.get_ident()))  # fmt: skip
            return x

    net = nn.DataParallel(Look(), CPUS)
    x = gpunn.ones(3)
    net(x)
    with gpunn.no_grad(), gpunn.device("cpu:2"):
        net.eval()(x)
    with gpunn.inference_mode():
        net(x)
    cpu, other = gpunn.device("cpu"), gpunn.device("cpu:2")
    assert [s[:4] for s in seen] == [
        *[(True, False, True, cpu)] * 3, *[(False, False, False, other)] * 3,
        *[(False, True, False, cpu)] * 3,
    ]  # fmt: skip
    assert threading.get_ident() not in {s[4] for s in seen}
    assert gpunn.is_grad_enabled() and gpunn.get_default_device() == cpu


def test_autocast_reaches_the_threads():
    from gpunn.amp.casts import AUTOCAST

    net = nn.DataParallel(nn.Linear(3, 2), CPUS)
    x = gpunn.ones(5, 3)
    with gpunn.autocast("cpu", dtype=gpunn.float16):
        y = net(x)
        with gpunn.autocast("cpu", enabled=False):
            assert net(x).dtype == gpunn.float32
    assert y.dtype == gpunn.float16 and net(x).dtype == gpunn.float32
    y.float().sum().backward()
    assert net.module.weight.grad.dtype == gpunn.float32 and (net.module.weight.grad == 5).all()
    assert AUTOCAST == []
    with gpunn.autocast("cpu"), pytest.raises(LookupError):
        nn.DataParallel(Fails(), CPUS)(gpunn.ones(3))
    assert AUTOCAST == []


def test_no_grad_records_nothing(devices):
    net = nn.DataParallel(Perceptron().to(devices[0]), devices)
    with gpunn.no_grad():
        assert not net(gpunn.ones(4, 5)).requires_grad
    assert net(gpunn.ones(4, 5)).requires_grad


def test_hooks_run_once_for_each_replica():
    net = nn.DataParallel(Perceptron(), CPUS)
    seen = []
    net.module.register_forward_hook(lambda m, args, y: seen.append(("forward", len(args[0]))))
    net.module.layers[0].register_full_backward_hook(
        lambda m, gi, go: seen.append(("backward", go[0].device.index))
    )
    net.register_forward_hook(lambda m, args, y: seen.append(("whole", len(y))))
    net(gpunn.ones(5, 5, requires_grad=True)).sum().backward()
    assert sorted(seen, key=str) == [
        ("backward", 1), ("backward", 2), ("backward", None), ("forward", 1), ("forward", 2),
        ("forward", 2), ("whole", 5),
    ]  # fmt: skip


def test_exceptions_say_where():
    net = nn.DataParallel(nn.Sequential(Fails()), CPUS)
    with pytest.raises(LookupError, match=r"Caught LookupError in replica 1 on device cpu:1\.\n"
                       r"Original Traceback[\s\S]*in forward[\s\S]*no such thing as \[1\.0\]"):
        net(gpunn.ones(3))  # fmt: skip


def test_parameters_on_another_device():
    net = nn.DataParallel(nn.Linear(2, 2), ["cpu:1", "cpu:0"])
    message = (
        r"module must have its parameters and buffers on device cpu:1 \(device_ids\[0\]\) but "
        "found one of them on device: cpu$"
    )
    with pytest.raises(RuntimeError, match=message):
        net(gpunn.ones(2, 2))
    net.to("cpu:1")
    assert net(gpunn.ones(2, 2)).shape == (2, 2)
    buffered = nn.BatchNorm1d(2, affine=False)
    with pytest.raises(RuntimeError, match=message):
        nn.parallel.data_parallel(buffered, gpunn.ones(2, 2), ["cpu:1", "cpu:0"])


def test_lazy_modules_are_refused():
    with pytest.raises(RuntimeError, match="uninitialized parameters can't be used with `Data"):
        nn.DataParallel(nn.LazyLinear(2), CPUS)(gpunn.ones(3, 2))


def test_without_a_gpu_the_module_is_just_called():
    for device_ids in (None, [0, 1], ["cuda:0", "cuda:1"]):
        net = nn.DataParallel(nn.Linear(2, 2), device_ids)
        assert net.device_ids == [] and net(gpunn.ones(3, 2)).shape == (3, 2)
    with pytest.raises(RuntimeError, match="device type could not be determined"):
        nn.parallel.data_parallel(nn.Linear(2, 2), gpunn.ones(2, 2))


def test_one_device_runs_the_module_itself():
    net = nn.DataParallel(Sizes(), ["cpu:1"])
    net(gpunn.ones(5))
    net.module.own = "kept"
    assert net.module.calls[0][0][0].device.index == 1
    layer = nn.Linear(2, 2)
    nn.DataParallel(layer, ["cpu:1"])
    assert layer.weight.device.index == 1  # as PyTorch moves it


def test_what_forward_assigns_is_gone_but_changes_in_place_stay():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", gpunn.zeros(()))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            self.seen += len(x)
            return x

    net = nn.DataParallel(Counts(), CPUS)
    net(gpunn.ones(5)), net(gpunn.ones(5))
    assert net.module.calls == 0 and net.module.seen.item() == 4


def test_zero_grad_in_forward_warns():
    class Zero(nn.Linear):
        def forward(self, x):
            self.zero_grad()
            return x

    with pytest.warns(UserWarning, match="from a module created with nn.DataParallel"):
        nn.DataParallel(Zero(2, 2), CPUS)(gpunn.ones(3, 2))


# --- the rest ---------------------------------------------------------------------------


def test_repr_train_and_apply_reach_the_module():
    net = nn.DataParallel(Perceptron(), CPUS)
    assert repr(net).startswith("DataParallel(\n  (module): Perceptron(")
    assert not net.eval().module.layers.training
    assert len(list(net.parameters())) == 4


def test_replicas_are_freed_without_the_garbage_collector():
    dead = []

    class Watch(nn.Linear):
        def forward(self, x):
            dead.append(weakref.ref(self))
            return super().forward(x)

    net = nn.DataParallel(Watch(2, 2), CPUS)
    gc.collect()
    gc.disable()
    try:
        net(gpunn.ones(3, 2)).sum().backward()
        assert [ref() for ref in dead] == [None] * 3
    finally:
        gc.enable()


def test_many_threads_record_one_graph():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(gpunn.ones(1).double())

        def forward(self, x):
            for _ in range(200):
                x = (x * self.w).reshape(-1).reshape(x.shape)
                x.mul_(1.0)
            return x

    net = nn.DataParallel(Deep(), ["cpu"] * 6)
    for _ in range(5):
        net.zero_grad()
        net(gpunn.ones(12, 2).double()).sum().backward()
        assert net.module.w.grad.item() == 24 * 200


def test_functional_form():
    layer = Perceptron().double()
    x = drawn(5, 5)
    made = nn.parallel.data_parallel(layer, x, CPUS, module_kwargs={"scale": 2.0})
    close(made, layer(x, 2.0))
    made = nn.parallel.data_parallel(layer, (x, 3.0), CPUS, "cpu:1")
    assert made.device.index == 1
    close(made, layer(x, 3.0))
    close(nn.parallel.data_parallel(layer, x, ["cpu"]), layer(x))
    wide = nn.parallel.data_parallel(nn.Identity(), drawn(2, 5), CPUS, None, 1)
    close(wide, drawn(2, 5))
    made = nn.parallel.data_parallel(Sizes(), None, CPUS)
    assert made.shape == (1,)
