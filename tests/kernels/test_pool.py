"""kernels/pool.cu: windows of one size, adaptive windows, unpooling."""

import emulated as emu
import numpy as np
import pytest
from emulated import Function, check_build, on_both, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels import pool as kernels

rng = np.random.default_rng(0)
PLAIN = (np.ascontiguousarray,)
F32 = ("float32",)
HALVES = ("float16", "bfloat16")
MAX = (F.max_pool1d, F.max_pool2d, F.max_pool3d)
AVG = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)
ADAPTIVE_MAX = (F.adaptive_max_pool1d, F.adaptive_max_pool2d, F.adaptive_max_pool3d)
ADAPTIVE_AVG = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)

# dimensions, input, kernel, stride, padding, dilation, ceil_mode
CASES = [
    (1, (1, 1, 2), 1, 1, 0, 1, False),
    (1, (3, 2, 31), 3, 2, 1, 1, False),
    (1, (2, 33), 2, 5, 0, 1, True),
    (2, (2, 3, 9, 11), 2, 2, 0, 1, False),  # 2 x 2: the code for a known side
    (2, (2, 3, 32, 9), 3, 2, 1, 1, True),  # 3 x 3: likewise
    (2, (1, 2, 10, 12), 3, 1, 1, 2, False),
    (2, (1, 2, 11, 9), (2, 3), (1, 2), (1, 1), (2, 1), True),
    (3, (2, 4, 6, 5), (2, 2, 2), 2, 0, 1, False),
    (3, (1, 2, 5, 6, 7), (3, 1, 2), (2, 1, 3), (1, 0, 1), (1, 2, 3), True),
]


def untied(shape):
    """Values that all four dtypes tell apart: no doubt about which is the greatest."""
    bits = np.arange(np.prod(shape), dtype=np.uint32) + 0x3F00  # consecutive in bfloat16
    return rng.permutation((bits << 16).view(np.float32).astype(np.float64)).reshape(shape)


def names(kind, case):
    """The kernels that a case runs."""
    side = f"_{case[2]}x{case[2]}" if case[0] == 2 and case[2] in (2, 3) else ""
    return {f"{kind}_pool_forward{side}", f"{kind}_pool_backward"}


@pytest.fixture(autouse=True)
def grid_of_three(monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 3)
    monkeypatch.setattr(kernels, "BLOCK", 64)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max(emulated, case):
    """The gradient by way of taps and by way of places."""
    dims, shape, *window = case
    f = MAX[dims - 1]
    on_both(lambda x: f(x, *window), [untied(shape)])
    on_both(lambda x: f(x, *window, True), [untied(shape)], dtypes=F32, layouts=PLAIN)
    assert set(Function.launches) == names("max", case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_average(emulated, case):
    dims, shape, kernel, stride, padding, dilation, ceil = case
    x = rng.normal(size=shape)
    padding = padding if dilation == 1 else 0
    for include in (True, False):
        on_both(lambda x, i=include: AVG[dims - 1](x, kernel, stride, padding, ceil, i), [x],
                dtypes=("float64", "float32") if include else HALVES,
                layouts=(np.ascontiguousarray, emu.strided) if include else PLAIN)  # fmt: skip
    if dims > 1:
        on_both(lambda x: AVG[dims - 1](x, kernel, stride, padding, ceil, True, 5), [x],
                dtypes=F32, layouts=PLAIN)  # fmt: skip
    assert set(Function.launches) == names("avg", case)


def test_large_windows_are_for_several_threads(emulated):
    """Windows of 49, 50, 120, 300; of several rows and of one."""
    for shape, kernel in (((2, 3, 9, 8), 7), ((1, 2, 61), 50), ((2, 5, 6, 7), (4, 5, 6)),
                          ((1, 16, 31), (12, 25))):  # fmt: skip
        dims = len(kernel) if isinstance(kernel, tuple) else len(shape) - 2
        on_both(lambda x: MAX[dims - 1](x, kernel, 1, 1, 1, False, True), [untied(shape)],
                dtypes=F32)  # fmt: skip
        on_both(lambda x: AVG[dims - 1](x, kernel, 1, 1), [rng.normal(size=shape)])
    x = untied((1, 2, 700))  # more taps than a byte can number
    on_both(lambda x: F.max_pool1d(x, 300, 100), [x], dtypes=("float64",))
    on_both(lambda x: F.max_pool2d(x, 7), [untied((3, 7, 15))], dtypes=("bfloat16",))
    assert set(Function.launches) == {
        f"{kind}_pool_{way}" for kind in ("max", "avg")
        for way in ("forward_8", "forward_warp", "backward")
    }  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 5, 7, 7), (2, 33, 3, 5), (1, 2, 40, 10)])
