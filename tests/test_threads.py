"""Threads of the CPU."""

import os
import subprocess
import sys

import pytest

import gpunn
from gpunn import native, threads


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    before = gpunn.get_num_threads()
    monkeypatch.setattr(threads, "_chosen", None)
    yield
    gpunn.set_num_threads(before)


def _blas_threads():
    return {blas["num_threads"] for blas in threads.blas_libraries()}


@pytest.mark.parametrize("n", [1, 2])
def test_set_and_get(monkeypatch, n):
    told = []
    monkeypatch.setattr(native, "set_num_threads", told.append)
    gpunn.set_num_threads(n)
    assert gpunn.get_num_threads() == n and told == [n]
    assert _blas_threads() in ({n}, set())


def test_what_blas_uses_counts_until_a_number_is_set():
    assert gpunn.get_num_threads() == max(_blas_threads(), default=threads.cores())


def test_without_a_blas_that_threadpoolctl_knows(monkeypatch):
    monkeypatch.setattr(threads, "blas_libraries", list)
    assert gpunn.get_num_threads() == threads.cores() >= 1


def test_cores_without_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert threads.cores() == (os.cpu_count() or 1)


@pytest.mark.parametrize("n", [0, -1, 1.5, "a", True, None])
def test_errors(n):
    with pytest.raises(RuntimeError) as ours:
        gpunn.set_num_threads(n)
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    with pytest.raises(RuntimeError) as theirs:
        torch.set_num_threads(n)
    assert str(theirs.value) in str(ours.value)


def test_environment_variable():
    code = "import gpunn; print(gpunn.get_num_threads())"
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    env |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("given, found", [(None, "20"), ("7", "7")])
def test_the_threads_of_blas_give_their_cores_back_soon(given, found):
    env = {k: v for k, v in os.environ.items() if k != "OPENBLAS_THREAD_TIMEOUT"}
    if given:
        env["OPENBLAS_THREAD_TIMEOUT"] = given
    code = (
        "import builtins, os, sys\n"
        "real = builtins.__import__\n"
        "def watched(name, *rest):\n"
        "    if name == 'numpy' and name not in sys.modules and not seen:\n"
        "        seen.append(os.environ.get('OPENBLAS_THREAD_TIMEOUT'))\n"
        "    return real(name, *rest)\n"
        "seen = []\n"
        "builtins.__import__ = watched\n"
        "import gpunn\n"
        "print(*seen)\n"
    )
    told = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert told.stdout.split() == [found], told.stderr
