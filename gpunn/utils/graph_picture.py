"""A graph as a picture: text anywhere; SVG, PNG and PDF where Graphviz is installed."""

from __future__ import annotations

import dataclasses
import functools
import os
import shutil
from collections.abc import Callable
from html import escape
from typing import Any

__all__ = ["Box", "Edge", "Picture", "Vertex", "shape_of"]

_FORMATS = ("svg", "png", "pdf")
_LONGEST = 48  # characters of a line in a label
_INSTALL = (
    "For a picture instead of text, install Graphviz: "
    "`pip install graphviz`, and its program `dot` with "
    "`apt-get install graphviz`, `conda install -c conda-forge graphviz` or "
    "`brew install graphviz`."
)
# The background stays white: a notebook shows an SVG as an image, which knows no theme.
_HEAD = (
    'graph [rankdir=TB bgcolor=white fontname="Helvetica" fontsize=11 nodesep=0.25 ranksep=0.35'
    ' pad=0.15]\n  node [shape=box style="filled,rounded" fontname="Helvetica" fontsize=11'
    ' color="#8a8a8a" fontcolor="#1a1a1a" margin="0.13,0.06" height=0.3]\n'
    '  edge [color="#6b6b6b" fontname="Helvetica" fontsize=9 fontcolor="#444444" arrowsize=0.6]'
)
_BOX_STYLE = 'style="filled,rounded" color="#b5b5b5" fillcolor="#00000008" labeljust=l labelloc=t'
_STYLES = {
    "operation": 'fillcolor="#f1f1f1"',
    "module": 'fillcolor="#fdf0d5"',
    "parameter": 'fillcolor="#dbe9fb" style=filled',
    "frozen": 'fillcolor="#eceff3" style="filled,dashed"',
    "input": 'fillcolor="#e6def6" style=filled',
    "result": 'fillcolor="#d7efd9" style=filled',
    "tensor": 'fillcolor="#ffffff" style="filled,dashed"',
    "cut": 'fillcolor="#ffffff" style="filled,dotted"',
}


@dataclasses.dataclass(eq=False)
class Box:
    """What frames vertices: the call of a module in which others were called."""

    title: str
    lines: list[str]
    shapes: str = ""
    order: float = 0
    parent: Box | None = None


@dataclasses.dataclass(eq=False)
class Vertex:
    """A box with text. `order` says when it was run; `shapes` of a module, "(2,) → (2,)", stand
    in the text, and in the picture at the edges."""

    kind: str  # a key of _STYLES
    title: str
    lines: list[str] = dataclasses.field(default_factory=list)
    shapes: str = ""
    order: float = 0
    box: Box | None = None


@dataclasses.dataclass(eq=False)
class Edge:
    """What goes from `source` into `target`."""

    source: Vertex
    target: Vertex
    label: str = ""


def shape_of(tensor: Any) -> str:
    """The shape and dtype of a tensor or array: "(2, 3) float32".

    >>> from gpunn.utils.graph_picture import shape_of
    >>> shape_of(gpunn.ones(2, 3))
    '(2, 3) float32'
    """
    return f"{tuple(tensor.shape)} {str(tensor.dtype).rpartition('.')[2]}"


