"""gpunn.summary: numbers, text, HTML, and that the model is left as it was."""

import html.parser
import subprocess
import sys

import emulated
import pytest

import gpunn
from gpunn import nn
from gpunn.model_summary import Layer, Summary


def lenet():
    """LeNet-5 of LeCun et al. 1998, with plain max pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10),
    )  # fmt: skip


def row(found, path) -> Layer:
    return next(layer for layer in found.layers if layer.path == path)


def test_lenet():
    found = gpunn.summary(lenet(), (1, 1, 28, 28))
    assert isinstance(found, Summary)
    assert found.total_parameters == found.trainable_parameters == 61_706
    assert found.multiply_adds == 117_600 + 240_000 + 48_000 + 10_080 + 840
    assert row(found, "0").output == "(1, 6, 28, 28)" and row(found, "0").parameters == 156
    assert row(found, "0").memory == 6 * 28 * 28 * 4 and row(found, "6").memory == 0  # a view
    assert found.parameter_bytes == 61_706 * 4 and found.input_bytes == 28 * 28 * 4


@pytest.mark.parametrize(
    ("channels", "out", "kernel"), [(64, 128, 3), (32, 64, 3), (128, 128, 5), (512, 1024, 3)]
)
def test_separable_against_plain_convolution(channels, out, kernel):
    """The ratio of MobileNet's paper, section 3.1: 1 / out + 1 / kernel**2."""
    size = (1, channels, 7, 7)
    plain = nn.Conv2d(channels, out, kernel, padding="same", bias=False)
    separable = nn.Sequential(
        nn.Conv2d(channels, channels, kernel, padding="same", groups=channels, bias=False),
        nn.Conv2d(channels, out, 1, bias=False),
    )
    one, two = gpunn.summary(plain, size), gpunn.summary(separable, size)
    assert one.total_parameters == channels * out * kernel**2
    assert two.total_parameters == channels * kernel**2 + channels * out
    for a, b in (
        (one.total_parameters, two.total_parameters),
        (one.multiply_adds, two.multiply_adds),
    ):
        assert b / a == pytest.approx(1 / out + 1 / kernel**2)
    assert one.multiply_adds == 49 * one.total_parameters


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.body = nn.Sequential(nn.Linear(16, 32), nn.ReLU())
        self.again = self.body[0]
        self.blocks = nn.ModuleList([nn.LayerNorm(32), nn.Linear(32, 32)])
        self.aux = nn.Linear(3, 3).requires_grad_(False)
        self.head = nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight
        self.scale = nn.Parameter(gpunn.ones(32))

    def forward(self, indices):
        x = self.embed(indices)
        x = self.body(x) + self.again(x)
        for block in self.blocks:
            x = block(x)
        x = x * self.scale
        return {"x": x, "y": (self.head(x[..., :16]), None)}


def test_shared_tied_uncalled_and_repeated_layers():
    model = Net()
    found = gpunn.summary(model, (2, 7), dtypes=gpunn.int64)
    assert found.total_parameters == sum(p.numel() for p in model.parameters())
    assert found.total_parameters - found.trainable_parameters == 12
    assert row(found, "").output == "{x: (2, 7, 32), y: [(2, 7, 50), NoneType]}"
    assert row(found, "body.0").notes == ["2 calls"]
    assert row(found, "body.0").multiply_adds == 2 * row(found, "body").multiply_adds
    again = row(found, "again")
    assert again.notes == ["same as body.0"] and again.counted_above == again.parameters == 544
    assert again.multiply_adds is None
    assert row(found, "aux").notes == ["not called"] and row(found, "aux").trainable == 0
    head = row(found, "head")
    assert head.counted_above == head.parameters == 800 and head.notes == []
    blocks = row(found, "blocks")
    assert blocks.notes == [] and blocks.multiply_adds == 14 * 32 + 14 * 32 * 32
    assert row(found, "embed").multiply_adds == 0
    assert found.multiply_adds == 2 * 14 * 16 * 32 + blocks.multiply_adds + 14 * 16 * 50
    assert "missing for: the model itself" in str(found)
    assert "(800)" in str(found) and "(544)" in str(found)


