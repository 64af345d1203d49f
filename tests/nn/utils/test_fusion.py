"""Batch norm fused into the layer before it: same results, as in PyTorch."""

import pytest

import gpunn
from gpunn import nn


def trained(lib, bn, shape):
    """Batch norm with statistics and an affine map that are not trivial."""
    for _ in range(3):
        bn(lib.randn(*shape) * 2 + 1)
    if bn.affine:
        bn.weight.data.uniform_(0.5, 2)
        bn.bias.data.normal_()
    return bn.eval()


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_convolution(near_torch, dims, bias, affine, groups):
    def scenario(lib):
        conv = getattr(lib.nn, f"Conv{dims}d")(2, 4, 3, bias=bias, groups=groups).eval()
        bn = getattr(lib.nn, f"BatchNorm{dims}d")(4, affine=affine)
        trained(lib, bn, (5, 4, *[3] * dims))
        x = lib.randn(2, 2, *[5] * dims)
        fused = lib.nn.utils.fuse_conv_bn_eval(conv, bn)
        return bn(conv(x)), fused(x), fused.state_dict(), fused.bias.requires_grad, repr(fused)

    ours = near_torch(scenario)
    assert gpunn.allclose(ours[0], ours[1], atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("features", [4, 1])
def test_linear(near_torch, bias, features):
    def scenario(lib):
        linear = lib.nn.Linear(3, 4, bias=bias).eval()
        bn = trained(lib, lib.nn.BatchNorm1d(features), (5, features))
        fused = lib.nn.utils.fuse_linear_bn_eval(linear, bn)
        x = lib.randn(2, 3)
        expected = bn(linear(x)) if features == 4 else None
        return expected, fused(x), fused.weight, [] if features == 1 and not bias else fused.bias

    ours = near_torch(scenario)
    assert ours[0] is None or gpunn.allclose(ours[0], ours[1], atol=1e-5)


def test_the_original_is_untouched():
    conv, bn = nn.Conv2d(2, 3, 1).eval(), trained(gpunn, nn.BatchNorm2d(3), (4, 3, 2, 2))
    before = conv.weight.detach().clone()
    assert nn.utils.fuse_conv_bn_eval(conv, bn) is not conv
    assert gpunn.equal(conv.weight, before)


def test_transposed_weights(near_torch):
    def scenario(lib):
        w, b, mean = lib.randn(3, 4, 2, 2), lib.randn(4), lib.randn(4)
        var, scale, shift = lib.rand(4) + 0.5, lib.randn(4), lib.randn(4)
        return lib.nn.utils.fuse_conv_bn_weights(w, b, mean, var, 1e-5, scale, shift, True)

    near_torch(scenario)


def test_transposed_weights_in_groups():
    mean, var = gpunn.zeros(4), gpunn.ones(4)
    scale = gpunn.tensor([1.0, 2.0, 3.0, 4.0])
    w, _ = nn.utils.fuse_conv_bn_weights(
        gpunn.ones(6, 2, 1), None, mean, var, 0.0, scale, None, transpose=True
    )
    assert w.squeeze(-1).tolist() == [[1.0, 2.0]] * 3 + [[3.0, 4.0]] * 3


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_transposed_convolution(dims, groups):
    kind = getattr(nn, f"ConvTranspose{dims}d")
    conv = kind(4, 6, 3, groups=groups, stride=2).eval()
    bn = trained(gpunn, getattr(nn, f"BatchNorm{dims}d")(6), (5, 6, *[3] * dims))
    x = gpunn.randn(2, 4, *[4] * dims)
    for transpose in (True, False):  # it is known without being said, and groups are, too
        fused = nn.utils.fuse_conv_bn_eval(conv, bn, transpose)
        assert gpunn.allclose(fused(x), bn(conv(x)), atol=1e-4)


def test_transposed_convolution_as_pytorch_fuses_it(near_torch):
    def scenario(lib):
        conv = lib.nn.ConvTranspose2d(3, 4, 3).eval()
        bn = trained(lib, lib.nn.BatchNorm2d(4), (5, 4, 3, 3))
        return lib.nn.utils.fuse_conv_bn_eval(conv, bn, transpose=True).state_dict()

    near_torch(scenario)


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_dtypes_are_the_layers(near_torch, dtype):
    def scenario(lib):
        conv = lib.nn.Conv1d(2, 3, 3).to(getattr(lib, dtype)).eval()
        fused = lib.nn.utils.fuse_conv_bn_eval(conv, lib.nn.BatchNorm1d(3).eval())
        return str(fused.weight.dtype), str(fused.bias.dtype)

    near_torch(scenario)


def test_errors(near_torch, message):
    def scenario(lib):
        linear, bn = lib.nn.Linear(3, 4), lib.nn.BatchNorm1d(2).eval()
        bare = lib.nn.BatchNorm1d(4, track_running_stats=False).eval()
        fuse = lib.nn.utils.fuse_linear_bn_eval
        training = message(lib.nn.utils.fuse_conv_bn_eval, lib.nn.Conv1d(1, 2, 1), bn)
        linear.eval()
        return training[0], message(fuse, linear, bn), message(fuse, linear, bare)

    near_torch(scenario)
    with pytest.raises(AssertionError, match="Fusion only for eval!"):
        nn.utils.fuse_linear_bn_eval(nn.Linear(2, 2), nn.BatchNorm1d(2))
