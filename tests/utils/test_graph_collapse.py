"""Large graphs made small."""

from gpunn.utils.graph_collapse import closed, fitted
from gpunn.utils.graph_picture import Box, Edge, Vertex


def nested():
    """in -> (a -> (b -> c) -> d) -> out, brackets being boxes."""
    outer = Box("outer", ["o"], "(1,) → (2,)")
    inner = Box("inner", ["i"], "(3,) → (4,)", parent=outer)
    places = {"in": None, "a": outer, "b": inner, "c": inner, "d": outer, "out": None}
    vertices = {n: Vertex("module", n, order=i, box=b) for i, (n, b) in enumerate(places.items())}
    names = list(vertices)
    edges = [Edge(vertices[a], vertices[b], a + b) for a, b in zip(names, names[1:])]
    return list(vertices.values()), edges


def titles(found):
    return [vertex.title for vertex in found[0]], [
        (edge.source.title, edge.target.title, edge.label) for edge in found[1]
    ]


def test_boxes_below_the_depth_become_one_vertex():
    names, edges = titles(closed(*nested(), 1))
    assert names == ["in", "a", "inner", "d", "out"]
    assert edges == [("in", "a", "ina"), ("a", "inner", "ab"), ("inner", "d", "cd"),
                     ("d", "out", "dout")]  # fmt: skip
    vertex = closed(*nested(), 1)[0][2]
    assert (vertex.lines, vertex.shapes, vertex.box.title) == (["i"], "(3,) → (4,)", "outer")


def test_a_box_reads_once_what_is_read_several_times_inside():
    vertices, edges = nested()
    edges[1].label, edges[4].label = "3 × (2, 4)", "2 × (1,)"
    assert [edge.label for edge in closed(vertices, edges, 1)[1]] == [
        "ina", "(2, 4)", "cd", "2 × (1,)",
    ]  # fmt: skip


def test_depth_0_is_one_box():
    assert titles(closed(*nested(), 0))[0] == ["in", "outer", "out"]
    names, edges, notes = fitted(*nested(), 0, 100)
    assert notes == ["Drawn to depth 0 of 2; depth=2 draws all"]


def test_without_a_depth_as_many_levels_as_fit():
    assert fitted(*nested(), None, 6)[2] == []
    vertices, _, notes = fitted(*nested(), None, 5)
    assert len(vertices) == 5
    assert notes == ["Drawn to depth 1 of 2; depth=2 and max_vertices=6 draws all"]


def test_what_still_does_not_fit_is_left_out_and_said():
    vertices, edges, notes = fitted(*nested(), None, 2)
    assert [v.title for v in vertices] == ["in", "a", "…"]
    assert vertices[-1].lines == ["3 more"]
    assert [(e.source.title, e.target.title) for e in edges] == [("in", "a"), ("a", "…")]
    assert notes[-1] == "3 later calls are not drawn: max_vertices=5 draws all"


def test_a_depth_that_is_asked_for_is_kept():
    vertices, _, notes = fitted(*nested(), 2, 3)
    assert [v.title for v in vertices] == ["in", "a", "b", "…"]
    assert len(notes) == 1


def test_nothing_to_draw():
    assert fitted([], [], None, 5) == ([], [], [])
