"""The text forms of a drawn graph: the tree below a result, and the outline of a model."""

from __future__ import annotations

from collections import Counter

from gpunn.utils.graph_picture import Box, Edge, Picture, Vertex

__all__ = ["outline", "tree"]


def _line(title: str, lines: list[str]) -> str:
    return "  ".join([title, *lines])


# --- the tree below a result ----------------------------------------------------------------


def tree(picture: Picture) -> str:
    """The graph from its results down: below each vertex stands what goes into it.

    The last thing that goes into a vertex follows at the same depth, so that a chain of
    operations stays a column. What several others read, "#1", is written once, below the last
    of them.

    >>> w = gpunn.ones(2, requires_grad=True)
    >>> print(gpunn.utils.draw_graph((w * 2).sum(), params={"w": w}))  # doctest: +ELLIPSIS
    result  () float32 on cpu
    SumBackward0  () float32
    MulBackward0
    w  (2,) float32 on cpu  8 bytes...
    """
    return _Tree(picture).text()


class _Tree:
    def __init__(self, picture: Picture) -> None:
        self.edges: dict[Vertex, list[Edge]] = {vertex: [] for vertex in picture.vertices}
        for edge in picture.edges:
            self.edges[edge.target].append(edge)
        self.left = Counter(edge.source for edge in picture.edges)  # readers not yet written
        shared = sorted(
            (vertex for vertex, uses in self.left.items() if uses > 1), key=lambda v: -v.order
        )
        self.numbers = {vertex: f"#{i}" for i, vertex in enumerate(shared, 1)}
        self.roots = [vertex for vertex in picture.vertices if not self.left[vertex]]
        self.lines: list[str] = []

    def text(self) -> str:
        # (vertex, prefix of its first line, prefix of what follows)
        stack = [(root, "", "") for root in reversed(self.roots)]
        while stack:
            vertex, first, rest = stack.pop()
            number = [self.numbers[vertex]] if vertex in self.numbers else []
            self.lines.append(first + _line(vertex.title, [*number, *vertex.lines]))
            stack += reversed(self.below(vertex, rest))
        return "\n".join(self.lines)

    def below(self, vertex: Vertex, rest: str) -> list[tuple[Vertex, str, str]]:
        """What is to be written below a vertex, and how it is indented."""
        ready: list[Vertex] = []
        waiting: list[Vertex] = []
        for edge in self.edges[vertex]:
            self.left[edge.source] -= 1
            (waiting if self.left[edge.source] else ready).append(edge.source)
        self.lines += [f"{rest}├─ {v.title}  {self.numbers[v]}, below" for v in waiting]
        leaves = [v for v in ready if not self.edges[v]]
        others = [v for v in ready if self.edges[v]]
        if not others and len(leaves) == 1 and not waiting:
            return [(leaves[0], rest, rest)]
        sides, main = (leaves + others[:-1], others[-1]) if others else (leaves, None)
        items = [(v, rest + "├─ ", rest + "│  ") for v in sides]
        if main is not None:
            return [*items, (main, rest, rest)]
        return [*items[:-1], *((v, rest + "└─ ", rest) for v, _, _ in items[-1:])]


# --- the outline of a model -----------------------------------------------------------------


def outline(picture: Picture) -> str:
    """The calls in the order in which they ran, each inside the module that made it.

    "<-" names what a call reads where that is not just the line above.

    >>> class Block(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.inner = nn.Linear(3, 3)
    ...     def forward(self, x):
    ...         return x + self.inner(x)
    >>> print(gpunn.utils.draw_graph(Block(), gpunn.ones(1, 3)))  # doctest: +ELLIPSIS
    x  (1, 3) float32 on cpu
    Block  12 parameters
      inner: Linear  (1, 3) → (1, 3)  12 parameters  saves 12 bytes
      add  <- x, inner: Linear
    output  (1, 3) float32 on cpu...
    """
    sources: dict[Vertex, list[str]] = {vertex: [] for vertex in picture.vertices}
    before: dict[Vertex, list[Vertex]] = {vertex: [] for vertex in picture.vertices}
    for edge in picture.edges:
        sources[edge.target].append(edge.source.title)
        before[edge.target].append(edge.source)
    lines: list[str] = []
    opened: list[Box] = []
    last = None
    for vertex in sorted(picture.vertices, key=lambda v: v.order):
        inside = _boxes(vertex)
        common = 0
        while common < min(len(opened), len(inside)) and opened[common] is inside[common]:
            common += 1
        for depth in range(common, len(inside)):
            box = inside[depth]
            lines.append("  " * depth + _line(box.title, box.lines))
        opened = inside
        reads = [] if before[vertex] == [last] else sources[vertex]
        if len(reads) > 6:
            reads = [*reads[:5], f"{len(reads) - 5} more"]
        text = _line(vertex.title, [*filter(None, [vertex.shapes]), *vertex.lines])
        lines.append("  " * len(inside) + text + (f"  <- {', '.join(reads)}" if reads else ""))
        last = vertex
    return "\n".join(lines)


def _boxes(vertex: Vertex) -> list[Box]:
    """The boxes around a vertex, the outermost first."""
    found = []
    box = vertex.box
    while box is not None:
        found.append(box)
        box = box.parent
    return found[::-1]
