"""nn.functional re-exports: nothing of its own, PyTorch's names and two more."""

import re
from pathlib import Path

import pytest

import gpunn.nn.functional as F

NAMES = [n for n in dir(F) if not n.startswith("_") and callable(getattr(F, n))]


def test_the_file_only_names_what_lives_elsewhere():
    lines = Path(F.__file__).read_text().split('"""')[2].strip().splitlines()
    assert lines and all(line.startswith("from gpunn.") for line in lines if line.strip())


def test_what_pytorch_lacks():  # the others' parameters are compared in test_names.py
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    ours = [n for n in NAMES if not hasattr(torch.nn.functional, n)]
    assert ours == ["rotary_position_embedding", "sinusoidal_position_encoding"]


@pytest.mark.parametrize("name", NAMES)
def test_each_says_what_it_does(name):
    text = getattr(F, name).__doc__
    assert text and len(text.splitlines()[0]) < 100
    assert re.search("Sources?:", text) or name.endswith("_")