class Picture:
    """A drawn graph, as `gpunn.utils.draw_graph` returns it.

    `str()` is its text. `dot` is its description in Graphviz's language, `svg` the picture,
    which a notebook shows; `save` writes a file. `vertices` and `edges` are what is drawn, and
    `notes` say what was left out.

    >>> picture = gpunn.utils.draw_graph(nn.Linear(3, 2), gpunn.ones(1, 3))
    >>> [vertex.title for vertex in picture.vertices]
    ['input', 'Linear', 'output']
    """

    def __init__(
        self,
        vertices: list[Vertex],
        edges: list[Edge],
        notes: list[str],
        text: Callable[[Picture], str],
    ) -> None:
        self.vertices = vertices
        self.edges = edges
        self.notes = notes
        self._text = text

    def __str__(self) -> str:
        lines = [self._text(self), *self.notes]
        return "\n".join(lines if _can_draw() else [*lines, _INSTALL])

    __repr__ = __str__

    def _repr_svg_(self) -> str | None:
        return self.svg if _can_draw() else None  # None: the notebook shows the text

    def _repr_html_(self) -> str | None:
        """The SVG in its own size, to be scrolled: as an image it would shrink to the page."""
        if not _can_draw():
            return None
        picture = self.svg[self.svg.index("<svg") :]
        return f'<div style="overflow:auto">{picture}</div>'

    @functools.cached_property
    def dot(self) -> str:
        """The graph in Graphviz's DOT language."""
        return _dot(self)

    @functools.cached_property
    def svg(self) -> str:
        """The picture as SVG; RuntimeError that says what to install where Graphviz is absent."""
        return self._drawn("svg").decode()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a file whose suffix says what: .svg, .png, .pdf, .dot (or .gv), .txt.

        The file takes its name when it is complete. Raises ValueError for another suffix, and
        RuntimeError where Graphviz is needed and absent, or where there is no such folder.

        >>> import pathlib, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder, "model.dot")
        ...     gpunn.utils.draw_graph(nn.Linear(3, 2), gpunn.ones(1, 3)).save(path)
        ...     text = path.read_text()
        >>> text.startswith("digraph")
        True
        """
        from gpunn.serialization import _replacing

        name = os.fspath(path)
        suffix = os.path.splitext(name)[1].lower().lstrip(".")
        if suffix in ("dot", "gv"):
            data = self.dot.encode()
        elif suffix == "txt":
            data = f"{self}\n".encode()
        elif suffix in _FORMATS:
            data = self._drawn(suffix)
        else:
            raise ValueError(
                f"draw_graph: cannot save to {name!r}: give a name that ends in .svg, .png, .pdf, "
                ".dot, .gv or .txt"
            )
        with _replacing(name) as temporary, open(temporary, "wb") as file:
            file.write(data)

    def _drawn(self, suffix: str) -> bytes:
        if not _can_draw():
            raise RuntimeError(f"draw_graph: Graphviz was not found. {_INSTALL}")
        import graphviz

        return graphviz.Source(self.dot).pipe(format=suffix)


def _can_draw() -> bool:
    """Whether Graphviz's program and its Python package are there."""
    from importlib.util import find_spec

    return shutil.which("dot") is not None and find_spec("graphviz") is not None


# --- DOT ----------------------------------------------------------------------------------


def _dot(picture: Picture) -> str:
    names = {vertex: f"n{i}" for i, vertex in enumerate(picture.vertices)}
    inside: dict[Box | None, list[Any]] = {None: []}  # boxes and vertices in a box
    for vertex in picture.vertices:
        item: Any = vertex
        box = vertex.box
        while box not in inside:
            inside[box] = [item]
            item, box = box, box.parent  # type: ignore[union-attr]
        inside[box].append(item)
    boxes = {box: i for i, box in enumerate(inside)}

    def written(item: Any, indent: str) -> list[str]:
        if isinstance(item, Vertex):
            label = _label(item.title, item.lines)
            return [f"{indent}{names[item]} [label=<{label}> {_STYLES[item.kind]}]"]
        label = _label(item.title, item.lines, '<br align="left"/>')
        lines = [f"{indent}subgraph cluster_{boxes[item]} {{"]
        lines.append(f"{indent}  graph [label=<{label}> {_BOX_STYLE}]")
        for inner in inside[item]:
            lines += written(inner, indent + "  ")
        return [*lines, indent + "}"]

    lines = ["digraph {", "  " + _HEAD]
    if picture.notes:
        lines.append(f"  graph [label=<{_note(picture.notes)}> labelloc=b labeljust=l]")
    for item in inside[None]:
        lines += written(item, "  ")
    for edge in picture.edges:
        label = f' [label="  {_quoted(edge.label)}"]' if edge.label else ""
        lines.append(f"  {names[edge.source]} -> {names[edge.target]}{label}")
    return "\n".join([*lines, "}", ""])


def _label(title: str, lines: list[str], newline: str = "<br/>") -> str:
    rest = "".join(f'{newline}<font point-size="9">{_escaped(line)}</font>' for line in lines)
    return f"<b>{_escaped(title)}</b>{rest}" + (newline if newline != "<br/>" else "")


def _note(notes: list[str]) -> str:
    """The notes in lines that do not widen the picture much."""
    import textwrap

    lines = [escape(line) for note in notes for line in textwrap.wrap(note, _LONGEST)]
    text = "".join(f'{line}<br align="left"/>' for line in lines)
    return f'<br/><font point-size="9">{text}</font>'


def _escaped(text: str) -> str:
    """Text for a label: printable, of a bounded length, with XML's characters escaped."""
    return escape(_shortened(text)) or " "


def _quoted(text: str) -> str:
    return _shortened(text).replace("\\", "\\\\").replace('"', '\\"')


def _shortened(text: str) -> str:
    text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) <= _LONGEST:
        return text
    half = (_LONGEST - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
