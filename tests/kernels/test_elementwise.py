"""kernels/elementwise.cu: activations alone and after a bias, every dtype, layout and alignment."""

import emulated as emu
import numpy as np
import pytest
from check import TOLERANCE, in_dtype
from emulated import Function, check_build, on_both, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn.cuda.kernels import elementwise as kernels
from gpunn.cuda.kernels import launch

rng = np.random.default_rng(0)
ACTIVATIONS = {
    "silu": F.silu, "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": F.relu, "none": lambda x: x * 1,
}  # fmt: skip
OF_KERNELS = ["relu", "silu", "gelu", "gelu_tanh"]
DTYPES = ["float64", "float32", "float16", "bfloat16"]


@pytest.fixture
def grid_of_three(monkeypatch):
    monkeypatch.setattr(launch, "most_blocks", 3)


@pytest.mark.parametrize("name", OF_KERNELS)
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 7001])
def test_values_and_gradients(emulated, grid_of_three, name, n):
    on_both(ACTIVATIONS[name], [4 * rng.normal(size=n)])
    assert set(Function.launches) == ({"unary_forward", "unary_backward"} if n else set())


@pytest.mark.parametrize("name", OF_KERNELS)
def test_large_and_special_values(emulated, name):
    """As on the CPU; in 16 bits relative to the value, far into the tail, too."""
    f = ACTIVATIONS[name]
    x = np.array([np.nan, np.inf, -1e20, 1e20, -1000, 1000, -40, 40, 0.0], np.float32)
    for dtype in (gpunn.float64, gpunn.float32, gpunn.bfloat16):
        a = gpunn.from_numpy(x).to(dtype)
        np.testing.assert_allclose(f(a.cuda()).double().cpu(), f(a).double(), rtol=1e-2)
    x = gpunn.linspace(-6, 6, 4001).to(gpunn.bfloat16)
    got, wanted = f(x.cuda()).double().cpu().numpy(), f(x.double()).numpy()
    np.testing.assert_allclose(got, wanted, rtol=5e-3 if name != "gelu" else 2e-2)


def test_in_place_and_between_boundaries(emulated):
    x = gpunn.from_numpy(rng.normal(size=1001)).cuda()
    wanted = F.silu(x.cpu()[1:])
    part = x[1:]
    assert gpunn.allclose(F.silu(part).cpu(), wanted)
    assert F.silu(part, inplace=True) is part
    assert gpunn.allclose(x[1:].cpu(), wanted)


def test_second_order(emulated):
    """In recorded operations; those of gelu need CuPy's own erf, and are tested on the CPU."""
    x = gpunn.tensor(rng.normal(size=7), device="cuda", requires_grad=True)
    for name in ("relu", "silu", "gelu_tanh"):
        assert gpunn.autograd.gradgradcheck(ACTIVATIONS[name], x)


def by_hand(name, x, bias, axis, dy):
    """f(x + bias) and its gradient, on the CPU in float64."""
    shape = [1] * x.ndim
    shape[axis] = -1
    leaf = gpunn.from_numpy(x.astype(np.float64) + bias.astype(np.float64).reshape(shape))
    y = ACTIVATIONS[name](leaf.requires_grad_())
    (g,) = gpunn.autograd.grad(y, leaf, gpunn.from_numpy(dy.astype(np.float64)))
    return y.detach().numpy(), g.numpy()


@pytest.mark.parametrize("name", kernels.FUNCTIONS)
@pytest.mark.parametrize("shape, axis", [
    ((33, 16), -1), ((5, 7), -1), ((3, 5, 8, 4), 1), ((2, 3, 5, 7), 1), ((4, 1, 3), 1), ((1,), 0),
    ((6, 33), 0),
])  # fmt: skip
def test_after_a_bias(emulated, grid_of_three, name, shape, axis):
    for dtype in DTYPES if name in OF_KERNELS else ("float32", "bfloat16"):
        x, dy = (in_dtype(2 * rng.normal(size=shape), dtype) for _ in range(2))
        bias = in_dtype(rng.normal(size=shape[axis]), dtype)
        wanted = by_hand(name, x, bias, axis, dy)
        x, dy, bias = emu.up(x), emu.up(dy), emu.up(bias)
        got = (kernels.bias_unary(name, x, bias, axis),
               kernels.bias_unary_grad(name, x, bias, dy, axis))  # fmt: skip
        for a, b in zip(got, wanted, strict=True):
            assert a.dtype == x.dtype
            tolerance = TOLERANCE[dtype]
            np.testing.assert_allclose(a.get().astype(np.float64), b, tolerance, tolerance)


def test_a_bias_may_be_added_where_the_values_lie(emulated):
    x, bias = rng.normal(size=(9, 12)), rng.normal(size=12)
    y = emu.up(x.copy())
    assert kernels.bias_unary("relu", y, emu.up(bias), -1, out=y) is y
    np.testing.assert_array_equal(y.get(), np.maximum(x + bias, 0))


def test_what_is_not_served_is_left_to_arrays(emulated):
    assert kernels.unary("silu", emu.up(np.ones(3, np.complex64))) is None
    x = gpunn.tensor([1 + 1j], device="cuda")
    assert gpunn.allclose(F.silu(x).cpu(), F.silu(x.cpu()))


def test_check_build_and_orders(emulated):
    x = emu.up(rng.normal(size=(9, 35)).astype(np.float16))
    bias = emu.up(rng.normal(size=35).astype(np.float16))

    def run():
        return [f(*a) for name in ("gelu", "silu") for f, a in (
            (kernels.unary, (name, x)), (kernels.unary_grad, (name, x, x)),
            (kernels.bias_unary, (name, x, bias)), (kernels.bias_unary_grad, (name, x, bias, x)),
        )]  # fmt: skip

    with check_build():
        run()
    same_bits(run)


@pytest.mark.gpu
def test_elementwise_on_the_gpu():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    x = 4 * rng.normal(size=1_000_003)
    for name in OF_KERNELS:
        on_both(ACTIVATIONS[name], [x])
    if torch.cuda.is_available():
        a = torch.from_numpy(x.astype(np.float32)).cuda()
        b = gpunn.from_numpy(x.astype(np.float32)).cuda()
        for approximate in ("none", "tanh"):
            wanted = torch.nn.functional.gelu(a, approximate=approximate).cpu().numpy()
            got = F.gelu(b, approximate=approximate).cpu().numpy()
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
