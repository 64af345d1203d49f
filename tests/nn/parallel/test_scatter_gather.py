"""Inputs of any structure split over devices, outputs joined."""

import importlib
import inspect
from collections import OrderedDict, defaultdict, namedtuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpunn
from gpunn.nn.parallel import gather, scatter
from gpunn.nn.parallel.scatter_gather import scatter_kwargs

CPUS = ["cpu:0", "cpu:1", "cpu:2"]
Pair = namedtuple("Pair", ["x", "note"])


def test_a_tensor():
    made = scatter(gpunn.arange(7), CPUS)
    assert type(made) is tuple and [t.tolist() for t in made] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [t.device.index for t in made] == [None, 1, 2]


def test_structures():
    thing = object()
    inputs = {
        "tuple": (gpunn.arange(4), "a"), "list": [gpunn.arange(4)],
        "pair": Pair(gpunn.arange(4), 1),
        "nested": {"deep": [(gpunn.arange(4),)]}, "thing": thing, "empty": ((), [], {}), "no": None,
    }  # fmt: skip
    made = scatter(inputs, CPUS[:2])
    assert type(made) is list and len(made) == 2
    for i, part in enumerate(made):
        assert list(part) == list(inputs)
        assert type(part["tuple"]) is tuple and part["tuple"][1] == "a"
        assert type(part["list"]) is list and len(part["list"][0]) == 2
        assert type(part["pair"]) is Pair and part["pair"].note == 1
        assert part["nested"]["deep"][0][0].tolist() == [2 * i, 2 * i + 1]
        assert part["thing"] is thing and part["empty"] == ((), [], {}) and part["no"] is None
    assert len(inputs["list"][0]) == 4


@pytest.mark.parametrize("kind", [OrderedDict, lambda pairs: defaultdict(list, pairs)])
def test_kinds_of_dictionaries(kind):
    inputs = kind([("b", gpunn.ones(2)), ("a", 1)])
    for part in scatter(inputs, CPUS):
        assert type(part) is type(inputs) and list(part) == ["b", "a"] and len(part["b"]) == 1


def test_structures_are_pytorchs(monkeypatch):
    """PyTorch's own functions, with its copies between GPUs replaced by chunks on the CPU."""
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    import torch.nn.parallel.scatter_gather as theirs

    def chunk(devices, sizes, dim, x):
        return x.chunk(len(devices), dim)

    monkeypatch.setattr(theirs.Scatter, "apply", chunk)
    monkeypatch.setattr(theirs.Gather, "apply", lambda device, dim, *xs: torch.cat(xs, dim))

    def arguments(T):
        x = T.arange(12).reshape(6, 2)
        args = (x, [x, "a"], Pair(x, 1), {"deep": ((x,), None)}, (), {}, 2.5)
        return args, OrderedDict(y=x, flag=True)

    def plain(obj):
        if hasattr(obj, "tolist"):
            return obj.tolist()
        if isinstance(obj, dict):
            return type(obj), [(k, plain(v)) for k, v in obj.items()]
        return (type(obj), [plain(v) for v in obj]) if isinstance(obj, (tuple, list)) else obj

    ours = scatter_kwargs(*arguments(gpunn), CPUS)
    assert plain(ours) == plain(theirs.scatter_kwargs(*arguments(torch), CPUS))
    for inputs, kwargs in [(("a",), None), ((), {"y": 1}), ((), {}), (("a",), {"y": None})]:
        found = scatter_kwargs(inputs, kwargs, CPUS)
        assert plain(found) == plain(theirs.scatter_kwargs(inputs, kwargs, CPUS))
    outputs = [
        [Pair(x, None), {"b": (x,), "a": [x, x]}]
        for x in scatter(gpunn.arange(12).reshape(6, 2), CPUS)
    ]
    wanted = theirs.gather([
        [Pair(x, None), {"b": (x,), "a": [x, x]}] for x in torch.arange(12).reshape(6, 2).chunk(3)
    ], "cpu")  # fmt: skip
    assert plain(gather(outputs, "cpu")) == plain(wanted)


@pytest.mark.parametrize("path", ["nn.parallel", "nn.parallel.comm", "nn.parallel.scatter_gather"])
def test_parameters_are_pytorchs(path):
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs, ours = (importlib.import_module(f"{name}.{path}") for name in ("torch", "gpunn"))
    names = [n for n in ours.__all__ if inspect.isfunction(getattr(ours, n))]
    assert len(names) >= 3
    for name in names:
        wanted, got = (
            [(p.name, p.default, p.kind) for p in inspect.signature(f).parameters.values()]
            for f in (getattr(theirs, name), getattr(ours, name))
        )
        assert [p for p in got if p[0] != "weights"] == wanted, name


