"""kernels/conv*.cu on the emulated device, against columns.py in float64."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from emulated import check_build, host, on_both, order, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn import nn
from gpunn.backends import switches
from gpunn.cuda.kernels import conv as kernels
from gpunn.cuda.kernels import conv_tuning as tuning
from gpunn.cuda.kernels import launch
from gpunn.nn.columns import Geometry, conv_columns, input_grad_columns, weight_grad_columns

DTYPES = {
    "float16": np.dtype(np.float16), "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32), "float64": np.dtype(np.float64),
}  # fmt: skip
TOLERANCE = {"float16": 2e-3, "bfloat16": 1.5e-2, "float32": 2e-6, "float64": 1e-13, "tf32": 2e-3}

# x, w, stride, padding before, after, dilation, groups
CASES = {
    "1d": ((2, 4, 9), (6, 4, 3), (1,), (0,), (0,), (1,), 1),
    "1d groups": ((2, 4, 9), (6, 2, 3), (2,), (2,), (2,), (2,), 2),
    "kernel 3x2": ((2, 5, 7, 6), (6, 5, 3, 2), (1, 1), (0, 0), (0, 0), (1, 1), 1),
    "all of it": ((2, 4, 9, 8), (6, 2, 3, 3), (2, 1), (1, 2), (1, 2), (1, 2), 2),
    "depthwise": ((1, 3, 5, 5), (3, 1, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 3),
    "depthwise x2": ((2, 3, 6, 7), (6, 1, 3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 3),
    "depthwise 5x5": ((2, 3, 6, 7), (3, 1, 5, 5), (1, 1), (2, 2), (2, 2), (1, 1), 3),
    "3d": ((2, 2, 5, 4, 4), (4, 2, 2, 3, 1), (2, 1, 1), (1, 1, 0), (1, 1, 0), (1, 1, 2), 1),
    "same, even": ((2, 6, 9, 9), (40, 6, 4, 4), (1, 1), (1, 1), (2, 2), (1, 1), 1),
    "stride 3, 2": ((1, 20, 12, 12), (33, 20, 3, 3), (3, 2), (1, 1), (1, 1), (2, 3), 1),
    "1x1": ((2, 8, 5, 5), (9, 8, 1, 1), (1, 1), (0, 0), (0, 0), (1, 1), 1),
    "1x1, whole chunks": ((2, 17, 4, 4), (9, 17, 1, 1), (1, 1), (0, 0), (0, 0), (1, 1), 1),
    "1x1 stride 2": ((2, 8, 6, 6), (9, 8, 1, 1), (2, 2), (0, 0), (0, 0), (1, 1), 1),
    "1x1 padded": ((2, 3, 4, 4), (5, 3, 1, 1), (1, 1), (1, 0), (1, 0), (1, 1), 1),
    "several tiles": ((3, 9, 9, 9), (70, 9, 3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1),
    "one value": ((1, 1, 1, 1), (1, 1, 1, 1), (1, 1), (0, 0), (0, 0), (1, 1), 1),
    "stride past the kernel": ((1, 3, 11), (2, 3, 2), (4,), (0,), (0,), (1,), 1),
}
FEW = ("1d groups", "all of it", "3d", "1x1, whole chunks", "several tiles")


class Problem:
    """A case's arrays, rounded to a dtype, and what the three products must give."""

    def __init__(self, case, dtype):
        x, w, *self.rest = case
        self.geo = Geometry(x[2:], w[2:], *self.rest)
        del self.rest[2]  # the padding after
        rng = np.random.default_rng(0)
        ones, xp = (1,) * (len(x) - 2), gpunn.device("cuda").xp
        shapes = (x, w, (x[0], w[0], *self.geo.out), (w[0], *ones), (x[1], *ones))
        arrays = [rng.normal(size=s).astype(dtype) for s in shapes]
        self.x, self.w, self.dy, b, bx = (xp.asarray(a) for a in arrays)
        self.b, self.bx = b.reshape(-1), bx.reshape(-1)
        x, w, dy, b, bx = (a.astype(np.float64) for a in arrays)
        self.wanted = (
            np.maximum(conv_columns(x, w, self.geo) + b, 0),
            input_grad_columns(dy, w, self.geo) + bx,
            weight_grad_columns(x, dy, self.geo),
        )

    def products(self, tile=None, splits=None):
        geo, rest = self.geo, self.rest
        return (
            kernels.conv_forward(self.x, self.w, self.b, *rest, geo.out, "relu", tile),
            kernels.conv_input_grad(self.dy, self.w, geo.size, *rest, self.bx, tile=tile),
            kernels.conv_weight_grad(self.x, self.dy, geo.kernel, *rest, tile=tile, splits=splits),
        )

    def check(self, tolerance, tile=None, splits=None):
        found = self.products(tile, splits)
        for name, y, wanted in zip(("y", "dx", "dw"), found, self.wanted, strict=True):
            scale = max(1.0, np.abs(wanted).max(initial=0))
            np.testing.assert_allclose(
                y.get().astype(np.float64), wanted, rtol=tolerance, atol=tolerance * scale,
                err_msg=name,
            )  # fmt: skip


