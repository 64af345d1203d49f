"""One recorded forward leaves a model as it was."""

import copy

import numpy as np
import pytest

import gpunn
from gpunn import nn
from gpunn.model_recorder import record, shapes, tensors_in


class Busy(nn.Module):
    """Changes what a forward can change."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)
        self.embed = nn.Embedding(4, 3, max_norm=0.01)
        self.register_buffer("count", gpunn.zeros(()))
        self.register_buffer("last", None)
        self.seen = None
        self.drop.eval()

    def forward(self, x):
        self.count += 1
        self.last = x
        self.seen = self.new = x.shape
        self.modes = [m.training for m in self.modules()]
        gpunn.rand(3)
        return self.drop(self.norm(self.layer(x))) + self.embed(gpunn.tensor([0, 1]))


def test_everything_is_put_back():
    model, told = Busy(), []
    model.layer.register_forward_hook(lambda *args: told.append("user"))
    state = copy.deepcopy(model.state_dict())
    attributes = {m: dict(m.__dict__) for m in model.modules()}
    random = gpunn.get_rng_state()
    hooks = dict(model.layer._forward_hooks)
    calls = record(model, (gpunn.ones(2, 3),), {})
    assert calls[id(model)].output == "(2, 3)" and told == ["user"]
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[name].numpy(), err_msg=name)
    for module, before in attributes.items():
        assert module.__dict__.keys() - before.keys() <= {"_hooked"}
        assert all(module.__dict__[name] is value for name, value in before.items())
    assert gpunn.equal(random, gpunn.get_rng_state())
    assert dict(model.layer._forward_hooks) == hooks
    assert model.training and not model.drop.training and model.last is None
    assert all(p.grad is None for p in model.parameters())


def test_the_forward_is_in_eval_mode_without_gradients():
    found = []

    class Modes(nn.Module):
        def forward(self, x):
            found.extend([self.training, gpunn.is_grad_enabled()])
            return x

    record(nn.Sequential(Modes()), (gpunn.ones(1),), {})
    assert found == [False, False]


def test_an_error_puts_everything_back_too():
    model = nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.Linear(4, 4)))
    with pytest.raises(RuntimeError, match="in layer 1.0: mat1 and mat2 shapes") as caught:
        record(model, (gpunn.ones(1, 3),), {})
    assert caught.value.__cause__ is not None
    assert all(m.training and not m._forward_hooks for m in model.modules())


def test_hooks_of_the_user_that_change_the_output_are_seen():
    layer = nn.Linear(3, 2)
    layer.register_forward_hook(lambda module, args, out: (out, out))
    assert record(layer, (gpunn.ones(1, 3),), {})[id(layer)].output == "[(1, 2), (1, 2)]"


def test_memory_is_what_the_innermost_layers_put_out():
    model = nn.Sequential(nn.Linear(3, 4), nn.Flatten(), nn.Identity(), nn.ReLU(inplace=True))
    calls = record(model, (gpunn.ones(2, 3),), {})
    assert [calls[id(m)].memory for m in (model, *model)] == [32, 32, 0, 0, 0]


def test_an_unused_module_has_no_calls_and_a_repeated_one_several():
    layer = nn.Linear(3, 3)
    model = nn.Sequential(layer, layer)
    layer.spare = nn.Identity()
    calls = record(model, (gpunn.ones(1, 3),), {})
    assert id(layer.spare) not in calls
    assert calls[id(layer)].times == 2 and calls[id(layer)].multiply_adds == 18


def test_parameters_of_ones_own_are_unknown():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(gpunn.ones(3))

        def forward(self, x):
            return x * self.factor

    scale = Scale()
    calls = record(nn.Sequential(scale, nn.Linear(3, 1)), (gpunn.ones(1, 3),), {})
    assert calls[id(scale)].unknown and calls[id(scale)].multiply_adds == 0


def test_shapes_as_text():
    x = gpunn.ones(2, 3)
    assert shapes((x, [x, None], {"a": x.sum()})) == "[(2, 3), [(2, 3), NoneType], {a: ()}]"
    assert len(tensors_in((x, [x, None], {"a": x}))) == 3
