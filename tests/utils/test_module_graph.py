"""The graph of a model's modules."""

import numpy as np
import pytest

import gpunn
import gpunn.nn.functional as F
from gpunn import nn
from gpunn.utils import draw_graph


class Residual(nn.Module):
    def __init__(self, width=4):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True))

    def forward(self, x):
        return x + self.body(x)


def titles(picture):
    return [vertex.title for vertex in picture.vertices]


def arrows(picture):
    return {(e.source.title, e.target.title): e.label for e in picture.edges}


def test_calls_in_order_with_shapes_at_the_edges():
    picture = draw_graph(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)),
                         gpunn.ones(5, 3))  # fmt: skip
    assert titles(picture) == ["input", "0: Linear", "1: ReLU", "2: Linear", "output"]
    assert arrows(picture) == {
        ("input", "0: Linear"): "(5, 3)",
        ("0: Linear", "1: ReLU"): "(5, 4)",
        ("1: ReLU", "2: Linear"): "(5, 4)",
        ("2: Linear", "output"): "(5, 2)",
    }
    assert {v.box.title for v in picture.vertices[1:-1]} == {"Sequential"}
    assert picture.vertices[1].lines[0] == "16 parameters"


def test_functions_between_modules_are_drawn_where_they_ran():
    picture = draw_graph(nn.Sequential(Residual(), Residual()), gpunn.ones(2, 4))
    adds = [v for v in picture.vertices if v.title == "add"]
    assert [v.box.title for v in adds] == ["0: Residual", "1: Residual"]
    found = arrows(picture)
    assert ("input", "add") in found and ("1: ReLU", "add") in found
    assert sum(e.source is adds[0] for e in picture.edges) == 2  # the next block's two branches


def test_in_place_modules_and_operations():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)
            self.act = nn.ReLU(inplace=True)

        def forward(self, x):
            h = self.act(self.fc(x))
            h += 1
            h[0] = 0
            return h

    picture = draw_graph(Net(), gpunn.ones(2, 3))
    assert ("fc: Linear", "act: ReLU") in arrows(picture)
    assert {"act: ReLU", "add"} <= set(titles(picture))
    assert any(e.target.title == "output" for e in picture.edges)


def test_inputs_by_position_by_name_and_nested():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(2, 1), nn.Linear(2, 1)

        def forward(self, x, other=None):
            return {"sum": self.left(x[0]) + self.right(other), "x": x[1]}

    x = [gpunn.ones(1, 2), gpunn.ones(3)]
    for inputs in ((x, gpunn.ones(1, 2)), {"x": x, "other": gpunn.ones(1, 2)}):
        picture = draw_graph(Pair(), inputs)
        assert {"x[0]", "x[1]", "other", "output 0", "output 1"} <= set(titles(picture))
        assert {("x[0]", "left: Linear"), ("other", "right: Linear"), ("x[1]", "output 1")} <= set(
            arrows(picture)
        )


def test_integers_go_by_their_memory():
    class Ids(nn.Module):
        def __init__(self):
            super().__init__()
            self.token, self.position = nn.Embedding(9, 4), nn.Embedding(5, 4)

        def forward(self, ids):
            positions = gpunn.arange(ids.shape[1])
            return self.token(ids[:, :3]) + self.position(positions)[:3]

    picture = draw_graph(Ids(), gpunn.zeros(2, 4, dtype=gpunn.int64))
    found = arrows(picture)
    assert found["ids", "token: Embedding"] == "(2, 3) int64"
    made = next(e.source for e in picture.edges if e.target.title == "position: Embedding")
    assert made.lines == ["(4,) int64 on cpu", "made in forward"]


def test_parameters_used_without_a_module_and_frozen_ones():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(gpunn.ones(3))
            self.register_buffer("shift", gpunn.ones(3))
            self.norm = nn.LayerNorm(3).requires_grad_(False)

        def forward(self, x):
            return self.norm(x * self.scale) + self.norm(self.shift)

    picture = draw_graph(Scaled(), gpunn.ones(2, 3))
    found = {v.title: v for v in picture.vertices}
    assert found["scale"].kind == "parameter" and found["shift"].kind == "frozen"
    assert found["scale"].lines == ["(3,) float32 on cpu", "12 bytes"] == found["shift"].lines
    assert ("scale", "expand") in arrows(picture) and ("expand", "mul") in arrows(picture)
    assert found["norm: LayerNorm"].lines[0] == "6 parameters, frozen"
    assert "norm: LayerNorm (call 2)" in found


def test_no_grad_in_forward_and_calls_under_no_grad():
    class Detached(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x):
            with gpunn.no_grad():
                h = self.a(x)
            return self.b(h.detach())

    with gpunn.no_grad():
        picture = draw_graph(Detached(), gpunn.ones(1, 2))
    assert ("a: Linear", "b: Linear") in arrows(picture)
    assert ("x", "a: Linear") in arrows(picture)


def test_gradients_may_be_taken_inside_the_model():
    class Force(nn.Module):
        def __init__(self):
            super().__init__()
            self.energy = nn.Linear(3, 1)

        def forward(self, x):
            x = x.detach().requires_grad_()
            e = gpunn.tanh(self.energy(x)).sum()
            return gpunn.autograd.grad(e, x, create_graph=True)[0]

    picture = draw_graph(Force(), gpunn.ones(1, 3))
    assert "energy: Linear" in titles(picture)