def test_partly_tied_layers():
    layer, other = nn.Linear(3, 3), nn.Linear(3, 3)
    other.weight = layer.weight
    found = gpunn.summary(nn.Sequential(layer, other), (1, 3))
    assert row(found, "1").notes == ["9 counted above"] and found.total_parameters == 15


def test_depth():
    model = nn.Sequential(nn.Sequential(nn.Sequential(nn.Sequential(nn.Linear(2, 2)))))
    assert len(str(gpunn.summary(model, (1, 2), depth=0)).splitlines()) == 7
    deep = gpunn.summary(model, (1, 2), depth=9)
    assert len(str(deep).splitlines()) == 11 and len(deep.layers) == 5
    assert "Linear" not in str(gpunn.summary(model, (1, 2)))
    assert row(deep, "0").parameters == 6  # a row contains what is inside it


def test_text():
    model = nn.Sequential(nn.Linear(3, 1000), nn.ReLU())
    assert str(gpunn.summary(model, (2, 3))).splitlines() == [
        "Layer       Class       Output     Parameters  Trainable  Multiply-adds    Memory",
        "---------------------------------------------------------------------------------",
        "Sequential  Sequential  (2, 1000)       4,000      4,000          6,000  15.6 KiB",
        "  0         Linear      (2, 1000)       4,000      4,000          6,000   7.8 KiB",
        "  1         ReLU        (2, 1000)           0          0              0   7.8 KiB",
        "---------------------------------------------------------------------------------",
        "Parameters: 4,000 (4,000 trainable, 0 not), 15.6 KiB with buffers",
        "Multiply-adds: 6,000",
        "Memory: inputs 24 B, outputs of layers 15.6 KiB",
    ]
    assert repr(gpunn.summary(model, (2, 3))) == str(gpunn.summary(model, (2, 3)))


def test_inputs_are_shown_on_demand():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    found = gpunn.summary(model, (2, 3), show_inputs=True)
    assert "  1         Linear      (2, 4)  (2, 2)" in str(found)
    assert ">Input</th>" in found._repr_html_() and "(2, 3)" in found._repr_html_()
    assert "Input" not in str(gpunn.summary(model, (2, 3)))


def test_a_long_output_is_cut():
    class Many(nn.Module):
        def forward(self, x):
            return [x] * 20

    lines = str(gpunn.summary(Many(), (1, 3))).splitlines()
    assert lines[2].count("(1, 3)") < 6 and "..." in lines[2]


