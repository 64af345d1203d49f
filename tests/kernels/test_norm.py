"""kernels/norm.cu: rows in the registers of a warp or of a block."""

import numpy as np
import pytest
from emulated import Function, check_build, host, on_both, order, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels import norm as kernels

rng = np.random.default_rng(0)
HALVES = ("float16", "bfloat16")
PLAIN = (np.ascontiguousarray,)
RTOL = {"float16": 8e-3, "bfloat16": 6e-2}


@pytest.fixture
def grid_of_three(monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 3)


def layer(x, w, b):
    return F.layer_norm(x, (x.shape[-1],), w, b)


def rms(x, w):
    return F.rms_norm(x, (x.shape[-1],), w)


def drawn(*shape):
    """Values whose mean is far from 0, weights and biases."""
    n = shape[-1]
    return [rng.normal(size=shape) + 3, rng.normal(size=n), rng.normal(size=n)]


@pytest.mark.parametrize("rows, n", [
    (1, 1), (50, 31), (60, 32), (50, 33), (30, 64), (3, 130), (1, 256), (4, 264), (2, 513),
])  # fmt: skip
def test_layer_norm(emulated, grid_of_three, rows, n):
    on_both(layer, drawn(rows, n), rtol=RTOL)
    assert set(Function.launches) == {
        "row_norm_forward", "row_norm_backward", "row_norm_weight_grad"
    }  # fmt: skip


@pytest.mark.parametrize("rows, n", [(1, 1), (40, 32), (3, 257), (2, 1000)])
def test_rms_norm(emulated, grid_of_three, rows, n):
    x, w, _ = drawn(rows, n)
    on_both(rms, [x, w], rtol=RTOL)


@pytest.mark.parametrize("n, dtype", [
    (1100, "float32"), (3000, "float32"), (8000, "float32"), (8200, "float16"), (16384, "bfloat16"),
    (4096, "float64"),
])  # fmt: skip
def test_rows_of_whole_blocks(emulated, n, dtype):
    """256, 512 and 1024 threads a row; the last have a backward pass in batch_norm.cu."""
    on_both(layer, drawn(2, n), dtypes=(dtype,), layouts=PLAIN, rtol=RTOL)


def test_several_dimensions_make_a_row(emulated):
    arrays = [rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(4, 5)), rng.normal(size=(4, 5))]
    on_both(lambda x, w, b: F.layer_norm(x, (4, 5), w, b), arrays, dtypes=("float32",))


@pytest.mark.parametrize("weight, bias", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("n", [40, 37])
def test_without_some_parameters(emulated, n, weight, bias):
    x, w, b = drawn(5, n)
    given = [a for a, use in ((w, weight), (b, bias)) if use]

    def f(x, *rest):
        rest = list(rest)
        return layer(x, rest.pop(0) if weight else None, rest.pop(0) if bias else None)

    on_both(f, [x, *given], dtypes=("float32", "float16"), rtol=RTOL)
    if not bias:
        on_both(lambda x, *w: F.rms_norm(x, (n,), *w), [x, *given], dtypes=("float32",))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("n", [40, 37, 300])
def test_float32_parameters_of_half_inputs(emulated, dtype, n):
    x, w, b = (gpunn.from_numpy(a).to(gpunn.float32) for a in drawn(6, n))
    x = x.to(getattr(gpunn, dtype))
    wanted = layer(x.double(), w.double(), b.double())
    leaves = [t.cuda().requires_grad_() for t in (x, w, b)]
    y = layer(*leaves)
    y.sum().backward()
    assert [y.dtype] + [t.grad.dtype for t in leaves] == [x.dtype, x.dtype, w.dtype, w.dtype]
    tolerance = 1e-2 if dtype == "bfloat16" else 1e-3
    np.testing.assert_allclose(host(y), wanted.numpy(), rtol=tolerance, atol=tolerance)
    unit = F.layer_norm(x.double(), (n,)).sum(0)
    np.testing.assert_allclose(leaves[1].grad.cpu().numpy(), unit.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape, groups", [
    ((2, 6, 5), 2), ((2, 8, 4, 4), 4), ((3, 6, 8), 3), ((5, 8), 2), ((2, 4, 3, 3), 4),
    ((2, 4, 2), 1),
])  # fmt: skip
def test_group_norm(emulated, grid_of_three, shape, groups):
    """The forward pass is a row's; the backward pass has sums over planes, and over columns."""
    arrays = [rng.normal(size=shape) + 1, rng.normal(size=shape[1]), rng.normal(size=shape[1])]
    on_both(lambda x, w, b: F.group_norm(x, groups, w, b), arrays, rtol=RTOL)
    assert "row_norm_forward" in Function.launches and "input_grad" in Function.launches


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 4), (1, 2, 40)])
def test_instance_norm(emulated, shape):
    arrays = [rng.normal(size=shape) + 1, rng.normal(size=shape[1]), rng.normal(size=shape[1])]
    on_both(
        lambda x, w, b: F.instance_norm(x, None, None, w, b), arrays,
        dtypes=("float32", "bfloat16"), rtol=RTOL,
    )  # fmt: skip


