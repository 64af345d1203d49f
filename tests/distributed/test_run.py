"""The launcher: places, labels, failures, Ctrl-C. Each run is one of real processes."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from gpunn.distributed import run as launcher
from tests.distributed.ranks import ROOT


def launch(tmp_path, script, *options, args=(), env=None, **popen):
    """The launcher on a script of these lines, as a process."""
    path = tmp_path / "script.py"
    path.write_text("import os, sys, time, signal\nrank = os.environ['RANK']\n" + script)
    command = [sys.executable, "-m", "gpunn.distributed.run", *options, str(path), *args]
    clean = {k: v for k, v in os.environ.items() if k != "OMP_NUM_THREADS"}
    return subprocess.Popen(
        command, env={**clean, "PYTHONPATH": str(ROOT), **(env or {})}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **popen,
    )  # fmt: skip


def ended(process, timeout=60):
    """(exit code, lines of stdout, stderr) of a launcher; killed with all that it started."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise AssertionError(f"the launcher did not end:\n{out}\n{err}") from None
    return process.returncode, out.splitlines(), err


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_every_process_knows_its_place_and_its_lines_are_labelled(tmp_path):
    script = """
names = "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR OMP_NUM_THREADS".split()
print(*(os.environ[n] for n in names), sys.argv[1:], "gpunn" in sys.modules)
print("to stderr", file=sys.stderr)
sys.stdout.write("no end of line")
"""
    options = ("--nproc", "2", "--log-dir", str(tmp_path / "logs"))
    code, out, err = ended(launch(tmp_path, script, *options, args=["--lr", "-m", "1"]))
    assert code == 0, err
    for rank in (0, 1):
        mine = [line for line in out if line.startswith(f"[rank {rank}] ")]
        assert mine == [
            f"[rank {rank}] {rank} {rank} 2 2 127.0.0.1 1 ['--lr', '-m', '1'] False",
            f"[rank {rank}] no end of line",
        ]
        assert f"[rank {rank}] to stderr\n" in err
        log = (tmp_path / "logs" / f"rank_{rank}.log").read_text()
        assert "to stderr" in log and "[rank" not in log
    assert err.count("OMP_NUM_THREADS=1 for each of 2 processes") == 1


def test_options_of_torchrun_and_two_machines(tmp_path):
    script = "print(*(os.environ[n] for n in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT')))"
    common = ["--nproc_per_node=2", "--nnodes=2", "--rdzv-endpoint=127.0.0.1:4321",
              "--rdzv_backend=c10d", "--rdzv-id=7", "--max-restarts=3", "--tee=3"]  # fmt: skip
    machines = [
        launch(tmp_path, script, *common, "--node-rank=0"),
        launch(tmp_path, script, *common, env={"SLURM_NODEID": "1", "OMP_NUM_THREADS": "2"}),
    ]
    lines = []
    for machine in machines:
        code, out, err = ended(machine)
        assert code == 0, err
        lines += out
    assert sorted(lines) == [f"[rank {r}] {r} {r % 2} 4 4321" for r in range(4)]
    assert "OMP" not in err


def test_the_script_of_the_readme_trains(tmp_path):
    text = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```py\n(# train.py\n.*?)```", text, re.DOTALL)
    code, out, err = ended(launch(tmp_path, block, "--nproc", "2"))
    assert code == 0, err
    losses = [float(line.split()[-1]) for line in out]
    assert len(losses) == 3 and losses[2] < losses[1] < losses[0]


def test_one_process_alone_has_the_terminal_and_modules_and_programs_run(tmp_path):
    script = "print(rank, sys.stdin.read())"
    code, out, _ = ended(launch(tmp_path, script, stdin=subprocess.DEVNULL))
    assert (code, out) == (0, ["0 "])
    (tmp_path / "some_module.py").write_text("import sys; print('module', sys.argv[1:])")
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    for options, expected in ((["-m", "some_module", "x"], "module ['x']"),
                              (["--no-python", "echo", "x"], "x")):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "gpunn.distributed.run", "--nproc", "2", *options],
            env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert sorted(done.stdout.splitlines()) == [f"[rank {r}] {expected}" for r in (0, 1)]


def test_the_first_failure_ends_all_and_is_named_last(tmp_path):
    script = """
if rank == "1":
    time.sleep(0.3)
    raise ValueError("boom")
print("pid", os.getpid())
time.sleep(60)
"""
    start = time.monotonic()
    code, out, err = ended(launch(tmp_path, script, "--nproc", "3"))
    assert code == 1 and time.monotonic() - start < 20
    assert "[rank 1] ValueError: boom" in err
    assert err.splitlines()[-1].endswith("rank 1 exited with code 1: ended the others")
    pids = re.findall(r"pid (\d+)", "\n".join(out))
    assert len(pids) == 2 and not any(map(is_alive, pids))


