"""kernels/batch_norm.cu: statistics of channels, of columns, and of rows beyond the registers."""

import copy

import numpy as np
import pytest
from emulated import Function, check_build, host, on_both, order, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn import nn
from gpunn.cuda.kernels import batch_norm as kernels
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels import norm as rows

rng = np.random.default_rng(0)
PLAIN = (np.ascontiguousarray,)
RTOL = {"float16": 1e-2, "bfloat16": 8e-2}


@pytest.fixture
def grid_of_three(monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 3)


def training(x, w, b):
    return F.batch_norm(x, None, None, w, b, True)


def drawn(*shape):
    """Values whose mean is far from 0, weights and biases."""
    return [rng.normal(size=shape) + 2, rng.normal(size=shape[1]), rng.normal(size=shape[1])]


@pytest.mark.parametrize("shape", [
    (33, 3), (40, 70), (2, 1), (4, 3, 5), (3, 2, 31), (2, 33, 4, 4), (5, 2, 3, 11), (2, 3, 2, 2, 8),
])  # fmt: skip
def test_training(emulated, grid_of_three, shape):
    on_both(training, drawn(*shape), rtol=RTOL)


@pytest.mark.parametrize("shape", [(4, 2, 4200), (3, 1, 75, 75), (1500, 2)])
def test_parts_of_channels(emulated, shape):
    """Few channels: each is split over several teams, and the parts are added up."""
    on_both(training, drawn(*shape), dtypes=("float32", "float16"), layouts=PLAIN, rtol=RTOL)
    assert "moments_finish" in Function.launches


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 8), (2, 5, 3, 3)])
def test_evaluation(emulated, shape):
    mean, variance = rng.normal(size=shape[1]), rng.random(shape[1]) + 0.5

    def f(x, w, b):
        running = (gpunn.from_numpy(a).to(x.device).to(x.dtype) for a in (mean, variance))
        return F.batch_norm(x, *running, w, b)

    on_both(f, drawn(*shape), rtol=RTOL)


