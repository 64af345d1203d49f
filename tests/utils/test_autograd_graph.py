"""The autograd graph of tensors."""

import re

import numpy as np
import pytest

import gpunn
from gpunn import nn
from gpunn.utils import draw_graph


def by_title(picture):
    return {vertex.title: vertex for vertex in picture.vertices}


def arrows(picture):
    return {(edge.source.title, edge.target.title) for edge in picture.edges}


def test_operations_have_the_names_of_grad_fn():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")

    def names(T):
        x = T.ones(2, 3, requires_grad=True)
        y = (T.tanh(x).exp() * x).sum()
        found, stack = [], [y.grad_fn]
        while stack:
            node = stack.pop()
            if node.name() not in ("AccumulateGrad", "torch::autograd::AccumulateGrad"):
                found.append(node.name())
                stack += [parent for parent, _ in node.next_functions]
        return y, sorted(set(found))

    y, expected = names(gpunn)
    drawn = sorted(v.title for v in draw_graph(y).vertices if v.kind == "operation")
    assert drawn == expected == names(torch)[1]


def test_leaves_have_names_shapes_dtypes_and_devices():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1)).double()
    picture = draw_graph(model(gpunn.ones(4, 3, dtype=gpunn.float64)).sum(), params=model)
    found = by_title(picture)
    assert found["0.weight"].lines == ["(2, 3) float64 on cpu", "48 bytes"]
    assert ("0.weight", "AddmmBackward0") in arrows(picture)
    assert {v.title for v in picture.vertices if v.kind == "parameter"} == {
        name for name, _ in model.named_parameters()
    }
    assert found["result"].lines == ["() float64 on cpu"]


def test_names_as_dictionary_or_pairs():
    x = gpunn.ones(2, requires_grad=True)
    y = x.exp()
    for params in ({"x": x, "y": y}, [("x", x), ("y", y)], iter([("x", x), ("y", y)])):
        assert set(by_title(draw_graph(y, params=params))) == {"y", "ExpBackward0", "x"}
    assert "leaf" in by_title(draw_graph(y))


def test_shapes_come_from_what_is_saved_and_from_what_is_still_there():
    x = gpunn.ones(5, 3, requires_grad=True)
    h = x + 1
    picture = draw_graph((h.tanh() - 1).sum())
    found = by_title(picture)
    assert found["TanhBackward0"].lines[0] == "(5, 3) float32"  # its saved output
    assert found["AddBackward0"].lines == ["(5, 3) float32"]  # h
    assert found["SubBackward0"].lines == []  # nobody knows


def test_saved_bytes_count_memory_once_and_no_leaves():
    x = gpunn.ones(1000, requires_grad=True)
    e = x.exp()
    found = by_title(draw_graph(e * e, params={"x": x}))
    assert "saves 3.91 KiB" in found["ExpBackward0"].lines
    assert "saves 3.91 KiB" in found["MulBackward0"].lines
    picture = draw_graph(e * e)
    assert picture.notes == ["Kept for backward: 3.91 KiB, leaves not counted"]
    assert by_title(draw_graph(x * x))["MulBackward0"].lines[-1] != "saves 3.91 KiB"


def test_a_graph_that_was_walked_says_so():
    x = gpunn.ones(2, requires_grad=True)
    y = x.exp().sum()
    y.backward()
    picture = draw_graph(y)
    assert "freed by backward" in by_title(picture)["ExpBackward0"].lines
    assert any("retain_graph=True" in note for note in picture.notes)


def test_operations_with_several_outputs():
    x = gpunn.ones(4, 2, requires_grad=True)
    a, b = x.chunk(2)
    labels = [e.label for e in draw_graph(a.sum() + b.exp().sum()).edges if e.label]
    assert sorted(labels) == ["output 0 (2, 2) float32", "output 1 (2, 2) float32"]


def test_several_results():
    x = gpunn.ones(2, requires_grad=True)
    picture = draw_graph([x.exp(), x.sin()], params={"x": x})
    assert {"result 0", "result 1", "x"} <= set(by_title(picture))
    assert sum(v.title == "x" for v in picture.vertices) == 1


def test_tensors_without_a_graph():
    assert draw_graph(gpunn.ones(2)).vertices[0].lines[-1] == "requires no gradient"
    leaf = gpunn.ones(2, requires_grad=True)
    assert [v.kind for v in draw_graph(leaf, params={"w": leaf}).vertices] == ["parameter"]
    assert "(2,) float32 on cpu" in str(draw_graph(leaf))


def test_large_graphs_are_cut_far_from_the_result():
    w = gpunn.ones(1, requires_grad=True)
    y = w
    for _ in range(50):
        y = y + 1
    picture = draw_graph(y.exp(), max_vertices=10)
    assert len(picture.vertices) == 12  # with the result and the rest
    assert by_title(picture)["…"].lines == ["42 more"]
    assert "ExpBackward0" in by_title(picture)
    assert picture.notes[-1].startswith("42 operations and leaves")
    most = int(re.search(r"max_vertices=(\d+)", picture.notes[-1]).group(1))
    assert not draw_graph(y.exp(), max_vertices=most).notes[1:]
    assert len(str(picture).splitlines()) < 20


def test_leaves_stay_with_what_reads_them():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(30)))
    picture = draw_graph(model(gpunn.ones(1, 2)).sum(), params=model, max_vertices=8)
    assert {"29.weight", "29.bias"} <= set(by_title(picture))
    into_cut = [e for e in picture.edges if e.source.title == "…"]
    assert len(into_cut) == len({e.target for e in into_cut})


def test_deep_graphs_need_no_recursion():
    y = gpunn.ones(1, requires_grad=True)
    for _ in range(3000):
        y = y + 1
    assert len(draw_graph(y, max_vertices=5000).vertices) == 3002


def test_functions_of_users_and_the_device():
    class Twice(gpunn.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g * 2

    x = gpunn.ones(3, device="cpu:1").requires_grad_()
    found = by_title(draw_graph(Twice.apply(x).sum()))
    assert "TwiceBackward" in found
    assert "on cpu:1" in found["SumBackward0"].lines
    assert found["leaf"].lines[0] == "(3,) float32 on cpu:1"


def test_drawing_changes_nothing():
    x = gpunn.ones(3, requires_grad=True)
    y = (x.exp() * x).sum()
    draw_graph(y)
    y.backward()
    assert np.allclose(x.grad.array, 2 * np.e)
    assert x._version == 0
