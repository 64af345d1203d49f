"""Runs a benchmark's cases under gpunn and under PyTorch, in processes that take turns.

A benchmark file defines `cases(T)`, a dictionary of functions without arguments written for a
package `T` with PyTorch's names, and calls `compare.main(cases)`:

    python benchmarks/overhead.py               # both, with ratios
    python benchmarks/overhead.py --impl gpunn  # one of them, as JSON

Two BLAS or OpenMP pools in one process disturb each other, and machines are noisy: each round
starts a fresh process for either package, back to back, and the ratio is the median over rounds of
gpunn's time divided by PyTorch's. Below 1, gpunn is faster.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

IMPLS = ("gpunn", "torch")


def load(impl: str) -> Any:
    """The package, with its submodules that scripts name."""
    package = importlib.import_module(impl)
    for part in ("nn", "nn.functional", "optim"):
        importlib.import_module(f"{impl}.{part}")
    return package


def best_time(function: Callable[[], Any], seconds: float = 0.2, repeats: int = 5) -> float:
    """Seconds a call: the best of several runs, each of many calls."""
    function()
    start = time.perf_counter()
    function()
    once = max(time.perf_counter() - start, 1e-7)
    count = max(1, int(seconds / repeats / once))
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(count):
            function()
        best = min(best, (time.perf_counter() - start) / count)
    return best


def measure(cases: Callable[[Any], dict[str, Any]], impl: str, seconds: float) -> dict[str, float]:
    """Seconds a call of every case under one package."""
    return {name: best_time(f, seconds) for name, f in cases(load(impl)).items()}


def run_once(script: str, impl: str, threads: int, extra: list[str]) -> dict[str, float]:
    """The measurements of one fresh process."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GPUNN_NUM_THREADS")
    env = dict(os.environ, **dict.fromkeys(names, str(threads)))
    command = [sys.executable, script, "--impl", impl, *extra]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(rounds: list[dict[str, dict[str, float]]], unit: str, scale: float) -> dict[str, Any]:
    """Prints the table; returns what it says."""
    print(f"{'case':34s} {'gpunn':>10s} {'torch':>10s}  {unit}    ratio")
    rows: dict[str, Any] = {}
    for name in rounds[0]["gpunn"]:
        ours = statistics.median(r["gpunn"][name] for r in rounds)
        theirs = statistics.median(r["torch"][name] for r in rounds)
        ratio = statistics.median(r["gpunn"][name] / r["torch"][name] for r in rounds)
        rows[name] = {"gpunn": ours, "torch": theirs, "ratio": ratio}
        print(f"{name:34s} {ours * scale:10.3f} {theirs * scale:10.3f}  {unit}  {ratio:7.2f}")
    return rows


def environment() -> dict[str, str]:
    """What the numbers depend on."""
    from importlib.metadata import version

    packages = {name: version(name) for name in ("gpunn", "torch", "numpy") if _installed(name)}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def main(
    cases: Callable[[Any], dict[str, Any]], *, unit: str = "us", scale: float = 1e6,
    seconds: float = 0.2, measure_with: Any = measure,
) -> None:  # fmt: skip
    """The command line of a benchmark file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--impl", choices=IMPLS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the table to this file")
    args = parser.parse_args()
    script = sys.argv[0]
    if args.impl:
        print(json.dumps(measure_with(cases, args.impl, seconds)))
        return
    rounds = []
    for i in range(args.rounds):
        order = IMPLS if i % 2 == 0 else IMPLS[::-1]
        rounds.append({impl: run_once(script, impl, args.threads, []) for impl in order})
    rows = report(rounds, unit, scale)
    if args.json:
        text = json.dumps({"environment": environment(), "unit": "seconds", "rows": rows}, indent=1)
        args.json.with_suffix(".tmp").write_text(text + "\n")
        args.json.with_suffix(".tmp").replace(args.json)
