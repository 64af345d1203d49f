"""Functions in several processes: what they do, and which one's failure is told."""

import inspect
import os
import pickle
import signal
import subprocess
import sys
import time

import pytest

import gpunn
import gpunn.multiprocessing as mp

# Python 3.12 and later warn of "fork" in a process with threads, of which NumPy's BLAS has some.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


def write(index, folder, word):
    (folder / f"{index}").write_text(f"{word} {os.getpid()}")


def test_spawn(tmp_path):
    assert mp.spawn(write, (tmp_path, "hello"), nprocs=2) is None
    words = [(tmp_path / f"{i}").read_text().split() for i in range(2)]
    assert [w[0] for w in words] == ["hello"] * 2
    assert len({os.getpid(), *(int(w[1]) for w in words)}) == 3


def fail(index, how):
    if index == 0:  # raises because of the other one, and later
        time.sleep(0.2 if how == "raise" else 30)
        raise RuntimeError("secondary")
    if how == "raise":
        raise ValueError("bad batch " + "x" * 100_000 + " the end")
    if how == "exit":
        sys.exit(3)
    os.kill(os.getpid(), signal.SIGKILL)


def failing(how):
    start = time.monotonic()
    with pytest.raises(mp.ProcessException) as caught:
        mp.start_processes(fail, (how,), nprocs=2, start_method="fork")
    assert time.monotonic() - start < 20  # the other one was ended
    return caught.value


def test_an_exception():
    error = failing("raise")
    assert type(error) is mp.ProcessRaisedException and error.error_index == 1
    assert "-- Process 1 terminated with the following error:\nTraceback" in str(error)
    assert "ValueError: bad batch xx" in str(error) and str(error).endswith("the end\n")
    assert "secondary" not in str(error) and len(str(error)) < 20_000


def test_an_exit_code():
    error = failing("exit")
    assert str(error) == "process 1 terminated with exit code 3"
    assert (error.exit_code, error.signal_name, error.error_index) == (3, None, 1)


def test_a_signal():
    error = failing("kill")
    assert str(error) == "process 1 terminated with signal SIGKILL"
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is mp.ProcessExitedException
    assert (copy.exit_code, copy.signal_name) == (-9, "SIGKILL")
    assert (copy.error_index, copy.error_pid) == (1, error.error_pid)


def sleep(index, seconds):
    time.sleep(seconds[index])


def test_without_waiting():
    context = mp.start_processes(sleep, ([0.0, 30.0],), 2, join=False, start_method="fork")
    assert len(context.pids()) == 2
    while context.join(timeout=0.1) or len(context.sentinels) == 2:
        pass
    assert context.join(timeout=0.05) is False
    context.processes[1].terminate()
    with pytest.raises(mp.ProcessExitedException, match="process 1 terminated with signal SIGTERM"):
        context.join()
    assert context.join() is True


def ignore(index):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if index == 0:
        time.sleep(60)
    time.sleep(0.3)
    sys.exit(1)


def test_who_does_not_end_is_killed():
    context = mp.start_processes(ignore, nprocs=2, join=False, start_method="fork")
    with pytest.raises(mp.ProcessExitedException, match="process 1 terminated with exit code 1"):
        while not context.join(grace_period=0.2):
            pass
    assert context.processes[0].exitcode == -signal.SIGKILL


_RANKS = '''
import os, sys, time
import gpunn, gpunn.distributed as dist, gpunn.multiprocessing as mp

def work(rank, port, folder):
    try:
        dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", world_size=2, rank=rank)
        if rank == 1:
            raise ValueError("bad batch")
        dist.barrier()
    except dist.DistBackendError as error:
        with open(os.path.join(folder, "told"), "w") as file:
            file.write(str(error))

if __name__ == "__main__":
    context = mp.spawn(work, (int(sys.argv[1]), sys.argv[2]), nprocs=2, join=False)
    while not context.join(grace_period=20):
        pass
'''


def test_the_ranks_of_a_group_hear_why(tmp_path):
    from tests.distributed.ranks import ROOT, free_port

    script = tmp_path / "script.py"
    script.write_text(_RANKS)
    done = subprocess.run(
        [sys.executable, script, str(free_port()), tmp_path], capture_output=True, text=True,
        timeout=60, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.rstrip().endswith("ValueError: bad batch")
    assert done.stderr.count("Traceback") == 2  # the parent's, and the process's in its message
    assert "rank 1 raised ValueError: bad batch" in (tmp_path / "told").read_text()


_KILLED = '''
import os, signal, sys, time
import gpunn.multiprocessing as mp

def work(index):
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    context = mp.start_processes(work, nprocs=1, join=False, start_method="fork")
    if sys.argv[1] == "kill":
        time.sleep(1)
        os.kill(os.getpid(), signal.SIGKILL)
    context.join()
'''


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of a parent's end")
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    from tests.distributed.ranks import ROOT

    script = tmp_path / "script.py"
    script.write_text(_KILLED)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.monotonic()
    done = subprocess.run(  # returns when nobody holds its output any more: the process has ended
        [sys.executable, script, "kill"], capture_output=True, text=True, timeout=60, env=env
    )
    assert done.returncode == -signal.SIGKILL and done.stdout.strip().isdigit()
    assert done.stderr == "" and time.monotonic() - start < 40


def test_another_start_method_is_not_taken():
    with pytest.warns(FutureWarning, match="only supports start_method=spawn"):
        mp.spawn(print, nprocs=0, start_method="fork")


def test_the_names_are_those_of_multiprocessing(capsys):
    import multiprocessing

    for name in multiprocessing.__all__:
        assert getattr(gpunn.multiprocessing, name) is getattr(multiprocessing, name)
    queue = mp.get_context("fork").SimpleQueue()
    queue.put(gpunn.ones(2))
    assert queue.get().tolist() == [1, 1]


def test_names_and_signatures_of_pytorch():
    torch = pytest.importorskip("torch", reason="parity tests need PyTorch")
    theirs = torch.multiprocessing
    assert [n for n in theirs.__all__ if not hasattr(mp, n)] == []
    for name in ("spawn", "start_processes", "ProcessContext", "ProcessExitedException"):
        ours, other = getattr(mp, name), getattr(theirs, name)
        if name != "ProcessContext":
            assert list(inspect.signature(ours).parameters) == list(
                inspect.signature(other).parameters
            )
    assert list(inspect.signature(mp.ProcessContext.join).parameters) == list(
        inspect.signature(theirs.ProcessContext.join).parameters
    )


def test_sharing_strategy():
    with pytest.raises(AssertionError, match="there is no 'files'"):
        mp.set_sharing_strategy("files")
    mp.set_sharing_strategy("file_system")
    assert mp.get_sharing_strategy() == "file_system"
    mp.set_sharing_strategy("file_descriptor")
