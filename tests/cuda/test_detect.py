"""Every way in which a machine can have no CUDA, with a fake CuPy and with none."""

import os
import subprocess
import sys
from pathlib import Path

import fake_cupy
import pytest

from gpunn import cuda
from gpunn.cuda import detect
from gpunn.device import Device

ROOT = Path(__file__).parents[2]
DYNAMIC = RuntimeError('Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file')

# name: what is installed, the case it is, and parts of what the user reads
CASES = {
    "absent": (
        dict(packages=()),
        ["CuPy is not installed", "CUDA 12.8", 'pip install "gpunn[cuda12]"'],
    ),
    "absent, driver for 13": (
        dict(packages=(), driver=13000),
        ["CuPy is not installed", 'pip install "gpunn[cuda13]"'],
    ),
    "absent, no driver": (
        dict(packages=(), driver=0),
        ["CuPy is not installed", "no NVIDIA driver", 'pip install "gpunn[cuda12]"'],
    ),
    "several": (
        dict(cupy=fake_cupy.make(), packages=("cupy-cuda12x", "cupy-cuda13x")),
        ['pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install "gpunn[cuda12]"'],
    ),
    "broken": (
        dict(packages=("cupy-cuda12x",)),
        ["does not import", 'pip uninstall -y cupy-cuda12x && pip install "gpunn[cuda12]"'],
    ),
    "old": (
        dict(cupy=fake_cupy.make(version="13.6.0"), packages=("cupy-cuda11x",)),
        ["CuPy 13.6.0 is too old", 'pip uninstall -y cupy-cuda11x && pip install "gpunn[cuda12]"'],
    ),
    "no driver": (
        dict(cupy=fake_cupy.make(status=35), driver=0),
        ["Found no NVIDIA driver on your system", "--gpus all"],
    ),
    "old driver": (
        dict(cupy=fake_cupy.make(status=35), driver=11040),
        ["The NVIDIA driver on your system is too old (found version 11040)", "needs CUDA 12.0"],
    ),
    "old driver, CuPy for 13": (
        dict(
            cupy=fake_cupy.make(status=35, runtime=13000), packages=("cupy-cuda13x",), driver=12040
        ),
        ["CUDA 12.4", 'pip uninstall -y cupy-cuda13x && pip install "gpunn[cuda12]"'],
    ),
    "no gpu": (
        dict(cupy=fake_cupy.make(status=100)),
        ["No CUDA GPUs are available", "the driver finds no GPU"],
    ),
    "no gpu, counted 0": (
        dict(cupy=fake_cupy.make(devices=0)),
        ["No CUDA GPUs are available"],
    ),
    "no toolkit": (
        dict(cupy=fake_cupy.make(nvrtc=DYNAMIC)),
        ["without CUDA's compiler", "libnvrtc", 'pip install "gpunn[cuda12]"'],
    ),
    "no toolkit, CuPy for 13": (
        dict(cupy=fake_cupy.make(nvrtc=DYNAMIC), packages=("cupy-cuda13x",)),
        ['pip install "gpunn[cuda13]"'],
    ),
    "error": (
        dict(cupy=fake_cupy.make(status=3)),
        ["CUDA cannot start", "cudaErrorInitializationError"],
    ),
}


@pytest.fixture(autouse=True)
def _all_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def _check_cpu_machine(case, parts):
    assert cuda.probe().case == case
    assert not cuda.is_available()
    assert cuda.device_count() == 0
    for start in (cuda.init, lambda: Device("cuda").xp, lambda: Device("cuda", 1).xp, cuda.Stream):
        with pytest.raises(RuntimeError) as error:
            start()
        assert [part for part in parts if part not in str(error.value)] == []
    assert not cuda.is_initialized()


@pytest.mark.parametrize("name", CASES)
def test_cpu_machine(name):
    setup, parts = CASES[name]
    with fake_cupy.installed(**setup):
        _check_cpu_machine(name.partition(",")[0], parts)


@pytest.mark.parametrize("value", ["", "-1", "7"])
def test_hidden_devices(monkeypatch, value):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    with fake_cupy.installed(fake_cupy.make(status=100)):
        _check_cpu_machine("hidden", [f"CUDA_VISIBLE_DEVICES={value!r} hides all"])


