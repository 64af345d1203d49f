"""Names: PyTorch's, for operations, operators, modules, optimizers and data loading."""

import pytest

import gpunn
from gpunn import nn
from gpunn.nn import functional as F
from gpunn.profiler import profile
from gpunn.profiler.targets import operations

x = gpunn.ones(3, 3)
image = gpunn.ones(1, 2, 4, 4)
rows = gpunn.ones(2, 3, 4)


def top(run):
    with profile() as prof:
        run()
    return [e.name for e in prof.events() if e.cpu_parent is None]


@pytest.mark.parametrize(
    ("name", "run"),
    [
        ("add", lambda: x + x), ("add", lambda: 1 + x), ("sub", lambda: x - x),
        ("rsub", lambda: 1 - x), ("mul", lambda: 2 * x), ("div", lambda: x / 2),
        ("matmul", lambda: x @ x), ("neg", lambda: -x), ("eq", lambda: x == x),
        ("__and__", lambda: gpunn.ones(1).int() & 1),
        ("select", lambda: x[0]), ("slice", lambda: x[1:]), ("index", lambda: x[[0, 1]]),
        ("unsqueeze", lambda: x[None]), ("numpy_T", lambda: x.T), ("to", lambda: x.double()),
        ("to", lambda: x.to(gpunn.float64)), ("item", lambda: x[0, 0].item()),
        ("detach", lambda: x.detach()), ("exp", x.exp), ("exp", lambda: gpunn.exp(x)),
        ("sum", lambda: x.sum()), ("cat", lambda: gpunn.cat([x, x])),
        ("linalg_norm", lambda: gpunn.linalg.norm(x)),
        ("cross_entropy_loss", lambda: F.cross_entropy(x, gpunn.tensor([0, 1, 2]))),
        ("softmax", lambda: F.softmax(x, 1)), ("relu", lambda: F.relu(x)),
        ("upsample_nearest2d", lambda: F.interpolate(image, scale_factor=2)),
        ("upsample_bilinear2d", lambda: F.interpolate(image, 8, mode="bilinear")),
        ("_upsample_bilinear2d_aa",
         lambda: F.interpolate(image, 2, mode="bilinear", antialias=True)),
        ("adaptive_avg_pool2d", lambda: F.interpolate(image, 2, mode="area")),
        ("conv2d", lambda: F.conv2d(image, gpunn.ones(1, 2, 2, 2))),
        ("conv_transpose2d", lambda: F.conv_transpose2d(image, gpunn.ones(2, 1, 2, 2))),
        ("max_pool2d", lambda: F.max_pool2d(image, 2)),
    ],
)  # fmt: skip
def test_operations(name, run):
    assert top(run)[-1] == f"aten::{name}"


@pytest.mark.parametrize(
    ("name", "module", "input"),
    [
        ("linear", nn.Linear(3, 2), x), ("conv2d", nn.Conv2d(2, 3, 2), image),
        ("conv_transpose2d", nn.ConvTranspose2d(2, 3, 2), image),
        ("lstm", nn.LSTM(4, 2), rows), ("gru", nn.GRU(4, 2, batch_first=True), rows),
        ("rnn_tanh", nn.RNN(4, 2), rows), ("batch_norm", nn.BatchNorm2d(2), image),
        ("layer_norm", nn.LayerNorm(4), rows), ("gelu", nn.GELU(), x),
        ("embedding", nn.Embedding(3, 2), gpunn.tensor([1])), ("dropout", nn.Dropout(), x),
    ],
)  # fmt: skip
def test_modules(name, module, input):
    assert top(lambda: module(input))[-1] == f"aten::{name}"


def test_functions_that_modules_keep():
    layer = nn.TransformerEncoderLayer(4, 2, 8, activation=F.gelu)
    assert "aten::gelu" in top(lambda: layer(rows))


def test_in_place_operators():
    y = x.clone()

    def run():
        nonlocal y
        y += 1
        y *= 2
        y[0] = 3
        y[[0, 1]] = 4

    assert top(run) == ["aten::add_", "aten::mul_", "aten::copy_", "aten::index_put_"]


def test_optimizers_and_loaders():
    p = gpunn.ones(2, requires_grad=True)
    adam, sgd = gpunn.optim.Adam([p]), gpunn.optim.SGD([p], lr=0.1)
    loader = gpunn.utils.data.DataLoader([1, 2, 3], batch_size=2)

    def run():
        adam.zero_grad()
        adam.step()
        sgd.step()
        for _ in loader:
            pass

    named = [name for name in top(run) if "#" in name]
    batch = "enumerate(DataLoader)#_SingleProcessDataLoaderIter.__next__"
    assert named == [
        "Optimizer.zero_grad#Adam.zero_grad", "Optimizer.step#Adam.step", "Optimizer.step#SGD.step",
        batch, batch, batch,
    ]  # fmt: skip


def test_an_optimizer_of_the_user_has_one_range_for_a_step():
    class Loud(gpunn.optim.SGD):
        def step(self, closure=None):
            return super().step(closure)

    optimizer = Loud([gpunn.ones(2, requires_grad=True)])
    assert top(optimizer.step) == ["Optimizer.step#Loud.step"]


def test_functions_of_users():
    class Square(gpunn.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * x

        @staticmethod
        def backward(ctx, g):
            return g

    with profile() as prof:
        Square.apply(x)
    (square, mul) = prof.events()
    assert (square.name, mul.name, mul.cpu_parent) == ("Square", "aten::mul", square)


def test_what_computes_nothing_is_left_out():
    def run():
        x.size(), x.dim(), x.shape, x.is_contiguous(), gpunn.is_tensor(x), gpunn.numel(x)
        gpunn.manual_seed(0)

    assert top(run) == []


def test_names_are_pytorchs():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    known = {name.split(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    ours = {name for name in operations().values() if isinstance(name, str)}
    composed = "gaussian_nll_loss gumbel_softmax linear_cross_entropy local_response_norm \
        lp_pool1d lp_pool2d lp_pool3d multilabel_soft_margin_loss normalize pca_lowrank \
        rotary_position_embedding sinusoidal_position_encoding softmin softsign svd_lowrank \
        tanhshrink tensor unravel_index"
    assert ours - known == {f"aten::{name}" for name in composed.split()}  # one step here


@pytest.mark.parametrize("name", ["linear", "relu", "cross_entropy_loss", "max_pool2d"])
def test_a_training_step_has_the_same_names_as_pytorchs(name):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    found = []
    for T in (torch, gpunn):
        model = T.nn.Sequential(
            T.nn.Conv2d(1, 2, 3), T.nn.ReLU(), T.nn.MaxPool2d(2), T.nn.Flatten(), T.nn.Linear(2, 3)
        )
        update = T.optim.SGD(model.parameters(), lr=0.1)
        cpu = [T.profiler.ProfilerActivity.CPU]
        with T.profiler.profile(activities=cpu, record_shapes=True) as prof:
            update.zero_grad()
            T.nn.functional.cross_entropy(model(T.ones(1, 1, 4, 4)), T.tensor([1])).backward()
            update.step()
        rows = prof.key_averages()
        found.append({a.key: (a.count, a.cpu_time_total > 0) for a in rows})
    for key in (f"aten::{name}", "Optimizer.step#SGD.step", "AddmmBackward0",
                "autograd::engine::evaluate_function: ConvolutionBackward0"):  # fmt: skip
        assert found[0][key] == found[1][key]
