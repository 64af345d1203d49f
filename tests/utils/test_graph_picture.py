"""The picture itself: DOT text, files, and what happens where Graphviz is absent."""

import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

import gpunn
from gpunn import nn
from gpunn.utils import graph_picture
from gpunn.utils.graph_picture import Box, Edge, Picture, Vertex, shape_of

needs_dot = pytest.mark.skipif(
    shutil.which("dot") is None, reason="needs Graphviz's program dot: apt-get install graphviz"
)
AWKWARD = 'a<b>&"quoted"\\N\n' + "long" * 30


@pytest.fixture(autouse=True)
def package():
    pytest.importorskip("graphviz", reason="pictures need the extra 'notebooks'")


@pytest.fixture
def picture():
    outer = Box("outer", ["1 parameter"])
    inner = Box(AWKWARD, [AWKWARD], parent=outer)
    first = Vertex("input", AWKWARD, [AWKWARD])
    second = Vertex("module", "second", [], box=inner, order=1)
    third = Vertex("result", "third", [], order=2)
    edges = [Edge(first, second, AWKWARD), Edge(second, third)]
    return Picture([first, second, third], edges, ["a note", AWKWARD], lambda p: "the text")


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setattr(graph_picture.shutil, "which", lambda name: None)


def test_shape_of_a_tensor_and_of_an_array():
    x = gpunn.ones(2, 0, dtype=gpunn.bfloat16)
    assert shape_of(x) == shape_of(x.array) == "(2, 0) bfloat16"
    assert shape_of(gpunn.tensor(1)) == "() int64"


def test_dot_text_frames_what_is_inside_and_escapes_names(picture):
    lines = picture.dot.splitlines()
    assert [line.split(" [")[0].strip() for line in lines if re.match(r"\s*n\d+ ", line)] == [
        "n0", "n1", "n2", "n0 -> n1", "n1 -> n2",
    ]  # fmt: skip
    assert sum("subgraph cluster_" in line for line in lines) == 2
    assert "a&lt;b&gt;&amp;&quot;quoted&quot;" in picture.dot
    assert "long" * 20 not in picture.dot


@needs_dot
def test_dot_accepts_the_text(picture):
    done = subprocess.run(
        ["dot", "-Tplain"], input=picture.dot, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert sum(line.startswith("node ") for line in done.stdout.splitlines()) == 3


@needs_dot
def test_svg_is_xml_that_holds_the_labels(picture):
    root = ElementTree.fromstring(picture.svg)
    text = " ".join(root.itertext())
    assert root.tag.endswith("svg")
    for word in ("outer", "second", "third", 'a<b>&"quoted"', "a note"):
        assert word in text
    assert picture._repr_svg_() == picture.svg


@needs_dot
@pytest.mark.parametrize(
    ("suffix", "start"), [("svg", b"<?xml"), ("PNG", b"\x89PNG"), ("pdf", b"%PDF")]
)
def test_save_writes_what_the_suffix_says(picture, tmp_path, suffix, start):
    picture.save(tmp_path / f"graph.{suffix}")
    assert (tmp_path / f"graph.{suffix}").read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 1


def test_save_of_text_needs_no_program(picture, tmp_path, absent):
    for suffix, start in (("dot", "digraph {"), ("gv", "digraph {"), ("txt", "the text\na note")):
        path = tmp_path / f"graph.{suffix}"
        path.write_text("old")
        picture.save(str(path))
        assert path.read_text().startswith(start)


def test_save_that_fails_leaves_the_old_file(picture, tmp_path, absent):
    path = tmp_path / "graph.svg"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="Graphviz was not found.*apt-get install graphviz"):
        picture.save(path)
    assert path.read_text() == "old"
    with pytest.raises(ValueError, match=r"cannot save to .*graph.jpeg'.*\.svg, \.png"):
        picture.save(tmp_path / "graph.jpeg")
    with pytest.raises(RuntimeError, match="Parent directory .* does not exist"):
        picture.save(tmp_path / "nowhere" / "graph.dot")
    assert [p.name for p in tmp_path.iterdir()] == ["graph.svg"]


def test_without_the_program_the_text_says_what_to_install(picture, absent):
    assert str(picture).startswith("the text\na note")
    *_, last = str(picture).splitlines()
    assert "pip install graphviz" in last and "apt-get install graphviz" in last
    assert repr(picture) == str(picture)
    assert picture._repr_svg_() is None and picture._repr_html_() is None
    with pytest.raises(RuntimeError, match="Graphviz was not found"):
        picture.svg  # noqa: B018


def test_without_the_package_the_text_says_what_to_install(picture, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install graphviz" in str(picture)
    assert picture._repr_svg_() is None


@needs_dot
def test_with_the_program_the_text_is_only_the_graph(picture):
    assert "install" not in str(picture)


@needs_dot
def test_every_kind_of_vertex_is_drawn():
    kinds = [Vertex(kind, kind) for kind in graph_picture._STYLES]
    text = Picture(kinds, [], [], lambda p: "").svg
    assert all(f">{kind}<" in text for kind in graph_picture._STYLES)


@needs_dot
def test_a_notebook_is_given_svg():
    pytest.importorskip("IPython", reason="notebooks need the extra 'notebooks'")
    from IPython.core.formatters import DisplayFormatter

    drawn = gpunn.utils.draw_graph(nn.Linear(2, 1), gpunn.ones(1, 2))
    data, _ = DisplayFormatter().format(drawn)
    assert "<svg" in data["image/svg+xml"] and "Linear" in data["text/plain"]
    root = ElementTree.fromstring(data["text/html"])
    assert root.attrib["style"].startswith("overflow:auto") and root[0].tag.endswith("svg")
