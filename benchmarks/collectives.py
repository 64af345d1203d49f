"""Collective operations of CPU tensors against PyTorch's gloo, with the public functions of both.

    python benchmarks/collectives.py [--ranks 2 4] [--rounds 3]

The ranks are processes of this machine with one thread each; the packages take turns. Microseconds
a call: the best run of a round, then the median over rounds, of wall time and of the CPU time that
rank 0 spends. With more ranks than idle cores, wall time is that of the scheduler; CPU time is not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time

SIZES = {"1 KB": 1 << 10, "64 KB": 1 << 16, "1 MB": 1 << 20, "25 MB": 25 << 20}


def cpu_time() -> float:
    """Seconds of CPU time that this process has used."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure(T) -> dict[str, list[float]]:
    """[wall, CPU] seconds a call of every case, on this rank."""
    dist = T.distributed
    found = {}
    for size, count in SIZES.items():
        x = T.ones(count // 4)
        calls = max(3, min(300, 10_000_000 // count))
        for name, call in (("all_reduce", dist.all_reduce), ("broadcast", dist.broadcast)):
            extra = (0,) if name == "broadcast" else ()
            runs = []
            for _ in range(6):
                x.fill_(1.0)
                dist.barrier()
                start, used = time.perf_counter(), cpu_time()
                for _ in range(calls):
                    call(x, *extra)
                runs.append([time.perf_counter() - start, cpu_time() - used])
            found[f"{name} {size}"] = [min(r[k] for r in runs[1:]) / calls for k in (0, 1)]
    return found


def rank(impl: str) -> None:
    """One rank; the first prints what it measured."""
    T = importlib.import_module(impl)
    dist = importlib.import_module(f"{impl}.distributed")
    if impl == "torch":
        T.set_num_threads(1)
    dist.init_process_group("gloo")
    found = measure(T)
    dist.barrier()
    if dist.get_rank() == 0:
        print(json.dumps(found))
    dist.destroy_process_group()


def run(impl: str, ranks: int) -> dict[str, list[float]]:
    """What the first of so many ranks measured."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(ranks)}
    started = [
        subprocess.Popen(
            [sys.executable, __file__, "--impl", impl], stdout=subprocess.PIPE,
            env={**os.environ, **threads, **place, "RANK": str(r)},
        )  # fmt: skip
        for r in range(ranks)
    ]
    said = [process.communicate(timeout=300)[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{impl} with {ranks} ranks failed")
    return json.loads(said[0].splitlines()[-1])


def main() -> None:
    """Measures both packages in turns and prints medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--impl", choices=("gpunn", "torch"), help="be one rank of that package")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.impl:
        return rank(options.impl)
    for ranks in options.ranks:
        rounds = [[run(i, ranks) for i in ("gpunn", "torch")] for _ in range(options.rounds)]
        print(f"{ranks} ranks{'':16s} gpunn   torch  ratio | CPU: gpunn   torch  ratio   (us)")
        for name in rounds[0][0]:
            line = f"{name:20s}"
            for k in (0, 1):
                ours, theirs = (
                    statistics.median(r[side][name][k] for r in rounds) * 1e6 for side in (0, 1)
                )
                line += f" {ours:8.0f}{theirs:8.0f} {ours / theirs:6.2f}" + "  |  " * (k == 0)
            print(line, flush=True)


if __name__ == "__main__":
    main()
