"""Starts a script in several processes: `python -m gpunn.distributed.run --nproc 4 train.py`.

Each process finds its place in RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE, MASTER_ADDR and
MASTER_PORT, which `init_process_group()` reads. Lines of output are labelled by rank. The first
process that fails ends all. Options of PyTorch's `torchrun` are understood where they mean
something here.
Source: https://docs.pytorch.org/docs/stable/elastic/run.html
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, BinaryIO, NamedTuple

_GRACE = 3.0  # seconds between asking a process to end and making it
_ME = "gpunn.distributed.run"
_WITHOUT_EFFECT = (  # options of torchrun
    "rdzv-backend", "rdzv-conf", "max-restarts", "monitor-interval", "start-method", "role",
    "local-addr", "redirects", "tee",
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the launcher with these command-line arguments; returns its exit code.

    That is 0, or the code of the process that failed first, 128 and the signal's number where a
    signal ended it. Source: https://docs.pytorch.org/docs/stable/elastic/run.html

    >>> from gpunn.distributed.run import main
    >>> main(["--no-python", "true"])
    0
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        job = _plan(options)
    except ValueError as error:
        parser.error(str(error))
    return _Launch(job).run()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {_ME}", description=(__doc__ or "").split("\nSource")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add("--nproc", "--nproc-per-node", "--nproc_per_node", default="1", metavar="N",
        help="processes on this machine: a number, 'gpu' (one per GPU), 'cpu' (one per core) or "
        "'auto' (gpu where there is one, else cpu)")  # fmt: skip
    add("--nnodes", default="1", metavar="M", help="machines; start the launcher on each")
    add("--node-rank", "--node_rank", type=int, metavar="K",
        help="this machine's number, from 0; by default Slurm's SLURM_NODEID")  # fmt: skip
    add("--master-addr", "--master_addr", metavar="HOST", help="the machine with number 0")
    add("--master-port", "--master_port", type=int, metavar="PORT",
        help="a free port there; by default a free one on one machine, 29500 on more")  # fmt: skip
    add("--rdzv-endpoint", "--rdzv_endpoint", metavar="HOST:PORT",
        help="the same as --master-addr and --master-port")  # fmt: skip
    add("--rdzv-id", "--rdzv_id", default="none", help="the job's name")
    for name in _WITHOUT_EFFECT:
        add(f"--{name}", f"--{name.replace('-', '_')}", help="accepted, changes nothing")
    add("--standalone", action="store_true", help="one machine, which is the default")
    add("--log-dir", "--log_dir", metavar="FOLDER", help="also write rank_K.log files there")
    add("-m", "--module", action="store_true", help="script is the name of a module")
    add("--no-python", "--no_python", action="store_true", help="script is a program of any kind")
    add("script")
    add("args", nargs=argparse.REMAINDER)
    return parser


class _Job(NamedTuple):
    """What to start: a command, with an environment for each rank."""

    command: list[str]
    environments: dict[int, dict[str, str]]
    log_dir: str | None
    notes: list[str]


def _plan(options: argparse.Namespace) -> _Job:
    """ValueError where the options do not fit together."""
    nproc, nodes = _processes(options.nproc), int(options.nnodes.split(":")[-1])
    if nproc < 1 or nodes < 1:
        raise ValueError(f"--nproc {nproc} and --nnodes {nodes}: both are at least 1")
    node, host, port = _place(options, nodes)
    notes, common = [], dict(os.environ)
    common.pop("TORCHELASTIC_USE_AGENT_STORE", None)
    if nproc > 1 and "OMP_NUM_THREADS" not in common:
        common["OMP_NUM_THREADS"] = "1"
        notes.append(f"OMP_NUM_THREADS=1 for each of {nproc} processes; set it to have more")
    environments = {}
    for local in range(nproc):
        place = {
            "RANK": node * nproc + local, "LOCAL_RANK": local, "WORLD_SIZE": nodes * nproc,
            "LOCAL_WORLD_SIZE": nproc, "GROUP_RANK": node, "GROUP_WORLD_SIZE": nodes,
            "MASTER_ADDR": host, "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": options.rdzv_id,
            "PYTHONUNBUFFERED": 1,
        }  # fmt: skip
        environments[place["RANK"]] = {**common, **{k: str(v) for k, v in place.items()}}
    python = [] if options.no_python else [sys.executable, *(["-m"] if options.module else [])]
    return _Job([*python, options.script, *options.args], environments, options.log_dir, notes)


def _processes(text: str) -> int:
    if text in ("auto", "gpu"):
        from gpunn import cuda

        count = cuda.device_count()
        if count or text == "gpu":
            if not count:
                raise ValueError(f"--nproc gpu: {cuda.probe().message}")
            return count
    if text in ("auto", "cpu"):
        allowed = getattr(os, "sched_getaffinity", lambda pid: range(os.cpu_count() or 1))
        return len(allowed(0))
    if not text.isdigit():
        raise ValueError(f"--nproc {text}: takes a number, 'gpu', 'cpu' or 'auto'")
    return int(text)


def _place(options: argparse.Namespace, nodes: int) -> tuple[int, str, int]:
    """(this machine's number, the master's host, its port)."""
    host, port = options.master_addr, options.master_port
    if options.rdzv_endpoint and not options.standalone:
        host, _, text = options.rdzv_endpoint.rpartition(":")
        if not text.isdigit() or not host:
            raise ValueError(f"--rdzv-endpoint {options.rdzv_endpoint}: takes HOST:PORT")
        port = int(text)
    if nodes == 1:
        return 0, host or "127.0.0.1", port or _free_port()
    node = options.node_rank
    if node is None and "SLURM_NODEID" in os.environ:
        node = int(os.environ["SLURM_NODEID"])
    if node is None or not host:
        raise ValueError(
            f"--nnodes {nodes} needs --node-rank (0 to {nodes - 1}) and --master-addr, the host of "
            "machine 0; start the launcher on each machine"
        )
    if not 0 <= node < nodes:
        raise ValueError(f"--node-rank {node} is not in 0..{nodes - 1}")
    return node, host.strip("[]"), port or 29500


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class _Exit(NamedTuple):
    """A process ended: its rank and its code, negative for a signal."""

    rank: int
    code: int


class _Launch:
    """Starts a job's processes and sees them through to their end."""

    def __init__(self, job: _Job):
        self.job = job
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.events: queue.SimpleQueue[_Exit | int] = queue.SimpleQueue()
        self.first: _Exit | None = None  # the failure that ends the job
        self.interrupted = 0  # or the signal
        self.others = False  # were there any left to end?

    def run(self) -> int:
        for note in self.job.notes:
            _say(note)
        before = {s: signal.signal(s, self._signalled) for s in _signals()}
        try:
            with _Printer(self.job) as printer:
                try:
                    self._start(printer)
                    self._wait(printer)
                finally:
                    self._end(signal.SIGKILL)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._report()

    def _signalled(self, number: int, frame: Any) -> None:
        self.events.put(number)

    def _start(self, printer: _Printer) -> None:
        for rank, environment in self.job.environments.items():
            process = subprocess.Popen(
                self.job.command, env=environment, **printer.streams(),
                start_new_session=True,  # Ctrl-C is for the launcher, which passes it on
            )  # fmt: skip
            self.processes[rank] = process
            printer.add(rank, process)

            def wait(rank: int = rank, process: subprocess.Popen[bytes] = process) -> None:
                self.events.put(_Exit(rank, process.wait()))

            threading.Thread(target=wait, daemon=True).start()

    def _wait(self, printer: _Printer) -> None:
        left, deadline = set(self.processes), None
        while left:
            try:
                pause = None if deadline is None else max(0.0, deadline - time.monotonic())
                event = self.events.get(timeout=pause)
            except queue.Empty:
                self._end(signal.SIGKILL)
                deadline = None
                continue
            if isinstance(event, _Exit):
                left.discard(event.rank)
                if event.code and not self.first and not self.interrupted:
                    self.first, self.others = event, bool(left)
                    self._end(signal.SIGTERM)
                    deadline = time.monotonic() + _GRACE
            else:
                # One traceback of KeyboardInterrupt says it all.
                printer.quiet = True
                self._end(signal.SIGKILL if self.interrupted else event)
                self.interrupted = self.interrupted or event
                deadline = time.monotonic() + _GRACE

    def _end(self, number: int) -> None:
        """Sends a signal to the processes that run; SIGKILL also to what they started."""
        failed = self.first is not None or self.interrupted
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if number == signal.SIGKILL and (failed or process.poll() is None):
                    os.killpg(process.pid, number)
                elif process.poll() is None:
                    process.send_signal(number)

    def _report(self) -> int:
        if self.interrupted:
            _say(f"{signal.Signals(self.interrupted).name}: ended all ranks")
            return 128 + self.interrupted
        if self.first is None:
            return 0
        rank, code = self.first
        by = ""
        if code < 0:
            by = f" (signal {-code}, {signal.Signals(-code).name})"
            code = 128 - code
        ended = ": ended the others" if self.others else ""
        _say(f"rank {rank} exited with code {code}{by}{ended}")
        return code


