"""Parametrizations: registration, class, state, removal, transfer, errors, as in PyTorch."""

import copy
import pickle

import pytest

import gpunn
from gpunn import nn
from gpunn.nn.utils import parametrize as P


def modules(lib):
    """Parametrizations written once for both libraries."""

    class Symmetric(lib.nn.Module):
        def forward(self, x):
            return x.triu() + x.triu(1).transpose(-1, -2)

        def right_inverse(self, a):
            return a.triu()

    class Double(lib.nn.Module):
        def forward(self, x):
            return x * 2

    class RankOne(lib.nn.Module):
        def forward(self, x, y):
            return x.unsqueeze(-1) @ y.unsqueeze(-2)

        def right_inverse(self, z):
            return z[:, 0].clone(), z[0].clone()

    return Symmetric, Double, RankOne


def register(lib, *args, **kwargs):
    from importlib import import_module

    tool = import_module(f"{lib.__name__}.nn.utils.parametrize")
    return tool.register_parametrization(*args, **kwargs)


def tools(lib):
    from importlib import import_module

    return import_module(f"{lib.__name__}.nn.utils.parametrize")


def test_value_state_repr_and_gradients(near_torch):
    def scenario(lib):
        symmetric, double, _ = modules(lib)
        layer = lib.nn.Linear(3, 3)
        weight = layer.weight
        register(lib, layer, "weight", symmetric())
        register(lib, layer, "weight", double(), unsafe=False)
        layer(lib.ones(2, 3)).sum().backward()
        original = layer.parametrizations.weight.original
        return (
            layer.weight, original is weight, original.grad, repr(layer), layer.state_dict(),
            type(layer).__name__, [n for n, _ in layer.named_parameters()],
        )  # fmt: skip

    ours = near_torch(scenario)
    assert ours[5] == "ParametrizedLinear"
    assert list(ours[4]) == ["bias", "parametrizations.weight.original"]


def test_several_originals(near_torch):
    def scenario(lib):
        layer = lib.nn.Linear(3, 2)
        register(lib, layer, "weight", modules(lib)[2]())
        layer(lib.ones(3)).sum().backward()
        lists = layer.parametrizations.weight
        layer.weight = lib.ones(2, 3)
        return layer.weight, layer.state_dict(), lists.original0.grad, lists.ntensors

    near_torch(scenario)


def test_assignment_goes_through_right_inverse(near_torch, message):
    def scenario(lib):
        symmetric, double, _ = modules(lib)
        layer = register(lib, lib.nn.Linear(2, 2), "weight", symmetric())
        layer.weight = lib.tensor([[1.0, 2.0], [2.0, 5.0]])
        plain = register(lib, lib.nn.Linear(2, 2), "weight", double())
        return (
            layer.weight, layer.parametrizations.weight.original,
            message(setattr, plain, "weight", lib.ones(2, 2)),
            message(setattr, plain, "weight", lib.nn.Parameter(lib.ones(2, 2))),
        )  # fmt: skip

    near_torch(scenario)


def test_buffers_and_training_mode(near_torch):
    def scenario(lib):
        norm = lib.nn.BatchNorm1d(2).eval()
        double = modules(lib)[1]()
        register(lib, norm, "running_var", double)
        return norm.running_var, list(norm.state_dict()), double.training, norm(lib.ones(1, 2))

    near_torch(scenario)


@pytest.mark.parametrize("leave", [True, False])
@pytest.mark.parametrize("kind", [0, 1])
def test_removal(near_torch, leave, kind):
    def scenario(lib):
        layer = lib.nn.Linear(2, 2)
        weight = layer.weight
        register(lib, layer, "weight", modules(lib)[kind]())
        register(lib, layer, "bias", modules(lib)[1]())
        tools(lib).remove_parametrizations(layer, "weight", leave_parametrized=leave)
        half = type(layer).__name__, list(layer.state_dict()), layer.weight is weight
        tools(lib).remove_parametrizations(layer, "bias")
        return half, layer.weight, repr(layer), hasattr(layer, "parametrizations")

    near_torch(scenario)


def test_removal_with_several_originals(near_torch, message):
    def scenario(lib):
        layer = register(lib, lib.nn.Linear(2, 2), "weight", modules(lib)[2]())
        refused = message(tools(lib).remove_parametrizations, layer, "weight", False)
        before = layer.weight.detach()
        tools(lib).remove_parametrizations(layer, "weight")
        return refused, before, layer.weight, type(layer.weight).__name__

    near_torch(scenario)


def test_transfer(near_torch):
    def scenario(lib):
        source = register(lib, lib.nn.Linear(2, 2), "weight", modules(lib)[0]())
        register(lib, source, "weight", modules(lib)[1]())
        rank_one = register(lib, lib.nn.Linear(2, 2), "weight", modules(lib)[2]())
        targets = [lib.nn.Linear(2, 2), lib.nn.Linear(2, 2), lib.nn.Module()]
        move = tools(lib).transfer_parametrizations_and_params
        move(source, targets[0])
        move(rank_one, targets[1], "weight")
        move(source, targets[2])
        shared = (
            targets[0].parametrizations.weight.original is source.parametrizations.weight.original
        )
        untouched = move(lib.nn.Linear(2, 2), lib.nn.Linear(2, 2))
        return [t.weight for t in targets], shared, tools(lib).is_parametrized(untouched)

    near_torch(scenario)


