"""Pruning, as in PyTorch."""

import copy
from importlib import import_module

import pytest

import gpunn
from gpunn import nn
from gpunn.nn.utils import prune


def tools(lib):
    return import_module(f"{lib.__name__}.nn.utils.prune")


def kinds(module):
    return [type(hook).__name__ for hook in module._forward_pre_hooks.values()]


STEPS = {
    "identity": lambda p, m, lib: p.identity(m, "weight"),
    "l1": lambda p, m, lib: p.l1_unstructured(m, "weight", 0.3),
    "l1 count": lambda p, m, lib: p.l1_unstructured(m, "weight", amount=5),
    "l1 scores": lambda p, m, lib: p.l1_unstructured(
        m, "weight", 5, importance_scores=lib.arange(float(m.weight.numel())).view(m.weight.shape)
    ),
    "l2 rows": lambda p, m, lib: p.ln_structured(m, "weight", 1, n=2, dim=0),
    "l1 columns": lambda p, m, lib: p.ln_structured(m, "weight", 0.5, n=1, dim=1),
    "max last": lambda p, m, lib: p.ln_structured(m, "weight", 1, n=float("inf"), dim=-1),
    "none": lambda p, m, lib: p.ln_structured(m, "weight", 0, n=2, dim=0),
    "mask": lambda p, m, lib: p.custom_from_mask(m, "weight", m.weight > 0),
    "random": lambda p, m, lib: p.random_unstructured(m, "weight", 4),
    "random rows": lambda p, m, lib: p.random_structured(m, "weight", 2, dim=0),
    "random nothing": lambda p, m, lib: p.random_structured(m, "weight", 0, dim=0),
}


@pytest.mark.parametrize("make", ["Linear(4, 3)", "Conv2d(4, 3, 2)"])
@pytest.mark.parametrize("step", STEPS)
def test_one_method(near_torch, make, step):
    def scenario(lib):
        layer = eval(f"nn.{make}", {"nn": lib.nn})
        original = layer.weight
        pruned = STEPS[step](tools(lib), layer, lib)
        shape = (2, 4) if layer.weight.dim() == 2 else (2, 4, 3, 3)
        layer(lib.ones(*shape)).sum().backward()
        return (
            layer.weight, layer.state_dict(), layer.weight_orig is original,
            layer.weight_orig.grad, kinds(layer), pruned is layer, tools(lib).is_pruned(layer),
        )  # fmt: skip

    near_torch(scenario)


@pytest.mark.parametrize(
    "steps",
    [["l1", "l2 rows"], ["l2 rows", "l1 columns"], ["mask", "l1", "max last"], ["l1 count"] * 2,
     ["random rows", "random"], ["identity", "mask"]],
)  # fmt: skip
def test_one_after_the_other_and_removal(near_torch, steps):
    def scenario(lib):
        layer = lib.nn.Conv2d(4, 3, 2)
        for step in steps:
            STEPS[step](tools(lib), layer, lib)
        mask = layer.weight_mask
        found = kinds(layer), [len(h) for h in layer._forward_pre_hooks.values()], layer.weight
        tools(lib).remove(layer, "weight")
        return (
            mask, found, layer.state_dict(), kinds(layer), type(layer.weight).__name__,
            tools(lib).is_pruned(layer),
        )  # fmt: skip

    near_torch(scenario)


def test_global(near_torch):
    def scenario(lib):
        model = lib.nn.Sequential(lib.nn.Linear(4, 3), lib.nn.Linear(3, 2))
        pairs = [(model[0], "weight"), (model[1], "weight"), (model[0], "bias")]
        p = tools(lib)
        p.l1_unstructured(model[0], "weight", 2)
        p.global_unstructured(iter(pairs) if lib is gpunn else pairs, p.L1Unstructured, amount=6)
        first = copy.deepcopy(model.state_dict())
        scores = {pairs[1]: lib.zeros(2, 3)}
        p.global_unstructured(pairs, p.L1Unstructured, importance_scores=scores, amount=0.4)
        p.global_unstructured(pairs, p.RandomUnstructured, amount=2)
        return first, model.state_dict()

    near_torch(scenario)


def test_prune_without_a_module(near_torch):
    def scenario(lib):
        p, t = tools(lib), lib.randn(3, 4)
        return (
            p.L1Unstructured(3).prune(t), p.LnStructured(1, 2, 0).prune(t),
            p.L1Unstructured(2).prune(t, importance_scores=-t.abs()),
            p.L1Unstructured(2).prune(t, default_mask=(t > 0).to(t.dtype)),
            p.RandomStructured(0.5).prune(t), p.Identity().prune(t),
        )  # fmt: skip

    near_torch(scenario)


@pytest.mark.parametrize("bad", ["x", -1, 1.5, -0.1, 100, None])
def test_errors_of_amounts(near_torch, message, bad):
    def scenario(lib):
        p, layer = tools(lib), lib.nn.Linear(4, 3)
        return (
            message(p.l1_unstructured, layer, "weight", bad),
            message(p.random_structured, layer, "weight", bad, 0),
            message(p.ln_structured, layer, "weight", bad, 2, 1),
        )

    near_torch(scenario)


def test_errors(near_torch, message):
    def scenario(lib):
        p, layer = tools(lib), lib.nn.Linear(4, 3)
        pairs = [(layer, "weight")]
        container = p.PruningContainer()
        container._tensor_name = "weight"
        other = p.L1Unstructured(1)
        other._tensor_name = "bias"
        return (
            message(p.remove, layer, "weight"),
            message(p.random_structured, layer, "weight", 1, 5),
            message(p.custom_from_mask, layer, "weight", lib.ones(2)),
            message(p.l1_unstructured, layer, "weight", 1, lib.ones(2)),
            message(p.global_unstructured, 3, p.L1Unstructured),
            message(p.global_unstructured, pairs, p.L1Unstructured, 3),
            message(p.global_unstructured, pairs, p.LnStructured, amount=1, n=2)[0],
            message(container.add_pruning_method, 3)[0],
            message(container.add_pruning_method, other)[0],
            message(p.L1Unstructured(1).prune, lib.ones(2), importance_scores=lib.ones(3)),
        )

    near_torch(scenario)
    with pytest.raises(AssertionError, match="has to be pruned before pruning can be removed"):
        prune.L1Unstructured(1).remove(nn.Linear(2, 2))