def test_whole_planes_are_rows(emulated, shape):
    """And their averages' gradients need no windows."""
    on_both(lambda x: F.avg_pool2d(x, shape[2:]), [rng.normal(size=shape)])
    on_both(lambda x: F.avg_pool2d(x, shape[2:], divisor_override=3), [rng.normal(size=shape)],
            dtypes=F32)  # fmt: skip
    on_both(lambda x: F.adaptive_avg_pool2d(x, 1), [rng.normal(size=shape)], dtypes=F32)
    on_both(lambda x: F.max_pool2d(x, shape[2:], return_indices=True), [untied(shape)])
    on_both(lambda x: F.max_pool2d(x, shape[2:]), [untied(shape)], dtypes=F32)
    on_both(lambda x: F.adaptive_max_pool2d(x, 1, True), [untied(shape)], dtypes=F32)
    x = rng.normal(size=(2, *shape))
    on_both(lambda x: F.avg_pool3d(x, shape[1:]), [x], dtypes=F32)
    assert "avg_plane_backward" in Function.launches
    assert not {"avg_pool_backward", "adaptive_avg_backward"} & set(Function.launches)


ADAPTIVE_CASES = [
    (1, (2, 3, 33), 8), (1, (1, 1, 2), 1), (1, (2, 5), 13), (2, (2, 3, 9, 11), (4, 3)),
    (2, (3, 7, 7), (1, 7)), (2, (2, 2, 6, 8), (3, 2)), (3, (1, 2, 4, 5, 6), (2, 7, 3)),
]  # fmt: skip


@pytest.mark.parametrize("case", ADAPTIVE_CASES, ids=str)
def test_adaptive(emulated, case):
    dims, shape, out = case
    on_both(lambda x: ADAPTIVE_AVG[dims - 1](x, out), [rng.normal(size=shape)])
    on_both(lambda x: ADAPTIVE_MAX[dims - 1](x, out, True), [untied(shape)])
    back = "avg_plane_backward" if out == 1 else "adaptive_avg_backward"
    assert set(Function.launches) == {
        "adaptive_avg_forward", back, "adaptive_max_forward", "adaptive_max_backward"
    }


def test_large_adaptive_windows_are_for_several_threads(emulated):
    for shape, out in (((2, 3, 13, 11), 2), ((1, 2, 37, 41), (2, 3))):
        on_both(lambda x: F.adaptive_avg_pool2d(x, out), [rng.normal(size=shape)])
        on_both(lambda x: F.adaptive_max_pool2d(x, out, True), [untied(shape)], dtypes=F32)
    assert {f"adaptive_{kind}_forward_{many}" for kind in ("avg", "max")
            for many in ("8", "warp")} <= set(Function.launches)  # fmt: skip


@pytest.mark.parametrize("f", [
    lambda x: F.max_pool1d(x, 3, 2, 1, 1, False, True),
    lambda x: F.max_pool1d(x, 49, 1, 0, 1, False, True),
    lambda x: F.max_pool2d(x.reshape(1, 5, 10), (5, 6), 1, 0, 1, False, True),
    lambda x: F.max_pool1d(x.tile(9), 399, 49, 0, 1, False, True),
    lambda x: F.adaptive_max_pool1d(x, 5, True),
    lambda x: F.adaptive_max_pool1d(x, 1, True),
])  # fmt: skip
def test_ties_nan_and_infinity(emulated, f):
    """The first of equals, the last NaN, the first entry where all are -inf."""
    for x in (np.ones((1, 1, 50)), np.full((1, 1, 50), -np.inf), np.full((1, 1, 50), np.nan),
              rng.integers(0, 2, (1, 1, 50)).astype(float),
              np.where(rng.random((1, 1, 50)) < 0.1, np.nan, 1.0)):  # fmt: skip
        wanted, places = f(gpunn.from_numpy(x))
        y, found = f(gpunn.from_numpy(x).cuda())
        np.testing.assert_array_equal(found.cpu().numpy(), places.numpy())
        np.testing.assert_array_equal(y.cpu().numpy(), wanted.numpy())


