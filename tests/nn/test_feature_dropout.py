"""Dropout of channels and alpha dropout: PyTorch's masks, statistics, errors and warnings."""

import numpy as np
import pytest
from both import refused, same

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

SHAPES = {
    "dropout1d": [(3, 4, 2), (4, 3)],
    "dropout2d": [(3, 4, 2, 2)],
    "dropout3d": [(3, 4, 2, 1, 2), (4, 2, 1, 2)],
    "alpha_dropout": [(20,), (3, 4)],
    "feature_alpha_dropout": [(3, 4, 2), (5, 3)],
}
CASES = [(name, shape) for name, shapes in SHAPES.items() for shape in shapes]


@pytest.mark.parametrize("name, shape", CASES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients_are_pytorchs_for_the_same_seed(name, shape, dtype):
    def program(T):
        T.manual_seed(4)
        x = T.linspace(-1, 2, int(np.prod(shape))).reshape(shape).to(getattr(T, dtype))
        x.requires_grad_()
        y = getattr(T.nn.functional, name)(x, 0.4, training=True)
        (y * x.detach()).sum().backward()
        return y, x.grad, T.rand(2)

    same(program)


@pytest.mark.parametrize("name, shape", CASES)
def test_16_bits_are_rounded_once_and_have_the_same_mask(name, shape):
    x = gpunn.linspace(-1, 2, int(np.prod(shape))).reshape(shape).bfloat16()
    found = []
    for z in (x, x.float()):
        gpunn.manual_seed(4)
        found.append(getattr(F, name)(z, 0.4, training=True).bfloat16())
    assert gpunn.equal(*found)


@pytest.mark.parametrize("name, shape", CASES)
def test_in_place_and_at_the_ends(name, shape):
    f = getattr(F, name)
    x = gpunn.ones(shape)
    assert f(x, 0.5, training=False) is x and f(x, 0.0, training=True) is x
    assert not f(x, 1.0, training=True).any()
    gpunn.manual_seed(0)
    wanted = f(x, 0.5, training=True)
    gpunn.manual_seed(0)
    assert f(x, 0.5, True, True) is x and gpunn.equal(x, wanted)


def test_whole_channels_are_dropped():
    gpunn.manual_seed(0)
    y = F.dropout2d(gpunn.ones(50, 40, 3, 3), 0.3)
    assert gpunn.equal(y, y[:, :, :1, :1].expand(50, 40, 3, 3))
    assert abs((y[:, :, 0, 0] == 0).float().mean().item() - 0.3) < 0.05


def test_alpha_dropout_keeps_mean_and_variance():
    gpunn.manual_seed(0)
    y = F.alpha_dropout(gpunn.randn(200_000), 0.3, training=True)
    assert abs(y.mean().item()) < 0.02 and abs(y.std().item() - 1) < 0.02


def test_what_is_refused():
    refused(lambda T: T.nn.functional.dropout1d(T.ones(2)), "Expected 2D or 3D input, but rec")
    refused(lambda T: T.nn.functional.dropout2d(T.ones(1, 2, 3, 3), 1.5), "between 0 and 1, but")
    refused(lambda T: T.nn.functional.alpha_dropout(T.ones(2), -0.5, True), "between 0 and 1")
    refused(lambda T: T.nn.functional.feature_alpha_dropout(T.ones(2), 0.5, True),
            "Feature dropout requires at least 2 dimensions in the input")  # fmt: skip
    refused(lambda T: T.nn.functional.alpha_dropout(T.ones(2).long(), 0.5, True),
            "result type Float can't be cast to the desired output type Long")  # fmt: skip
    for name in ("Dropout1d", "AlphaDropout", "FeatureAlphaDropout"):
        refused(lambda T, name=name: getattr(T.nn, name)(1.5), "between 0 and 1, but got 1.5")


@pytest.mark.parametrize("name, shape, words", [
    ("dropout2d", (2, 3), "Received a 2-D input to dropout2d, which is deprecated"),
    ("dropout2d", (2, 3, 4), "assuming that channel-wise 1D dropout behavior is desired"),
    ("dropout3d", (2, 3, 4), r"3 spatial dimensions, .* \(i.e. 4D or 5D inputs\)"),
])  # fmt: skip
def test_inputs_of_another_number_of_dimensions_warn(name, shape, words):
    with pytest.warns(UserWarning, match=words):
        getattr(F, name)(gpunn.ones(shape))
    def program(T):
        T.manual_seed(1)
        with pytest.warns(UserWarning, match=words):
            return getattr(T.nn.functional, name)(T.ones(shape))

    same(program)


def test_modules():
    same(lambda T: [repr(getattr(T.nn, name)(0.2, True)) for name in (
        "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")])
    x = gpunn.ones(4, 6, 2)
    for m in (nn.Dropout1d(), nn.AlphaDropout(), nn.FeatureAlphaDropout(0.5, inplace=True)):
        gpunn.manual_seed(0)
        assert m(x) is not x and not gpunn.equal(m(x), x) and m.eval()(x) is x
    y = gpunn.ones(4, 6, 2)
    assert nn.Dropout1d(0.5, inplace=True)(y) is y and (y == 0).any()


def test_second_order():
    x = gpunn.linspace(-1, 1, 6).reshape(2, 3).double().requires_grad_()
    gpunn.manual_seed(0)
    (g,) = gpunn.autograd.grad((F.alpha_dropout(x, 0.5, True) ** 2).sum(), x, create_graph=True)
    (h,) = gpunn.autograd.grad(g.sum(), x)
    gpunn.manual_seed(0)
    slope = F.alpha_dropout(x + 1, 0.5, True)
    gpunn.manual_seed(0)
    slope = slope - F.alpha_dropout(x, 0.5, True)
    assert gpunn.allclose(h, 2 * slope.detach() ** 2)


@pytest.mark.parametrize("name, shape", CASES)
def test_on_a_gpu(emulated, name, shape):
    x = gpunn.linspace(1, 2, int(np.prod(shape)), device="cuda").reshape(shape).requires_grad_()
    f = getattr(F, name)
    gpunn.manual_seed(0)
    y = f(x, 0.5, training=True)
    (slope,) = gpunn.autograd.grad(y.sum(), x)
    gpunn.manual_seed(0)
    assert gpunn.allclose(f(x + 1, 0.5, training=True) - y, slope)
    assert slope.unique().numel() == 2 and (slope == 0).any()
