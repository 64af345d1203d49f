"""Whole models: ResNet-18 and a U-Net, written once over the library, trained by both.

PyTorch's weights load into gpunn's model, which then gives the same outputs; trained from the same
seed, both have the same losses; on the emulated GPU a step changes the weights as on the CPU.
"""

import numpy as np
import pytest
from emulated import Function

import gpunn


def resnet18(T, classes=10, width=64):
    """The residual network of He et al. 2015 (arXiv:1512.03385): basic blocks, two a stage."""
    nn = T.nn

    class Block(nn.Module):
        def __init__(self, channels, out, stride=1):
            super().__init__()
            self.conv1 = nn.Conv2d(channels, out, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(out)
            self.relu = nn.ReLU(inplace=True)
            self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(out)
            self.downsample = None
            if stride != 1 or channels != out:
                self.downsample = nn.Sequential(
                    nn.Conv2d(channels, out, 1, stride=stride, bias=False), nn.BatchNorm2d(out)
                )

        def forward(self, x):
            identity = x if self.downsample is None else self.downsample(x)
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            out += identity
            return self.relu(out)

    class ResNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.relu = nn.ReLU(inplace=True)
            self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
            before = width
            for i in range(4):
                out, stride = width * 2**i, 1 if i == 0 else 2
                blocks = nn.Sequential(Block(before, out, stride), Block(out, out))
                setattr(self, f"layer{i + 1}", blocks)
                before = out
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.fc = nn.Linear(before, classes)
            for m in self.modules():
                if isinstance(m, nn.Conv2d):
                    nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")

        def forward(self, x):
            x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(T.flatten(self.avgpool(x), 1))

    return ResNet()


def unet(T, bilinear, classes=2, width=8):
    """The network of Ronneberger et al. 2015 (arXiv:1505.04597), two levels deep, padded."""
    nn, F = T.nn, T.nn.functional

    class DoubleConv(nn.Sequential):
        def __init__(self, channels, out):
            super().__init__(
                nn.Conv2d(channels, out, 3, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
                nn.Conv2d(out, out, 3, padding=1, bias=False),
                nn.BatchNorm2d(out),
                nn.ReLU(inplace=True),
            )

    class Up(nn.Module):
        def __init__(self, channels, out):
            super().__init__()
            if bilinear:
                self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            else:
                self.up = nn.ConvTranspose2d(channels, channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(channels + out if bilinear else channels, out)

        def forward(self, x, skip):
            x = self.up(x)
            dy, dx = skip.size(2) - x.size(2), skip.size(3) - x.size(3)
            x = F.pad(x, [dx // 2, dx - dx // 2, dy // 2, dy - dy // 2])
            return self.conv(T.cat([skip, x], dim=1))

    class UNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.inc = DoubleConv(3, width)
            self.down1 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(width, width * 2))
            self.down2 = nn.Sequential(nn.MaxPool2d(2), DoubleConv(width * 2, width * 4))
            self.up1 = Up(width * 4, width * 2)
            self.up2 = Up(width * 2, width)
            self.outc = nn.Conv2d(width, classes, 1)

        def forward(self, x):
            x1 = self.inc(x)
            x2 = self.down1(x1)
            x3 = self.down2(x2)
            return self.outc(self.up2(self.up1(x3, x2), x1))

    return UNet()


MODELS = {
    "resnet18": resnet18,
    "unet bilinear": lambda T, **sizes: unet(T, True, **sizes),
    "unet transposed": lambda T, **sizes: unet(T, False, **sizes),
}
each_model = pytest.mark.parametrize("name", MODELS)


def batch(name, n=4, size=32):
    """Images and labels, as NumPy arrays; the U-Net's images have an odd height."""
    rng = np.random.default_rng(0)
    height = size if name == "resnet18" else size * 7 // 8 + 1
    images = rng.normal(size=(n, 3, height, size)).astype(np.float32)
    return images, rng.integers(0, 2, n if name == "resnet18" else (n, height, size))


def train(T, model, images, labels, steps, lr):
    """The losses of SGD with momentum on one batch."""
    optimizer = T.optim.SGD(model.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = T.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def same_weights(name, torch, **sizes):
    """The model of PyTorch, and gpunn's with its weights."""
    theirs, ours = MODELS[name](torch, **sizes), MODELS[name](gpunn, **sizes)
    state = {k: gpunn.from_numpy(v.numpy()) for k, v in theirs.state_dict().items()}
    assert str(ours.load_state_dict(state)) == "<All keys matched successfully>"
    return theirs, ours


@each_model
def test_weights_of_pytorch_give_its_outputs(name):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs, ours = same_weights(name, torch)
    assert repr(ours) == repr(theirs)
    images, _ = batch(name)
    for mode in (True, False):  # training changes the running statistics that evaluation uses
        theirs.train(mode), ours.train(mode)
        with torch.no_grad(), gpunn.no_grad():
            wanted, got = theirs(torch.from_numpy(images)), ours(gpunn.from_numpy(images))
        np.testing.assert_allclose(got.numpy(), wanted.numpy(), rtol=1e-4, atol=1e-4)
    for key, value in theirs.state_dict().items():
        np.testing.assert_allclose(ours.state_dict()[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


@each_model
def test_training_in_float64_has_the_losses_and_weights_of_pytorch(name):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    images, labels = batch(name)
    models, losses = same_weights(name, torch, width=16), []
    for T, model in zip((torch, gpunn), models):
        inputs = T.from_numpy(images).double(), T.from_numpy(labels)
        losses.append(train(T, model.double(), *inputs, steps=5, lr=0.01))
    np.testing.assert_allclose(*losses, rtol=1e-8, atol=1e-8)
    theirs, ours = (model.state_dict() for model in models)
    for key in theirs:
        np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-7, atol=1e-7, err_msg=key)


#: Batch normalisation over few values magnifies rounding: the last stage of the small ResNet has
#: 4 places an image, its learning rate is low.
FROM_A_SEED = {
    "resnet18": ({"width": 16}, 64, 1e-3),
    "unet bilinear": ({}, 32, 0.1),
    "unet transposed": ({}, 32, 0.1),
}


@each_model
def test_training_from_a_seed_has_the_losses_of_pytorch(name):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    sizes, image, lr = FROM_A_SEED[name]
    images, labels = batch(name, size=image)
    losses = []
    for T in (torch, gpunn):
        T.manual_seed(0)
        model = MODELS[name](T, **sizes)
        losses.append(train(T, model, T.from_numpy(images), T.from_numpy(labels), 20, lr))
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-3)
    assert losses[1][-1] < 0.8 * losses[1][0]


@each_model
def test_a_step_on_the_gpu_is_one_on_the_cpu(name, emulated):
    images, labels = map(gpunn.from_numpy, batch(name, n=2, size=33))
    found = []
    for device in (gpunn.device("cpu"), emulated):
        gpunn.manual_seed(0)
        model = MODELS[name](gpunn, width=2).to(device)
        loss = train(gpunn, model, images.to(device), labels.to(device), steps=1, lr=0.01)
        found.append((loss, {k: v.cpu().numpy() for k, v in model.state_dict().items()}))
    assert {"conv_forward", "conv_weight_grad", "moments", "sgd_step"} <= set(Function.launches)
    (loss, state), (gpu_loss, gpu_state) = found
    np.testing.assert_allclose(gpu_loss, loss, rtol=1e-5)
    for key, value in state.items():
        np.testing.assert_allclose(gpu_state[key], value, rtol=1e-4, atol=1e-5, err_msg=key)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameters_are_as_many_as_published():
    """ResNet-18's 11,689,512 (for 1,000 classes); a separable convolution's 9 C + C O for 9 C O."""
    assert count(resnet18(gpunn, classes=1000)) == 11_689_512
    nn, c, o = gpunn.nn, 32, 64
    plain = nn.Conv2d(c, o, 3, padding=1, bias=False)
    separable = nn.Sequential(
        nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False), nn.Conv2d(c, o, 1, bias=False)
    )
    assert (count(plain), count(separable)) == (9 * c * o, 9 * c + c * o)
    x = gpunn.ones(1, c, 8, 8)
    assert separable(x).shape == plain(x).shape == (1, o, 8, 8)