@pytest.mark.parametrize("weight, bias", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("use", [True, False])
def test_without_some_parameters(emulated, weight, bias, use):
    x, w, b = drawn(4, 3, 6)

    def f(x, *rest):
        rest = list(rest)
        made = [rest.pop(0) if has else None for has in (weight, bias)]
        running = (x.new_zeros(3), x.new_ones(3))
        return F.batch_norm(x, *running, *made, use)

    given = [a for a, has in ((w, weight), (b, bias)) if has]
    on_both(f, [x, *given], dtypes=("float32",))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_running_statistics_move_on_the_device(emulated, momentum, dtype):
    here, there = nn.BatchNorm1d(3, momentum=momentum), nn.BatchNorm1d(3, momentum=momentum).cuda()
    for _ in range(2):
        x = gpunn.from_numpy(rng.normal(size=(7, 3, 9)) + 5).to(getattr(gpunn, dtype))
        here(x), there(x.cuda())
    assert str(there.running_var.device) == "cuda:0" and there.num_batches_tracked.item() == 2
    for a, b in ((here.running_mean, there.running_mean), (here.running_var, there.running_var)):
        np.testing.assert_allclose(host(b), host(a), rtol=1e-5)
    x = gpunn.from_numpy(rng.normal(size=(7, 3, 9))).to(getattr(gpunn, dtype))
    y, z = here.eval()(x), there.eval()(x.cuda())
    np.testing.assert_allclose(host(z), host(y), rtol=2e-3, atol=2e-3)


def test_only_some_gradients(emulated):
    x, w, b = (gpunn.from_numpy(a).float().cuda() for a in drawn(4, 3, 5))
    for leaf in (x, w, b):
        leaf.requires_grad_()
        training(x, w, b).square().sum().backward()
        assert leaf.grad is not None and sum(t.grad is not None for t in (x, w, b)) == 1
        leaf.grad = None
        leaf.requires_grad_(False)


@pytest.fixture
def without_rows(monkeypatch):
    """norm.cu declines: the ways for rows beyond the registers."""
    monkeypatch.setattr(rows, "_FORWARD", ())
    monkeypatch.setattr(rows, "_BACKWARD", ())
    yield
    assert not any(name.startswith("row_norm") for name in Function.launches)


@pytest.mark.parametrize("shape, groups", [
    ((2, 4, 24), 2), ((3, 6, 5), 2), ((3, 12), 3), ((2, 40), 1),
])  # fmt: skip
def test_groups_beyond_the_registers(emulated, without_rows, shape, groups):
    on_both(lambda x, w, b: F.group_norm(x, groups, w, b), drawn(*shape), rtol=RTOL)


@pytest.mark.parametrize("n", [33, 64])
def test_rms_norm_beyond_the_registers(emulated, without_rows, n):
    on_both(lambda x, w: F.rms_norm(x, (n,), w), drawn(3, n)[:2], rtol=RTOL)


def test_long_rows(emulated):
    x, w, b = drawn(2, 9000)
    f = lambda x, w, b: F.layer_norm(x, (9000,), w, b)  # noqa: E731
    on_both(f, [x, w, b], dtypes=("float64",), layouts=PLAIN)
    assert "moments" in Function.launches and "products_columns" in Function.launches


def test_no_digits_are_lost_far_from_zero(emulated):
    x = (rng.normal(size=(6, 2, 300)) + 1e4).astype(np.float32)
    mean, variance = kernels.batch_norm_stats(gpunn.from_numpy(x).cuda().array)
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean.get(), wide.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(variance.get(), wide.var((0, 2)), rtol=1e-4)


@pytest.mark.parametrize("shape", [(300, 5), (3, 1, 3000)])
def test_the_order_of_sums_is_fixed(emulated, shape):
    arrays = [gpunn.from_numpy(a).float().cuda() for a in drawn(*shape)]

    def run():
        leaves = [a.detach().requires_grad_() for a in arrays]
        y = training(*leaves)
        (y * y * y).sum().backward()
        return [y, *(leaf.grad for leaf in leaves)]

    same_bits(run)


def test_check_build(emulated, grid_of_three, without_rows):
    """No races, no access out of bounds, no read of shared memory that nobody wrote."""
    with check_build(), order("random"):
        for shape in ((2, 3, 8), (9, 5), (2, 2, 5), (1, 1, 1100)):
            on_both(training, drawn(*shape), dtypes=("float32",), layouts=PLAIN)
        for shape in ((2, 4, 4), (3, 8)):
            f = lambda x, w, b: F.group_norm(x, 2, w, b)  # noqa: E731
            on_both(f, drawn(*shape), dtypes=("float32",), layouts=PLAIN)


@pytest.mark.parametrize("by", [1, 2, 3, 7, 49, 64, 1000003, (1 << 31) + 11, (1 << 40) - 87])
def test_divisors_are_exact(by):
    """The multiplication that stands for a division, at the multiples' edges and at random."""
    _, magic, shift = kernels._divisor(by)
    tops = [0, 1, (1 << 63) - 1, *(int(v) for v in rng.integers(0, 1 << 62, 200))]
    for a in {min(max(0, t // by * by + d), (1 << 63) - 1) for t in tops for d in (-1, 0, 1)}:
        assert (a * magic >> 64 >> shift if magic else a) == a // by


def test_what_kernels_do_not_serve(emulated):
    x = gpunn.ones(2, 3, device="cuda").array
    assert kernels.batch_norm_stats(x.astype(np.int64)) is None
    wide = x[0].astype(np.float64)
    assert kernels.batch_norm_forward(x, wide, None, None, None, True, 0.1, 1e-5) is None
    assert kernels.batch_norm_apply(x, wide, x[0]) is None


@pytest.mark.parametrize("make", [
    lambda: nn.InstanceNorm1d(4, track_running_stats=True, affine=True),
    lambda: nn.SwitchableNorm1d(4), lambda: nn.SyncBatchNorm(4), lambda: nn.LazyBatchNorm1d(),
    lambda: nn.SwitchableNorm1d(4, using_moving_average=False), lambda: nn.LocalResponseNorm(3),
])  # fmt: skip
def test_modules_keep_their_statistics_on_the_device(emulated, make):
    x = gpunn.from_numpy(rng.normal(size=(3, 4, 5))).float()
    here = make()
    there = copy.deepcopy(here).cuda()
    for way in (True, False):
        here.train(way), there.train(way)
        close(there(x.cuda()), here(x))
    for a, b in zip(here.state_dict().values(), there.state_dict().values(), strict=True):
        assert str(b.device) == "cuda:0"
        close(b, a)


@pytest.mark.parametrize("f", [
    training, lambda x, w, b: F.group_norm(x, 2, w, b),
    lambda x, w, b: F.batch_norm(x, x.new_zeros(4), x.new_ones(4), w, b),
])  # fmt: skip
def test_second_order(emulated, f):
    arrays, found = drawn(3, 4, 5), []
    for device in ("cpu", "cuda"):
        leaves = [gpunn.from_numpy(a).to(device).requires_grad_() for a in arrays]
        gs = gpunn.autograd.grad((f(*leaves) ** 3).sum(), leaves, create_graph=True)
        found.append(gpunn.autograd.grad(sum((g**2).sum() for g in gs), leaves))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(host(b), host(a), rtol=1e-8)


def close(a, b):
    np.testing.assert_allclose(host(a), host(b), rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_batch_norm_on_the_gpu():
    torch = pytest.importorskip("torch", reason="compares with PyTorch on the GPU")
    for shape in ((64, 33), (8, 64, 28, 28), (4, 100, 7, 7), (2, 3, 100, 100)):
        on_both(training, drawn(*shape), rtol=RTOL)
        x, w, b = (np.asarray(a, np.float32) for a in drawn(*shape))
        theirs = torch.nn.functional.batch_norm(
            torch.from_numpy(x).cuda(), None, None,
            *(torch.from_numpy(a).cuda() for a in (w, b)), True,
        )  # fmt: skip
        ours = training(*(gpunn.from_numpy(a).cuda() for a in (x, w, b)))
        np.testing.assert_allclose(ours.cpu().numpy(), theirs.cpu().numpy(), rtol=1e-4, atol=1e-4)
