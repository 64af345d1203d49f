"""Compiles every kernel, in every dtype that it declares, for every architecture, without a GPU.

    python -m tests.kernels.compile_check [stem ...] [--arch 90] [--all]

compiles all variants (tile sizes, index types, ...) for sm_90 and one of each dtype for sm_75, 80,
100 and 120; with --all, or named architectures, all for all, sm_86 too. It prints registers for
each kernel and architecture (the most of all variants) and spilled bytes. A warning fails, and so
does a spill in a kernel without a `// spills: why` line above it.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import pkgutil
import re
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gpunn.cuda.kernels
from gpunn.cuda.kernels import loader
from tests.kernels import nvrtc

ARCHITECTURES = (75, 80, 86, 90, 100, 120)
USUAL = (75, 80, 90, 100, 120)  # 86 differs from 80 in what it launches, not in what it compiles
WHOLE = (90,)  # those that every variant is compiled for
_CACHE = Path(tempfile.gettempdir()) / f"gpunn-compile-check-{os.getuid()}"
_MARK = re.compile(
    r"//\s*spills:[^\n]*\n(?:[^\n;{]*\n)*?[^;{]*?__global__[^;{]*?\b(?!__launch_bounds__)(\w+)\s*\("
)


def sources(stems: list[str]) -> list[loader.Source]:
    """The declared kernel files, all or those named."""
    for module in pkgutil.iter_modules(gpunn.cuda.kernels.__path__, "gpunn.cuda.kernels."):
        importlib.import_module(module.name)
    return [s for s in loader.sources() if not stems or s.stem in stems]


def measure(job: tuple[str, str, int]) -> tuple[dict[str, Any], str]:
    """({kernel: (registers, spilled)}, error) of a text for an architecture; kept on disk."""
    stem, text, arch = job
    key = hashlib.sha256(f"{nvrtc.version()} {arch}\n{text}".encode()).hexdigest()[:32]
    path = _CACHE / f"{key}.json"
    if path.exists():
        return json.loads(path.read_text()), ""
    try:
        found = nvrtc.compile(text, arch, f"{stem}.cu")
    except nvrtc.CompileError as error:
        return {}, str(error)
    _CACHE.mkdir(exist_ok=True)
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(found))
    os.replace(fresh, path)
    return found, ""


def one_of_each_dtype(source: loader.Source) -> list[dict[str, Any]]:
    """The first of the variants of each dtype."""
    found: dict[Any, dict[str, Any]] = {}
    for choice in source.variants():
        found.setdefault(choice.get("T"), choice)
    return list(found.values())


def check(
    stems: list[str], architectures: tuple[int, ...], whole: tuple[int, ...], workers: int
) -> int:
    """Prints the table; returns the number of failures."""
    jobs, labels, left_out = [], [], 0
    for source in sources(stems):
        some = one_of_each_dtype(source)
        for choice in source.variants():
            text = source.text(**choice)
            for arch in architectures:
                if arch not in whole and choice not in some:
                    left_out += 1
                    continue
                jobs.append((source.stem, text, arch))
                labels.append(", ".join(f"{k}={v}" for k, v in choice.items()))
    marked = {name for _, text, _ in jobs for name in _MARK.findall(text)}
    table: dict[tuple[str, str], dict[int, tuple[int, int]]] = {}
    failures = []
    with ProcessPoolExecutor(workers) as pool:
        results = pool.map(measure, jobs, chunksize=4)
        for (stem, _, arch), label, (found, error) in zip(jobs, labels, results, strict=True):
            if error:
                failures.append(f"{stem}.cu ({label}) {error}")
            for name, (registers, spilled) in found.items():
                row = table.setdefault((stem, name), {})
                most = row.get(arch, (0, 0))
                row[arch] = max(most[0], registers), max(most[1], spilled)
                if spilled and name not in marked:
                    failures.append(f"{stem}.cu {name} ({label}) sm_{arch}: {spilled} bytes spill")
    show(table, architectures)
    print(f"NVRTC {nvrtc.version()}: {len(jobs)} compilations, {len(failures)} failures")
    if left_out:
        print(f"{left_out} further variants were left out: --all compiles them, too")
    print("\n".join(failures[:40]))
    return len(failures)


def show(table: dict[Any, dict[int, tuple[int, int]]], architectures: tuple[int, ...]) -> None:
    width = max([len(f"{stem}.cu {name}") for stem, name in table], default=10)
    print(f"{'registers (+ bytes spilled)':{width}s}", *(f"{f'sm_{a}':>9s}" for a in architectures))
    for (stem, name), row in sorted(table.items()):
        cells = []
        for arch in architectures:
            registers, spilled = row.get(arch, (0, 0))
            cells.append(f"{registers}+{spilled}" if spilled else str(registers))
        print(f"{f'{stem}.cu {name}':{width}s}", *(f"{c:>9s}" for c in cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stems", nargs="*", help="kernel files, without .cu; all by default")
    parser.add_argument("--arch", type=int, action="append", help="75, 80, 86, 90, 100 or 120")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--all", action="store_true", help="every variant for every architecture")
    options = parser.parse_args()
    if nvrtc.missing():
        print(f"compile check skipped: {nvrtc.missing()}")
        return 0
    architectures = tuple(options.arch or (ARCHITECTURES if options.all else USUAL))
    whole = architectures if options.all or options.arch else WHOLE
    return min(1, check(options.stems, architectures, whole, options.workers))


if __name__ == "__main__":
    sys.exit(main())