@pytest.mark.parametrize("dtype", HALVES)
def test_float32_parameters_of_half_images(emulated, dtype):
    x = gpunn.from_numpy(rng.normal(size=(2, 4, 3, 8))).to(getattr(gpunn, dtype))
    w, b = gpunn.randn(4), gpunn.randn(4)
    for f in (lambda *a: F.group_norm(a[0], 2, *a[1:]), lambda *a: F.instance_norm(a[0], None, None,
              *a[1:]), lambda *a: F.batch_norm(a[0], None, None, *a[1:], True)):  # fmt: skip
        found = []
        for device in ("cpu", "cuda"):
            leaves = [t.detach().to(device).requires_grad_() for t in (x, w, b)]
            y = f(*leaves)
            (y.float() ** 2).sum().backward()
            found.append([y, *(t.grad for t in leaves)])
        for here, there in zip(*found, strict=True):
            assert here.dtype == there.dtype
            np.testing.assert_allclose(host(there), host(here), rtol=3e-2, atol=3e-2)


def test_no_digits_are_lost_far_from_zero(emulated):
    x = (rng.normal(size=(4, 96)) + 1e4).astype(np.float32)
    y = F.layer_norm(gpunn.from_numpy(x).cuda(), (96,)).cpu().numpy()
    wide = x.astype(np.float64)
    wanted = (wide - wide.mean(1, keepdims=True)) / np.sqrt(wide.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, wanted, atol=2e-3)  # x itself has 1e-3


def test_infinities_and_nans_stay_in_their_row(emulated):
    x = gpunn.ones(3, 40, device="cuda") * gpunn.arange(40, device="cuda")
    x[1, 3] = float("nan")
    y = F.layer_norm(x, (40,)).cpu()
    assert y[1].isnan().all() and y[[0, 2]].isfinite().all()


def test_empty(emulated):
    for shape in ((0, 5), (3, 0)):
        x = gpunn.ones(*shape, device="cuda", requires_grad=True)
        w = gpunn.ones(shape[1], device="cuda", requires_grad=True)
        F.layer_norm(x, shape[1:], w).sum().backward()
        assert w.grad.tolist() == [0.0] * shape[1] and x.grad.shape == shape
    assert not Function.launches


@pytest.mark.parametrize("rows, n", [(70, 24), (5, 300)])
def test_the_order_of_sums_is_fixed(emulated, grid_of_three, rows, n):
    arrays = [gpunn.from_numpy(a).float().cuda() for a in drawn(rows, n)]

    def run():
        leaves = [a.detach().requires_grad_() for a in arrays]
        y = layer(*leaves)
        (y * y).sum().backward()
        return [y, *(leaf.grad for leaf in leaves)]

    same_bits(run)


@pytest.mark.parametrize("n, dtype", [(9, "float32"), (24, "float16"), (70, "float64")])
def test_check_build(emulated, grid_of_three, n, dtype):
    """No races, no access out of bounds, no read of shared memory that nobody wrote."""
    with check_build():
        on_both(layer, drawn(9, n), dtypes=(dtype,), layouts=PLAIN, rtol=RTOL)
        with order("random"):
            on_both(layer, drawn(2, n * 16), dtypes=(dtype,), layouts=PLAIN, rtol=RTOL)


def test_what_kernels_do_not_serve(emulated):
    """Parameters of two dtypes, or of one that the array's does not go with."""
    x = gpunn.ones(2, 3, device="cuda").array
    half = x.astype(np.float16)
    assert kernels.row_norm_forward(x, half[0], None, 1e-5) is None
    assert kernels.row_norm_forward(half, half[0], x[0], 1e-5) is None
    assert kernels.row_norm_forward(x.astype(np.int64), None, None, 1e-5) is None
    assert kernels.row_norm_backward(x, half, None, None, x[:, 0]) is None


@pytest.mark.gpu
def test_norm_on_the_gpu():
    torch = pytest.importorskip("torch", reason="compares with PyTorch on the GPU")
    for rows, n in ((5, 33), (300, 256), (40, 1000), (16, 8192), (7, 16384), (3, 40000)):
        on_both(layer, drawn(rows, n), rtol=RTOL)
        x, w, b = (np.asarray(a, np.float32) for a in drawn(rows, n))
        theirs = torch.nn.functional.layer_norm(
            torch.from_numpy(x).cuda(), (n,), *(torch.from_numpy(a).cuda() for a in (w, b))
        )
        ours = layer(*(gpunn.from_numpy(a).cuda() for a in (x, w, b)))
        np.testing.assert_allclose(ours.cpu().numpy(), theirs.cpu().numpy(), rtol=1e-4, atol=1e-4)
