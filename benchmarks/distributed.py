"""DistributedDataParallel over 1 and 2 processes, gpunn against PyTorch with gloo.

    python benchmarks/distributed.py                                # both, with ratios
    python benchmarks/distributed.py --impl gpunn --processes 2     # one run, as JSON

Each process has one thread and its own batch of the same size, so two processes do twice the work;
perfect scaling is twice the rows per second. A step is zero_grad, forward, loss, backward and SGD.
One process runs the bare model. The time of a step is that of the fastest tenth, which a busy
machine disturbs least; the processor time of a process, beside it, holds on one too. Both packages
run this same file, in turns; ratios are medians over the rounds. Also printed: what is sent per
step and the size of the gradients, and the share of the time of the reductions that passes while
the backward pass goes on.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

IMPLS = ("gpunn", "torch")
ROWS = {"MLP": 128, "CNN": 16}
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "GPUNN_NUM_THREADS")


def make(T: Any, name: str) -> tuple[Any, tuple[int, ...]]:
    """A model, and the shape of one of its inputs."""
    nn = T.nn
    if name == "MLP":
        return nn.Sequential(
            nn.Linear(784, 1024), nn.ReLU(), nn.Linear(1024, 1024), nn.ReLU(),
            nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 10),
        ), (784,)  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128 * 8 * 8, 10),
    ), (3, 32, 32)  # fmt: skip


def one_process(impl: str, name: str, seconds: float) -> dict[str, float]:
    """What a process measures: seconds a step, bytes sent a step, the share that is hidden."""
    T = importlib.import_module(impl)
    T.set_num_threads(1)
    world = int(os.environ["WORLD_SIZE"])
    T.manual_seed(0)
    model, shape = make(T, name)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    if world > 1:
        importlib.import_module(f"{impl}.distributed").init_process_group("gloo")
        model = T.nn.parallel.DistributedDataParallel(model, bucket_cap_mb=4)
        if impl == "torch":
            model._set_ddp_runtime_logging_sample_rate(1)
    x, labels = T.randn(ROWS[name], *shape), T.randint(0, 10, (ROWS[name],))
    optimizer = T.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        T.nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    for _ in range(5):
        step()
    sent = counted(T, step) if world > 1 and impl == "gpunn" else 0
    step()
    times, cpu, hidden = [], [], []
    count = steps_for(T, step, seconds, world)
    for _ in range(count):
        start, busy = time.perf_counter(), time.process_time()
        step()
        times.append(time.perf_counter() - start)
        cpu.append(time.process_time() - busy)
        if world > 1:
            hidden.append(share_hidden(model._get_ddp_logging_data()))
    found = {"seconds": fast(times), "cpu": fast(cpu), "gradients": size, "sent": sent,
             "hidden": statistics.median(hidden) if hidden else 0.0}  # fmt: skip
    if world > 1:
        T.distributed.destroy_process_group()
    return found


def fast(times: list[float]) -> float:
    return sorted(times)[len(times) // 10]


def steps_for(T: Any, step: Any, seconds: float, world: int) -> int:
    """How many steps take so long: the same number on all ranks."""
    start = time.perf_counter()
    for _ in range(3):
        step()
    count = T.tensor(max(5.0, seconds / (time.perf_counter() - start) * 3))
    if world > 1:
        T.distributed.broadcast(count, 0)
    return int(count.item())


def counted(T: Any, step: Any) -> int:
    """The bytes that the engine is given to sum in one step."""
    comm, sent = T.distributed.group.WORLD.engine(T.device("cpu")), []
    before = comm.all_reduce
    comm.all_reduce = lambda x, op: (sent.append(x.nbytes), before(x, op))
    step()
    del comm.all_reduce
    return sum(sent)


def share_hidden(data: dict[str, Any]) -> float:
    total = data["backward_comm_time"]
    return data["backward_compute_comm_overlap_time"] / total if total else 0.0


# --- the processes ------------------------------------------------------------------------


def run(impl: str, name: str, processes: int, seconds: float) -> dict[str, float]:
    """Starts the processes of one measurement; returns what rank 0 says."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = dict(os.environ, **dict.fromkeys(THREADS, "1"), MASTER_ADDR="127.0.0.1",
                  MASTER_PORT=str(port), WORLD_SIZE=str(processes))  # fmt: skip
    command = [sys.executable, __file__, "--impl", impl, "--model", name, "--child",
               "--seconds", str(seconds)]  # fmt: skip
    started = [
        subprocess.Popen(command, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for rank in range(processes)
    ]  # fmt: skip
    ends = [process.communicate(timeout=600) for process in started]
    for process, (_, errors) in zip(started, ends, strict=True):
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{errors}")
    return json.loads(ends[0][0].strip().splitlines()[-1])


def compare(names: list[str], rounds: int, seconds: float) -> None:
    """The table: both packages in turns."""
    for name in names:
        found: dict[tuple[str, int], list[dict[str, float]]] = {}
        for k in range(rounds):
            for impl in IMPLS if k % 2 == 0 else IMPLS[::-1]:
                for processes in (1, 2):
                    one = run(impl, name, processes, seconds)
                    found.setdefault((impl, processes), []).append(one)
        print(f"{name}, {ROWS[name]} rows a process, gradients of "
              f"{found['gpunn', 2][0]['gradients'] / 1e6:.2f} MB")  # fmt: skip
        for impl in IMPLS:
            one, two = ([r["seconds"] for r in found[impl, n]] for n in (1, 2))
            scaling = statistics.median(2 * a / b for a, b in zip(one, two, strict=True))
            hidden = statistics.median(r["hidden"] for r in found[impl, 2])
            print(f"  {impl}: two processes do {scaling:.2f} times the rows of one; "
                  f"{hidden:.0%} of the reductions hidden")  # fmt: skip
        for what, title in (("seconds", "time"), ("cpu", "processor time")):
            for n in (1, 2):
                pairs = list(zip(found["gpunn", n], found["torch", n], strict=True))
                ratio = statistics.median(a[what] / b[what] for a, b in pairs)
                ours, theirs = (statistics.median(p[k][what] for p in pairs) for k in (0, 1))
                print(f"  {title} of a step, {n} process{'es' * (n > 1)}: gpunn {ours * 1e3:.1f} "
                      f"ms, torch {theirs * 1e3:.1f} ms, ratio {ratio:.2f}")  # fmt: skip
        sent, size = found["gpunn", 2][0]["sent"], found["gpunn", 2][0]["gradients"]
        print(f"  bytes summed a step: {sent}, the gradients' {size}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--impl", choices=IMPLS)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--model", choices=list(ROWS), help="both by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of one measurement")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = [args.model] if args.model else list(ROWS)
    if args.child:
        print(json.dumps(one_process(args.impl, args.model, args.seconds)), flush=True)
        os._exit(0)  # PyTorch's process groups now and then abort as the interpreter ends
    elif args.impl:
        print(json.dumps({n: run(args.impl, n, args.processes, args.seconds) for n in names}))
    else:
        compare(names, args.rounds, args.seconds)


if __name__ == "__main__":
    main()
