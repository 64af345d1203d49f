"""The package as people get it: the wheel, the import, the README, the layout of the files."""

import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

import gpunn

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """The source distribution of this checkout, built without the network."""
    out = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "-o", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True, timeout=300)
    return next(out.glob("gpunn-*.tar.gz"))


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory):
    """A wheel built from the source distribution, without the network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(out), str(sdist)], check=True, capture_output=True)
    return next(out.glob("gpunn-*.whl"))


@pytest.fixture(scope="module")
def fresh(wheel, tmp_path_factory):
    """The Python of a new environment in which only the wheel and what it needs are installed."""
    home = tmp_path_factory.mktemp("home") / "env"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", str(wheel)], check=True)
    return python


def run(python, folder, *arguments):
    """What a program printed; the test fails with its errors where it failed."""
    done = subprocess.run(
        [python, "-W", "error", *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_sdist_has_what_a_checkout_has(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "images/digits.png"]
    wanted += ["kernels/conv.cu", "tests/check.py", "examples/digits.py", "gpunn/py.typed"]
    assert set(wanted) <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".so")]


@pytest.mark.slow
def test_wheel_has_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    for name in ("py.typed", "__init__.pyi", "tensor_methods.pyi", "kernels/common.cuh"):
        assert f"gpunn/{name}" in names
    assert {name.partition("/")[0].partition("-")[0] for name in names} == {"gpunn"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]


@pytest.mark.slow
def test_wheel_in_a_fresh_environment_has_kernels_and_trains(fresh, tmp_path):
    script = (
        "import gpunn as torch\n"
        "text = torch.native.source('conv.cpp')\n"
        "assert 'conv_forward' in text\n"
        "assert (torch.native.kernels_dir() / 'conv.cpp').is_file()\n"
        "layer = torch.nn.Linear(2, 1)\n"
        "layer(torch.ones(3, 2)).sum().backward()\n"
        "print(torch.native.kernels_dir(), layer.weight.grad.tolist())\n"
    )
    out = run(fresh, tmp_path, "-c", script)
    assert "gpunn/kernels" in out.replace("\\", "/")
    assert "[[3.0, 3.0]]" in out
    subprocess.run([fresh, "-m", "pip", "check"], check=True)


@pytest.mark.slow
def test_the_readme_runs_in_a_fresh_environment(fresh, tmp_path):
    for number, block in enumerate(readme_blocks()):
        page = tmp_path / f"page_{number}.py"
        page.write_text(block)
        run(fresh, tmp_path, page.name)


@pytest.mark.slow
def test_programs_of_the_package_run_in_a_fresh_environment(fresh, tmp_path):
    told = run(fresh, tmp_path, "-m", "gpunn.collect_env")
    assert "site-packages" in told and "\nextras " in told
    assert "CUDA" in run(fresh, tmp_path, "-c", "import gpunn; gpunn.doctor()")
    assert "--nproc" in run(fresh, tmp_path, "-m", "gpunn.distributed.run", "--help")


@pytest.mark.slow
def test_an_error_made_on_purpose_says_what_is_wrong(fresh, tmp_path):
    script = (
        "import gpunn as torch\n"
        "from gpunn import nn\n"
        "net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))\n"
        "net(torch.ones(3, 5))\n"
    )
    done = subprocess.run([fresh, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.partition("RuntimeError: ")[2]
    assert "(3, 5)" in last and "(2, 4)" in last and "in 1" in last, done.stderr


def test_the_version_is_one():
    text = (ROOT / "pyproject.toml").read_text()
    assert f'\nversion = "{gpunn.__version__}"\n' in text
    assert f"\n## {gpunn.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_pictures_and_files_that_the_pages_link_to_are_there():
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / page).read_text()
        headings = re.findall(r"^#+ (.+)$", text + (ROOT / "README.md").read_text(), re.MULTILINE)
        anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            path, _, anchor = target.partition("#")
            assert not path or (ROOT / path).is_file(), f"{page}: {target}"
            assert not anchor or anchor in anchors, f"{page}: {target}"
        for path in re.findall(r"`((?:examples|notebooks|benchmarks|images)/[\w/]+\.\w+)`", text):
            assert (ROOT / path).is_file(), f"{page}: {path}"


def test_the_readme_lists_the_notebooks_and_examples():
    text = (ROOT / "README.md").read_text()
    for path in [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("examples/*.py")]:
        assert f"- `{path.relative_to(ROOT).as_posix()}`: " in text


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


def readme_blocks():
    """The Python of the README that runs as it stands."""
    text = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 2
    return blocks


def test_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for block in readme_blocks():
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