def _signals() -> list[int]:
    if threading.current_thread() is not threading.main_thread():
        return []
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _say(text: str) -> None:
    print(f"[{_ME}] {text}", file=sys.stderr, flush=True)


# --- what the processes print ---


class _Source:
    """One stream of one process: bytes come, lines and states of a progress bar go out."""

    def __init__(self, rank: int, out: BinaryIO, log: BinaryIO | None):
        self.rank, self.out, self.log = rank, out, log
        self.rest, self.is_bar = b"", False

    def feed(self, data: bytes) -> list[tuple[bytes, bool, bool]]:
        """(text, whether its line is complete, whether it is a progress bar's) of each part."""
        parts, rest = [], (self.rest + data).replace(b"\r\n", b"\n")
        held = b"\r" if rest.endswith(b"\r") else b""  # the start of \r\n?
        rest = rest.removesuffix(held)
        while ends := [at for at in (rest.find(b"\n"), rest.find(b"\r")) if at >= 0]:
            at = min(ends)
            complete = rest[at : at + 1] == b"\n"
            if complete or rest[:at].strip():
                parts.append((rest[:at], complete, self.is_bar or not complete))
            self.is_bar, rest = not complete, rest[at + 1 :]
        self.rest = rest + held
        if self.is_bar and rest.strip():
            parts.append((rest, False, True))
        return parts


