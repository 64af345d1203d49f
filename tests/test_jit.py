"""gpunn.jit: models written with TorchScript in mind run in Python."""

import pytest

import gpunn
from gpunn import jit, nn


class Model(nn.Module):
    width: jit.Final[int]

    def __init__(self):
        super().__init__()
        self.width = 2
        self.linear = nn.Linear(2, 2)

    @jit.ignore
    def note(self):
        return "note"

    @jit.unused
    def other(self):
        return "other"

    @jit.export
    def twice(self, x):
        return 2 * self(x)

    def forward(self, x):
        if not jit.is_scripting() and not jit.is_tracing():
            x = x + 1
        return self.linear(x) + jit.annotate(float, 1.0)


@pytest.mark.parametrize("make", [jit.script, lambda m: jit.trace(m, gpunn.ones(1, 2)), jit.freeze])
def test_a_scripted_model_is_the_model(make):
    model = Model()
    scripted, x = make(model), gpunn.randn(3, 2)
    assert list(scripted.state_dict()) == ["linear.weight", "linear.bias"]
    assert gpunn.equal(scripted(x), model.linear(x + 1) + 1)
    assert gpunn.equal(scripted.twice(x), 2 * model(x))
    assert (scripted.note(), scripted.other()) == ("note", "other")


def test_decorators_give_functions_back():
    def function(x):
        return x

    assert jit.script(function) is function and jit.script_if_tracing(function) is function
    assert jit.ignore(function) is function and jit.ignore(drop=True)(function) is function
    assert jit.trace(function, (gpunn.ones(1),), strict=False) is function
