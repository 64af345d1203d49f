"""Sampling at places: against a sum over all entries, PyTorch's edge cases, and affine maps."""

import warnings
from itertools import product

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F

rng = np.random.default_rng(0)


def inside(at, n, padding, align):
    """The place that stands for `at`."""
    low, high = (0, n - 1) if align else (-0.5, n - 0.5)
    if padding == "reflection":
        if low == high:
            return 0.0
        at = (at - low) % (2 * (high - low))
        at = low + min(at, 2 * (high - low) - at)
    return at if padding == "zeros" else min(max(at, 0.0), n - 1.0)


def cubic(d):
    near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
    return near if d <= 1 else far if d < 2 else 0.0


def weights(c, n, mode, padding, align):
    """The weight of each of n entries for one coordinate."""
    at = (c + 1) / 2 * (n - 1) if align else ((c + 1) * n - 1) / 2
    found = np.zeros(n)
    if mode != "bicubic":
        at = inside(at, n, padding, align)
    taps = [np.rint(at)] if mode == "nearest" else np.floor(at) + np.arange(-1, 3)
    for tap in taps:
        d = abs(at - tap)
        w = {"nearest": 1.0, "bilinear": max(1 - d, 0.0)}.get(mode, cubic(d))
        place = inside(tap, n, padding, align) if mode == "bicubic" else tap
        if 0 <= place < n:
            found[int(place)] += w
    return found


def sampled(x, grid, mode, padding, align):
    y = np.zeros((*x.shape[:2], *grid.shape[1:-1]))
    for b, *place in product(*map(range, (len(x), *grid.shape[1:-1]))):
        part = x[b]
        for d, n in enumerate(x.shape[2:]):
            c = grid[(b, *place, x.ndim - 3 - d)]
            part = np.tensordot(part, weights(c, n, mode, padding, align), (1, 0))
        y[(b, slice(None), *place)] = part
    return y


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("size", [(3, 4), (2, 3, 3)])
def test_samples_and_gradients(size, mode, padding, align):
    if mode == "bicubic" and len(size) == 3:
        with pytest.raises(RuntimeError, match="bicubic interpolation only supports 4D"):
            F.grid_sample(gpunn.ones(1, 1, *size), gpunn.ones(1, 1, 1, 1, 3), mode, padding, align)
        return
    x = rng.normal(size=(2, 2, *size))
    grid = rng.uniform(-1.9, 1.9, size=(2, *(2, 3, 2)[: len(size)], len(size)))
    check(lambda x, g: F.grid_sample(x, g, mode, padding, align), [x, grid],
          lambda x, g: sampled(x, g, mode, padding, align), dtypes=("float64",))  # fmt: skip
    y = F.grid_sample(gpunn.tensor(x).float(), gpunn.tensor(grid).float(), mode, padding, align)
    np.testing.assert_allclose(y.numpy(), sampled(x, grid, mode, padding, align), atol=2e-5)


@pytest.mark.parametrize("dtype", [gpunn.float16, gpunn.bfloat16])
def test_halves_are_rounded_once(dtype):
    x, grid = gpunn.randn(1, 2, 4, 4).to(dtype), (gpunn.rand(1, 3, 3, 2) * 2 - 1).to(dtype)
    y = F.grid_sample(x, grid, align_corners=False)
    assert y.dtype is dtype
    assert y.equal(F.grid_sample(x.float(), grid.float(), align_corners=False).to(dtype))


def test_places_that_are_no_numbers_raise_nothing():
    x, nan = gpunn.arange(1.0, 10.0).reshape(1, 1, 3, 3), float("nan")
    for c, padding, mode, wanted in (
        (nan, "zeros", "bilinear", nan), (nan, "border", "bilinear", 1),
        (nan, "zeros", "nearest", 0), (float("inf"), "border", "nearest", 9),
        (-float("inf"), "reflection", "bilinear", 1),
        (1e20, "zeros", "bicubic", 0), (1e20, "border", "bicubic", 9),
    ):  # fmt: skip
        got = F.grid_sample(x, gpunn.full((1, 1, 1, 2), c), mode, padding, False).item()
        assert got == wanted or (got != got and wanted != wanted)


def test_only_the_gradient_that_is_needed_is_made():
    x, grid = gpunn.ones(1, 1, 2, 2), gpunn.zeros(1, 1, 1, 2)
    y = F.grid_sample(x, grid.requires_grad_(), align_corners=False)
    assert y.grad_fn.name() == "GridSampler2DBackward0"
    y.sum().backward()
    assert x.grad is None and grid.grad.shape == grid.shape