def test_numbers_of_parts():
    assert len(scatter(["no", "tensors"], CPUS)) == 3
    assert len(scatter((gpunn.ones(2), gpunn.ones(5)), CPUS)) == 2
    assert [len(x) for (x,) in scatter((gpunn.ones(0),), CPUS)] == [0]
    scalar = scatter((gpunn.tensor(3.0), gpunn.ones(2)), CPUS)
    assert [(s.item(), s.device.index) for s, _ in scalar] == [(3, None), (3, 1)]


def test_a_dimension_that_is_not_there():
    with pytest.raises(IndexError, match="Dimension out of range"):
        scatter(gpunn.ones(3), CPUS, dim=1)


def test_keyword_arguments():
    assert scatter_kwargs((), {}, CPUS) == ((), ()) == scatter_kwargs((), None, CPUS)
    parts, named = scatter_kwargs((gpunn.ones(4),), None, CPUS)
    assert len(parts) == len(named) == 3 and named == ({}, {}, {})
    parts, named = scatter_kwargs((), {"x": gpunn.ones(2)}, CPUS)
    assert parts == ((), ()) and [len(k["x"]) for k in named] == [1, 1]
    parts, named = scatter_kwargs(("a",), {"x": gpunn.ones(2)}, CPUS)
    assert parts == (("a",), ("a",))


def test_gradients_flow_through_both():
    x = gpunn.arange(5.0).requires_grad_()
    made = gather([(p * p, {"y": p}) for p in scatter(x, CPUS)], "cpu:1")
    assert made[0].device.index == 1 and made[0].tolist() == [0, 1, 4, 9, 16]
    made[0].sum().backward()
    assert x.grad.tolist() == [0, 2, 4, 6, 8]


leaves = st.integers(1, 3).map(lambda width: ("tensor", width)) | st.none()
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, min_size=1, max_size=3)
    | st.tuples(inner, inner) | st.dictionaries(st.sampled_from("abc"), inner, min_size=1),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(trees, st.integers(1, 7), st.integers(1, 4), st.sampled_from([0, 1, -1]))
def test_gather_undoes_scatter(tree, rows, devices, dim):
    def build(node):
        if isinstance(node, tuple) and node[0] == "tensor":
            x = gpunn.arange(float(rows * node[1])).reshape(rows, node[1])
            return x if dim == 0 else x.T
        if isinstance(node, dict):
            return {key: build(value) for key, value in node.items()}
        return type(node)(map(build, node)) if isinstance(node, (list, tuple)) else node

    def values(obj):
        if isinstance(obj, gpunn.Tensor):
            return obj.tolist()
        if isinstance(obj, dict):
            return {key: values(value) for key, value in obj.items()}
        return type(obj)(map(values, obj)) if isinstance(obj, (list, tuple)) else obj

    made = build(tree)
    parts = scatter(made, [f"cpu:{i}" for i in range(devices)], dim)
    has_tensors = "tensor" in repr(tree)
    assert len(parts) == (min(rows, devices) if has_tensors else devices)
    assert values(gather(parts, "cpu", dim)) == values(made)


def test_gather_structures():
    outputs = [Pair(gpunn.full((i + 1, 2), float(i), device=d), None) for i, d in enumerate(CPUS)]
    made = gather(outputs, 0 if gpunn.cuda.is_available() else "cpu")
    assert type(made) is Pair and made.note is None and made.x[:, 0].tolist() == [0, 1, 1, 2, 2, 2]
    made = gather([OrderedDict(a=gpunn.ones(1), b=[gpunn.ones(2)])] * 2, "cpu")
    assert type(made) is OrderedDict and len(made["a"]) == 2 and len(made["b"][0]) == 4
    assert gather([gpunn.ones(2, 1), gpunn.ones(2, 3)], "cpu", dim=1).shape == (2, 4)


def test_scalars():
    parts = [gpunn.tensor(1.0), gpunn.tensor(4.0, device="cpu:1")]
    with pytest.warns(UserWarning, match="Was asked to gather along dimension 0, but all"):
        assert gather(parts, "cpu").tolist() == [1, 4]
    assert gather(parts, "cpu", weights=[2, 1]).item() == 2
    with pytest.warns(UserWarning, match="scalars"):
        assert gather([gpunn.tensor(1), gpunn.tensor(2)], "cpu", weights=[2, 1]).tolist() == [1, 2]
    with pytest.raises(IndexError, match="Dimension out of range"):
        gather(parts, "cpu", dim=1)


@pytest.mark.parametrize("value", [1.5, "text", len])
def test_what_cannot_be_joined(value):
    with pytest.raises(TypeError, match=f"'{type(value).__name__}' object is not iterable"):
        gather([value, value], "cpu")


def test_dictionaries_of_different_sizes():
    with pytest.raises(ValueError, match="All dicts must have the same number of keys"):
        gather([{"a": gpunn.ones(1)}, {}], "cpu")
