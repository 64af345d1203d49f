"""kernels/cross_entropy.cu: every shape, option and dtype against the CPU's float64."""

import numpy as np
import pytest
from emulated import Function, check_build, on_both, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn.cuda.kernels import cross_entropy as kernels
from gpunn.cuda.kernels import launch

rng = np.random.default_rng(0)
PLAIN = (np.ascontiguousarray,)
REDUCTIONS = ["mean", "sum", "none"]
# What PyTorch's mean in 16 bits may be off by, of losses of about 5.
LOOSE = {"float16": 4e-3, "bfloat16": 3e-2}


@pytest.fixture
def grid_of_three(monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 3)


def targets(shape, ignored=2):
    t = rng.integers(0, shape[1], (shape[0], *shape[2:]))
    t.reshape(-1)[:ignored] = -100
    return t


def both(shape, f=F.cross_entropy, weighted=False, dtypes=None, layouts=PLAIN, **options):
    """f of logits and targets of this shape, and with weights on request, on device and CPU."""
    t, x = targets(shape), 2 * rng.normal(size=shape)
    arrays = [x, 0.5 + rng.random(shape[1])] if weighted else [x]

    def loss(x, weight=None):
        weight = None if weight is None else weight.detach()
        return f(x, gpunn.from_numpy(t).to(x.device), weight, **options)

    options_of_check = {} if dtypes is None else {"dtypes": dtypes}
    on_both(loss, arrays, rtol=LOOSE, layouts=layouts, **options_of_check)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(33, 10), (5, 21, 11)])
def test_options(emulated, grid_of_three, shape, reduction, weighted, smoothing):
    both(shape, weighted=weighted, reduction=reduction, label_smoothing=smoothing)
    kind = "_columns" if len(shape) > 2 else "_short"
    assert f"cross_entropy_forward{kind}" in Function.launches
    assert f"cross_entropy_backward{kind}" in Function.launches


@pytest.mark.parametrize("n", [1, 31, 32, 33, 1000, 2049, 4099])
def test_rows(emulated, grid_of_three, n):
    both((7, n))
    assert ("cross_entropy_forward" in Function.launches) == (n > 2048)


def test_long_rows_with_everything(emulated):
    both((4, 2103), weighted=True, label_smoothing=0.1, dtypes=("float32", "bfloat16"))


def test_strided_logits(emulated):
    both((6, 12), layouts=(lambda a: np.repeat(a, 2, axis=-1)[..., ::2],))
    both((3, 5, 4), layouts=(lambda a: np.repeat(a, 2, axis=-1)[..., ::2],))


def test_few_long_columns_become_rows(emulated):
    both((2, 2100, 3), dtypes=("float32",), reduction="none")
    assert "cross_entropy_forward" in Function.launches


def test_many_losses_are_added_up_in_two_steps(emulated, monkeypatch):
    monkeypatch.setattr(kernels, "_PARTS", 64)
    both((300, 3), dtypes=("float32", "float64"), weighted=True)
    assert "cross_entropy_partial_sums" in Function.launches


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(33, 10), (5, 7, 11)])
def test_nll_loss(emulated, grid_of_three, shape, reduction, weighted):
    both(shape, F.nll_loss, weighted, reduction=reduction, layouts=(np.ascontiguousarray,))
    assert {"nll_loss_forward", "nll_loss_backward"} <= set(Function.launches)


def test_one_sample_without_a_batch(emulated):
    x, t = gpunn.randn(5, device="cuda"), gpunn.tensor(2, device="cuda")
    a = F.cross_entropy(x, t)
    assert a.shape == () and np.isclose(a.item(), F.cross_entropy(x.cpu(), t.cpu()).item())


def test_nothing_counted_is_nan_and_has_zero_gradient(emulated):
    x = gpunn.randn(2, 3, device="cuda", requires_grad=True)
    for f in (F.cross_entropy, F.nll_loss):
        loss = f(x, gpunn.tensor([-100, -100], device="cuda"))
        (g,) = gpunn.autograd.grad(loss, x)
        assert loss.isnan().item() and (g == 0).all()


