"""The memory order of convolution weights."""

import gpunn
from gpunn import nn


def test_only_the_weights_of_these_convolutions_change(near_torch):
    def scenario(lib):
        model = lib.nn.Sequential(
            lib.nn.Conv2d(4, 3, 2), lib.nn.ModuleList([lib.nn.Conv2d(3, 2, 3)])
        )
        model.append(lib.nn.Conv3d(2, 2, 2))
        model.append(lib.nn.ConvTranspose2d(2, 3, 2))
        model.append(lib.nn.ConvTranspose3d(2, 3, 2))
        weight = model[0].weight
        lib.nn.utils.convert_conv2d_weight_memory_format(model, lib.channels_last)
        lib.nn.utils.convert_conv3d_weight_memory_format(model, lib.channels_last_3d)
        return (
            model[0].weight is weight, model.state_dict(),
            [p.stride() for p in model.parameters()],
            model[0](lib.ones(1, 4, 5, 5)),
        )  # fmt: skip

    near_torch(scenario)


def test_and_back():
    layer = nn.Conv2d(4, 3, 2)
    strides = layer.weight.stride()
    nn.utils.convert_conv2d_weight_memory_format(layer, gpunn.channels_last)
    assert layer.weight.stride() != strides
    nn.utils.convert_conv2d_weight_memory_format(layer, gpunn.contiguous_format)
    assert layer.weight.stride() == strides
