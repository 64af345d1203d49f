"""Interpolation: against sums written out, PyTorch's own table, and its error types."""

import warnings

import numpy as np
import pytest
from check import check

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

rng = np.random.default_rng(0)


def line(n, m, factor, align, cubic):
    """The matrix from n entries to m, entry by entry."""
    matrix = np.zeros((m, n))
    for i in range(m):
        at = (i + 0.5) * (1 / factor if factor else n / m) - 0.5
        if align:
            at = i * (n - 1) / (m - 1)
        at = at if cubic else min(max(at, 0), n - 1)
        left, taps = int(np.floor(at)), (-1, 0, 1, 2) if cubic else (0, 1)
        for t in taps:
            d = abs(at - left - t)
            weight = max(1 - d, 0)
            if cubic:
                near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * (d**3 - 5 * d**2 + 8 * d - 4)
                weight = near if d < 1 else far if d < 2 else 0
            matrix[i, min(max(left + t, 0), n - 1)] += weight
    return matrix


def resized(x, out, factor=None, align=False, cubic=False):
    for dim in range(2, x.ndim):
        matrix = line(x.shape[dim], out[dim - 2], factor, align, cubic)
        x = np.moveaxis(np.moveaxis(x, dim, -1) @ matrix.T, -1, dim)
    return x


MODES = [("linear", (2, 3, 6)), ("bilinear", (1, 2, 5, 4)), ("bicubic", (1, 2, 5, 6)),
         ("trilinear", (1, 2, 4, 3, 2))]  # fmt: skip


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("mode, shape", MODES)
def test_between_neighbours(mode, shape, align):
    x, cubic = rng.normal(size=shape), mode == "bicubic"
    for out in ((7, 9, 5)[: len(shape) - 2], (3, 2, 4)[: len(shape) - 2]):
        check(lambda x: F.interpolate(x, out, mode=mode, align_corners=align), [x],
              lambda x: resized(x, out, None, align, cubic))  # fmt: skip


@pytest.mark.parametrize("mode, shape", MODES)
def test_the_factor_given_sets_the_places(mode, shape):
    x, out = rng.normal(size=shape), tuple(int(n * 1.7) for n in shape[2:])
    for recompute, factor in ((None, 1.7), (True, None)):
        check(lambda x: F.interpolate(x, scale_factor=1.7, mode=mode,
                                      recompute_scale_factor=recompute), [x],
              lambda x: resized(x, out, factor, False, mode == "bicubic"), grad=False)  # fmt: skip


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("mode, half", [("nearest", 0), ("nearest-exact", 0.5)])
def test_nearest(mode, half, dims):
    x = rng.normal(size=(2, 3, *(4, 5, 6)[:dims]))
    out = (9, 3, 12)[:dims]

    def reference(x):
        for d in range(dims):
            n, m = x.shape[d + 2], out[d]
            x = x.take(((np.arange(m) + half) * n / m).astype(int), d + 2)
        return x

    check(lambda x: F.interpolate(x, out, mode=mode), [x], reference)


@pytest.mark.parametrize("mode", ["bilinear", "bicubic", "lanczos"])
def test_antialias_keeps_a_constant_and_its_gradient(mode):
    x = rng.normal(size=(1, 2, 9, 20))
    y = F.interpolate(gpunn.ones(1, 2, 9, 20), (4, 3), mode=mode, antialias=True)
    np.testing.assert_allclose(y.numpy(), 1, rtol=1e-6)
    check(lambda x: F.interpolate(x, (4, 3), mode=mode, antialias=True), [x],
          lambda x: F.interpolate(gpunn.from_numpy(x), (4, 3), mode=mode, antialias=True).numpy(),
          dtypes=("float64", "float32"))  # fmt: skip


def test_antialias_bilinear_is_a_triangle_over_all_entries():
    x = np.arange(6.0) ** 2
    weights = np.maximum(1 - abs(np.arange(6) + 0.5 - 3.0 * np.array([[0.5], [1.5]])) / 3.0, 0)
    wanted = (weights / weights.sum(1, keepdims=True)) @ x
    got = F.interpolate(gpunn.tensor(x).reshape(1, 1, 1, 6), (1, 2), mode="bilinear",
                        antialias=True)  # fmt: skip
    np.testing.assert_allclose(got.numpy().ravel(), wanted, rtol=1e-6)


