"""Processes find each other by environment variables, addresses and files."""

import importlib
import threading
from datetime import timedelta

import pytest

from gpunn.distributed.errors import DistStoreError
from gpunn.distributed.rendezvous import connect
from tests.distributed.ranks import free_port, run_ranks

TIMEOUT = timedelta(seconds=20)
rendezvous = importlib.import_module("gpunn.distributed.rendezvous")  # dist.rendezvous: a function
_VARIABLES = (
    *rendezvous._RANK, *rendezvous._WORLD, *rendezvous._LOCAL, "MASTER_ADDR", "MASTER_PORT",
    "SLURM_STEP_ID", "SLURM_STEPID", "SLURM_JOB_NODELIST", "SLURM_JOB_ID",
    "TORCHELASTIC_USE_AGENT_STORE",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in _VARIABLES:
        monkeypatch.delenv(name, raising=False)


def together(*arguments):
    """What `connect` gives several ranks, here threads."""
    found, errors = {}, []

    def one(k, given):
        try:
            found[k] = connect(*given, TIMEOUT)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=item) for item in enumerate(arguments)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    if errors:
        raise errors[0]
    return [found[k] for k in range(len(arguments))]


def speak(found):
    """Each rank says its name, and hears all others."""
    for store, rank, _ in found:
        store.set(f"name/{rank}", f"rank {rank}")
    for store, _, world in found:
        assert store.multi_get([f"name/{r}" for r in range(world)]) == [
            b"rank %d" % r for r in range(world)
        ]
    for store, _, _ in reversed(found):
        store.close()


def test_tcp():
    address = f"tcp://127.0.0.1:{free_port()}"
    found = together(*((address, rank, 3) for rank in range(3)))
    assert [(r, w) for _, r, w in found] == [(0, 3), (1, 3), (2, 3)]
    speak(found)


def test_places_in_the_address():
    address = f"tcp://localhost:{free_port()}?rank={{}}&world_size=2"
    speak(together(*((address.format(rank), -1, -1) for rank in range(2))))


def test_file(tmp_path):
    path = tmp_path / "meet"
    found = together(*((f"file://{path}", rank, 3) for rank in range(3)))
    speak(found)
    assert not path.exists()


def test_a_file_of_an_earlier_job_is_refused(tmp_path):
    from gpunn.distributed.store import FileStore

    left = FileStore(str(tmp_path / "meet"), 2)
    left.set("master", "localhost 1 x")
    with pytest.raises(DistStoreError, match="meet is from an earlier job .* delete it"):
        connect(f"file://{tmp_path}/meet", 0, 1, TIMEOUT)
    left.close()


@pytest.mark.parametrize(
    "names",
    [
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
        {"PMI_RANK": "0", "PMI_SIZE": "1"},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8",
         "SLURM_STEP_ID": "0"},
    ],
)  # fmt: skip
def test_variables_of_all_launchers(names, monkeypatch):
    master = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in {**names, **master}.items():
        monkeypatch.setenv(name, value)
    speak([connect(None, -1, -1, TIMEOUT)])


def test_under_slurm_the_first_host_of_the_job_is_the_master(monkeypatch):
    asked = []
    monkeypatch.setattr(rendezvous, "_from_address", lambda *given: asked.append(given))
    job = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "gpu[07-08],gpu12",
           "SLURM_JOB_ID": "41", "SLURM_STEP_ID": "2", "SLURM_LOCALID": "3"}  # fmt: skip
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    connect("env://", -1, -1, TIMEOUT)
    assert asked == [("gpu07", 20000 + (41 * 16 + 2) % 12000, 3, 8, TIMEOUT)]
    assert rendezvous.local_rank() == 3


def test_arguments_come_before_variables(monkeypatch):
    asked = []
    monkeypatch.setattr(rendezvous, "_from_address", lambda *given: asked.append(given))
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "9"), ("MASTER_ADDR", "a"),
                        ("MASTER_PORT", "5")):  # fmt: skip
        monkeypatch.setenv(name, value)
    connect(None, 1, 2, TIMEOUT)
    assert asked == [("a", 5, 1, 2, TIMEOUT)]


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("a", "a"), ("a,b", "a"), ("n[1-3]", "n1"), ("n[01,4-9],m", "n01"), ("x[0-1]y[5]z", "x0y5z")],
)
def test_first_hosts(nodes, first):
    assert rendezvous.first_host(nodes) == first


@pytest.mark.parametrize(
    ("method", "rank", "world", "error", "message"),
    [
        (None, -1, -1, ValueError, "environment variable RANK expected, but not set.*--nproc N"),
        (None, 0, -1, ValueError, "environment variable WORLD_SIZE expected, but not set"),
        (None, 0, 2, ValueError, "environment variable MASTER_ADDR expected, but not set"),
        ("tcp://localhost:1", -1, 2, ValueError, "tcp:// rendezvous: rank parameter missing"),
        ("tcp://localhost:1", 0, -1, ValueError, "world size parameter missing"),
        ("tcp://localhost", 0, 2, ValueError, "port number missing"),
        ("tcp://localhost:1", 2, 2, ValueError, "rank 2 is not in 0..1"),
        ("file://", 0, 1, ValueError, "file:// rendezvous: path missing"),
        ("http://x", 0, 1, RuntimeError, "No rendezvous handler for http://"),
    ],
)
def test_what_is_missing_is_named(method, rank, world, error, message):
    with pytest.raises(error, match=message):
        connect(method, rank, world, TIMEOUT)


def test_a_slurm_batch_script_is_told_to_use_srun(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    with pytest.raises(ValueError, match="RANK expected, but not set: .*srun python script.py"):
        connect(None, -1, -1, TIMEOUT)


def test_pytorchs_own_launcher_is_refused_by_name(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    with pytest.raises(ValueError, match="torchrun keeps MASTER_PORT.*gpunn.distributed.run"):
        connect(None, 0, 2, TIMEOUT)


def test_under_mpi_alone(monkeypatch):
    assert not rendezvous.under_mpi_alone()
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert rendezvous.under_mpi_alone()
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert not rendezvous.under_mpi_alone()


def test_a_process_group_is_made_again_and_leaves_nothing():
    found = run_ranks(
        2,
        """
        import threading, time
        files, threads = [], []
        for k in range(6):
            dist.init_process_group("gloo")
            x = gpunn.full((50_000,), float(k))
            dist.all_reduce(x)
            assert x[-1].item() == 2 * k
            dist.all_reduce(x, group=dist.new_group([0, 1]))
            dist.destroy_process_group()
            if k in (0, 5):
                time.sleep(1.5)  # the watch looks once a second whether it is over
                files.append(len(os.listdir("/proc/self/fd")))
                threads.append(threading.active_count())
        report([files, threads])
        """,
        backend=None,
    )
    for files, threads in found:
        assert files[1] <= files[0] + 1 and threads[1] <= threads[0], found


def test_the_same_script_under_mpiexec():
    found = run_ranks(2, "report([dist.get_rank(), dist.get_world_size()])", backend="mpi")
    assert found == [[0, 2], [1, 2]]


def test_a_generator_as_pytorchs():
    found = rendezvous.rendezvous(f"tcp://127.0.0.1:{free_port()}?rank=0&world_size=1")
    store, rank, world_size = next(found)
    store.set("a", "1")
    assert (store.get("a"), rank, world_size) == (b"1", 0, 1)
    with pytest.raises(RuntimeError, match="Unable to perform rerendezvous using tcp:// method"):
        next(found)
    with pytest.raises(RuntimeError, match="`url` must be a string"):
        next(rendezvous.rendezvous(3))