def test_class_before(near_torch):
    def scenario(lib):
        layer = lib.nn.Linear(2, 2)
        before = tools(lib).type_before_parametrizations(layer) is lib.nn.Linear
        register(lib, layer, "weight", modules(lib)[0]())
        return (
            before, tools(lib).type_before_parametrizations(layer) is lib.nn.Linear,
            isinstance(layer, lib.nn.Linear), tools(lib).is_parametrized(layer, "bias"),
        )  # fmt: skip

    near_torch(scenario)


def test_a_copy_is_independent():
    layer = P.register_parametrization(nn.Linear(2, 2), "weight", modules(gpunn)[0]())
    twin = copy.deepcopy(layer)
    assert gpunn.equal(twin.weight, layer.weight)
    assert twin.parametrizations.weight.original is not layer.parametrizations.weight.original
    P.remove_parametrizations(twin, "weight")
    assert type(twin) is nn.Linear and P.is_parametrized(layer, "weight")
    assert gpunn.equal(twin.weight, layer.weight)


def test_a_module_with_its_own_deepcopy_keeps_it():
    class Own(nn.Linear):
        def __deepcopy__(self, memo):
            return "copied"

    layer = P.register_parametrization(Own(2, 2), "weight", modules(gpunn)[0]())
    assert copy.deepcopy(layer) == "copied"


def test_pickling_is_refused():
    layer = P.register_parametrization(nn.Linear(2, 2), "weight", modules(gpunn)[0]())
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        pickle.dumps(layer)


def test_cached_computes_once():
    calls = []

    class Counted(nn.Module):
        def forward(self, x):
            calls.append(1)
            return x * 2

    layer = P.register_parametrization(nn.Linear(2, 2), "weight", Counted())
    twin = copy.deepcopy(layer)
    calls.clear()
    with P.cached(), P.cached():
        assert layer.weight is layer.weight
        assert twin.weight is not layer.weight
    assert len(calls) == 2
    assert layer.weight is not layer.weight and len(calls) == 4


def test_load_state_dict(near_torch):
    def scenario(lib):
        layers = [lib.nn.Linear(2, 2) for _ in range(2)]
        for layer in layers:
            register(lib, layer, "weight", modules(lib)[0]())
        layers[0].load_state_dict(layers[1].state_dict())
        return layers[0].weight, layers[1].weight

    near_torch(scenario)


def bad_modules(lib):
    class Base(lib.nn.Module):
        def forward(self, x, *rest):
            return x

    class NoTensor(Base):
        def forward(self, x):
            return 3

    class Dtype(Base):
        def forward(self, x):
            return x.double()

    class Shape(Base):
        def forward(self, x):
            return x[:1]

    class InverseDtype(Base):
        def right_inverse(self, x):
            return x.double()

    class InverseShape(Base):
        def right_inverse(self, x):
            return x[:1]

    class InverseNothing(Base):
        def right_inverse(self, x):
            return None

    class InverseNumbers(Base):
        def right_inverse(self, x):
            return [x, 3]

    return Base, NoTensor, Dtype, Shape, InverseDtype, InverseShape, InverseNothing, InverseNumbers


@pytest.mark.parametrize("kind", range(8))
@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("unsafe", [False, True])
def test_errors_of_registration(near_torch, message, kind, later, unsafe):
    def scenario(lib):
        layer = lib.nn.Linear(2, 2)
        if later:
            register(lib, layer, "weight", bad_modules(lib)[0]())
        return message(register, lib, layer, "weight", bad_modules(lib)[kind](), unsafe=unsafe)

    near_torch(scenario)


def test_errors_of_names(near_torch, message):
    def scenario(lib):
        tool, layer = tools(lib), lib.nn.Linear(2, 2)
        return (
            message(register, lib, layer, "none", lib.nn.Identity()),
            message(tool.remove_parametrizations, layer, "weight"),
            message(tool.ParametrizationList, [], lib.ones(2)),
        )

    near_torch(scenario)


def test_a_parameter_that_is_none_and_one_without_a_shape(message):
    none = message(P.register_parametrization, nn.Linear(2, 2, bias=False), "bias", nn.Identity())
    assert none[0] == "AttributeError" and "'bias' of Linear(" in none[1]
    lazy = message(P.register_parametrization, nn.LazyLinear(2), "weight", nn.Identity())
    assert lazy[0] == "RuntimeError" and "Can't access the shape of an uninitialized" in lazy[1]


def test_errors_of_assignment(near_torch, message):
    def scenario(lib):
        class Fickle(lib.nn.Module):
            answers = None

            def forward(self, *x):
                return x[0]

            def right_inverse(self, x):
                return x if self.answers is None else self.answers

        class Pair(Fickle):
            def right_inverse(self, x):
                return (x, x) if self.answers is None else self.answers

        found = []
        one, two = Fickle(), Pair()
        single = register(lib, lib.nn.Linear(2, 2), "weight", one)
        double = register(lib, lib.nn.Linear(2, 2), "weight", two)
        t = lib.ones(2, 2)
        for one.answers in (3, t.double()):
            found.append(message(setattr, single, "weight", t))
        for two.answers in (3, (t,), (t, t.double())):
            found.append(message(setattr, double, "weight", t))
        return found

    near_torch(scenario)


def test_an_optimizer_made_before_trains_it(near_torch):
    def scenario(lib):
        layer = lib.nn.Linear(2, 2)
        optimizer = lib.optim.SGD(layer.parameters(), lr=0.1)
        register(lib, layer, "weight", modules(lib)[0]())
        for _ in range(3):
            optimizer.zero_grad()
            layer(lib.ones(1, 2)).square().sum().backward()
            optimizer.step()
        return layer.weight, layer.bias

    near_torch(scenario)
