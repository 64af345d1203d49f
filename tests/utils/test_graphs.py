"""`gpunn.utils.draw_graph`: what it takes and refuses."""

import subprocess
import sys

import pytest

import gpunn
from gpunn import nn
from gpunn.utils import draw_graph


def test_it_is_a_function_of_gpunn_utils():
    assert callable(gpunn.utils.draw_graph)
    script = (
        "import sys, gpunn\n"
        "assert 'gpunn.utils.graphs' not in sys.modules\n"
        "from gpunn.utils import draw_graph\n"
        "draw_graph(gpunn.ones(1, requires_grad=True).exp())\n"
        "assert 'graphviz' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


@pytest.mark.parametrize("thing", [3, "model", [], [gpunn.ones(1), 3], nn.Linear, None, {}])
def test_other_things_are_refused(thing):
    with pytest.raises(TypeError, match="draw_graph: expected a tensor, a list of tensors or a"):
        draw_graph(thing)


def test_a_model_needs_inputs_and_a_tensor_takes_none():
    with pytest.raises(ValueError, match="draw_graph: a model is drawn by running it: give"):
        draw_graph(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="inputs= is for a model"):
        draw_graph(gpunn.ones(2), gpunn.ones(2))


@pytest.mark.parametrize("limits", [{"depth": -1}, {"max_vertices": 0}])
def test_limits_are_checked(limits):
    with pytest.raises(ValueError, match="depth must not be negative and max_vertices must be"):
        draw_graph(nn.Linear(2, 2), gpunn.ones(1, 2), **limits)


def test_inputs_in_every_form():
    layer = nn.Bilinear(2, 3, 1)
    a, b = gpunn.ones(1, 2), gpunn.ones(1, 3)
    for inputs in ((a, b), [a, b], {"input1": a, "input2": b}):
        drawn = {v.title for v in draw_graph(layer, inputs).vertices}
        assert drawn == {"input1", "input2", "Bilinear", "output"}
