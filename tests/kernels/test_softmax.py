"""kernels/softmax.cu and softmax_short.cu: rows in registers, rows in blocks, columns."""

import emulated as emu
import numpy as np
import pytest
from emulated import Function, check_build, on_both, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels import softmax as kernels

rng = np.random.default_rng(0)
BOTH = [F.softmax, F.log_softmax]
PLAIN = (np.ascontiguousarray,)
F32 = ("float32",)


@pytest.fixture
def grid_of_three(monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 3)


@pytest.mark.parametrize("f", BOTH)
@pytest.mark.parametrize("n", [1, 8, 31, 32, 33, 128, 250, 256, 1000])
def test_rows_in_registers(emulated, grid_of_three, f, n):
    dtypes = ("float64", "float32", "float16", "bfloat16") if n < 200 else ("float32", "bfloat16")
    on_both(lambda x: f(x, -1), [3 * rng.normal(size=(37 if n < 100 else 9, n))], dtypes=dtypes)
    assert set(Function.launches) <= {
        f"{f.__name__}_short_forward", f"{f.__name__}_short_backward"
    }  # fmt: skip


@pytest.mark.parametrize("f", BOTH)
@pytest.mark.parametrize("n", [1025, 2051])
def test_rows_in_blocks(emulated, grid_of_three, f, n):
    """Rows of odd lengths begin anywhere between two 16-byte boundaries."""
    on_both(lambda x: f(x, -1), [3 * rng.normal(size=(7, n))], rtol={"bfloat16": 3e-2})
    assert set(Function.launches) == {f"{f.__name__}_forward", f"{f.__name__}_backward"}


@pytest.mark.parametrize("f", BOTH)
def test_rows_that_are_read_twice(emulated, monkeypatch, f):
    """Rows for which there is no room in shared memory; then those that must ask for theirs."""
    x = rng.normal(size=(2, 4100))
    on_both(lambda x: f(x, -1), [x], dtypes=("float64",), layouts=PLAIN)
    monkeypatch.setattr(launch, "shared_limit", lambda: 4096)
    on_both(lambda x: f(x, -1), [x], dtypes=("float32", "bfloat16"), layouts=PLAIN)


@pytest.mark.parametrize("f", BOTH)
@pytest.mark.parametrize("shape, axis", [
    ((2, 5, 33), 1), ((3, 40, 2, 5), 1), ((100, 3), 0), ((1, 7, 130), 1), ((31, 1, 2), 1),
])  # fmt: skip
def test_columns(emulated, grid_of_three, f, shape, axis):
    on_both(lambda x: f(x, axis), [3 * rng.normal(size=shape)])
    columns = {f"{f.__name__}_forward_columns", f"{f.__name__}_backward_columns"}
    assert set(Function.launches) == columns


def test_few_long_columns_become_rows(emulated):
    x = rng.normal(size=(2, 2100, 3))
    on_both(lambda x: F.softmax(x, 1), [x], dtypes=F32, layouts=PLAIN)
    assert set(Function.launches) == {"softmax_forward", "softmax_backward"}
    y = F.softmax(gpunn.from_numpy(x).cuda(), 1)
    assert y.is_contiguous() and y.shape == x.shape


def test_empty_and_scalar(emulated):
    assert F.softmax(gpunn.ones(0, 5, device="cuda"), 1).shape == (0, 5)
    assert F.softmax(gpunn.ones(5, 0, device="cuda"), 1).shape == (5, 0)
    x = gpunn.tensor(3.0, device="cuda", requires_grad=True)
    for f, value in ((F.softmax, 1.0), (F.log_softmax, 0.0)):
        y = f(x, 0)
        assert y.shape == () and y.item() == value
        assert gpunn.autograd.grad(y, x)[0].item() == 0.0


@pytest.mark.parametrize("n", [5, 1030])
@pytest.mark.parametrize("f", BOTH)
@pytest.mark.parametrize("transposed", [False, True])
def test_infinities_and_nan(emulated, f, n, transposed):
    """As on the CPU: masked values get 0, rows of -inf alone, with inf or NaN are NaN."""
    x = rng.normal(size=(6, n)).astype(np.float32)
    x[0, :-1] = -np.inf
    x[1] = -np.inf
    x[2, 3], x[3, 0] = np.inf, np.nan
    x[4, n // 2 :] = -np.inf
    x[5] *= 1000
    x = x.T.copy() if transposed else x
    axis = 0 if transposed else 1
    wanted = f(gpunn.from_numpy(x), axis).numpy()
    got = f(gpunn.from_numpy(x).cuda(), axis).cpu().numpy()
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-6)


def test_second_order(emulated):
    x = gpunn.tensor(rng.normal(size=(3, 5)), device="cuda", requires_grad=True)
    assert gpunn.autograd.gradgradcheck(lambda x: F.softmax(x, 1), x)
    assert gpunn.autograd.gradgradcheck(lambda x: F.log_softmax(x, 0), x)


@pytest.mark.parametrize("dtype, shape, axis", [
    ("float32", (5, 7), 1), ("float32", (3, 32), 1), ("bfloat16", (2, 1031), 1),
    ("bfloat16", (2, 1032), 1), ("bfloat16", (3, 19, 5), 1),
])  # fmt: skip
def test_check_build(emulated, dtype, shape, axis):
    with check_build():
        for f in BOTH:
            on_both(lambda x: f(x, axis), [rng.normal(size=shape)], dtypes=(dtype,),  # noqa: B023
                    layouts=PLAIN)  # fmt: skip


@pytest.mark.parametrize("shape, axis", [((9, 33), 1), ((2, 1500), 1), ((2, 50, 5), 1)])
def test_the_order_of_sums_is_fixed(emulated, shape, axis):
    x = gpunn.from_numpy(rng.normal(size=shape).astype(np.float32)).cuda()

    def run():
        leaf = x.detach().requires_grad_()
        y = F.softmax(leaf, axis)
        (y * x).sum().backward()
        return y, leaf.grad, F.log_softmax(x, axis)

    same_bits(run)


@pytest.mark.gpu
def test_softmax_on_the_gpu():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    for shape, axis in [((64, 31), 1), ((64, 1000), 1), ((33, 50257), 1), ((8, 21, 33, 5), 1),
                        ((4, 250_000), 1), ((5000, 3), 0)]:  # fmt: skip
        x = 3 * rng.normal(size=shape)
        for f in BOTH:
            on_both(lambda x: f(x, axis), [x])  # noqa: B023
        a = gpunn.from_numpy(x.astype(np.float32)).cuda()
        if torch.cuda.is_available():
            wanted = torch.softmax(torch.from_numpy(x.astype(np.float32)).cuda(), axis).cpu()
            got = F.softmax(a, axis).cpu().numpy()
            np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-5, atol=1e-7)


def test_what_is_not_served_is_left_to_arrays(emulated):
    assert kernels.softmax_forward(emu.up(np.ones((2, 3), np.int64)), 1) is None