def test_indices_of_64_bits(emulated, monkeypatch):
    monkeypatch.setattr(kernels, "SHORT", 0)
    on_both(lambda x: F.max_pool2d(x, 3, 2, 1), [untied((2, 9, 8))], dtypes=F32, layouts=PLAIN)
    on_both(lambda x: F.avg_pool2d(x, 2), [rng.normal(size=(2, 9, 8))], dtypes=F32, layouts=PLAIN)
    on_both(lambda x: F.adaptive_avg_pool2d(x, 3), [rng.normal(size=(2, 9, 8))], dtypes=F32)
    on_both(lambda x: F.adaptive_max_pool2d(x, 1), [untied((2, 9, 8))], dtypes=F32)


def test_divisions_by_multiplication():
    """`Divider` of pool.cu, as the device computes it, for all that it is made for."""
    for by in (1, 2, 3, 5, 7, 224, 641, 65535, 65536, 2**30 + 1, 2**31 - 1):
        _, multiplier, shift = kernels._divider(by)
        assert multiplier < 1 << 32
        for n in {0, 1, by - 1, by, 2 * by + 1, 2**31 - 1, *rng.integers(0, 2**31, 50).tolist()}:
            if 0 <= n < 2**31:
                assert ((n * multiplier >> 32) + n) >> shift == n // by


def test_empty(emulated):
    x = gpunn.ones(0, 2, 4, 4, device="cuda", requires_grad=True)
    for y in (F.max_pool2d(x, 2), F.avg_pool2d(x, 2), F.adaptive_avg_pool2d(x, 2),
              F.adaptive_max_pool2d(x, 2)):  # fmt: skip
        assert y.shape == (0, 2, 2, 2)
        assert gpunn.autograd.grad(y.sum(), x)[0].shape == x.shape
    x = gpunn.ones(1, 2, 4, device="cuda", requires_grad=True)
    for f in (F.adaptive_avg_pool1d, F.adaptive_max_pool1d):
        assert f(x, 0).shape == (1, 2, 0)
        assert not gpunn.autograd.grad(f(x, 0).sum(), x)[0].any()
    assert not Function.launches or "backward" in "".join(Function.launches)


def test_unpooling(emulated):
    for dims, shape in ((1, (2, 3, 8)), (2, (2, 2, 6, 4)), (3, (2, 4, 4, 4))):
        unpool = (F.max_unpool1d, F.max_unpool2d, F.max_unpool3d)[dims - 1]
        _, places = MAX[dims - 1](gpunn.from_numpy(untied(shape)), 2, return_indices=True)
        values = rng.normal(size=tuple(places.shape))
        on_both(lambda y, p: unpool(y, p, 2), [values, places.numpy()])
    assert set(Function.launches) == {"unpool_forward", "pick_places"}
    assert F.max_unpool1d(gpunn.ones(0, 2, 3, device="cuda"),
                          gpunn.zeros(0, 2, 3, dtype=gpunn.int64, device="cuda"), 2).shape == (
        0, 2, 6)  # fmt: skip


def test_a_place_outside_is_an_error(emulated):
    x = gpunn.ones(1, 1, 2, device="cuda")
    for bad in (-1, 4):
        y = F.max_unpool1d(x, gpunn.tensor([[[0, bad]]], device="cuda"), 2)
        with pytest.raises(RuntimeError, match=f"invalid max index: {bad} .* 4 entries"):
            y.cpu()
    assert y.cpu().tolist() == [[[1.0, 0.0, 0.0, 0.0]]]


