"""Parity with PyTorch from the command line.

    python -m tests.parity add 'linalg.*'      operations by name or pattern: each failing sample
    python -m tests.parity nn.Linear optim.SGD lr_scheduler.StepLR
    python -m tests.parity conv2d              the last part of a name is enough
    python -m tests.parity --table             all of them: how many pass, fail, are absent
    python -m tests.parity --failing           the same, and one line for each that fails

Options, of operations: --dtype float32 and --kind grad (both repeatable; kinds are value, method,
inplace, operator, out, strided, memory, grad, "inplace grad", gradgrad, alias, signature, error),
--every (all samples, not a choice of them), --reference (PyTorch's larger set of samples).
Of everything: --verbose (values of small tensors, every failure, errors with other words),
--jobs N, --impl torch (PyTorch against itself, which must pass: checks the suite), --impl emulated
(gpunn on the emulated CUDA device), --impl second (on the second of two, which is not current).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from fnmatch import fnmatchcase

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.parity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--failing", action="store_true")
    parser.add_argument("--dtype", action="append", default=[])
    parser.add_argument("--kind", action="append", default=[])
    parser.add_argument("--every", action="store_true")
    parser.add_argument("--reference", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--impl", default="gpunn", help=argparse.SUPPRESS)
    return parser.parse_args()


def select(patterns: list[str], names: list[str]) -> list[str]:
    """The names that match a pattern, whole or in their last part; all without patterns."""
    if not patterns:
        return names
    chosen = []
    for pattern in patterns:
        found = [n for n in names if fnmatchcase(n, pattern)]
        found = found or [n for n in names if fnmatchcase(n.rpartition(".")[2], pattern)]
        if not found:
            sys.exit(f"nothing in PyTorch's lists is called {pattern!r}")
        chosen += [n for n in found if n not in chosen]
    return chosen


def main() -> int:
    args = arguments()
    import torch

    from . import suite
    from .ops import Options
    from .report import FAIL, MISSING, table

    torch.set_num_threads(1)
    dtypes = tuple(getattr(torch, d) for d in args.dtype)
    options = Options(dtypes, tuple(args.kind), args.every, args.reference, args.verbose)
    names = select(args.names, suite.names())
    jobs = args.jobs or (2 if len(names) > 20 else 1)
    work = [(name, args.impl, options) for name in names]
    everything = args.table or args.failing
    reports = []
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=200) as pool:
        for report in pool.imap(suite.run_task, work) if jobs > 1 else map(suite.run_task, work):
            reports.append(report)
            if not everything:
                print(report.text(everything=args.verbose), flush=True)
            elif args.failing and report.status == FAIL:
                print(report.line(), flush=True)
    if everything or len(reports) > 1:
        print(table([r.summary() for r in reports]))
    return int(any(r.status in (FAIL, MISSING) for r in reports))


if __name__ == "__main__":
    sys.exit(main())
