"""kernels/dropout.cu: the mask of the array path bit for bit, whatever the launch."""

import numpy as np
import pytest
from check import in_dtype, strided
from emulated import check_build, host, same_bits

import gpunn
import gpunn.nn.functional as F
from gpunn import draw_integers
from gpunn.cuda.kernels import launch
from gpunn.generator import default_for

SIZES = [1, 3, 8, 31, 32, 33, 1000, 5003]
DTYPES = ["float64", "float32", "float16", "bfloat16"]
rng = np.random.default_rng(0)


def on_device(array):
    return gpunn.from_numpy(array).cuda()


def masks(x, p):
    """What dropout keeps of ones, and what the array path keeps with the same words."""
    gpunn.manual_seed(3)
    gpunn.rand(5, device="cuda")
    y = F.dropout(gpunn.ones_like(x), p)
    after = default_for(x.device).get_offset()
    gpunn.manual_seed(3)
    gpunn.rand(5, device="cuda")
    drawn = draw_integers.bernoulli(x.array.shape, x.array.dtype, None, 1 - p, device=x.device)
    assert default_for(x.device).get_offset() == after
    return y, drawn


@pytest.mark.parametrize("name", DTYPES)
def test_the_mask_is_the_one_that_arrays_draw(emulated, monkeypatch, name):
    for n in SIZES:
        x = on_device(in_dtype(np.ones(n), name))
        for p in (0.0001, 0.3, 0.5, 0.9):
            for most in (None, 1, 3):
                monkeypatch.setattr(launch, "most_blocks", most)
                y, drawn = masks(x, p)
                assert ((y.array != 0) == (drawn != 0)).all()


@pytest.mark.parametrize("name", DTYPES)
def test_values_and_gradients(emulated, name):
    """x / (1 - p) rounded once, inputs left alone, and the gradient has the same mask."""
    for layout in (np.ascontiguousarray, strided):
        values = layout(in_dtype(rng.normal(size=(7, 130)), name))
        x = on_device(values).requires_grad_()
        gpunn.manual_seed(1)
        y = F.dropout(x, 0.25)
        g = gpunn.randn_like(y)
        (gx,) = gpunn.autograd.grad(y, x, g)
        gpunn.manual_seed(1)
        kept = F.dropout(gpunn.ones_like(x), 0.25).array != 0
        scale = np.float64(1) / np.float64(0.75)
        for got, given in ((y, x), (gx, g)):
            wanted = np.where(kept.get(), host(given) * scale, 0)
            rtol = {"float64": 1e-15, "float32": 1e-6, "float16": 1e-3, "bfloat16": 8e-3}[name]
            np.testing.assert_allclose(host(got), wanted, rtol=rtol, atol=1e-7)
        np.testing.assert_array_equal(host(x), values.astype(np.float64))


def test_float32_has_the_bits_of_the_array_path(emulated):
    x = gpunn.randn(333, device="cuda")
    gpunn.manual_seed(5)
    y = F.dropout(x, 0.4)
    gpunn.manual_seed(5)
    keep = 1 - 0.4
    mask = draw_integers.bernoulli((333,), np.dtype(np.float32), None, keep, device=x.device)
    np.testing.assert_array_equal(y.array, x.array * (mask / np.float32(keep)))


def test_rate_and_scale(emulated):
    gpunn.manual_seed(0)
    y = F.dropout(gpunn.ones(50_000, device="cuda"), 0.3)
    assert abs((y == 0).float().mean().item() - 0.3) < 0.01
    assert set(y.unique().tolist()) == {0.0, gpunn.tensor(1 / 0.7).item()}


def test_edges(emulated):
    assert F.dropout(gpunn.ones(5, device="cuda"), 1.0).tolist() == [0.0] * 5
    assert F.dropout(gpunn.ones(0, device="cuda"), 0.5).shape == (0,)
    assert F.dropout(gpunn.tensor(1.0, device="cuda"), 0.5).shape == ()
    x = gpunn.ones(100, device="cuda")
    assert F.dropout(x, 0.5, inplace=True) is x and (x == 0).any().item()


def test_an_array_that_begins_between_two_16_byte_boundaries(emulated):
    x = gpunn.ones(101, device="cuda")
    gpunn.manual_seed(2)
    whole = F.dropout(x[:100], 0.5)
    gpunn.manual_seed(2)
    assert gpunn.equal(F.dropout(x[1:], 0.5), whole)


def test_second_order_has_the_mask_too(emulated):
    x = gpunn.randn(50, device="cuda", dtype=gpunn.float64, requires_grad=True)
    y = F.dropout(x * x, 0.5)
    (g,) = gpunn.autograd.grad(y.sum(), x, create_graph=True)
    (h,) = gpunn.autograd.grad(g.sum(), x)
    kept = (y != 0).double()
    assert gpunn.allclose(g, 4 * x * kept) and gpunn.allclose(h, 4 * kept)


def test_a_state_restored_gives_the_same_mask(emulated):
    generator = default_for(emulated)
    x = gpunn.ones(64, device="cuda")
    generator = default_for(x.device)
    state = generator.get_state()
    first = F.dropout(x, 0.5)
    assert not gpunn.equal(first, F.dropout(x, 0.5))
    generator.set_state(state)
    assert gpunn.equal(first, F.dropout(x, 0.5))


def test_check_build_and_orders(emulated):
    def run():
        gpunn.manual_seed(4)
        x = gpunn.ones(1003, device="cuda")
        return [F.dropout(x, 0.5), F.dropout(x[1:].half(), 0.5)]

    with check_build():
        run()
    same_bits(run)


@pytest.mark.gpu
def test_dropout_on_the_gpu():
    for name in DTYPES:
        for n in (*SIZES, 10_000_019):
            y, drawn = masks(on_device(in_dtype(np.ones(n), name)), 0.3)
            assert bool(((y.array != 0) == (drawn != 0)).all())