def test_recurrent_attention_and_packed_results():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(4, 4, batch_first=True)
            self.attend = nn.MultiheadAttention(4, 2, batch_first=True)
            self.out = nn.Linear(4, 1)

        def forward(self, x):
            packed = nn.utils.rnn.pack_padded_sequence(x, [3, 2], batch_first=True)
            h, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
            return self.out(self.attend(h, h, h)[0])

    picture = draw_graph(Net(), gpunn.ones(2, 3, 4))
    found = [v.title for v in picture.vertices if v.kind == "module"]
    assert found == ["rnn: LSTM", "attend: MultiheadAttention", "out: Linear"]
    into = {e.target.title: e for e in picture.edges}
    assert into["attend: MultiheadAttention"].label == "3 × (2, 3, 4)"
    reached, changed = {"output"}, True
    while changed:
        more = {e.source.title for e in picture.edges if e.target.title in reached} - reached
        reached, changed = reached | more, bool(more)
    assert {"x", *found} <= reached


def test_lists_of_modules_are_part_of_names():
    class Tower(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = nn.ModuleList([Residual(), Residual()])

        def forward(self, x):
            for block in self.blocks:
                x = block(x)
            return x

    text = str(draw_graph(Tower(), gpunn.ones(1, 4)))
    assert "  blocks.0: Residual" in text and "    body: Sequential" in text


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5)).train()
    x = gpunn.ones(4, 3)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    drawn_before = gpunn.random.get_rng_state()
    draw_graph(model, x)
    assert all(gpunn.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model[2].training and not any(m._forward_hooks for m in model.modules())
    assert not x.requires_grad and x.node is None
    assert gpunn.equal(gpunn.random.get_rng_state(), drawn_before)
    assert all(p.grad is None for p in model.parameters())
    assert gpunn.is_grad_enabled()


def test_an_error_names_the_layer_and_leaves_no_hooks():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4))
    with pytest.raises(RuntimeError, match=r"draw_graph: the forward of Sequential on \(1, 3\) "
                       r"raised RuntimeError, in layer 1: .*shapes"):  # fmt: skip
        draw_graph(model, gpunn.ones(1, 3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_model_may_catch_the_error_of_a_layer():
    class Trying(nn.Module):
        def __init__(self):
            super().__init__()
            self.wrong, self.right = nn.Linear(9, 2), nn.Linear(3, 2)

        def forward(self, x):
            try:
                return self.wrong(x)
            except RuntimeError:
                return self.right(x)

    picture = draw_graph(nn.Sequential(Trying(), nn.ReLU()), gpunn.ones(1, 3))
    assert ("right: Linear", "1: ReLU") in arrows(picture)
    assert {v.title for v in picture.vertices if v.kind == "module"} == {"right: Linear", "1: ReLU"}


def test_an_error_of_a_hook_is_told():
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 2)), nn.ReLU())
    handle = model[0][0].register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(RuntimeError, match="raised ZeroDivisionError, in layer 0.0: division"):
        draw_graph(model, gpunn.ones(1, 3))
    handle.remove()
    assert len(draw_graph(model, gpunn.ones(1, 3)).vertices) == 4


def test_saved_bytes_leave_parameters_out():
    picture = draw_graph(nn.Sequential(nn.Linear(1000, 2)), gpunn.ones(1, 1000))
    assert picture.vertices[1].lines == ["2,002 parameters", "saves 3.91 KiB"]
    assert picture.notes == ["Kept for backward by these layers, in eval mode: 3.91 KiB"]


def test_depth_and_limits():
    model = nn.Sequential(*(Residual() for _ in range(20)))
    x = gpunn.ones(1, 4)
    assert titles(draw_graph(model, x, depth=0)) == ["input", "Sequential", "output"]
    small = draw_graph(model, x, max_vertices=30)
    assert titles(small)[1:3] == ["0: Residual", "1: Residual"] and len(small.vertices) == 22
    assert "depth=3 and max_vertices=62 draws all" in small.notes[-1]


def test_a_model_in_data_parallel_is_drawn_itself():
    model = nn.DataParallel(nn.Sequential(nn.Linear(2, 2)), device_ids=["cpu:0", "cpu:1"])
    assert "0: Linear" in titles(draw_graph(model, gpunn.ones(4, 2)))


def test_lazy_layers_and_parametrized_ones():
    model = nn.Sequential(nn.LazyLinear(3), nn.utils.parametrizations.weight_norm(nn.Linear(3, 2)))
    text = str(draw_graph(model, gpunn.ones(1, 5)))
    assert "LazyLinear  (1, 5) → (1, 3)" in text or "Linear  (1, 5) → (1, 3)" in text
    assert "1: ParametrizedLinear" in text


def test_values_are_those_of_an_ordinary_forward():
    seen = []

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            y = F.softmax(self.fc(x), dim=1)
            seen.append(y.detach().array.copy())
            return y

    model, x = Net().eval(), gpunn.randn(2, 3)
    draw_graph(model, x)
    model(x)
    assert np.array_equal(*seen)