def tiles():
    """Every tile, with a dtype of its kernels; the widest and the narrowest in TF32 too."""
    pairs = [(tile, "float32") for tile in tuning.TILES["plain"]]
    pairs += [(tile, "float16") for tile in tuning.TILES["tensor"]]
    pairs += [(tuning.TILES["tensor"][0], "tf32"), (tuning.TILES["tensor"][-1], "tf32")]
    pairs += [(tuning.TILES["plain"][-1], "float64"), (tuning.TILES["direct"][0], "float32")]
    return [pytest.param(*p, id="-".join(map(str, (*p[0].values, p[1])))) for p in pairs]


@pytest.mark.parametrize("tile, dtype", tiles())
def test_every_tile(emulated, tile, dtype):
    for name in FEW if tile.family != "direct" else FEW[:2]:
        problem = Problem(CASES[name], DTYPES["float32" if dtype == "tf32" else dtype])
        problem.check(TOLERANCE[dtype], tile, splits=3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_case_by_the_chosen_kernel(emulated, dtype):
    for name, case in CASES.items():
        if dtype == "float32" or name != "depthwise 5x5":  # a kernel of its own
            Problem(case, DTYPES[dtype]).check(TOLERANCE[dtype])


def test_tf32_is_used_where_it_is_allowed(emulated, monkeypatch):
    problem = Problem(CASES["same, even"], DTYPES["float32"])
    exact = problem.products()[0]
    monkeypatch.setattr(switches, "allow_tf32", True)
    for name in ("same, even", "1x1", "1x1, whole chunks"):
        Problem(CASES[name], DTYPES["float32"]).check(TOLERANCE["tf32"])
    assert not np.array_equal(problem.products()[0].get(), exact.get())


@pytest.mark.parametrize("family, dtype", [("plain", "float32"), ("tensor", "float16"),
                                           ("direct", "bfloat16")])  # fmt: skip
def test_check_build_finds_nothing(emulated, family, dtype):
    with check_build():
        for name in FEW[:4]:
            problem = Problem(CASES[name], DTYPES[dtype])
            problem.check(TOLERANCE[dtype], tuning.TILES[family][-1], splits=2)


@pytest.mark.parametrize("family, dtype", [("plain", "float32"), ("tensor", "bfloat16"),
                                           ("direct", "float32")])  # fmt: skip
def test_the_same_bits_in_every_order(emulated, family, dtype):
    problem = Problem(CASES["several tiles" if family != "direct" else "all of it"], DTYPES[dtype])
    same_bits(lambda: [y.get() for y in problem.products(tuning.TILES[family][-1], splits=3)])


@pytest.mark.parametrize("family, dtype", [("plain", "float64"), ("tensor", "float16"),
                                           ("direct", "float32")])  # fmt: skip
def test_a_grid_smaller_than_the_work(emulated, monkeypatch, family, dtype):
    monkeypatch.setattr(launch, "most_blocks", 2)
    with order("reverse"):
        name = "several tiles" if family != "direct" else "depthwise x2"
        tile = tuning.TILES[family][-1]
        Problem(CASES[name], DTYPES[dtype]).check(TOLERANCE[dtype], tile, splits=4)


def test_more_shares_than_places(emulated):
    for family, dtype in (("plain", "float64"), ("direct", "float64"), ("tensor", "float16")):
        problem = Problem(CASES["one value"], DTYPES[dtype])
        problem.check(TOLERANCE[dtype], tuning.TILES[family][-1], splits=5)


def test_a_view_that_starts_between_chunks(emulated):
    problem = Problem(CASES["1x1, whole chunks"], DTYPES["float16"])
    for name in ("x", "dy"):
        array = getattr(problem, name)
        moved = emulated.xp.zeros(array.size + 1, array.dtype)[1:].reshape(array.shape)
        moved[...] = array
        setattr(problem, name, moved)
    problem.check(TOLERANCE["float16"])


def test_results_of_some_places_only_are_written(emulated):
    """A result larger than the source reaches is the bias, or zero."""
    xp = emulated.xp
    w = xp.asarray(np.ones((1, 1, 2), np.float32))
    dy = xp.asarray(np.ones((1, 1, 2), np.float32))
    b = xp.asarray(np.full(1, 7, np.float32))
    dx = kernels.conv_input_grad(dy, w, (9,), (4,), (0,), (1,), 1, b)
    np.testing.assert_array_equal(dx.get()[0, 0], [8, 8, 7, 7, 8, 8, 7, 7, 7])


# --- through the slice --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["1d groups", "all of it", "depthwise x2", "3d"])
def test_conv_on_both_devices(emulated, name):
    x, w, stride, before, _, dilation, groups = CASES[name]
    function = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[len(stride)]
    rng = np.random.default_rng(1)
    on_both(
        lambda x, w, b: function(x, w, b, stride, before, dilation, groups),
        [rng.normal(size=x), rng.normal(size=w), rng.normal(size=w[0])],
        rtol={"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-5},
    )  # fmt: skip


def test_second_order(emulated):
    x, w = (gpunn.randn(*s).double().to("cuda").requires_grad_() for s in ((2, 3, 6), (4, 3, 3)))
    assert gpunn.autograd.gradgradcheck(lambda x, w: F.conv1d(x, w, stride=2, padding=1), (x, w))


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_to_do(emulated, dtype):
    options = {"device": "cuda", "dtype": getattr(gpunn, dtype)}
    b = gpunn.ones(2, **options)
    for x, w in (((0, 3, 5, 5), (2, 3, 3, 3)), ((2, 0, 5, 5), (2, 0, 3, 3))):
        x, w = (gpunn.zeros(*s, requires_grad=True, **options) for s in (x, w))
        y = F.conv2d(x, w, b)
        y.sum().backward()
        assert host(y).sum() == y.numel() and host(x.grad).sum() == host(w.grad).sum() == 0


def test_dtypes_without_kernels_go_through_columns(emulated):
    x, w = np.arange(8).reshape(1, 1, 8), np.array([[[1, 2]]])
    for dtype in (np.int64, np.complex64):
        a, b = (gpunn.from_numpy(v.astype(dtype)).to("cuda") for v in (x, w))
        np.testing.assert_array_equal(F.conv1d(a, b).cpu().numpy()[0, 0], np.arange(7) * 3 + 2)


def test_a_model_trains_on_the_emulated_device(emulated):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding="same"), nn.ReLU(),
                          nn.Conv2d(8, 8, 3, groups=8, stride=2), nn.Conv2d(8, 4, 1))  # fmt: skip
    copy = {k: v.numpy().copy() for k, v in model.state_dict().items()}
    x = gpunn.randn(2, 3, 9, 9)
    model(x).square().mean().backward()
    wanted = [p.grad.numpy().copy() for p in model.parameters()]
    model.load_state_dict({k: gpunn.from_numpy(v) for k, v in copy.items()})
    model.zero_grad()
    model.to("cuda")
    model(x.to("cuda")).square().mean().backward()
    for p, g in zip(model.parameters(), wanted, strict=True):
        np.testing.assert_allclose(p.grad.cpu().numpy(), g, rtol=2e-4, atol=1e-5)


