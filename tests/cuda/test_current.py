"""Work goes where its tensors are: on two emulated GPUs, which refuse each other's arrays.

Operations by name are run on the second GPU by tests/parity/test_emulated.py.
"""

import copy
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import fake_cupy
import numpy as np
import pytest

import gpunn
from gpunn import cuda, nn
from gpunn.cuda import current
from gpunn.device import Device
from gpunn.tensor import Tensor

F = nn.functional


@pytest.fixture
def there(two_gpus):
    """cuda:1, while cuda:0 is current; it must still be so at the end."""
    assert cuda.current_device() == 0
    yield two_gpus[1]
    assert cuda.current_device() == 0


def in_runtime():
    """The device that CuPy works on."""
    return cuda.detect.load().cuda.runtime.getDevice()


def array_of_cupy(index):
    """An array that CuPy made by itself."""
    runtime = cuda.detect.load().cuda.runtime
    runtime.setDevice(index)
    made = cuda.detect.load().ones(3)
    runtime.setDevice(0)
    return made


def drawn(*shape, device="cpu", seed=0):
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return gpunn.from_numpy(values).to(device)


def close(x, y, tolerance=1e-4):
    np.testing.assert_allclose(
        x.detach().cpu().numpy(), y.detach().cpu().numpy(), rtol=tolerance, atol=tolerance
    )


# --- when it is on ------------------------------------------------------------------------


def test_arrays_of_cupy_are_shared(there):
    array = array_of_cupy(1)
    x = gpunn.as_tensor(array)
    assert x.device is there and (x + 1).tolist() == [2, 2, 2]
    x.mul_(3)
    assert array.get().tolist() == [3, 3, 3]


def test_nothing_is_installed_where_one_gpu_is_used(two_gpus):
    slot = Tensor.__dict__["array"]
    x = gpunn.ones(3, device="cuda:0").requires_grad_()
    (x * x).sum().backward()
    with cuda.device(0), cuda.stream(cuda.Stream()):
        x.cpu()
    assert Tensor.__dict__["array"] is slot and not current.SEVERAL
    assert Device("cuda:0").xp is cuda.detect.load()
    gpunn.ones(3, device="cuda:1")
    assert Tensor.__dict__["array"] is not slot and current.SEVERAL
    current.unfollow()
    assert Tensor.__dict__["array"] is slot and not current.SEVERAL


@pytest.mark.parametrize(
    "use",
    [
        lambda: cuda.set_device(1),
        lambda: cuda.device(1).__enter__(),
        lambda: cuda.set_stream(cuda.default_stream(1)),
        lambda: gpunn.ones(2).to("cuda:1"),
        lambda: gpunn.ones(2).cuda(1),
        lambda: nn.Linear(2, 2, device="cuda:1"),
        lambda: gpunn.Generator("cuda:1").manual_seed(0) and gpunn.rand(2, device="cuda:1"),
        lambda: gpunn.as_tensor(array_of_cupy(1)),
    ],
)
def test_the_first_use_of_another_gpu_turns_it_on(two_gpus, use):
    x = gpunn.ones(3, device="cuda:0")
    assert not current.SEVERAL
    use()
    assert current.SEVERAL
    assert (x + 1).tolist() == [2, 2, 2]


