"""nn.functional re-exports: nothing of its own, PyTorch's names and parameters."""

import inspect
import re
from pathlib import Path

import pytest

import gpunn.nn.functional as F

NAMES = [n for n in dir(F) if not n.startswith("_") and callable(getattr(F, n))]


def test_the_file_only_names_what_lives_elsewhere():
    lines = Path(F.__file__).read_text().split('"""')[2].strip().splitlines()
    assert lines and all(line.startswith("from gpunn.") for line in lines if line.strip())


@pytest.mark.parametrize("name", NAMES)
def test_pytorch_has_the_function_with_these_parameters(name):
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = getattr(torch.nn.functional, name)
    try:
        wanted = [p for p in inspect.signature(theirs).parameters if not p.startswith("_")]
    except ValueError:  # a function of PyTorch's that is not written in Python
        return
    ours = inspect.signature(getattr(F, name)).parameters
    if not any(p.kind is p.VAR_POSITIONAL for p in inspect.signature(theirs).parameters.values()):
        assert [p for p in ours if p in wanted] == wanted


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_does(name):
    text = getattr(F, name).__doc__
    assert text and len(text.splitlines()[0]) < 100
    assert re.search("Sources?:", text) or name.endswith("_")
