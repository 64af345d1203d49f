"""The autograd graph of a tensor as a picture."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

from gpunn.autograd.graph import Node, Output
from gpunn.autograd.walk import FREED
from gpunn.cuda.memory import human
from gpunn.nn.parameter import Parameter
from gpunn.tensor import ARRAY_TYPES, Tensor, root
from gpunn.utils.graph_picture import Edge, Picture, Vertex, shape_of
from gpunn.utils.graph_text import tree

__all__ = ["autograd_picture"]


def autograd_picture(
    tensors: Sequence[Tensor], names: dict[int, str], max_vertices: int
) -> Picture:
    """The graph behind tensors. `names` by the id of the tensor; the `max_vertices` operations
    and leaves nearest to the results are drawn.

    >>> from gpunn.utils.autograd_graph import autograd_picture
    >>> x = gpunn.ones(2, requires_grad=True)
    >>> picture = autograd_picture([x.exp()], {id(x): "x"}, 10)
    >>> [vertex.title for vertex in picture.vertices]
    ['result', 'ExpBackward0', 'x']
    """
    drawing = _Drawing(names, max_vertices)
    for i, tensor in enumerate(tensors):
        default = "result" if len(tensors) == 1 else f"result {i}"
        drawing.add_result(tensor, names.get(id(tensor), default))
    drawing.walk()
    return Picture(drawing.vertices, drawing.edges, drawing.notes(), tree)


def facts(tensor: Tensor) -> str:
    return f"{shape_of(tensor)} on {tensor.device}"


def leaf_vertex(tensor: Tensor, name: str | None) -> Vertex:
    """The vertex of a leaf of the graph."""
    lines = [facts(tensor), human(tensor.nbytes)]
    if tensor.requires_grad:
        return Vertex("parameter", name or "leaf", lines)
    return Vertex("frozen", name or "leaf", lines + ["frozen"] * isinstance(tensor, Parameter))


class _Drawing:
    def __init__(self, names: dict[int, str], max_vertices: int) -> None:
        self.names = names
        self.room = max_vertices
        self.vertices: list[Vertex] = []
        self.edges: list[Edge] = []
        self.heap: list[tuple[float, int, Any]] = []
        self.waiting: dict[Any, list[tuple[Vertex, str]]] = {}  # edges out of what comes later
        self.left_out: set[Any] = set()
        self.cut = Vertex("cut", "…", order=-1.0)
        self.freed = False
        self.memories: dict[int, int] = {}  # bytes kept, by the memory's owner
        self.shapes = _shapes()

    def add_result(self, tensor: Tensor, name: str) -> None:
        if tensor.requires_grad and tensor.node is None:
            self.meet(tensor, None)
            return
        if tensor.node is None:
            lines = [facts(tensor), "requires no gradient"]
            self.vertices.append(Vertex("result", name, lines))
            return
        vertex = Vertex("result", name, [facts(tensor)], order=float("inf"))
        self.vertices.append(vertex)
        self.shapes[_key(tensor.node)] = shape_of(tensor)
        self.meet(tensor.node, vertex)

    def meet(self, place: Any, reader: Vertex | None) -> None:
        """Notes an edge from a node, an output of one or a leaf; puts it in the queue."""
        node = place.node if type(place) is Output else place
        if node not in self.waiting:
            self.waiting[node] = []
            after = reader.order if reader is not None else 0.0
            # a leaf comes right after what reads it first; counts break ties
            order = after - 0.5 if isinstance(node, Tensor) else float(node.seq)
            heappush(self.heap, (-order, len(self.waiting), node))
        if reader is not None:
            label = ""
            if type(place) is Output and place.node.outputs > 1:
                label = f"output {place.index} {self.shapes.get(_key(place), '')}".rstrip()
            self.waiting[node].append((reader, label))

    def walk(self) -> None:
        """Draws nodes, the latest first: those behind them come later."""
        while self.heap:
            node = heappop(self.heap)[2]
            readers = self.waiting[node]
            if self.room <= 0:
                self.left_out.add(node)
                vertex = self.cut
            else:
                self.room -= 1
                vertex = self.drawn(node)
                self.vertices.append(vertex)
            for reader, label in readers:
                if reader is not vertex:
                    self.edges.append(Edge(vertex, reader, label))
            if not isinstance(node, Tensor):
                for parent in node.parents:
                    if parent is not None:
                        self.meet(parent, vertex)
        if self.left_out:
            self.cut.lines = [f"{len(self.left_out)} more"]
            self.vertices.append(self.cut)
            self.edges = _once(self.edges, self.cut)

    def drawn(self, node: Any) -> Vertex:
        if isinstance(node, Tensor):
            return leaf_vertex(node, self.names.get(id(node)))
        if node.saved is not FREED:
            self.note_shapes(node)
        shape = self.shapes.get(_key(node))
        lines = [shape] if shape and node.outputs == 1 else []
        if node.device.type != "cpu" or node.device.index:
            lines.append(f"on {node.device}")
        if node.saved is FREED:
            self.freed = True
            lines.append("freed by backward")
        else:
            size = self.saved_bytes(node)
            if size:
                lines.append(f"saves {human(size)}")
        return Vertex("operation", node.name(), lines, order=node.seq)

    def note_shapes(self, node: Any) -> None:
        """What a node saved of its parents and outputs tells their shapes."""
        saves = getattr(node.vjp, "saves", ())
        for which, saved in zip(saves, node.saved, strict=False):
            if which is None or type(saved) not in ARRAY_TYPES:
                continue
            if which < 0:
                self.shapes.setdefault((id(node), -1 - which), shape_of(saved))
            elif which < len(node.parents) and isinstance(node.parents[which], (Node, Output)):
                self.shapes.setdefault(_key(node.parents[which]), shape_of(saved))

    def saved_bytes(self, node: Any) -> int:
        """Bytes that a node keeps alive, leaves not counted: those are there anyway."""
        leaves = {id(root(p.array)) for p in node.parents if isinstance(p, Tensor)}
        found = {id(root(array)): root(array).nbytes for array in saved_arrays(node.saved)}
        kept = {key: size for key, size in found.items() if key not in leaves}
        self.memories.update(kept)
        return sum(kept.values())

    def notes(self) -> list[str]:
        notes = []
        total = sum(self.memories.values())
        if total:
            notes.append(f"Kept for backward: {human(total)}, leaves not counted")
        if self.freed:
            notes.append("backward freed what operations had saved; retain_graph=True keeps it")
        if self.left_out:
            count = len(self.left_out)
            notes.append(
                f"{count} operations and leaves further from the result are not drawn: "
                f"max_vertices={len(self.waiting)} draws all"
            )
        return notes


def saved_arrays(saved: Any) -> list[Any]:
    """The arrays in what a node saved, those in tuples and lists too."""
    found = []
    for item in saved:
        if type(item) in ARRAY_TYPES:
            found.append(item)
        elif isinstance(item, Tensor):
            found.append(item.array)
        elif type(item) in (tuple, list):
            found += saved_arrays(item)
    return found


def _key(place: Any) -> tuple[int, int]:
    node = place.node if type(place) is Output else place
    return id(node), place.index if type(place) is Output else 0


def _shapes() -> dict[tuple[int, int], str]:
    """The shapes of results that are still there: a node does not know its own."""
    found = {}
    for thing in gc.get_objects():
        node = getattr(thing, "node", None) if type(thing) is Tensor else None
        if isinstance(node, (Node, Output)):
            found[_key(node)] = shape_of(thing)
    return found


def _once(edges: list[Edge], cut: Vertex) -> list[Edge]:
    """One edge from what was left out into each vertex is enough."""
    seen: set[int] = set()
    kept = []
    for edge in edges:
        if edge.source is cut:
            if id(edge.target) in seen:
                continue
            seen.add(id(edge.target))
        kept.append(edge)
    return kept