FORK = """
import os, sys
import fake_cupy
from gpunn import cuda
from gpunn.cuda import current
from gpunn.tensor import Tensor

with fake_cupy.installed(fake_cupy.make(devices=2)):
    cuda.set_device(1)
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    slot = type(Tensor.__dict__["array"]).__name__ == "member_descriptor"
    os._exit(0 if slot and not current.SEVERAL else 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_nothing_installed():
    tests = str(Path(__file__).parents[1])
    path = os.pathsep.join([tests, str(Path(gpunn.__file__).parents[1])])
    subprocess.run([sys.executable, "-c", FORK], check=True, env={**os.environ, "PYTHONPATH": path})


def test_cpu_tensors_are_left_alone(there):
    x = gpunn.ones(2, device=there)
    y = gpunn.ones(2, requires_grad=True)
    before = in_runtime()
    (y * 2).sum().backward()
    assert in_runtime() == before and y.grad.tolist() == [2, 2] and x.tolist() == [1, 1]


def test_arrays_stay_writable_attributes(there):
    x = gpunn.ones(2, device=there)
    x.array = x.array * 3
    assert x.tolist() == [3, 3] and x.array is x.array
    del x.array
    with pytest.raises(AttributeError):
        x.array  # noqa: B018
    assert in_runtime() == 1


# --- operations ---------------------------------------------------------------------------


def test_results_are_where_the_operands_are(there):
    x, y = gpunn.ones(2, 2, device=there), gpunn.ones(2, 2, device="cuda:0")
    for _ in range(2):  # in turns
        for t in (x, y):
            made = (t @ t + 1).relu().sum()
            assert made.device is t.device and made.array.device.id == t.device.index
            assert made.item() == 12


def test_the_current_device_is_where_tensors_are_made(there):
    x = gpunn.ones(2, device=there)
    x = x * 2
    assert gpunn.zeros(2, device="cuda").device.index == 0
    with cuda.device(1):
        assert gpunn.zeros(2, device="cuda").device is there
        gpunn.ones(2, device="cuda:0").sum()
        assert cuda.current_device() == 1 and gpunn.ones(2).cuda().device is there
    with cuda.device_of(x):
        assert cuda.current_device() == 1
    assert gpunn.ones(2).cuda().device.index == 0
    cuda.set_device(1)
    gpunn.ones(2, device="cuda:0").sum()
    assert gpunn.ones(2).to("cuda").device is there
    cuda.set_device(0)


def test_creation_in_the_likeness_of_tensors(there):
    x = drawn(3, 3, device=there)
    for make in (
        gpunn.zeros_like, gpunn.ones_like, gpunn.empty_like, gpunn.rand_like, gpunn.randn_like,
        lambda t: gpunn.full_like(t, 2), lambda t: gpunn.randint_like(t, 5),
        lambda t: t.new_ones(2), lambda t: t.new_tensor([1.0]), lambda t: t.new_full((2,), 3),
        lambda t: t.new_empty(3), lambda t: t.clone(), copy.deepcopy,
    ):  # fmt: skip
        gpunn.ones(1, device="cuda:0").sum()
        made = make(x)
        assert made.device is there and made.array.device.id == 1
        assert (made + made).array.device.id == 1


def test_creation_there(there):
    for make in (
        lambda d: gpunn.tensor([1, 2], device=d), lambda d: gpunn.arange(5, device=d),
        lambda d: gpunn.linspace(0, 1, 5, device=d), lambda d: gpunn.eye(3, device=d),
        lambda d: gpunn.full((2,), 3.0, device=d), lambda d: gpunn.rand(3, device=d),
        lambda d: gpunn.randn(3, device=d), lambda d: gpunn.randint(9, (3,), device=d),
        lambda d: gpunn.randperm(5, device=d), lambda d: gpunn.as_tensor(np.ones(3), device=d),
        lambda d: gpunn.hann_window(4, device=d), lambda d: gpunn.tril_indices(3, 3, device=d),
        lambda d: gpunn.normal(0.0, 1.0, (3,), device=d),
        lambda d: gpunn.logspace(0, 1, 3, device=d),
    ):  # fmt: skip
        gpunn.ones(1, device="cuda:0").sum()
        made = make(there)
        assert made.device is there and made.array.device.id == 1
        assert (made + made).array.device.id == 1
    with there:
        assert gpunn.ones(2).device is there


def test_random_numbers_are_those_of_their_gpu(there):
    def draws(device):
        x = gpunn.zeros(50, device=device)
        return [
            x.clone().normal_().tolist(), x.clone().uniform_().tolist(), F.dropout(x + 1).tolist(),
            (x + 0.5).bernoulli().tolist(), (x + 1).multinomial(5).tolist(),
        ]  # fmt: skip

    gpunn.manual_seed(3)
    first = draws(there)
    kept = cuda.get_rng_state(1)
    draws("cuda:0")
    assert (cuda.get_rng_state(1) == kept).all()
    gpunn.manual_seed(3)
    assert draws(there) == first
    generator = gpunn.Generator(there).manual_seed(4)
    one = gpunn.rand(4, device=there, generator=generator)
    assert one.tolist() == gpunn.rand(4, device=there, generator=generator.manual_seed(4)).tolist()
    with pytest.raises(RuntimeError, match="Expected a 'cuda:0' device type for generator"):
        gpunn.rand(4, device="cuda:0", generator=generator)


def test_views_indices_and_changes_in_place(there):
    x, y = drawn(4, 5, device=there), drawn(4, 5)
    for t in (x, y):
        gpunn.ones(1, device="cuda:0").sum()
        t[1:3] *= 2
        t.T[0] = 7
        t[t > 1] = -1
        t[[0, 2], 1] += 3
        t.view(-1)[::3].add_(1)
        t.index_add_(0, gpunn.tensor([1], device=t.device), gpunn.ones(1, 5, device=t.device))
        t.copy_(drawn(4, 5, device="cuda:0", seed=1) + t.to("cuda:0"))
        t[0] = gpunn.ones(5, device="cuda:0")
        t.fill_diagonal_(2).clamp_(max=3)
    close(x, y)
    close(x[y.argsort(0)], y[y.argsort(0)])  # indices on the CPU


def test_printing_and_reading(there):
    x = gpunn.arange(3.0, device=there)
    gpunn.ones(1, device="cuda:0").sum()
    assert repr(x) == "tensor([0., 1., 2.], device='cuda:1')"
    gpunn.ones(1, device="cuda:0").sum()
    assert x.tolist() == [0, 1, 2] and x[1].item() == 1 and bool(x[2]) and f"{x[1]:.1f}" == "1.0"
    assert (x.cpu().numpy() == [0, 1, 2]).all() and len(list(x)) == 3 and 2 in x


def test_copies_between_all(two_gpus):
    devices = [*two_gpus, Device("cpu")]
    for source in devices:
        for target in devices:
            x = drawn(3, 2, device=source).requires_grad_()
            y = x.T.to(target)
            assert y.device is target
            close(y, x.T)
            (y * y).sum().backward()
            assert x.grad.device is source
            close(x.grad, 2 * x)


@pytest.mark.parametrize(
    "mixed",
    [
        lambda x, y: x + y,
        lambda x, y: x @ y,
        lambda x, y: gpunn.cat([x, y]),
        lambda x, y: F.linear(x, y),
        lambda x, y: F.mse_loss(x, y),
        lambda x, y: x.mul_(y),
        lambda x, y: gpunn.where(x > 0, y, y),
        lambda x, y: gpunn.add(x, x, out=y),
        lambda x, y: F.layer_norm(x, (3,), y[0]),
        lambda x, y: F.embedding(x.long(), y),
        lambda x, y: F.linear(x, x, y[0]),
        lambda x, y: nn.Linear(3, 3, device=y.device)(x),
        lambda x, y: F.binary_cross_entropy(x, y),
        lambda x, y: gpunn.einsum("ij,jk", x, y),
        lambda x, y: gpunn.tensordot(x, y),
        lambda x, y: gpunn.cdist(x, y),
        lambda x, y: gpunn.linalg.solve(x, y),
        lambda x, y: gpunn.linalg.solve_triangular(x, y, upper=True),
        lambda x, y: gpunn.linalg.lstsq(x, y),
        lambda x, y: gpunn.allclose(x, y),
        lambda x, y: x.repeat_interleave(y[0].long(), 0),
        lambda x, y: x.put(gpunn.arange(9, device=x.device), y),
        lambda x, y: F.max_unpool1d(x[None], y[None].long(), 1),
    ],
)
def test_operands_on_two_gpus(two_gpus, mixed):
    x, y = (gpunn.ones(3, 3, device=d) for d in two_gpus)
    match = r"^Expected all tensors to be on the same device, but found at least two devices, "
    for pair in ((x, y), (y, x)):
        with pytest.raises(RuntimeError, match=match + r"cuda:[01] and cuda:[01]!"):
            mixed(*pair)


def test_recurrent_layers_name_the_device_of_the_parameters(two_gpus):
    x = gpunn.ones(3, 2, 4, device=two_gpus[0])
    match = "not at the same device, found input tensor at cuda:0 and parameter tensor at cuda:1"
    with pytest.raises(RuntimeError, match=match):
        nn.LSTM(4, 2).to(two_gpus[1])(x)
    with pytest.raises(RuntimeError, match="found input tensor at cuda:0 and hidden tensor at cpu"):
        nn.GRU(4, 2).to(two_gpus[0])(x, gpunn.zeros(1, 2, 2))


def test_values_for_parts_come_from_any_device(two_gpus):
    """PyTorch copies them, as copy_ does."""
    x, y = (drawn(3, 3, device=d, seed=i) for i, d in enumerate(two_gpus))
    made = gpunn.diagonal_scatter(x, y[0]).select_scatter(y[1], 0, 2).slice_scatter(y[:1], 0, 0, 1)
    made = gpunn.as_strided_scatter(made, y[2], (3,), (1,), 3)
    assert made.device is two_gpus[0]
    close(made, gpunn.stack([y[0], y[2], y[1]]))


def test_a_gradient_on_another_gpu(two_gpus):
    x, g = gpunn.ones(3, device=two_gpus[0]).requires_grad_(), gpunn.ones(3, device=two_gpus[1])
    with pytest.raises(RuntimeError, match="expected device cuda:0 but got cuda:1"):
        (x * 2).backward(g)
    (x.sum() * 2).backward(g[0])  # a number is brought along, as in PyTorch
    assert x.grad.device is x.device and x.grad.tolist() == [2, 2, 2]


def test_kernels_of_users(there):
    text = """extern "C" __global__ void twice(const float* x, float* y, long long n) {
        long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
        if (i < n) y[i] = x[i] + x[i];
    }"""
    double = cuda.kernel(text, "twice")
    x = gpunn.arange(5.0, device=there)
    y = gpunn.empty_like(x)
    gpunn.ones(1, device="cuda:0").sum()
    double(1, 32, (x, y, 5))
    assert y.tolist() == [0, 2, 4, 6, 8]
    with pytest.raises(RuntimeError, match="at least two devices, cuda:[01] and cuda:[01]!"):
        double(1, 32, (x, gpunn.empty(5, device="cuda:0"), 5))


def test_a_bad_index_is_met_on_its_gpu(there):
    with pytest.raises(IndexError, match="embedding got index 9"):
        F.embedding(gpunn.tensor([9], device=there), gpunn.ones(3, 2, device=there)).tolist()


def test_numbers_beside_tensors(there):
    x = gpunn.ones(2, device=there)
    for made in (x + 1, 2 - x, x * gpunn.tensor(3.0), x ** 2, x > 0.5, gpunn.where(x > 0, x, 0.0)):
        assert made.device is there and made.array.device.id == 1


# --- gradients ----------------------------------------------------------------------------


def test_a_graph_over_both_gpus(two_gpus):
    x = drawn(4, 3).requires_grad_()
    y = drawn(4, 3).requires_grad_()
    found = []
    for devices in (("cpu", "cpu"), two_gpus, two_gpus[::-1]):
        a = (x.to(devices[0]) * 3).tanh()
        b = (a.to(devices[1]) + y.to(devices[1])).exp()
        loss = (b.to(devices[0]) * a).sum() + b.mean().to(devices[0])
        (gx,) = gpunn.autograd.grad(loss, x, create_graph=True)
        (gx**2).sum().backward()
        found.append([loss, gx, x.grad, y.grad])
        x.grad = y.grad = None
        assert cuda.current_device() == 0
    for other in found[1:]:
        for p, q in zip(found[0], other, strict=True):
            close(p, q)


def test_hooks_and_functions_of_users_run_on_their_gpu(there):
    """As in PyTorch, what they make on "cuda" is on the GPU of the gradient."""
    seen = []

    class Double(gpunn.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            seen.append(cuda.current_device())
            gpunn.ones(2, device="cuda:0").sum()  # work elsewhere in between
            return g * gpunn.full((1,), 2.0, device="cuda")

    x = gpunn.ones(3, device=there, requires_grad=True)
    y = x * 1
    y.register_hook(lambda g: g + gpunn.ones(3, device="cuda:0").to(there))
    y.register_hook(lambda g: g * gpunn.ones(3, device="cuda"))
    x.register_hook(lambda g: g * gpunn.ones(3, device="cuda"))
    x.register_post_accumulate_grad_hook(lambda t: gpunn.ones(2, device="cuda:0").sum())
    (Double.apply(y).exp() * 0 + Double.apply(y)).sum().backward()
    assert x.grad.tolist() == [3, 3, 3] and seen == [1, 1] and cuda.current_device() == 0
    assert x.grad.array.device.id == 1


def test_the_other_gpu_is_first_used_in_a_backward(two_gpus):
    x = gpunn.ones(3, device="cuda:0", requires_grad=True)
    y = x * 2
    y.register_hook(lambda g: g + gpunn.ones(3, device="cuda:1").cpu().cuda())
    assert not current.SEVERAL
    (y.exp() * 0 + y).sum().backward()
    assert current.SEVERAL and x.grad.tolist() == [4, 4, 4] and cuda.current_device() == 0


# --- modules, optimizers, what is around them ---------------------------------------------

FAMILIES = {
    "Linear": (lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2)), (5, 6)),
    "Conv2d": (lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.GELU(), nn.MaxPool2d(2),
        nn.Flatten()), (3, 2, 6, 6)),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 3, 3), (2, 2, 5)),
    "LSTM": (lambda: nn.LSTM(3, 4, 2, batch_first=True), (2, 5, 3)),
    "GRU": (lambda: nn.GRU(3, 4, bidirectional=True), (5, 2, 3)),
    "Transformer": (lambda: nn.TransformerEncoderLayer(
        4, 2, 8, 0.0, F.gelu, batch_first=True), (2, 3, 4)),
    "LayerNorm": (lambda: nn.Sequential(nn.LayerNorm(4), nn.Softmax(-1)), (3, 4)),
    "GroupNorm": (lambda: nn.Sequential(nn.GroupNorm(2, 4), nn.Upsample(scale_factor=2)),
                  (2, 4, 3, 3)),
    "PReLU": (lambda: nn.Sequential(nn.PReLU(), nn.AdaptiveAvgPool1d(2)), (2, 3, 5)),
    "spectral": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3)), (2, 4)),
    "weight": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), (2, 4)),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("optimizer", [gpunn.optim.SGD, gpunn.optim.AdamW])
def test_training_there_as_on_the_cpu(there, kind, optimizer):
    make, shape = FAMILIES[kind]
    gpunn.manual_seed(0)
    one = make()
    twin = copy.deepcopy(one).to(there)
    losses = []
    for model, device in ((one, "cpu"), (twin, there)):
        step = optimizer(model.parameters(), lr=0.01)
        for i in range(2):
            made = model(drawn(*shape, device=device, seed=i))
            loss = ((made[0] if isinstance(made, tuple) else made) ** 2).mean()
            step.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            step.step()
            losses.append(loss.item())
        model.eval()
        with gpunn.no_grad():
            model(drawn(*shape, device=device))
    assert losses[:2] == pytest.approx(losses[2:], rel=1e-3)
    for (name, p), q in zip(one.state_dict().items(), twin.state_dict().values(), strict=True):
        assert q.device is there, name
        close(p, q, 1e-3)


def split_model(devices):
    gpunn.manual_seed(0)

    class Split(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(4, 8).to(devices[0])
            self.act = F.gelu
            self.two = nn.Linear(8, 2).to(devices[1])

        def forward(self, x):
            x = self.act(self.one(x.to(devices[0])))
            return self.two(self.act(x.to(devices[1])))

    return Split()


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("clip", [1.0, 2.0, float("inf")])
def test_a_model_over_both_gpus(two_gpus, checkpointed, clip):
    """Model parallelism as in PyTorch's tutorial: .to() between the parts and nothing else."""
    found = []
    for devices in (("cpu", "cpu"), two_gpus):
        model = split_model(devices)
        step = gpunn.optim.Adam(model.parameters(), lr=0.1, weight_decay=0.1)
        for i in range(3):
            x = drawn(5, 4, seed=i)
            y = gpunn.utils.checkpoint.checkpoint(model, x, use_reentrant=False) if (
                checkpointed) else model(x)  # fmt: skip
            F.cross_entropy(y, gpunn.tensor([0, 1, 0, 1, 1], device=devices[1])).backward()
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1, clip)
            nn.utils.clip_grad_value_(model.parameters(), 0.05)
            step.step()
            step.zero_grad()
        found.append([norm, *model.parameters()])
    for p, q in zip(*found, strict=True):
        close(p, q, 1e-3)


