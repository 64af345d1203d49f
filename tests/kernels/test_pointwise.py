"""kernels/pointwise.cu: activations in every dtype, layout and alignment."""

import emulated as emu
import numpy as np
import pytest
from emulated import Function, check_build, on_both, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn.cuda.kernels import launch
from gpunn.cuda.kernels import pointwise as kernels

rng = np.random.default_rng(0)
ROWS = {
    "hardtanh": (lambda x: F.hardtanh(x, -1.1, 2.3), (-1.1, 2.3)),
    "hardsigmoid": (F.hardsigmoid, ()),
    "hardswish": (F.hardswish, ()),
    "hardshrink": (lambda x: F.hardshrink(x, 1.3), (1.3,)),
    "softshrink": (lambda x: F.softshrink(x, 0.7), (0.7,)),
    "threshold": (lambda x: F.threshold(x, 0.3, 20.0), (0.3, 20.0)),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), (0.2,)),
    "elu": (lambda x: F.celu(x, 0.7), (0.7, 1.0, 0.7)),
    "softplus": (lambda x: F.softplus(x, 1.5, 6.0), (1.5, 6.0)),
    "logsigmoid": (F.logsigmoid, ()),
    "mish": (F.mish, ()),
}
DTYPES = ("float64", "float32", "float16", "bfloat16")
named = pytest.mark.parametrize("name", kernels.FUNCTIONS)


@pytest.fixture
def grid_of_three(monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 3)


def away_from_corners(n):
    """Numbers that no dtype's rounding moves across a place where two pieces meet."""
    x = 4 * rng.normal(size=n)
    for corner in (-3, -1.3, -1.1, -0.7, 0, 0.3, 0.7, 1.3, 2.3, 3, 4):
        x = np.where(abs(x - corner) < 0.05, x + 0.1, x)
    return x


@named
@pytest.mark.parametrize("n", [0, 1, 33, 7001])
def test_values_and_gradients(emulated, grid_of_three, name, n):
    dtypes = DTYPES if name in ("hardtanh", "elu") else ("float32", "bfloat16")
    on_both(ROWS[name][0], [away_from_corners(n)], dtypes=dtypes)
    both = {"pointwise_forward", "pointwise_backward"}
    assert set(Function.launches) == (both if n else set())


@named
def test_special_values_are_the_cpus(emulated, name):
    f = ROWS[name][0]
    values = [-3.0, -1.3, 0.0, -0.0, 0.3, 3.0, 1e20, -1e20, np.inf, -np.inf, np.nan, 60.0, -60.0]
    found = []
    for device in ("cpu", "cuda"):
        x = gpunn.tensor(values, device=device, requires_grad=True)
        y = f(x)
        (g,) = gpunn.autograd.grad(y.sum(), x)
        found.append((y.detach().cpu().numpy(), g.cpu().numpy()[:8]))
    for cpu, gpu in zip(*found, strict=True):
        np.testing.assert_allclose(gpu, cpu, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", ["elu", "hardtanh"])
def test_second_order(emulated, name):
    x = gpunn.from_numpy(away_from_corners(7)).cuda().requires_grad_()
    assert gpunn.autograd.gradgradcheck(ROWS[name][0], x)


def test_in_place_and_between_boundaries(emulated):
    x = gpunn.from_numpy(rng.normal(size=1001)).cuda()
    wanted = F.elu(x.cpu()[1:])
    part = x[1:]
    assert gpunn.allclose(F.elu(part).cpu(), wanted)
    assert F.elu(part, inplace=True) is part
    assert gpunn.allclose(x[1:].cpu(), wanted)


def test_what_is_not_served_is_left_to_arrays(emulated):
    assert kernels.pointwise("hardtanh", (0, 6), emu.up(np.arange(4))) is None
    assert F.relu6(gpunn.tensor([-1, 9], device="cuda")).tolist() == [0, 6]


def test_check_build_and_orders(emulated):
    x = emu.up(rng.normal(size=(9, 35)).astype(np.float16))

    def run():
        return [f(name, ROWS[name][1], *a) for name in ("elu", "hardswish") for f, a in (
            (kernels.pointwise, (x,)), (kernels.pointwise_grad, (x, x)))]  # fmt: skip

    with check_build():
        run()
    same_bits(run)