def test_other_integers_and_probabilities_as_targets(emulated):
    x = gpunn.randn(4, 3, device="cuda")
    t = gpunn.tensor([0, 2, 1, 1], device="cuda")
    wanted = F.cross_entropy(x.cpu(), t.cpu()).item()
    assert np.isclose(F.cross_entropy(x, F.one_hot(t, 3).float()).item(), wanted)
    assert np.isclose(F.cross_entropy(x, t.to(gpunn.uint8)).item(), wanted)


@pytest.mark.parametrize("f", [F.cross_entropy, F.nll_loss])
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 2), (3, 2500)])
@pytest.mark.parametrize("bad", [-1, 10**10])
def test_a_target_out_of_range_is_an_index_error(emulated, f, shape, bad):
    """Raised when the loss is looked at; the row counts as ignored and nothing is corrupted."""
    x = gpunn.randn(*shape, device="cuda", requires_grad=True)
    t = targets(shape, ignored=0)
    t.reshape(-1)[1] = bad
    loss = f(x, gpunn.from_numpy(t).cuda(), reduction="sum")
    (g,) = gpunn.autograd.grad(loss, x)
    with pytest.raises(IndexError, match=f"Target {bad} is out of bounds.*position 1"):
        loss.item()
    row = g.movedim(1, -1).reshape(-1, shape[1])[1]
    assert (row == 0).all()


def test_no_value_is_read_on_the_host(emulated, monkeypatch):
    """Forward and backward wait for nothing."""
    x = gpunn.randn(6, 10, device="cuda", requires_grad=True)
    t = gpunn.from_numpy(targets((6, 10))).cuda()

    def refuse(self):
        raise AssertionError("the host reads an array of the device")

    with monkeypatch.context() as patched:
        for name in ("get", "__bool__", "__float__", "__int__", "item"):
            patched.setattr(type(x.array), name, refuse)
        F.cross_entropy(x, t, label_smoothing=0.1).backward()
        F.nll_loss(x, t).backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_second_order(emulated, reduction, smoothing):
    x = gpunn.tensor(rng.normal(size=(3, 5)), device="cuda", requires_grad=True)
    t = gpunn.tensor([1, -100, 4], device="cuda")
    f = lambda x: F.cross_entropy(x, t, reduction=reduction, label_smoothing=smoothing)  # noqa: E731
    assert gpunn.autograd.gradgradcheck(f, x)
    assert gpunn.autograd.gradgradcheck(lambda x: F.nll_loss(x * x, t, reduction=reduction), x)


@pytest.mark.parametrize("shape", [(5, 7), (3, 9, 5), (3, 2053)])
def test_check_build(emulated, shape):
    with check_build():
        both(shape, dtypes=("float32", "float16"), weighted=True, label_smoothing=0.1)
        both(shape, F.nll_loss, dtypes=("float32",))


@pytest.mark.parametrize("shape", [(40, 33), (2, 20, 17), (3, 2500)])
def test_the_order_of_sums_is_fixed(emulated, shape):
    x = gpunn.from_numpy(rng.normal(size=shape).astype(np.float32)).cuda()
    t = gpunn.from_numpy(targets(shape)).cuda()

    def run():
        leaf = x.detach().requires_grad_()
        loss = F.cross_entropy(leaf, t, label_smoothing=0.1)
        loss.backward()
        return loss, leaf.grad

    same_bits(run)


@pytest.mark.gpu
def test_cross_entropy_on_the_gpu():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    for shape in [(128, 10), (33, 1000), (65, 50257), (3, 250_000), (4, 21, 60, 60)]:
        both(shape)
        both(shape, weighted=True, label_smoothing=0.1)
        if torch.cuda.is_available():
            x, t = rng.normal(size=shape).astype(np.float32), targets(shape)
            wanted = torch.nn.functional.cross_entropy(
                torch.from_numpy(x).cuda(), torch.from_numpy(t).cuda()
            )
            got = F.cross_entropy(gpunn.from_numpy(x).cuda(), gpunn.from_numpy(t).cuda())
            assert np.isclose(got.item(), wanted.item(), rtol=1e-5)
