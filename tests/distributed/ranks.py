"""Runs a few lines of Python as several ranks: real processes, each with its place in a job.

    results = run_ranks(2, '''
        x = gpunn.full((3,), float(rank))
        dist.all_reduce(x)
        report(x.tolist())
    ''')

`rank`, `world`, `gpunn`, `dist`, `np`, `nn`, `F` and `report` are there, and the process group is
initialized and destroyed around the lines. Starting a rank costs half a second: many checks into
one run.
"""

import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parent.parent.parent

_BEFORE = '''
import json, os, sys
import numpy as np
import gpunn
import gpunn.distributed as dist
from gpunn import nn
import gpunn.nn.functional as F

_mpi = os.environ.get("OMPI_COMM_WORLD_RANK")
rank, world = int(_mpi or os.environ["RANK"]), int(os.environ["RANKS_WORLD"])

def report(value):
    path = os.path.join(os.environ["RANKS_FOLDER"], f"{rank}.json")
    with open(path + ".part", "w") as file:
        json.dump(value, file)
    os.replace(path + ".part", path)
'''


class Outcome(NamedTuple):
    """How a rank ended: exit code (negative: the signal), what it reported, what it printed."""

    code: int
    result: Any
    output: str


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_ranks(n, body, backend="gloo", timeout=60, **options):
    """What each of n ranks reported; AssertionError with all their output where one fails."""
    outcomes = try_ranks(n, body, backend, timeout, **options)
    if any(o.code for o in outcomes):
        logs = [f"--- rank {r}: exit code {o.code}\n{o.output}" for r, o in enumerate(outcomes)]
        raise AssertionError("\n".join(logs))
    return [o.result for o in outcomes]


def try_ranks(n, body, backend="gloo", timeout=60, env=None, init=None):
    """Runs `body` as n ranks and tells how each ended.

    `body` is source text, or a function of (rank, world) whose result is reported; it sees the
    names above and nothing else of its module. `backend` None leaves the process group to it;
    "mpi" starts the ranks with mpiexec. `init` are further arguments of init_process_group, as
    text. A rank that outlives `timeout` seconds is killed, and has the exit code -9.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.py")
        script.write_text(_script(body, backend, init))
        common = {
            **os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "RANKS_FOLDER": folder, "RANKS_WORLD": str(n), "PYTHONUNBUFFERED": "1", **(env or {}),
        }  # fmt: skip
        if backend == "mpi":
            return _under_mpi(n, script, common, folder, timeout)
        return _processes(n, script, common, folder, timeout)


def _script(body, backend, init):
    if callable(body):
        source = textwrap.dedent(inspect.getsource(body))
        source += f"\nreport({body.__name__}(rank, world))\n"
    else:
        source = textwrap.dedent(body)
    if backend is None:
        return _BEFORE + source
    start = f"\ndist.init_process_group({backend!r}, {init or ''})\n"
    return _BEFORE + start + source + "\ndist.destroy_process_group()\n"


def _processes(n, script, common, folder, timeout):
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(n)}
    processes = []
    for rank in range(n):
        env = {**common, **place, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        with open(Path(folder, f"{rank}.log"), "w") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, str(script)], env=env, stdout=log, stderr=log,
                    stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            )
    deadline = time.monotonic() + timeout
    for process in processes:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            _kill(process)
    return [_outcome(folder, r, p.returncode, f"{r}.log") for r, p in enumerate(processes)]


def _under_mpi(n, script, common, folder, timeout):
    pytest.importorskip("mpi4py", reason="needs mpi4py and an MPI library", exc_type=Exception)
    beside = Path(sys.executable).parent / "mpiexec"
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("needs mpiexec")
    env = {**common, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        env.pop(name, None)
    command = [mpiexec, "--oversubscribe", "-n", str(n), sys.executable, str(script)]
    with open(Path(folder, "all.log"), "w") as log:
        process = subprocess.Popen(
            command, env=env, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        _kill(process)
    return [_outcome(folder, r, process.returncode, "all.log") for r in range(n)]


def _kill(process):
    """Kills a process and all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _outcome(folder, rank, code, log):
    found = Path(folder, f"{rank}.json")
    result = json.loads(found.read_text()) if found.exists() else None
    return Outcome(code, result, Path(folder, log).read_text())
