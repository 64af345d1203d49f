"""The modules of convolution: weights, padding modes, repr, lazy ones, counts of parameters."""

import numpy as np
import pytest

import gpunn
import gpunn.nn.functional as F
from gpunn import nn

MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@pytest.mark.parametrize("mode", MODES)
def test_padding_modes_show_the_edges(mode):
    layer = nn.Conv2d(1, 1, 3, padding=1, padding_mode=mode, bias=False)
    with gpunn.no_grad():
        layer.weight.fill_(0)
        layer.weight[0, 0, 0, 0] = 1  # the upper left neighbour
    x = gpunn.arange(9.0).reshape(1, 1, 3, 3)
    wanted = np.pad(x.numpy()[0, 0], 1, mode=MODES[mode])[:3, :3]
    np.testing.assert_array_equal(layer(x).detach().numpy()[0, 0], wanted)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("padding", ["same", "valid", 1])
def test_padding_modes_in_every_dimension(mode, dims, padding):
    layer = getattr(nn, f"Conv{dims}d")(2, 3, 2, padding=padding, dilation=3, padding_mode=mode)
    x = gpunn.randn(2, 2, *(6,) * dims)
    before, after = {"same": (1, 2), "valid": (0, 0), 1: (1, 1)}[padding]
    wide = np.pad(x.numpy(), [(0, 0)] * 2 + [(before, after)] * dims, mode=MODES[mode])
    function = getattr(F, f"conv{dims}d")
    wanted = function(gpunn.from_numpy(wide), layer.weight, layer.bias, dilation=3)
    np.testing.assert_allclose(
        layer(x).detach().numpy(), wanted.detach().numpy(), rtol=1e-5, atol=1e-6
    )
    assert layer(x[0]).shape == wanted.shape[1:]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradients_of_padding_modes(mode, dims):
    options = {"padding": 1, "padding_mode": mode, "dtype": gpunn.float64}
    layer = getattr(nn, f"Conv{dims}d")(1, 1, 2, **options)
    x = gpunn.randn(1, 1, *(3,) * dims, dtype=gpunn.float64, requires_grad=True)
    assert gpunn.autograd.gradcheck(layer, (x,))

    def of_both(x, weight):
        return gpunn.func.functional_call(layer, {"weight": weight}, (x,))

    assert gpunn.autograd.gradgradcheck(of_both, (x, layer.weight))


def test_a_subclass_may_change_the_weight():
    class Centred(nn.Conv2d):
        def forward(self, input):
            weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
            return self._conv_forward(input, weight, self.bias)

    layer = Centred(2, 3, 3, padding="same", padding_mode="circular", bias=False)
    assert layer(gpunn.ones(1, 2, 5, 5)).abs().max() < 1e-5
    assert isinstance(layer, nn.modules.conv._ConvNd)


def test_weights_and_state():
    gpunn.manual_seed(0)
    layer = nn.Conv2d(4, 6, (3, 2), groups=2)
    assert layer.weight.shape == (6, 2, 3, 2) and list(layer.state_dict()) == ["weight", "bias"]
    bound = 1 / np.sqrt(2 * 3 * 2)
    assert bound / 2 < layer.weight.abs().max() <= bound and layer.bias.abs().max() <= bound


def _count(*layers):
    return sum(p.numel() for layer in layers for p in layer.parameters())


@pytest.mark.parametrize("channels, out, kernel", [(3, 16, 3), (32, 64, 3), (16, 16, 5)])
def test_parameters_of_separable_and_plain_convolution(channels, out, kernel):
    """MobileNet's count: k k C + C O against k k C O, a share of 1/O + 1/k^2."""
    plain = nn.Conv2d(channels, out, kernel, padding="same", bias=False)
    depth = nn.Conv2d(channels, channels, kernel, padding="same", groups=channels, bias=False)
    point = nn.Conv2d(channels, out, 1, bias=False)
    assert _count(plain) == kernel**2 * channels * out
    assert _count(depth, point) == kernel**2 * channels + channels * out
    assert _count(depth, point) / _count(plain) == pytest.approx(1 / out + 1 / kernel**2)
    x = gpunn.zeros(1, channels, 6, 6)
    assert point(depth(x)).shape == plain(x).shape
    up = nn.ConvTranspose2d(channels, out, kernel)
    assert _count(up) == kernel**2 * channels * out + out


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "in_channels must be divisible by groups"),
        (lambda: nn.Conv2d(4, 3, 3, groups=2), "out_channels must be divisible by groups"),
        (lambda: nn.Conv2d(4, 3, 3, groups=0), "groups must be a positive integer"),
        (lambda: nn.Conv2d(4, 4, 3, padding_mode="zero"), "padding_mode must be one of"),
        (lambda: nn.Conv2d(4, 4, 3, padding="some"), "Invalid padding string 'some'"),
        (lambda: nn.Conv2d(4, 4, 3, 2, padding="same"), "not supported for strided convolutions"),
        (lambda: nn.LazyConv1d(4, 3, groups=2)(gpunn.zeros(1, 3, 5)),
         "in_channels must be divisible by groups"),
    ],
)  # fmt: skip
def test_errors_of_modules(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_lazy_takes_the_channels_of_the_first_input():
    layer = nn.LazyConv2d(4, 3, groups=2)
    assert layer(gpunn.zeros(1, 6, 5, 5)).shape == (1, 4, 3, 3)
    assert layer.weight.shape == (4, 3, 3, 3) and type(layer) is nn.Conv2d


def test_repr_names_only_what_is_not_the_default():
    layer = nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2, bias=False, padding_mode="circular")
    assert repr(layer) == (
        "Conv2d(4, 8, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1), groups=2, bias=False, "
        "padding_mode=circular)"
    )
