"""Position encodings against their formulas, written out."""

import math

import numpy as np
import pytest
from both import packages
from check import check, check_grad
from emulated import on_both

import gpunn
from gpunn.nn import functional as F

rng = np.random.default_rng(0)


@pytest.mark.parametrize("length, size", [(5, 6), (3, 7), (1, 1), (4, 2), (0, 4), (2, 0)])
def test_sines_and_cosines(length, size):
    table = F.sinusoidal_position_encoding(length, size, 100.0, dtype=gpunn.float64)
    want = np.zeros((length, size))
    for t in range(length):
        for j in range(size):
            angle = t / 100.0 ** ((j - j % 2) / size)
            want[t, j] = math.cos(angle) if j % 2 else math.sin(angle)
    np.testing.assert_allclose(table.numpy(), want, atol=1e-14)


def test_the_usual_way_with_pytorch_gives_the_same():
    """The lines of PyTorch's tutorial on language models, in float64."""
    torch, _ = packages()
    position = torch.arange(500).unsqueeze(1)
    rate = torch.exp(torch.arange(0, 64, 2, dtype=torch.float64) * (-math.log(10000.0) / 64))
    want = torch.zeros(500, 64)
    want[:, 0::2], want[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    got = F.sinusoidal_position_encoding(500, 64)
    assert got.dtype is gpunn.float32 and not got.requires_grad
    np.testing.assert_allclose(got.numpy(), want.numpy(), atol=1e-7)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(dtype):
    table = F.sinusoidal_position_encoding(3, 4, dtype=getattr(gpunn, dtype))
    assert table.dtype is getattr(gpunn, dtype)
    want = F.sinusoidal_position_encoding(3, 4, dtype=gpunn.float64)
    assert (table.double() - want).abs().max() < 0.01
    with pytest.raises(RuntimeError, match="dtype must be floating, got torch.int64"):
        F.sinusoidal_position_encoding(3, 4, dtype=gpunn.int64)
    with pytest.raises(RuntimeError, match="negative dimension -1"):
        F.sinusoidal_position_encoding(-1, 4)


# --- rotary -------------------------------------------------------------------------------


def turned(x, places, base=10000.0, interleaved=False):
    """Each pair as a complex number times exp(i angle)."""
    half = x.shape[-1] // 2
    pair = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (
        slice(half), slice(half, None))  # fmt: skip
    z = x[..., pair[0]] + 1j * x[..., pair[1]]
    z = z * np.exp(1j * places[..., None] * base ** (-2 * np.arange(half) / x.shape[-1]))
    out = np.empty_like(x)
    out[..., pair[0]], out[..., pair[1]] = z.real, z.imag
    return out


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 6), (4, 2), (1, 3, 0), (0, 4)])
def test_rotation(shape, interleaved):
    check(
        lambda x: F.rotary_position_embedding(x, base=50.0, interleaved=interleaved),
        [rng.normal(size=shape)],
        lambda x: turned(x, np.arange(shape[-2]), 50.0, interleaved), grad=0 not in shape,
    )  # fmt: skip


@pytest.mark.parametrize("places", [[4, 0, 9], [[[1, 2, 3]], [[0, 0, -5]]], [0.5, 1.5, 1e4], [7]])
def test_positions(places):
    places = np.array(places)
    check(
        lambda x: F.rotary_position_embedding(x, gpunn.from_numpy(places)),
        [rng.normal(size=(2, 2, 3, 4))], lambda x: turned(x, places),
    )  # fmt: skip


def test_products_depend_on_the_distance_alone():
    q, k = (gpunn.from_numpy(rng.normal(size=8)).expand(40, 8) for _ in range(2))
    for interleaved in (False, True):
        how = {"interleaved": interleaved}
        scores = F.rotary_position_embedding(q, **how) @ F.rotary_position_embedding(k, **how).T
        for distance in (-7, 0, 3, 30):
            line = scores.diagonal(distance).numpy()
            np.testing.assert_allclose(line, line[0], atol=1e-12)
    norms = F.rotary_position_embedding(q).norm(dim=-1)
    np.testing.assert_allclose(norms.numpy(), q.norm(dim=-1).numpy())


def test_a_token_added_to_a_cache_gets_its_place():
    x = gpunn.from_numpy(rng.normal(size=(2, 6, 4)))
    whole = F.rotary_position_embedding(x)
    last = F.rotary_position_embedding(x[:, 5:], gpunn.tensor([5]))
    assert gpunn.equal(whole[:, 5:], last)


def test_on_a_device(emulated):
    on_both(lambda x: [F.rotary_position_embedding(x)], [rng.normal(size=(2, 3, 4))])
    table = F.sinusoidal_position_encoding(5, 4, device="cuda")
    assert table.device.type == "cuda"
    assert gpunn.equal(table.cpu(), F.sinusoidal_position_encoding(5, 4))
    x = gpunn.ones(2, 4, device="cuda")
    with pytest.raises(RuntimeError, match="on the same device, but input is on cuda:0"):
        F.rotary_position_embedding(x, gpunn.tensor([1, 2]))


def test_second_derivative_through_attention():
    def f(q, k, v):
        q, k = F.rotary_position_embedding(q), F.rotary_position_embedding(k, interleaved=True)
        return F.scaled_dot_product_attention(q, k, v)

    check_grad(f, [rng.normal(size=s) for s in ((1, 2, 4), (1, 3, 4), (1, 3, 2))])


def test_what_does_not_fit_is_refused():
    rotate = F.rotary_position_embedding
    for x, more, match in (
        (gpunn.ones(3, 5), (), r"an even size, got \[3, 5\]"),
        (gpunn.ones(4), (), r"must be \(..., length, size\)"),
        (gpunn.ones(3, 4).long(), (), "input must be floating, got Long"),
        (gpunn.ones(3, 4), (gpunn.arange(2),), r"positions \[2\] must broadcast to \[3\]"),
        (gpunn.ones(3, 4), (gpunn.ones(2, 3),), r"positions \[2, 3\] must broadcast to \[3\]"),
    ):
        with pytest.raises(RuntimeError, match=match):
            rotate(x, *more)
    with pytest.raises(TypeError, match="must be Tensor, not int"):
        rotate(3)
    with pytest.raises(TypeError, match="'positions' .position 2. must be Tensor, not list"):
        rotate(gpunn.ones(2, 2), [0, 1])
