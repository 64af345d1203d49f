"""compile and gpunn.compiler: scripts that ask for it run as they are written."""

import copy
import pickle

import pytest

import gpunn
from gpunn import nn


class Doubler(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("count", gpunn.zeros(()))

    def forward(self, x):
        return 2 * self.linear(x)

    def generate(self):
        return "text" if self.training else "eval text"


def test_a_compiled_module_computes_and_trains_the_module():
    model = Doubler()
    compiled = gpunn.compile(model, mode="reduce-overhead", fullgraph=True, dynamic=False)
    x = gpunn.randn(3, 2)
    assert gpunn.equal(compiled(x), model(x))
    optimizer = gpunn.optim.SGD(compiled.parameters(), lr=0.1)
    before = model.linear.weight.clone()
    compiled(x).sum().backward()
    optimizer.step()
    assert not gpunn.equal(before, model.linear.weight)


def test_keys_names_and_repr_are_pytorchs():
    compiled = gpunn.compile(Doubler())
    keys = ["_orig_mod.count", "_orig_mod.linear.weight", "_orig_mod.linear.bias"]
    assert list(compiled.state_dict()) == keys
    assert [name for name, _ in compiled.named_parameters()] == keys[1:]
    assert repr(gpunn.compile(nn.ReLU())) == "OptimizedModule(\n  (_orig_mod): ReLU()\n)"
    compiled.load_state_dict(compiled.state_dict())
    with pytest.raises(RuntimeError, match='Missing key.*"_orig_mod.count"'):
        compiled.load_state_dict(compiled._orig_mod.state_dict())


def test_attributes_are_the_modules():
    model = Doubler()
    compiled = gpunn.compile(model)
    assert compiled.linear is model.linear and compiled.generate() == "text"
    compiled.flag = 3
    compiled.count = gpunn.ones(())
    assert model.flag == 3 and model.count == 1 and "flag" not in vars(compiled)
    assert compiled.eval() is compiled and not model.training and compiled.generate() == "eval text"
    model.train()
    assert compiled.training
    with pytest.raises(AttributeError, match="'Doubler' object has no attribute 'absent'"):
        compiled.absent  # noqa: B018


def test_hooks_of_the_module_and_of_the_compiled_one_run():
    compiled, seen = gpunn.compile(nn.ReLU()), []
    compiled.register_forward_hook(lambda *_: seen.append("outer"))
    compiled._orig_mod.register_forward_hook(lambda *_: seen.append("inner"))
    compiled(gpunn.ones(1))
    assert seen == ["inner", "outer"]


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_hold_a_module_of_their_own(duplicate):
    compiled = gpunn.compile(Doubler())
    other = duplicate(compiled)
    assert other._orig_mod is not compiled._orig_mod
    assert gpunn.equal(other(gpunn.ones(1, 2)), compiled(gpunn.ones(1, 2)))


def test_compiling_leaves_other_modules_without_getattr():
    gpunn.compile(Doubler())
    assert "__getattr__" not in vars(nn.Module) and not hasattr(gpunn.compiler.Module, "absent")
    assert "__getattr__" not in vars(Doubler)


def test_functions_are_themselves():
    def function(x):
        return x + 1

    assert gpunn.compile(function) is function
    assert gpunn.compile(backend="inductor")(function) is function
    assert gpunn.compiler.disable(function) is function
    assert gpunn.compiler.disable(recursive=True)(function) is function
    compiled = gpunn.compile(nn.ReLU())
    assert gpunn.compile(compiled) is compiled
    relu = nn.ReLU()
    assert gpunn.compile(relu, disable=True) is relu
    assert relu.compile() is None


def test_what_cannot_be_is_refused():
    with pytest.raises(TypeError, match="callable function is expected, but <class 'int'>"):
        gpunn.compile(3)
    with pytest.raises(RuntimeError, match="Unrecognized mode=fast, should be one of: default"):
        gpunn.compile(abs, mode="fast")
    with pytest.raises(RuntimeError, match="Either mode or options can be specified"):
        gpunn.compile(abs, mode="default", options={"a": 1})


def test_a_stance_is_a_context_and_a_decorator():
    with gpunn.compiler.set_stance("force_eager"):
        assert not gpunn.compiler.is_compiling()
    assert gpunn.compiler.set_stance("eager_on_recompile")(abs)(-1) == 1