def test_autocast_and_scaler_over_both_gpus(two_gpus):
    model = split_model(two_gpus)
    before = [p.detach().cpu() for p in model.parameters()]
    step = gpunn.optim.SGD(model.parameters(), lr=0.1)
    scaler = gpunn.amp.GradScaler("cuda", init_scale=8.0)
    with gpunn.autocast("cuda"):
        y = model(drawn(5, 4))
        loss = F.mse_loss(y, gpunn.zeros_like(y))
    assert y.dtype is gpunn.float16 and loss.device is two_gpus[1]
    scaler.scale(loss).backward()
    scaler.unscale_(step)
    scaler.step(step)
    scaler.update()
    for p, old in zip(model.parameters(), before, strict=True):
        assert p.grad.isfinite().all() and not p.cpu().equal(old)


def test_saving_and_loading(there, tmp_path):
    model = nn.Linear(3, 2).to(there)
    optimizer = gpunn.optim.Adam(model.parameters())
    model(drawn(2, 3, device=there)).sum().backward()
    optimizer.step()
    gpunn.ones(1, device="cuda:0").sum()
    gpunn.save({"m": model.state_dict(), "o": optimizer.state_dict()}, tmp_path / "x.pt")
    for place, wanted in ((None, there), ("cuda:0", Device("cuda:0")), ("cpu", Device("cpu")),
                          ({"cuda:1": "cuda:0"}, Device("cuda:0"))):  # fmt: skip
        found = gpunn.load(tmp_path / "x.pt", map_location=place)
        assert found["m"]["weight"].device is wanted
        close(found["m"]["weight"], model.weight)
        twin = nn.Linear(3, 2).to(there)
        twin.load_state_dict(found["m"])
        close(twin.weight, model.weight)
        again = gpunn.optim.Adam(twin.parameters())
        again.load_state_dict(found["o"])
        twin(drawn(2, 3, device=there)).sum().backward()
        again.step()
    x = pickle.loads(pickle.dumps(gpunn.arange(3, device=there)))
    assert x.device is there and (x + 1).tolist() == [1, 2, 3]