def test_area_is_adaptive_pooling():
    x = gpunn.randn(1, 2, 6, 5)
    assert F.interpolate(x, scale_factor=0.5, mode="area").equal(F.adaptive_avg_pool2d(x, (3, 2)))


def test_the_table_of_the_documentation():
    x = gpunn.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
    y = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)(x)
    third = np.arange(4) / 3
    np.testing.assert_allclose(y.numpy()[0, 0], 1 + 2 * third[:, None] + third, rtol=1e-6)
    y = nn.Upsample(scale_factor=2, mode="bilinear")(x)[0, 0]
    assert y[0].tolist() == [1, 1.25, 1.75, 2] and y[1].tolist() == [1.5, 1.75, 2.25, 2.5]


def test_modules():
    x = gpunn.randn(1, 2, 3, 4)
    assert repr(nn.Upsample((2, 3))) == "Upsample(size=(2, 3), mode='nearest')"
    assert repr(nn.UpsamplingNearest2d(scale_factor=2)) == (
        "UpsamplingNearest2d(scale_factor=2.0, mode='nearest')"
    )
    assert nn.UpsamplingNearest2d(scale_factor=2)(x).equal(F.interpolate(x, scale_factor=2))
    wanted = F.interpolate(x, (5, 6), mode="bilinear", align_corners=True)
    assert nn.UpsamplingBilinear2d((5, 6))(x).equal(wanted)
    assert F.interpolate(x, 6).requires_grad is False
    assert F.interpolate(x.requires_grad_(), 6).grad_fn.name() == "UpsampleNearest2DBackward0"


@pytest.mark.parametrize("name", ["upsample", "upsample_nearest", "upsample_bilinear"])
def test_old_names_warn(name):
    with pytest.warns(UserWarning, match=f"`nn.functional.{name}` is deprecated"):
        y = getattr(F, name)(gpunn.ones(1, 1, 2, 2), scale_factor=2)
    assert y.shape == (1, 1, 4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        F.interpolate(gpunn.ones(1, 1, 2, 2), scale_factor=2, mode="bilinear")


X = gpunn.ones(1, 1, 4, 4)


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: F.interpolate(X), ValueError, "either size or scale_factor"),
        (lambda: F.interpolate(X, 2, 2), ValueError, "only one of size or scale_factor"),
        (lambda: F.interpolate(X, (2,)), ValueError, "same number of spatial dimensions"),
        (lambda: F.interpolate(X, scale_factor=(2,)), ValueError, "scale_factor of shape"),
        (lambda: F.interpolate(X, (2.5, 2)), TypeError, "expected size to be one of int"),
        (lambda: F.interpolate(X, scale_factor="a"), TypeError, "scale_factor must be float"),
        (lambda: F.interpolate(X, 2, align_corners=True), ValueError, "align_corners option"),
        (lambda: F.interpolate(X, 2, recompute_scale_factor=True), ValueError, "not meaningful"),
        (lambda: F.interpolate(X, 2, antialias=True), ValueError, "Anti-alias option"),
        (lambda: F.interpolate(X, 2, mode="lanczos"), ValueError, "requires antialias=True"),
        (lambda: F.interpolate(X, 2, mode="linear"), NotImplementedError, "needs 3D input"),
        (lambda: F.interpolate(X, 2, mode="cubic"), NotImplementedError, r"\(got cubic\)"),
        (lambda: F.interpolate(X[0, 0], 2), NotImplementedError, r"\(got 2D\)"),
        (lambda: F.interpolate(X, (0, 3)), RuntimeError, r"output \(H: 0, W: 3\)"),
        (lambda: F.interpolate(X, scale_factor=0.1), RuntimeError, "greater than 0"),
        (lambda: F.interpolate(X[:, :0], 2), RuntimeError, "Non-empty 4D data tensor"),
        (lambda: F.interpolate(X.int(), 2), NotImplementedError, "not implemented for 'Int'"),
        (lambda: F.interpolate([1], 2), TypeError, "must be Tensor, not list"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error, match=words):
        call()
