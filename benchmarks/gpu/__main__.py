"""The command line: `python -m benchmarks.gpu [names] [--out FILE] [--quick]`.

A name is that of a file of this folder (`optim`) or a part of a case's name as the table shows it.
Exits with 0, with 1 where a result was wrong or a case failed, with 2 where nothing can be run.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from benchmarks.gpu import harness


def files() -> list[str]:
    """The stems of the files that define cases."""
    other = ("__init__", "__main__", "harness")
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in other)


def all_cases(tiny: bool = False) -> list[tuple[str, harness.Case]]:
    """Every case, by its name in the table: "file: case, dtype"."""
    return [
        (f"{stem}: {case.name}, {case.dtype}", case)
        for stem in files()
        for case in importlib.import_module(f"benchmarks.gpu.{stem}").cases(tiny)
    ]


def chosen(
    named: list[tuple[str, harness.Case]], names: list[str]
) -> list[tuple[str, harness.Case]]:
    """The cases that a name asks for; all without names."""

    def wanted(name: str) -> bool:
        return any(n == name.split(":")[0] if n in files() else n in name for n in names)

    return [(name, case) for name, case in named if not names or wanted(name)]


def missing() -> str | None:
    """Why nothing can be measured here, in one line; None where it can."""
    import gpunn

    if not gpunn.cuda.is_available():
        return f"no GPU for gpunn: {gpunn.cuda.probe().message}"
    try:
        import torch
    except ImportError:
        return "PyTorch, to compare with, is not installed"
    if not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no GPU: install its build for CUDA"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Runs the chosen cases, prints the table, writes the JSON; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("names", nargs="*", help="files or parts of case names; default: all")
    parser.add_argument("--out", type=Path, help="the JSON file, else results/<device>-<date>.json")
    parser.add_argument("--quick", action="store_true", help="10 rounds instead of 50")
    args = parser.parse_args(arguments)
    reason = missing()
    if reason is not None:
        print(f"benchmarks.gpu: {' '.join(reason.split())}", file=sys.stderr)
        return 2
    named = chosen(all_cases(), args.names)
    if not named:
        print(f"benchmarks.gpu: no case is called {' or '.join(args.names)}", file=sys.stderr)
        return 2

    import torch

    import gpunn

    limits = harness.known_limits(gpunn.cuda.get_device_name()) or harness.measured_limits(torch)
    about = harness.environment(gpunn, torch, limits)
    print(", ".join(f"{key} {about[key]}" for key in ("device", "driver", "cuda", "cupy", "torch")))
    print(f"limits: {limits.bandwidth / 1e12:.3g} TB/s, {limits.source}")
    rows = harness.measure_all(named, (gpunn, torch), limits, args.quick)
    print(harness.summary(rows))
    path = args.out or harness.result_path(about["device"])
    harness.write_json(path, {"environment": about, "unit": "milliseconds", "rows": rows})
    print(f"written: {path}")
    return int(any("error" in row for row in rows.values()))


if __name__ == "__main__":
    sys.exit(main())
