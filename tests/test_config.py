"""`gpunn.__config__` and `gpunn.show_config()`."""

import subprocess
import sys

import numpy as np
import pytest

import gpunn
from gpunn import native


def test_show_says_what_computes(capsys):
    text = gpunn.__config__.show()
    assert text.startswith(f"gpunn {gpunn.__version__} works with:\n") and text.endswith("\n")
    assert f"NumPy {np.__version__}, BLAS: " in text
    assert native.status() in text
    cu = len(list(native.kernels_dir().glob("*.cu")))
    assert f" and {cu} of CUDA in {native.kernels_dir()}" in text and cu > 0
    assert gpunn.show_config() is None
    assert capsys.readouterr().out == text


def test_parallel_info(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    lines = gpunn.__config__.parallel_info().splitlines()
    assert f"gpunn.get_num_threads(): {gpunn.get_num_threads()}" in lines
    assert "OMP_NUM_THREADS: 7" in lines and "MKL_NUM_THREADS: [not set]" in lines


def test_same_functions_as_pytorch():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    for name in ("show", "parallel_info"):
        ours, theirs = getattr(gpunn.__config__, name), getattr(torch.__config__, name)
        assert type(ours()) is type(theirs()) is str


def test_it_is_imported_on_first_use():
    code = "import sys, gpunn; print('gpunn.__config__' in sys.modules); gpunn.show_config()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("False\ngpunn ")
