"""Modules called with other tensors, as in PyTorch."""

import warnings

import pytest

import gpunn
from gpunn import nn


def call(lib, *args, **kwargs):
    return lib.func.functional_call(*args, **kwargs)


def test_values_gradients_and_the_modules_own_state(near_torch):
    def scenario(lib):
        model = lib.nn.Sequential(lib.nn.Linear(3, 2), lib.nn.Tanh(), lib.nn.Linear(2, 1))
        own = [p.detach().clone() for p in model.parameters()]
        other = {n: lib.ones_like(p).requires_grad_() for n, p in model.named_parameters()}
        out = call(lib, model, other, lib.randn(4, 3))
        out.sum().backward()
        same = [bool((a == b).all()) for a, b in zip(own, model.parameters(), strict=True)]
        return (
            out,
            {n: t.grad for n, t in other.items()},
            same,
            [type(p).__name__ for p in model.parameters()],
        )

    ours = near_torch(scenario)
    assert ours[2] == [True] * 4


def test_buffers_changed_by_the_module_are_handed_back(near_torch):
    def scenario(lib):
        class Counter(lib.nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("count", lib.zeros(()))
                self.plain = lib.ones(())

            def forward(self, x, *, times=1):
                self.count = self.count + 1
                return x * times + self.plain

        counter, given = Counter(), {"count": lib.tensor(5.0), "plain": lib.tensor(9.0)}
        out = call(lib, counter, given, (lib.ones(1),), {"times": 3})
        return out, given, counter.count, counter.plain

    near_torch(scenario)


def tied(lib):
    class Both(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = lib.nn.Linear(2, 2, bias=False)
            self.b = lib.nn.Linear(2, 2, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.a(x) + self.b(x)

    return Both()


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("strict", [True, False])
def test_tied_weights(near_torch, message, tie, strict):
    def scenario(lib):
        model, x = tied(lib), lib.ones(2)
        one, two = lib.ones(2, 2), lib.zeros(2, 2)
        found = []
        for given in (
            {"a.weight": one}, {"b.weight": one}, {"a.weight": one, "b.weight": one},
            {"a.weight": one, "b.weight": two}, {},
        ):  # fmt: skip
            out = []

            def run(given=given, out=out):
                out.append(call(lib, model, given, x, tie_weights=tie, strict=strict))

            found += [message(run), out, list(given)]
        return found, model.a.weight is model.b.weight

    near_torch(scenario)


def test_parametrized_modules(near_torch):
    def scenario(lib):
        layer = lib.nn.utils.parametrizations.weight_norm(lib.nn.Linear(3, 2))
        given = {"parametrizations.weight.original0": lib.ones(2, 1)}
        out = call(lib, layer, given, lib.ones(3))
        return out, layer.weight, call(lib, layer, {"weight": lib.ones(2, 3)}, lib.ones(3))

    near_torch(scenario)


def test_state_is_restored_after_an_error():
    layer = nn.Linear(2, 2)
    weight, bias = layer.weight, layer.bias
    with pytest.raises(RuntimeError):
        call(gpunn, layer, {"weight": gpunn.ones(2, 2)}, gpunn.ones(3))
    assert layer.weight is weight
    with pytest.raises(TypeError, match="is not an instance of"):
        call(gpunn, layer, {"weight": gpunn.ones(2, 2), "bias": 3}, gpunn.ones(2))
    assert layer.weight is weight and layer.bias is bias
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


def test_errors(near_torch, message):
    def scenario(lib):
        layer, x = lib.nn.Linear(2, 2), lib.ones(2)
        t = {"weight": lib.ones(2, 2)}
        return (
            message(call, lib, layer, {"wrong": t["weight"], **t}, x, strict=True),
            message(call, lib, layer, {"x.weight": t["weight"]}, x),
            message(call, lib, layer, {"in_features": t["weight"]}, x),
            message(call, lib, layer, (t, t), x), message(call, lib, layer, [t, 3], x),
            message(call, lib, layer, 3, x),
        )  # fmt: skip

    near_torch(scenario)


def test_the_older_name_warns(near_torch):
    def scenario(lib):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            layer = lib.nn.Linear(1, 1)
            out = lib.nn.utils.stateless.functional_call(
                layer, {"weight": lib.ones(1, 1), "bias": lib.ones(1)}, lib.ones(1)
            )
        return out, [(w.category.__name__, str(w.message)) for w in caught]

    near_torch(scenario)