# --- on a GPU -----------------------------------------------------------------------------


@pytest.mark.gpu
def test_conv_on_the_gpu():
    torch = pytest.importorskip("torch", reason="the reference on the GPU is PyTorch's")
    for name, dtype in itertools.product(CASES, DTYPES):
        problem = Problem(CASES[name], DTYPES[dtype])
        for tile in [None, *itertools.chain(*tuning.TILES.values())]:
            served = {"plain": ("float32", "float64"), "tensor": ("float16", "bfloat16", "float32")}
            if tile is None or dtype in served.get(tile.family, DTYPES):
                tf32 = dtype == "float32" and tile is not None and tile.family == "tensor"
                problem.check(10 * TOLERANCE["tf32" if tf32 else dtype], tile)
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(8, 64, 30, 30)), rng.normal(size=(96, 64, 3, 3)) / 24
    for dtype in ("float16", "bfloat16", "float32"):
        ours = F.conv2d(*(gpunn.from_numpy(a).to("cuda", getattr(gpunn, dtype)) for a in (x, w)))
        theirs = torch.nn.functional.conv2d(
            *(torch.from_numpy(a).to("cuda", getattr(torch, dtype)) for a in (x, w))
        )
        np.testing.assert_allclose(host(ours), theirs.double().cpu().numpy(), rtol=2e-2, atol=2e-2)