class _Checker(html.parser.HTMLParser):
    """Collects the text, and asserts that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.rows, self.styles = [], [], 0, []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.rows += tag == "tr"
        self.styles += [value for _, value in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_escaped_closed_and_without_colours_of_its_own():
    class Odd(nn.Module):
        def forward(self, x):
            return {"<b>&": x}

    model = nn.Sequential(nn.Linear(3, 3), Odd())
    page = gpunn.summary(model, (1, 3))._repr_html_()
    checker = _Checker()
    checker.feed(page)
    assert checker.open == [] and checker.rows == 4
    assert "{<b>&: (1, 3)}" in checker.text and "<b>" not in page
    assert not any("color" in style or "background" in style for style in checker.styles)
    assert "padding:0.2em 0.6em 0.2em 1.8em" in page and "text-align:right" in page
    assert "Multiply-adds: 9" in checker.text


def test_without_inputs_nothing_runs():
    class Never(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            raise AssertionError

    found = gpunn.summary(Never())
    assert found.multiply_adds is None and found.total_parameters == 6
    assert "Output" not in str(found) and "not called" not in str(found)
    assert "Output" not in found._repr_html_()


def test_inputs():
    bilinear = nn.Bilinear(3, 4, 5)
    assert gpunn.summary(bilinear, [(2, 3), (2, 4)]).multiply_adds == 2 * 3 * 4 * 5
    data = gpunn.ones(2, 3), gpunn.ones(2, 4)
    assert row(gpunn.summary(bilinear, input_data=data), "").output == "(2, 5)"
    named = dict(zip(("input1", "input2"), data, strict=True))
    assert row(gpunn.summary(bilinear, input_data=named), "").output == "(2, 5)"
    one = gpunn.summary(nn.Linear(3, 2), input_data=gpunn.ones(7, 3))
    assert row(one, "").output == "(7, 2)"
    double = gpunn.summary(nn.Linear(3, 2).double(), (1, 3))
    assert double.input_bytes == 24 and double.activation_bytes == 16
    assert gpunn.summary(nn.Flatten(), (2, 3), dtypes=[gpunn.int16]).input_bytes == 12
    there = gpunn.summary(nn.Linear(3, 2, device="cpu:1"), (1, 3))
    assert there.multiply_adds == 6
    assert gpunn.summary(nn.Identity(), (1, 3), device="cpu:1").input_bytes == 12


def test_lazy_layers_get_their_shapes():
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyLinear(2))
    before = gpunn.summary(model)
    assert row(before, "0").notes == ["lazy"] and "no shapes before a forward: 0, 1" in str(before)
    found = gpunn.summary(model, (4, 5))
    assert found.total_parameters == 26 and "got their shapes in this forward: 0, 1" in str(found)
    assert type(model[0]) is nn.Linear and model[0].weight.shape == (3, 5)
    assert model.training and model[0].training and not model[0]._forward_hooks


def test_parametrized_layers():
    model = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
    found = gpunn.summary(model, (4, 3))
    assert found.multiply_adds == 24 and row(found, "").parameters == 10
    assert row(found, "").kind == "ParametrizedLinear" and row(found, "").notes == []


def test_errors():
    layer = nn.Linear(3, 2)
    with pytest.raises(TypeError, match="expected a Module, got int"):
        gpunn.summary(3)
    with pytest.raises(ValueError, match="input_size or input_data, not both"):
        gpunn.summary(layer, (1, 3), gpunn.ones(1, 3))
    with pytest.raises(TypeError, match="input_size is a shape with the batch"):
        gpunn.summary(layer, "1x3")
    with pytest.raises(TypeError, match="input_size is a shape with the batch"):
        gpunn.summary(layer, [(1, 3), 4])
    with pytest.raises(ValueError, match="has a negative size"):
        gpunn.summary(layer, (-1, 3))
    with pytest.raises(ValueError, match="depth must not be negative, got -1"):
        gpunn.summary(layer, depth=-1)
    with pytest.raises(ValueError, match="2 dtypes for 1 inputs"):
        gpunn.summary(layer, (1, 3), dtypes=[gpunn.int64, gpunn.int64])
    with pytest.raises(RuntimeError, match=r"Sequential on \(1, 4\) raised RuntimeError, in layer"):
        gpunn.summary(nn.Sequential(layer), (1, 4))
    with pytest.raises(RuntimeError, match=r"indices need dtypes=\[gpunn.int64\]"):
        gpunn.summary(nn.Embedding(3, 2), (1, 4))


def test_importing_it_is_left_until_it_is_used():
    script = (
        "import sys, gpunn\n"
        "assert 'gpunn.model_summary' not in sys.modules\n"
        "import gpunn.model_summary\n"
        "print(callable(gpunn.summary), gpunn.summary is gpunn.model_summary.summary)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_on_an_emulated_gpu():
    with emulated.device():
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten()).cuda()
        found = gpunn.summary(model, (2, 3, 6, 6))
        assert found.multiply_adds == 2 * 16 * 4 * 27 + 2 * 16 * 4
        assert row(found, "2").memory == 0 and model[1].running_mean.is_cuda