def test_gradients_of_gradients(emulated):
    """They are made of array operations, from taps too."""

    def slope(f):
        def g(x):
            y = f(x)
            first = gpunn.autograd.grad((y * y).sum(), x, create_graph=True)[0]
            return (first * first).sum()

        return g

    for f in (lambda x: F.max_pool2d(x, (2, 3)), lambda x: F.avg_pool2d(x, (2, 3)),
              lambda x: F.adaptive_max_pool2d(x, 3), lambda x: F.adaptive_avg_pool2d(x, 3)):
        on_both(slope(f), [rng.normal(size=(2, 5, 4))], dtypes=("float64",))  # fmt: skip


def test_the_same_bits_in_every_order(emulated):
    """Also of the gradients of windows that overlap."""

    def run():
        found = []
        for f in (lambda x: F.max_pool2d(x, 3, 1, 1), lambda x: F.avg_pool2d(x, 3, 1, 1),
                  lambda x: F.adaptive_avg_pool2d(x, (5, 13)), lambda x: F.max_pool2d(x, 7)):
            x = gpunn.from_numpy(values).cuda().requires_grad_()  # fmt: skip
            y = f(x)
            found += [y, *gpunn.autograd.grad((y * y).sum(), x)]
        return found

    values = rng.normal(size=(2, 9, 11)).astype(np.float32)
    same_bits(run)


def test_no_races_and_no_bad_accesses(emulated):
    with check_build():
        options = {"dtypes": F32, "layouts": PLAIN}
        x, y = untied((2, 7, 9)), rng.normal(size=(2, 7, 9))
        on_both(lambda x: F.max_pool2d(x, 3, 2, 1), [x], **options)
        on_both(lambda x: F.max_pool2d(x, (3, 2), 1, 1), [x], **options)
        on_both(lambda x: F.max_pool2d(x, 7, 1, 2, 1, False, True), [x], **options)
        on_both(lambda x: F.avg_pool1d(x, 250, 100), [rng.normal(size=(3, 777))], **options)
        on_both(lambda x: F.max_pool3d(x, 2), [untied((2, 4, 4, 5))], **options)
        on_both(lambda x: F.avg_pool2d(x, (1, 4), 2, (0, 2)), [y], **options)
        on_both(lambda x: F.avg_pool2d(x, 7), [y], **options)
        on_both(lambda x: F.adaptive_avg_pool2d(x, (3, 10)), [y], **options)
        on_both(lambda x: F.adaptive_max_pool2d(x, (1, 1)), [x], **options)
        _, places = F.max_pool2d(gpunn.from_numpy(x), 2, return_indices=True)
        on_both(lambda y, p: F.max_unpool2d(y, p, 2, output_size=(7, 9)),
                [rng.normal(size=(2, 3, 4)), places.numpy()], **options)  # fmt: skip


@pytest.mark.gpu
def test_pool_on_the_gpu():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    for dims, shape, *window in CASES:
        on_both(lambda x: MAX[dims - 1](x, *window, True), [untied(shape)])
    for dims, shape, out in ADAPTIVE_CASES:
        on_both(lambda x: ADAPTIVE_AVG[dims - 1](x, out), [rng.normal(size=shape)])
        on_both(lambda x: ADAPTIVE_MAX[dims - 1](x, out, True), [untied(shape)])
    if not torch.cuda.is_available():
        pytest.skip("PyTorch is built without CUDA")
    values = rng.normal(size=(8, 16, 57, 43)).astype(np.float32)
    for call in (lambda T, x: T.nn.functional.max_pool2d(x, 3, 2, 1),
                 lambda T, x: T.nn.functional.max_pool2d(x, 2),
                 lambda T, x: T.nn.functional.avg_pool2d(x, 3, 2, 1),
                 lambda T, x: T.nn.functional.avg_pool2d(x, 43),
                 lambda T, x: T.nn.functional.adaptive_avg_pool2d(x, 7),
                 lambda T, x: T.nn.functional.adaptive_max_pool2d(x, 7)):  # fmt: skip
        found = []
        for T in (gpunn, torch):
            x = T.from_numpy(values).to("cuda").requires_grad_()
            y = call(T, x)
            found.append((y.detach().cpu().numpy(),
                          T.autograd.grad((y * y).sum(), x)[0].cpu().numpy()))  # fmt: skip
        for mine, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
