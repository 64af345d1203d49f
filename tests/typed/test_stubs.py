"""Typed scripts: mypy and pyright accept them, see mistakes in them, and Python runs them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.typed import make_stubs

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCRIPTS = sorted(p for p in HERE.glob("*.py") if p.stem not in ("make_stubs", "test_stubs"))
MISTAKES = """\
import gpunn as torch
import gpunn.nn.functional as F
from gpunn import nn

x = torch.ones(2)
x.no_such_method()
F.relu(x, inplace=[])
nn.Linear(2, out_features="three")
torch.no_such_function(x)
number: int = x.sum()
nn.LayerNorm(2)(x, x)
"""


def mypy(*files):
    """mypy's report on files, as strict as it can be; a skip where it is not installed."""
    pytest.importorskip("mypy", reason="mypy is not installed")
    command = ["mypy", "--strict", "--config-file=", "--follow-imports=silent"]
    return report([*command, "--no-error-summary", *map(str, files)])


def pyright(*files):
    """pyright's report on files; a skip where it is not installed or has no node to run on."""
    pytest.importorskip("pyright", reason="pyright is not installed")
    if report(["pyright", "--version"]).returncode:
        pytest.skip("pyright does not start: it needs node")
    return report(["pyright", "--pythonpath", sys.executable, *map(str, files)])


def report(command):
    return subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, timeout=300
    )


@pytest.mark.parametrize("path", make_stubs.stubs(), ids=str)
def test_stubs_say_what_the_functions_say(path):
    fresh = make_stubs.stubs()[path]
    assert (ROOT / path).read_text() == fresh, (
        f"{path} is out of date: python -m tests.typed.make_stubs"
    )


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_accept_typed_scripts(checker):
    done = checker(*SCRIPTS)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("checker", [mypy, pyright])
def test_type_checkers_see_mistakes(checker, tmp_path):
    script = tmp_path / "mistakes.py"
    script.write_text(MISTAKES)
    done = checker(script)
    lines = MISTAKES.splitlines()
    wrong = range(lines.index("x.no_such_method()") + 1, len(lines) + 1)
    unseen = [lines[n - 1] for n in wrong if f"mistakes.py:{n}:" not in done.stdout]
    assert not unseen, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_typed_scripts_run(script, tmp_path):
    code = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); "
    code += f"runpy.run_path({str(script)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_overloads_tell_tensors_from_pairs():
    text = make_stubs.stubs()[Path("gpunn/nn/functional.pyi")]
    assert text.count("@overload\ndef max_pool2d(") == 2
    assert "def max_pool2d_with_indices(" in text
    assert "@overload\ndef max_pool2d_with_indices(" not in text