def test_the_names_in_torch():
    x, grid = gpunn.randn(1, 2, 3, 4), gpunn.rand(1, 2, 2, 2)
    for i, mode in enumerate(("bilinear", "nearest", "bicubic")):
        for j, padding in enumerate(("zeros", "border", "reflection")):
            wanted = F.grid_sample(x, grid, mode, padding, True)
            assert gpunn.grid_sampler(x, grid, i, j, True).equal(wanted)
            assert gpunn.grid_sampler_2d(x, grid, i, j, True).equal(wanted)
    volume, places = gpunn.randn(1, 1, 2, 3, 4), gpunn.rand(1, 1, 2, 2, 3)
    wanted = F.grid_sample(volume, places, align_corners=False)
    assert gpunn.grid_sampler_3d(volume, places, 0, 0, False).equal(wanted)


# --- affine maps --------------------------------------------------------------------------


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(2, 3, 4), (2, 3, 1, 2)])
def test_affine_grid(size, align):
    dims = len(size) - 1
    theta = rng.normal(size=(size[0], dims, dims + 1))
    sides = [np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in size[1:]]
    if not align:
        sides = [s * (n - 1) / n for s, n in zip(sides, size[1:], strict=True)]
    base = np.stack([*np.meshgrid(*sides, indexing="ij")[::-1], np.ones(size[1:])], -1)

    def grid(theta):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one entry with aligned corners
            return F.affine_grid(theta, (size[0], 1, *size[1:]), align)

    check(grid, [theta], lambda t: np.einsum("...j,nij->n...i", base, t))


def test_the_identity_map_gives_the_input_back():
    x = gpunn.randn(2, 3, 4, 5)
    for align in (False, True):
        grid = F.affine_grid(gpunn.eye(2, 3).expand(2, 2, 3), (2, 3, 4, 5), align)
        y = F.grid_sample(x, grid, align_corners=align)
        np.testing.assert_allclose(y.numpy(), x.numpy(), atol=1e-5)


def test_warnings():
    with pytest.warns(UserWarning, match="behavior has changed to align_corners=False"):
        F.grid_sample(gpunn.ones(1, 1, 2, 2), gpunn.zeros(1, 1, 1, 2))
    with pytest.warns(UserWarning, match="behavior has changed to align_corners=False"):
        F.affine_grid(gpunn.eye(2, 3)[None], (1, 1, 2, 2))
    with pytest.warns(UserWarning, match="unit-size grids"):
        F.affine_grid(gpunn.eye(2, 3)[None], (1, 1, 1, 2), True)


X, G, T = gpunn.ones(1, 1, 2, 2), gpunn.zeros(1, 1, 1, 2), gpunn.eye(2, 3)[None]


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.grid_sample(X, G, "cubic"), ValueError, "expected mode to be"),
        (lambda: F.grid_sample(X, G, padding_mode="wrap"), ValueError, "expected padding_mode"),
        (lambda: F.grid_sample(X, gpunn.zeros(2, 1, 1, 2), align_corners=False), RuntimeError,
         "same batch size"),
        (lambda: F.grid_sample(X, gpunn.zeros(1, 1, 1, 3), align_corners=False), RuntimeError,
         "size 2 in last dimension"),
        (lambda: F.grid_sample(X[:, :, :0], G, align_corners=False), RuntimeError, "non-empty"),
        (lambda: F.grid_sample(X[0], gpunn.zeros(1, 1, 1), align_corners=False), RuntimeError,
         "same number of dimensions"),
        (lambda: gpunn.grid_sampler_3d(X, G, 0, 0, False), RuntimeError, "expected 5D input"),
        (lambda: F.grid_sample(X, G.double(), align_corners=False), RuntimeError,
         "expected scalar type Float but found Double"),
        (lambda: F.grid_sample(X.int(), G, align_corners=False), NotImplementedError, "'Int'"),
        (lambda: F.grid_sample([1], G, align_corners=False), TypeError, "must be Tensor, not list"),
        (lambda: F.affine_grid(T.int(), (1, 1, 2, 2), False), ValueError, "floating point type"),
        (lambda: F.affine_grid(T, (1, 1, 2), False), NotImplementedError, "4D and 5D sizes"),
        (lambda: F.affine_grid(T[0], (1, 1, 2, 2), False), ValueError, "shape Nx2x3"),
        (lambda: F.affine_grid(T, (1, 1, 0, 2), False), ValueError, "positive output size"),
        (lambda: F.affine_grid(T, (2, 1, 2, 2), False), RuntimeError, "Expected size for first"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()
