"""Large graphs made small: inner boxes drawn as one vertex, what is too much left out."""

from __future__ import annotations

from gpunn.utils.graph_picture import Box, Edge, Vertex

__all__ = ["fitted"]


def fitted(
    vertices: list[Vertex], edges: list[Edge], depth: int | None, max_vertices: int
) -> tuple[list[Vertex], list[Edge], list[str]]:
    """The graph with boxes below `depth` closed, or, without a depth, as many levels of them as
    leave `max_vertices`; then the first of these. The notes say what is not shown.

    >>> from gpunn.utils.graph_collapse import fitted
    >>> from gpunn.utils.graph_picture import Vertex
    >>> fitted([Vertex("module", str(i)) for i in range(5)], [], None, 3)[2]
    ['2 later calls are not drawn: max_vertices=5 draws all']
    """
    deepest = max([_depth(vertex.box) for vertex in vertices], default=0)
    wanted = deepest if depth is None else min(depth, deepest)
    notes: list[str] = []
    found = closed(vertices, edges, wanted)
    while depth is None and wanted > 1 and len(found[0]) > max_vertices:
        wanted -= 1
        found = closed(vertices, edges, wanted)
    if wanted < deepest:
        notes.append(
            f"Drawn to depth {wanted} of {deepest}; depth={deepest}"
            + (f" and max_vertices={len(vertices)}" if len(vertices) > max_vertices else "")
            + " draws all"
        )
    if len(found[0]) > max_vertices:
        count = len(found[0])
        found = _first(*found, max_vertices)
        notes.append(
            f"{count - max_vertices} later calls are not drawn: max_vertices={count} draws all"
        )
    return (*found, notes)


def closed(
    vertices: list[Vertex], edges: list[Edge], depth: int
) -> tuple[list[Vertex], list[Edge]]:
    """The graph with each box that lies deeper than `depth` boxes as one vertex."""
    places: dict[Vertex, Vertex] = {}
    made: dict[Box, Vertex] = {}
    for vertex in vertices:
        box, top = vertex.box, None
        while box is not None and _depth(box) > depth:
            box, top = box.parent, box
        if top is None:
            places[vertex] = vertex
        else:
            if top not in made:
                made[top] = Vertex("module", top.title, top.lines, top.shapes, top.order, box)
            places[vertex] = made[top]
    return _moved(places, edges)


def _first(
    vertices: list[Vertex], edges: list[Edge], count: int
) -> tuple[list[Vertex], list[Edge]]:
    """The first `count` vertices, and one that stands for the rest."""
    cut = Vertex("cut", "…", [f"{len(vertices) - count} more"], order=float("inf"))
    places = {vertex: vertex if i < count else cut for i, vertex in enumerate(vertices)}
    return _moved(places, edges)


def _moved(places: dict[Vertex, Vertex], edges: list[Edge]) -> tuple[list[Vertex], list[Edge]]:
    moved: dict[tuple[Vertex, Vertex], Edge] = {}
    for edge in edges:
        source, target = places[edge.source], places[edge.target]
        if source is not target:
            # how often something inside reads it says nothing about the box
            label = edge.label if target is edge.target else edge.label.partition(" × ")[2]
            moved.setdefault((source, target), Edge(source, target, label or edge.label))
    return list(dict.fromkeys(places.values())), list(moved.values())


def _depth(box: Box | None) -> int:
    depth = 0
    while box is not None:
        depth, box = depth + 1, box.parent
    return depth