class _Printer:
    """Labels lines by rank. Of progress bars it shows the first process's; a terminal sees them
    move, a file gets how they end."""

    def __init__(self, job: _Job):
        self.quiet = False
        self._alone = len(job.environments) == 1 and job.log_dir is None
        self._first = min(job.environments)
        self._selector = selectors.DefaultSelector()
        self._logs: dict[int, BinaryIO] = {}
        self._bar = b""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if job.log_dir is not None:
            os.makedirs(job.log_dir, exist_ok=True)
            for rank in job.environments:
                path = os.path.join(job.log_dir, f"rank_{rank}.log")
                self._logs[rank] = open(path, "wb", buffering=0)  # noqa: SIM115

    def streams(self) -> dict[str, Any]:
        """Arguments of Popen: one process alone keeps the terminal."""
        if self._alone:
            return {}
        return {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    def add(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        for stream, out in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            if stream is not None:
                source = _Source(rank, out.buffer, self._logs.get(rank))
                self._selector.register(stream, selectors.EVENT_READ, source)

    def __enter__(self) -> _Printer:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._ended.set()
        self._thread.join(2.0)  # something that a process left behind may keep a stream open
        for log in self._logs.values():
            log.close()

    def _run(self) -> None:
        while True:
            ended = self._ended.is_set()
            found = self._selector.select(0 if ended else 0.05)
            for key, _ in found:
                source: _Source = key.data
                data = os.read(key.fd, 1 << 16)
                if data:
                    self._take(source, data)
                else:
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]
                    if source.rest:
                        self._take(source, b"\n")
            if ended and not found:
                return

    def _take(self, source: _Source, data: bytes) -> None:
        if source.log is not None and not source.log.closed:
            source.log.write(data)
        first = source.rank == self._first
        for text, complete, is_bar in source.feed(data):
            if (is_bar or self.quiet) and not first:
                continue
            label = b"[rank %d] " % source.rank
            terminal = source.out.isatty()
            clear = b"\r\x1b[K" if terminal and self._bar else b""
            if complete:
                self._bar = b"" if is_bar else self._bar
                source.out.write(clear + label + text + b"\n" + self._bar)
            elif terminal:
                self._bar = label + text
                source.out.write(b"\r\x1b[K" + self._bar)
            source.out.flush()


if __name__ == "__main__":
    sys.exit(main())