@pytest.mark.parametrize(
    "raised",
    [
        "ImportError('====\\nFailed to import CuPy.\\n  ImportError: libcuda.so.1: bad\\n====')",
        "RuntimeError('libcuda.so.1: bad')",
        "OSError('libcuda.so.1: bad')",
    ],
)
def test_import_that_fails(monkeypatch, tmp_path, raised):
    (tmp_path / "cupy").mkdir()
    (tmp_path / "cupy" / "__init__.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(tmp_path)
    with fake_cupy.installed():
        del sys.modules["cupy"]
        try:
            _check_cpu_machine("broken", ["does not import", "libcuda.so.1: bad"])
        finally:
            sys.modules["cupy"] = None


def test_works():
    with fake_cupy.installed(fake_cupy.make(devices=2)) as cupy:
        assert cuda.is_available() and not cuda.is_initialized()
        assert cuda.device_count() == 2
        assert cuda.probe().message == "CUDA works: 2 devices"
        assert Device("cuda").xp is cupy and Device("cuda:1").xp.ndarray is cupy.ndarray
        assert cuda.is_initialized()


def test_cpu_case_says_so_without_looking_twice(monkeypatch):
    with fake_cupy.installed(packages=()):
        first = cuda.probe()
        monkeypatch.setattr(detect, "_look", lambda: pytest.fail("looked twice"))
        assert cuda.probe() is first


def test_installed_packages_are_found(monkeypatch, tmp_path):
    for name in ("cupy_cuda12x", "cupy_cuda13x"):
        folder = tmp_path / f"{name}-14.2.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 14.2.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert detect._is_installed("cupy-cuda12x") and detect._is_installed("cupy-cuda13x")
    assert not detect._is_installed("cupy-cuda99x")


def test_driver_version(monkeypatch):
    class Library:
        def __init__(self, name):
            if name != "nvcuda.dll":
                raise OSError(f"{name}: cannot open shared object file")

        def cuDriverGetVersion(self, version):
            version._obj.value = 12080
            return 0

    monkeypatch.setattr(detect.ctypes, "CDLL", Library)
    assert detect._driver_version() == 12080
    monkeypatch.setattr(Library, "cuDriverGetVersion", lambda self, version: 999)
    assert detect._driver_version() == 0


def _python(code):
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_leaves_cupy_and_the_driver_alone():
    code = (
        "import ctypes, sys\n"
        "ctypes.CDLL = lambda name, *a, **k: sys.exit(f'loaded {name}')\n"
        "import gpunn.cuda\n"
        "print('cupy' in sys.modules, gpunn.cuda.is_initialized())"
    )
    assert _python(code).split() == ["False", "False"]


FORK = """
import os, sys
import fake_cupy
from gpunn import cuda
from gpunn.device import Device

with fake_cupy.installed(fake_cupy.make()):
    {before}
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    for use in (cuda.init, lambda: Device("cuda:0").xp, cuda.current_device, cuda.Stream):
        try:
            use()
            print("fine")
        except RuntimeError as error:
            print(error)
    print(cuda.is_available(), cuda.manual_seed_all(0))
    sys.stdout.flush()
    os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("before", ["cuda.init()", "Device('cuda:0').xp", "cuda.is_available()"])
def test_forked_child_says_that_it_cannot_use_cuda(before):
    *uses, last = _python(FORK.format(before=before)).splitlines()
    assert len(uses) == 4 and last == "True None"
    for line in uses:
        assert line.startswith(
            "Cannot re-initialize CUDA in forked subprocess. To use CUDA with multiprocessing, "
            "you must use the 'spawn' start method"
        )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_child_starts_cuda_that_the_parent_has_not_touched():
    *uses, last = _python(FORK.format(before="pass")).splitlines()
    assert uses == ["fine"] * 4 and last == "True None"


@pytest.mark.gpu
def test_on_a_gpu():
    found = cuda.probe()
    assert found.case == "ok" and found.devices >= 1 and found.driver >= 12000
    cuda.init()
    assert cuda.is_initialized() and Device("cuda").xp is found.cupy