def test_of_ranks_that_fail_together_the_cause_is_told_first(tmp_path):
    script = """
import gpunn.distributed as dist
dist.init_process_group("gloo")
if rank == "1":
    class Slow:
        def __del__(self):
            time.sleep(0.4)  # its process ends after the other one could have
    slow = Slow()
    raise ValueError("boom")
dist.barrier()
"""
    code, _, err = ended(launch(tmp_path, script, "--nproc", "2"))
    assert code == 1 and err.index("[rank 1] ValueError: boom") < err.index("rank 1 raised Value")
    assert err.splitlines()[-1].endswith("rank 1 exited with code 1: ended the others")


def test_a_killed_process_and_a_stubborn_one(tmp_path, monkeypatch):
    script = """
if rank == "0":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("pid", os.getpid(), flush=True)
    time.sleep(60)
time.sleep(0.5)
os.kill(os.getpid(), 9)
"""
    code, out, err = ended(launch(tmp_path, script, "--nproc", "2"))
    assert code == 137
    last = "rank 1 exited with code 137 (signal 9, SIGKILL): ended the others"
    assert err.splitlines()[-1].endswith(last)
    assert not is_alive(re.findall(r"pid (\d+)", "\n".join(out))[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_all_with_at_most_one_traceback(tmp_path, number):
    script = "print('pid', os.getpid(), flush=True)\ntime.sleep(60)"
    process = launch(tmp_path, script, "--nproc", "3")
    pids = [int(process.stdout.readline().split()[-1]) for _ in range(3)]
    process.send_signal(number)
    code, _, err = ended(process)
    assert code == 128 + number
    assert err.count("KeyboardInterrupt") == (number == signal.SIGINT)
    assert err.splitlines()[-1].endswith(f"{number.name}: ended all ranks")
    assert not any(map(is_alive, pids))


def test_only_the_first_process_shows_its_progress_bar(tmp_path):
    script = """
for k in range(3):
    sys.stderr.write(f"\\r{50 * k}%|bar of {rank}")
    sys.stderr.flush()
    time.sleep(0.05)
sys.stderr.write("\\n")
print("done", file=sys.stderr)
"""
    code, _, err = ended(launch(tmp_path, script, "--nproc", "2"))
    assert code == 0
    lines = [line for line in err.splitlines() if line.startswith("[rank")]
    assert sorted(lines) == ["[rank 0] 100%|bar of 0", "[rank 0] done", "[rank 1] done"]


def test_a_stream_is_taken_apart_into_lines_and_bars():
    source = launcher._Source(0, sys.stderr.buffer, None)
    assert source.feed(b"one\ntw") == [(b"one", True, False)]
    assert source.feed(b"o\r") == []
    assert source.feed(b"\nthree\r\n") == [(b"two", True, False), (b"three", True, False)]
    assert source.feed(b"\r 1%") == [(b" 1%", False, True)]
    assert source.feed(b"\r 2%\r 3%\n") == [
        (b" 1%", False, True), (b" 2%", False, True), (b" 3%", True, True),
    ]  # fmt: skip
    assert source.feed(b"after\n") == [(b"after", True, False)]


def test_a_terminal_sees_the_bar_below_the_lines():
    class Terminal:
        text = b""

        def isatty(self):
            return True

        def write(self, data):
            self.text += data

        def flush(self):
            pass

    terminal = Terminal()
    printer = launcher._Printer(launcher._Job([], {0: {}, 1: {}}, None, []))
    first, second = (launcher._Source(r, terminal, None) for r in (0, 1))
    printer._take(first, b"\r 1%")
    printer._take(second, b"hello\n\r 7%")
    printer._take(first, b"\r 2%")
    printer._take(first, b"\n")
    assert terminal.text == (
        b"\r\x1b[K[rank 0]  1%"
        b"\r\x1b[K[rank 1] hello\n[rank 0]  1%"
        b"\r\x1b[K[rank 0]  1%\r\x1b[K[rank 0]  2%"
        b"\r\x1b[K[rank 0]  2%\n"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nproc", "two", "x.py"], "--nproc two: takes a number"),
        (["--nproc", "0", "x.py"], "both are at least 1"),
        (["--nnodes", "2", "x.py"], "needs --node-rank .* and --master-addr"),
        (["--nnodes", "2", "--node-rank", "2", "--master-addr", "a", "x.py"], "is not in 0..1"),
        (["--rdzv-endpoint", "host", "x.py"], "takes HOST:PORT"),
    ],
)
def test_options_that_do_not_fit(options, message, capsys, monkeypatch):
    monkeypatch.delenv("SLURM_NODEID", raising=False)
    with pytest.raises(SystemExit) as error:
        launcher.main(options)
    assert error.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_numbers_of_processes():
    assert 1 <= launcher._processes("cpu") <= os.cpu_count()
    assert launcher._processes("auto") >= 1
    assert launcher._processes("12") == 12


def test_a_missing_program_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        launcher.main(["--no-python", "--nproc", "2", str(tmp_path / "missing")])
