"""The text forms of graphs."""

import itertools

from gpunn.utils.graph_picture import Box, Edge, Picture, Vertex
from gpunn.utils.graph_text import outline, tree


def graph(text, pairs, boxes=None):
    """A picture whose vertices are the letters of `pairs`, "ab": a goes into b; later letters run
    later. `boxes` gives the boxes of letters."""
    names = sorted({name for pair in pairs for name in pair})
    found = {n: Vertex("operation", n, [], order=ord(n), box=(boxes or {}).get(n)) for n in names}
    edges = [Edge(found[a], found[b]) for a, b in pairs]
    return text(Picture(list(found.values()), edges, [], text))


def test_a_chain_is_a_column():
    assert graph(tree, ["ab", "bc", "cd"]) == "d\nc\nb\na"


def test_leaves_stand_beside_the_chain():
    assert graph(tree, ["ac", "bc", "ce", "de"]) == "e\n├─ d\nc\n├─ a\n└─ b"


def test_branches_are_indented_but_for_the_last():
    text = graph(tree, ["ab", "bc", "cg", "de", "eg"])
    assert text == "g\n├─ c\n│  b\n│  a\ne\nd"


def test_what_several_read_is_written_once_below_the_last():
    assert graph(tree, ["ab", "bc", "bd", "cd"]) == "d\n├─ b  #1, below\nc\nb  #1\na"


def test_a_long_chain_of_shortcuts_stays_flat():
    names = [chr(ord("A") + i) for i in range(40)]
    blocks = [a + b for a, b in itertools.pairwise(names)]
    shortcuts = [a + b for a, b in zip(names[::2], names[2::2])]
    lines = graph(tree, blocks + shortcuts).splitlines()
    assert max(map(len, lines)) < 20
    assert sorted({line.split()[-1 if line[0] != "├" else 1] for line in lines} & set(names))
    for name in names:
        assert sum(line.split()[0] == name for line in lines) == 1


def test_several_results():
    assert graph(tree, ["ab", "ac"]) == "b\n├─ a  #1, below\nc\na  #1"


def test_depth_is_not_bounded_by_recursion():
    vertices = [Vertex("operation", str(i), order=i) for i in range(5000)]
    edges = [Edge(a, b) for a, b in itertools.pairwise(vertices)]
    lines = tree(Picture(vertices, edges, [], tree)).splitlines()
    assert lines == [str(i) for i in reversed(range(5000))]


def test_outline_nests_calls_and_names_what_is_not_just_above():
    outer = Box("outer", ["9 parameters"])
    inner = Box("inner", [], parent=outer)
    text = graph(outline, ["ab", "bc", "cd", "bd", "de"], {"b": outer, "c": inner, "d": outer})
    assert text.splitlines() == [
        "a", "outer  9 parameters", "  b", "  inner", "    c", "  d  <- c, b", "e",
    ]  # fmt: skip


def test_outline_opens_each_call_of_a_module_anew():
    boxes = {"a": Box("one", []), "b": Box("two", [])}
    assert graph(outline, ["ab"], boxes) == "one\n  a\ntwo\n  b"


def test_outline_shows_shapes():
    vertex = Vertex("module", "fc", ["6 parameters"], "(1, 2) → (1, 3)")
    text = outline(Picture([vertex], [], [], outline))
    assert text == "fc  (1, 2) → (1, 3)  6 parameters"


def test_outline_cuts_long_lists_of_what_is_read():
    text = graph(outline, [f"{name}z" for name in "abcdefghij"])
    assert text.splitlines()[-1] == "z  <- a, b, c, d, e, 5 more"
