"""Tensors and modules as notebooks show them."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

import gpunn
from gpunn import nn

SHAPES = [(), (1,), (3,), (17,), (100000,), (0,), (0, 3), (2, 3), (300, 200), (1, 50), (4, 1, 2),
          (7, 2, 2), (2, 3, 4, 5), (30, 40, 50, 3), (1, 1, 1, 1, 1)]  # fmt: skip
DTYPES = [gpunn.float32, gpunn.float64, gpunn.float16, gpunn.bfloat16, gpunn.int64, gpunn.uint8,
          gpunn.bool, gpunn.complex64]  # fmt: skip


def parsed(html):
    """The HTML as a tree: it is well formed, but for entities that XML does not know."""
    text = html.replace("&middot;", "·").replace("&hellip;", "…")
    return ElementTree.fromstring(re.sub(r"<details open>", "<details>", text))


def text_of(html):
    return " ".join(" ".join(parsed(html).itertext()).split())


def cells(html):
    return ["".join(cell.itertext()) for cell in parsed(html).iter("td")]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_shape_and_dtype_is_shown_in_little(shape, dtype):
    html = gpunn.ones(shape, dtype=dtype)._repr_html_()
    assert html is not None and len(html) < 50_000
    text = text_of(html)
    assert str(shape) in text and str(dtype).split(".")[1] in text and "cpu" in text


def test_the_longest_numbers_fit():
    x = gpunn.full((9, 99, 99), -1.2345678e-300 - 9.87654321e300j, dtype=gpunn.complex128)
    assert len(x._repr_html_()) < 50_000
    assert len(gpunn.full((9, 99, 99), -(2**63))._repr_html_()) < 50_000


def test_values_are_those_of_the_text():
    x = gpunn.tensor([[1.5, -2.25], [0.0, 1e-3]])
    assert cells(x._repr_html_()) == re.findall(r"-?\d+\.\d+(?:e[+-]\d+)?", repr(x))
    assert cells(gpunn.tensor([3, -4])._repr_html_()) == ["3", "-4"]
    assert cells(gpunn.tensor([True, False])._repr_html_()) == ["True", "False"]
    assert text_of(gpunn.tensor(2.5)._repr_html_()).endswith("2.5000")
    gpunn.set_printoptions(precision=2)
    try:
        assert cells(gpunn.tensor([0.12345])._repr_html_()) == ["0.12"]
    finally:
        gpunn.set_printoptions(profile="default")


def test_what_is_left_out_is_marked_and_indices_are_right():
    x = gpunn.arange(40 * 50).reshape(40, 50)
    html = x._repr_html_()
    rows = [["".join(c.itertext()) for c in row] for row in parsed(html).iter("tr")]
    assert rows[0][1:] == [*map(str, range(8)), "…", *map(str, range(42, 50))]
    assert [row[0] for row in rows[1:]] == [*map(str, range(8)), "…", *map(str, range(32, 40))]
    assert rows[-1][1:3] == [str(39 * 50), str(39 * 50 + 1)]
    assert rows[-1][-1] == str(40 * 50 - 1)


def test_matrices_of_higher_dimensions_have_their_indices():
    x = gpunn.arange(9 * 2 * 4).reshape(9, 2, 2, 2)
    text = text_of(x._repr_html_())
    assert re.findall(r"\[\d, \d\]", text) == [
        "[0, 0]", "[0, 1]", "[1, 0]", "[7, 1]", "[8, 0]", "[8, 1]",
    ]  # fmt: skip
    found = cells(x._repr_html_())
    assert found == [str(i) for i in [*range(12), *range(60, 72)]]


def test_strides_and_views():
    x = gpunn.arange(24).reshape(2, 3, 4)
    for view in (x.transpose(0, 2), x[:, ::2, 1:], x.t() if x.ndim == 2 else x[0].t()):
        assert cells(view._repr_html_()) == [str(v) for v in view.array.ravel().tolist()]


def test_history_and_kind():
    w = gpunn.ones(2, requires_grad=True)
    assert "requires_grad=True" in text_of(w._repr_html_())
    assert "grad_fn=&lt;ExpBackward0&gt;" in w.exp()._repr_html_()
    assert text_of(nn.Parameter(gpunn.ones(1))._repr_html_()).startswith("Parameter (1,)")


def test_colours_lie_over_any_page():
    html = gpunn.tensor([[1.0, -1.0, 0.0]])._repr_html_() + (nn.Linear(2, 2)._repr_html_() or "")
    assert set(re.findall(r"background:(\w+)", html)) == {"rgba"}
    assert "rgba(50,120,255,0.50)" in html and "rgba(255,130,20,0.50)" in html
    assert not re.search(r"[^-]color:(?!#e5484d)", html)


def test_values_that_are_not_finite_are_red_and_do_not_shade_others():
    html = gpunn.tensor([1.0, float("nan"), float("-inf"), -2.0])._repr_html_()
    assert cells(html) == ["1.", "nan", "-inf", "-2."]
    assert html.count("#e5484d") == 2
    assert "rgba(50,120,255,0.25)" in html and "rgba(255,130,20,0.50)" in html


def test_only_what_is_shown_leaves_the_device(emulated):
    x = gpunn.arange(500 * 400, device="cuda").reshape(500, 400)
    html = x._repr_html_()
    assert "cuda:0" in text_of(html)
    assert cells(html)[0] == "0" and cells(html)[-1] == "199999"


def test_subclasses_with_a_repr_and_sparse_tensors_keep_their_text():
    class Mine(gpunn.Tensor):
        def __repr__(self):
            return "mine"

    assert Mine(2)._repr_html_() is None
    places = gpunn.tensor([[0, 1]])
    assert gpunn.sparse_coo_tensor(places, gpunn.ones(2), (3,))._repr_html_() is None
    assert nn.UninitializedParameter()._repr_html_() is None


def test_showing_never_raises():
    broken = gpunn.ones(2, 2)
    broken.array = object()
    assert broken._repr_html_() is None

    class Broken(nn.Module):
        def extra_repr(self):
            raise ValueError("no")

    assert Broken()._repr_html_() is None


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)
        self.act = nn.ReLU()
        self.register_buffer("steps", gpunn.zeros(3, dtype=gpunn.int64))

    def extra_repr(self):
        return "<b>&\nmore"


def test_module_is_a_tree_to_fold():
    model = nn.Sequential(Block(2), nn.Linear(2, 1)).eval()
    html = model._repr_html_()
    text = text_of(html)
    assert html.count("<details") == 4 and html.count("<details open>") == 2
    assert "Sequential 9 parameters · float32 · cpu · eval" in text
    assert "0: Block (<b>& more) 6 parameters" in text.replace("Block(", "Block (")
    assert "weight (2, 2) · float32 · cpu · trained" in text
    assert "steps (3,) · int64 · cpu · buffer" in text
    assert "in_features=2, out_features=1" in text


def test_frozen_parameters_are_said():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    model[0].requires_grad_(False)
    model[1].bias.requires_grad_(False)
    text = text_of(model._repr_html_())
    assert "15 parameters · 9 of them frozen" in text
    assert "6 parameters · frozen" in text
    assert "bias (3,) · float32 · cpu · frozen" in text
    assert "float64" in text_of(nn.Linear(2, 2).double()._repr_html_())


def test_equal_layers_in_a_row_are_shown_once():
    model = nn.Sequential(*(Block(2) for _ in range(12)))
    text = text_of(model._repr_html_())
    assert "0-11: 12 × Block" in text and text.count("Block") == 1
    model[5].requires_grad_(False)
    assert "6-11: 6 × Block" in text_of(model._repr_html_())


def test_shared_and_lazy_modules():
    layer = nn.Linear(2, 2)
    text = text_of(nn.Sequential(layer, nn.ReLU(), layer)._repr_html_())
    assert "2: Linear same as 0" in text
    assert "shape not known yet" in text_of(nn.Sequential(nn.LazyLinear(3))._repr_html_())


def test_large_models_are_cut_and_closed():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(i + 1, 1), nn.ReLU()) for i in range(200)))
    html = model._repr_html_()
    assert len(html) < 50_000
    assert "502 more modules" in text_of(html).replace(",", "") or "more modules" in text_of(html)
    assert html.count("<details open>") == 1
    shown = text_of(html).count("Linear") + text_of(html).count("ReLU")
    skipped = int(re.search(r"(\d+) more modules", text_of(html)).group(1))
    assert shown + text_of(html).count("Sequential") + skipped == 601


def test_modules_with_a_repr_of_their_own_keep_it():
    class Mine(nn.Module):
        def __repr__(self):
            return "mine"

    assert Mine()._repr_html_() is None
    assert nn.ModuleList([nn.ReLU()])._repr_html_() is not None
    assert nn.ParameterList([gpunn.ones(1)])._repr_html_() is not None


def test_notebooks_are_given_html_beside_the_text():
    pytest.importorskip("IPython", reason="notebooks need the extra 'notebooks'")
    from IPython.core.formatters import DisplayFormatter

    x = gpunn.ones(2)
    data, _ = DisplayFormatter().format(x)
    assert data["text/plain"] == repr(x) and data["text/html"] == x._repr_html_()


def test_showing_changes_nothing():
    x = gpunn.randn(20, 20, requires_grad=True)
    before = x.array.copy()
    x._repr_html_()
    assert np.array_equal(x.array, before) and x._version == 0
