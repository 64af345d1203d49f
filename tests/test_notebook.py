"""After an error in a notebook, the failed cell's tensors are freed."""

import gc
import re
import subprocess
import sys
import types
import weakref

import pytest

import gpunn
from gpunn import cuda, nn, notebook

SET_UP = """
import gc, sys, tracemalloc, weakref
import gpunn
from gpunn import nn

gc.disable()  # what is freed is freed by itself
tracemalloc.start()
kept = []

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(500, 1000)
        self.wrong = nn.Linear(999, 1)

    def forward(self, x):
        hidden = self.inner(x).relu()
        kept.append(weakref.ref(hidden.array))
        return self.wrong(hidden)

def step(model, rows):
    batch = gpunn.ones(rows, 500)
    kept.append(weakref.ref(batch.array))
    return model(batch).sum()

model = Net()
before = tracemalloc.get_traced_memory()[0]
"""
MEASURE = """
after = tracemalloc.get_traced_memory()[0]
alive = [ref() is not None for ref in kept]
# 24 MB of arrays were made; the rest is what IPython loads to print an error
print(len(alive), any(alive), after - before < 12e6)
"""
GO_ON = """
model.wrong = nn.Linear(1000, 1)
loss = step(model, 10)
loss.backward()
print(model.inner.weight.grad.shape)
"""


def run(*cells):
    """The printed text of a notebook's cells; of one that fails, the error's message."""
    nbclient = pytest.importorskip("nbclient", reason="notebooks need the extra 'notebooks'")
    pytest.importorskip("ipykernel", reason="notebooks need the extra 'notebooks'")
    from nbformat.v4 import new_code_cell, new_notebook

    page = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(page, timeout=120, allow_errors=True).execute()
    return [
        "".join(out.get("text", out.get("evalue", "")) for out in cell.outputs).strip()
        for cell in page.cells
    ]


def test_a_notebook_goes_on_after_a_shape_error_with_its_memory_back():
    said = run(SET_UP, "step(model, 4000)", MEASURE, GO_ON)
    assert said[0] == ""
    assert "mat1 and mat2 shapes cannot be multiplied (4000x1000 and 999x1)" in said[1]
    assert said[2] == "2 False True"
    assert said[3] == "torch.Size([1000, 500])"


def test_a_cell_that_looks_at_the_error_finds_its_variables():
    look = (
        "import traceback\n"
        "frames = [f for f, _ in traceback.walk_tb(sys.last_value.__traceback__)]\n"
        "print([f.f_locals['batch'].shape for f in frames if f.f_code.co_name == 'step'])\n"
        "del frames"
    )
    said = run(SET_UP, "step(model, 40)", look, MEASURE)
    assert said[2] == "[torch.Size([40, 500])]"
    assert said[3] == "2 False True"


def failed(call):
    """What a notebook keeps of an error: the exception with its traceback."""
    try:
        call()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def shape_error(refs):
    def step():
        batch = gpunn.ones(3, 4)
        refs.append(weakref.ref(batch))
        nn.Linear(5, 1)(batch)

    return failed(step)


@pytest.fixture
def last(monkeypatch):
    """Sets what the interpreter keeps as the last error."""
    monkeypatch.setattr(sys, "last_exc", None, raising=False)
    monkeypatch.setattr(sys, "last_value", None, raising=False)

    def keep(error, name="last_value"):
        monkeypatch.setattr(sys, name, error, raising=False)

    return keep


@pytest.mark.parametrize("name", ["last_value", "last_exc"])
def test_local_variables_of_the_last_error_are_cleared(last, name):
    refs = []
    last(shape_error(refs), name)
    assert refs[0]() is not None
    assert notebook.forget_last_error() is True
    assert refs[0]() is None


def test_errors_behind_the_last_one_are_cleared_too(last):
    refs = []

    def again():
        inner = shape_error(refs)
        try:
            raise inner
        except RuntimeError as error:
            raise ValueError("outer") from error

    last(failed(again))
    assert notebook.forget_last_error()
    assert refs[0]() is None


def test_errors_of_others_are_left_alone(last):
    refs = []

    def step():
        batch = gpunn.ones(2)
        refs.append(weakref.ref(batch))
        raise ValueError("no code of gpunn was running")

    last(failed(step))
    assert notebook.forget_last_error() is False
    assert refs[0]() is not None


def test_without_an_error_nothing_happens(last):
    assert notebook.forget_last_error() is False


@pytest.mark.parametrize(
    ("cell", "cleared"),
    [("x = 1", True), (None, True), ("%debug", False), ("%tb", False), ("debug", False),
     ("import pdb", False), ("sys.last_traceback", False), ("table = 1  # %table", True)],
)  # fmt: skip
def test_cells_that_look_at_the_error_keep_it(last, cell, cleared):
    refs = []
    last(shape_error(refs))
    notebook._before_a_cell(types.SimpleNamespace(raw_cell=cell))
    assert (refs[0]() is None) is cleared


def test_after_running_out_of_memory_blocks_are_given_back(last, monkeypatch):
    calls = []
    monkeypatch.setattr(cuda, "empty_cache", lambda: calls.append("emptied"))

    def full():
        def allocate(g):
            raise cuda.OutOfMemoryError("CUDA out of memory")

        x = gpunn.ones(1, requires_grad=True)
        x.register_hook(allocate)
        x.sum().backward()

    last(failed(full))
    assert notebook.forget_last_error()
    assert calls == ["emptied"]


def test_a_dying_cycle_of_errors_ends(last):
    a, b = shape_error([]), shape_error([])
    a.__context__, b.__context__ = b, a
    last(a)
    assert notebook.forget_last_error()
    a.__context__ = None


def test_it_is_installed_once_and_only_in_ipython(monkeypatch):
    registered = []
    events = types.SimpleNamespace(callbacks={"pre_run_cell": registered})
    events.register = lambda name, callback: registered.append(callback)
    shell = types.SimpleNamespace(events=events)
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    notebook.install()
    notebook.install()
    assert registered == [notebook._before_a_cell]
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: None))
    notebook.install()
    script = "import sys, gpunn; print('gpunn.notebook' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr


def on_cpus(refs):
    def step():
        batch = gpunn.ones(4, 5)
        refs.append(weakref.ref(batch.array))
        nn.DataParallel(nn.Linear(3, 4), device_ids=["cpu:0", "cpu:1"])(batch)

    return step


def deep(refs):
    def step():
        x = gpunn.ones(3, 4, requires_grad=True)
        y = x.exp()
        refs.append(weakref.ref(y.array))
        y.register_hook(lambda g: g @ gpunn.ones(9, 9))
        (y * y).sum().backward()

    return step


def hooked(refs):
    def step():
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
        model[1].register_forward_hook(lambda m, args, out: out.view(5))
        batch = gpunn.ones(2, 3)
        refs.append(weakref.ref(batch.array))
        model(batch)

    return step


def loaded(refs):
    def step():
        data = gpunn.utils.data.TensorDataset(gpunn.ones(8, 3))
        for (batch,) in gpunn.utils.data.DataLoader(data, batch_size=4):
            refs.append(weakref.ref(batch.array))
            nn.Linear(5, 2)(batch)

    return step


@pytest.mark.parametrize("program", [on_cpus, deep, hooked, loaded])
def test_an_error_that_was_caught_keeps_nothing(program):
    """No reference cycle holds its frames: nothing waits for the garbage collector."""
    refs = []
    step = program(refs)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(RuntimeError, match=re.compile("shape|size", re.I)):
            step()
        assert len(refs) == 1
        assert refs[0]() is None
    finally:
        gc.enable()
