"""examples/ddp_digits.py: with the launcher, with mpiexec, alone and with PyTorch it is one run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
SCRIPT = str(ROOT / "examples" / "ddp_digits.py")
LAUNCHED = [sys.executable, "-m", "gpunn.distributed.run", "--nproc", "2"]


def run(command, out, *arguments, epochs=2):
    """What a run printed, and its history."""
    pytest.importorskip("sklearn", reason="the data are scikit-learn's")
    env = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}  # fmt: skip
    command = [*command, SCRIPT, "--epochs", str(epochs), "--out", str(out), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    if "torch" not in arguments:  # whose threads now and then abort a process as it ends
        assert done.returncode == 0, done.stdout + done.stderr
    assert (out / "history.json").exists(), done.stdout + done.stderr
    return done, json.loads((out / "history.json").read_text())


def said(done, ranks):
    """It says how it runs, once, and draws one progress bar; the others are silent."""
    assert len(re.findall(r"gpunn: \d+ process(?:es)? with \d+ rows", done.stdout)) == 1
    size = f"{ranks} process{'es' * (ranks > 1)} with {64 // ranks} rows each of batches of 64"
    assert size in done.stdout
    assert "test accuracy over all processes" in done.stdout and "44/44" in done.stderr
    assert "[rank 1]" not in done.stdout + done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run([sys.executable], tmp_path_factory.mktemp("alone"))


def same(history, other, tolerance=2e-3):
    assert len(history["loss"]) == len(other["loss"]) == 44
    np.testing.assert_allclose(history["loss"], other["loss"], rtol=tolerance, atol=tolerance)
    difference = np.subtract(history["test_accuracy"], other["test_accuracy"])
    assert np.abs(difference).max() <= 2 / 359


def test_alone_it_learns(alone):
    done, history = alone
    said(done, 1)
    assert history["loss"][-1] < 0.7 * history["loss"][0] and history["epoch"] == 2
    assert history["test_accuracy"][-1] > 0.5


def test_two_processes_have_the_same_losses_and_continue(alone, tmp_path):
    done, history = run(LAUNCHED, tmp_path)
    said(done, 2)
    same(history, alone[1])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history.json", "model.pt"]
    resumed, longer = run(LAUNCHED, tmp_path, "--resume", str(tmp_path / "model.pt"), epochs=8)
    assert longer["loss"][:44] == history["loss"] and len(longer["loss"]) == 176
    assert longer["test_accuracy"][-1] > 0.93
    assert "6 epochs in" in resumed.stdout


def test_under_mpiexec(alone, tmp_path):
    pytest.importorskip("mpi4py", reason="needs mpi4py and an MPI library", exc_type=Exception)
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("needs mpiexec")
    command = [mpiexec, "--oversubscribe", "--bind-to", "none", "-n", "2", sys.executable]
    done, history = run(command, tmp_path)
    said(done, 2)
    same(history, alone[1])


def test_with_pytorch(alone, tmp_path):
    pytest.importorskip("torch", reason="parity tests need PyTorch")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2",
               "--standalone"]  # fmt: skip
    done, history = run(command, tmp_path, "--impl", "torch")
    assert "torch: 2 processes with 32 rows each" in done.stdout
    same(history, alone[1])


def test_a_batch_that_cannot_be_shared(tmp_path):
    with pytest.raises(AssertionError, match="--batch-size 63 does not divide over 2 processes"):
        run(LAUNCHED, tmp_path, "--batch-size", "63")


def test_the_benchmark_counts_what_is_sent():
    script = str(ROOT / "benchmarks" / "distributed.py")
    command = [sys.executable, script, "--impl", "gpunn", "--model", "MLP", "--seconds", "0.1"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["MLP"]
    assert found["sent"] == found["gradients"] == 4 * (784 * 1024 + 2 * 1024**2 + 13 * 1024 + 10)
    assert 0 <= found["hidden"] <= 1 and found["seconds"] > 0
