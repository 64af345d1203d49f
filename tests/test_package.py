"""The package as people get it: the wheel, the import, the README, the layout of the files."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import gpunn

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from this checkout, without the network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("gpunn-*.whl"))


@pytest.mark.slow
def test_wheel_in_a_fresh_environment_has_kernels_and_trains(wheel, tmp_path):
    home = tmp_path / "env"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", str(wheel)], check=True)
    script = (
        "import gpunn as torch\n"
        "text = torch.native.source('conv.cpp')\n"
        "assert 'conv_forward' in text\n"
        "assert (torch.native.kernels_dir() / 'conv.cpp').is_file()\n"
        "layer = torch.nn.Linear(2, 1)\n"
        "layer(torch.ones(3, 2)).sum().backward()\n"
        "print(torch.native.kernels_dir(), layer.weight.grad.tolist())\n"
    )
    done = subprocess.run([python, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "gpunn/kernels" in done.stdout.replace("\\", "/")
    assert "[[3.0, 3.0]]" in done.stdout


def test_kernels_are_found_in_a_checkout():
    assert gpunn.native.source("conv.cpp") == (ROOT / "kernels" / "conv.cpp").read_text()


def test_import_is_quick_and_leaves_heavy_packages_alone():
    script = (
        "import sys, gpunn\n"
        "heavy = {'cupy', 'tqdm', 'torch', 'safetensors', 'gpunn.optim', 'gpunn.utils.data'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def _modules():
    names = [m.name for m in pkgutil.walk_packages(gpunn.__path__, "gpunn.")]
    return ["gpunn", *(n for n in names if "._native" not in n and ".kernels" not in n)]


class Finder(doctest.DocTestFinder):
    """It also looks at functions that a decorator of another module wraps."""

    def _from_module(self, module, object):
        return super()._from_module(module, inspect.unwrap(object))


@pytest.mark.parametrize("name", _modules())
def test_examples_in_docstrings_run(name):
    module = importlib.import_module(name)
    names = {"gpunn": gpunn, "np": np, "nn": gpunn.nn, "F": gpunn.nn.functional}
    finder = Finder(exclude_empty=True)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failures = []
    for test in finder.find(module, name, extraglobs=names):
        runner.run(test, out=failures.append)
    assert not failures, "".join(failures)


def test_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "tensor([ 6., 12.])" in capsys.readouterr().out


def test_every_source_file_has_a_test_file_of_its_stem():
    tests = {p.stem for p in (ROOT / "tests").rglob("test_*.py")}
    sources = [p for p in (ROOT / "gpunn").rglob("*.py") if not p.name.startswith("_")]
    missing = sorted(
        str(p.relative_to(ROOT)) for p in sources if f"test_{p.stem}" not in tests
    )
    assert not missing, f"no test file for {missing}"


def test_every_cpp_file_has_a_python_side_of_its_stem():
    stems = {p.stem for p in (ROOT / "gpunn").rglob("*.py")}
    for path in (ROOT / "kernels").glob("*.cpp"):  # conv_weight.cpp belongs to conv.py
        assert {path.stem, path.stem.split("_")[0]} & stems, f"no gpunn/**/{path.stem}.py"


def test_the_package_never_imports_pytorch():
    for path in (ROOT / "gpunn").rglob("*.py"):
        assert not re.search(r"^\s*(import torch|from torch)\b", path.read_text(), re.M), path
