"""`python -m gpunn.collect_env`, the text for bug reports."""

import os
import subprocess
import sys

import numpy as np
import pytest

import gpunn
import gpunn.collect_env
from gpunn.utils import collect_env


def test_it_says_what_the_doctor_says_and_more():
    found, doctor = collect_env.get_env_info(), gpunn.diagnostics.findings()
    assert list(found)[: len(doctor)] == list(doctor)
    assert f"numpy {np.__version__}" in found["packages"].splitlines()
    assert found["packages"].splitlines() == sorted(set(found["packages"].splitlines()))
    pretty = collect_env.get_pretty_env_info().splitlines()
    assert set(pretty) >= {line for line in str(found).splitlines() if "unused" not in line}


def test_the_home_folder_is_not_told(monkeypatch):
    monkeypatch.setenv("HOME", os.path.dirname(os.path.abspath(gpunn.__file__)))
    told = collect_env.get_env_info()
    assert os.environ["HOME"] + os.sep not in str(told)
    monkeypatch.setenv("HOME", "/")
    assert collect_env.get_env_info()["python"] == gpunn.diagnostics.findings()["python"]


def test_a_compiler_that_does_not_start_is_told(monkeypatch):
    monkeypatch.setenv("CXX", "false")
    assert "BuildError" in collect_env.get_env_info()["compiler"]
    monkeypatch.setattr("gpunn.native.build.compiler", lambda: None)
    assert collect_env.get_env_info()["compiler"] == "none found: set CXX, or install g++"


@pytest.mark.parametrize("module", ["gpunn.collect_env", "gpunn.utils.collect_env"])
def test_from_a_shell(module):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-W", "error", "-m", module]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("gpunn") and "\npackages " in done.stdout


def test_both_paths_are_one():
    assert gpunn.collect_env.main is collect_env.main