def test_loaders_and_pinned_memory(there):
    data = gpunn.utils.data.TensorDataset(gpunn.arange(6.0))
    loader = gpunn.utils.data.DataLoader(data, batch_size=2, pin_memory=True)
    found = [x.to(there, non_blocking=True).sum().item() for (x,) in loader]
    assert found == [1, 5, 9]
    there_all = gpunn.utils.data.TensorDataset(gpunn.arange(6.0, device=there))
    assert [x.sum().item() for (x,) in gpunn.utils.data.DataLoader(there_all, 3)] == [3, 12]


def test_dlpack_and_storage(there):
    x = gpunn.arange(4.0, device=there)
    gpunn.ones(1, device="cuda:0").sum()
    storage = x.untyped_storage()
    y = gpunn.empty(0, device=there).set_(storage, 1, (2,), (1,))
    assert (y * 2).tolist() == [2, 4]
    assert (x.as_strided((2,), (2,)) + 1).tolist() == [1, 3]


# --- threads and streams ------------------------------------------------------------------


def test_threads_begin_on_the_first_gpu_and_work_where_their_tensors_are(there):
    """One that never chose a device, while another thread chose cuda:1 for itself."""
    x = drawn(20, 20, device=there)
    wanted = (x @ x).sum().item()
    found = []

    def work(device):
        if device is not None:
            cuda.set_device(device)
        for _ in range(5):
            y = x.to("cuda:0")
            found.append((x @ x).sum().item())
            found.append((y @ y).sum().item())
        found.append(cuda.current_device() - (device or 0))

    threads = [threading.Thread(target=work, args=(d,)) for d in (None, 0, 1, 1)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(found) == 44 and found.count(0) == 4
    assert [v for v in found if v] == pytest.approx([wanted] * 40)


def test_a_thread_keeps_the_device_that_it_chose_before(two_gpus):
    chosen, go, found = threading.Event(), threading.Event(), []

    def work():
        cuda.detect.load().cuda.runtime.setDevice(1)  # by CuPy's own means
        chosen.set()
        go.wait()
        gpunn.ones(2, device="cuda:0").sum()
        found.append(cuda.current_device())

    thread = threading.Thread(target=work)
    thread.start()
    chosen.wait()
    gpunn.ones(2, device="cuda:1")
    go.set()
    thread.join()
    assert found == [1] and cuda.current_device() == 0


def test_streams_of_both_gpus(there):
    x, y = gpunn.ones(2, device=there), gpunn.ones(2, device="cuda:0")
    s, t = cuda.Stream(there), cuda.Stream("cuda:0")
    with cuda.stream(s):
        assert cuda.current_device() == 1
        y.sum()  # on the other GPU, whose stream is not changed
        assert cuda.current_stream() == s and cuda.current_stream("cuda:0") != t
        with cuda.stream(t):
            (x * 2).sum()
            assert cuda.current_stream() == t and cuda.current_stream(there) == s
            y.sum()
        y.sum()
        assert cuda.current_stream() == s
    assert cuda.current_stream(there) == cuda.default_stream(there)
    assert cuda.current_stream() == cuda.default_stream()
    x.sum()
    event = cuda.Event()
    event.record(s)
    event.wait()
    cuda.synchronize()
    cuda.synchronize(there)


def test_memory_is_told_by_device(there):
    runtime = cuda.detect.load().cuda.runtime
    gpunn.ones(2, device=there).sum()
    assert runtime.getDevice() == 1
    asked = []
    inner, runtime.memGetInfo = runtime.memGetInfo, lambda: asked.append(in_runtime()) or (1, 2)
    try:
        assert cuda.mem_get_info() == (1, 2) and cuda.mem_get_info(1) == (1, 2)
    finally:
        runtime.memGetInfo = inner
    assert asked == [0, 1] and runtime.getDevice() == 1


def test_data_parallel_beside_work_on_either(two_gpus):
    net = nn.DataParallel(nn.Linear(3, 2).to("cuda:1"), [1, 0], output_device=0)
    y = net(drawn(5, 3))
    assert y.device is two_gpus[0]
    (y.sum() + y.to("cuda:1").mean().to("cuda:0")).backward()
    assert net.module.weight.grad.device is two_gpus[1] and cuda.current_device() == 0


@pytest.mark.multi_gpu
def test_on_two_real_gpus():
    one = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    twin = copy.deepcopy(one).to("cuda:1")
    x = drawn(4, 3, 8, 8)
    for model, device in ((one, "cpu"), (twin, "cuda:1")):
        F.cross_entropy(model(x.to(device)), gpunn.tensor([0, 1, 2, 3], device=device)).backward()
    for p, q in zip(one.parameters(), twin.parameters(), strict=True):
        assert q.grad.device.index == 1
        close(p.grad, q.grad, 1e-3)
    with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and cuda:1!"):
        gpunn.ones(2, device="cuda:0") + gpunn.ones(2, device="cuda:1")


# --- CuPy's functions ---------------------------------------------------------------------


def test_functions_of_device_xp():
    with fake_cupy.installed(fake_cupy.make(devices=2)) as cupy:
        xp = Device("cuda:1").xp
        assert type(xp) is current.CupyOn and xp.ndarray is cupy.ndarray
        assert xp.zeros(3).block.device_id == 1 and cuda.current_device() == 0
        assert Device("cuda:0").xp.zeros(3).block.device_id == 0
