"""How the processes of a job find each other: from an address to (store, rank, world size).

`env://` takes what is given from the first of these that say it: RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT (PyTorch's variables, set by `python -m gpunn.distributed.run`), MPI's, Slurm's.
Source: https://docs.pytorch.org/docs/stable/distributed.html#initialization
"""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlparse

from gpunn.distributed import sockets
from gpunn.distributed.errors import DistStoreError
from gpunn.distributed.store import FileStore, PrefixStore, Store, TCPStore

_RANK = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID")
_WORLD = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
_LOCAL = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
_servers: list[Any] = []  # of rank 0, until its process ends
_times: Counter[tuple[str, int, int]] = Counter()
_USE_RUN = "start the script with `python -m gpunn.distributed.run --nproc N script.py`"


def connect(
    init_method: str | None, rank: int, world_size: int, timeout: timedelta
) -> tuple[Store, int, int]:
    """(store, rank, world size) of this process; -1 is a rank or world size to be found out.

    ValueError where something is missing; RuntimeError for an address of another kind;
    DistNetworkError and DistStoreError where the others do not come within the timeout.
    """
    url = urlparse(init_method or "env://")
    if url.scheme not in ("env", "tcp", "file"):
        raise RuntimeError(
            f"No rendezvous handler for {url.scheme}://: init_method={init_method!r}, there are "
            "env://, tcp://host:port and file:///path"
        )
    given = {name: int(values[0]) for name, values in parse_qs(url.query).items()}
    for name, value in (("rank", rank), ("world_size", world_size)):
        if value >= 0:
            given[name] = value
    if url.scheme == "env":
        store, rank, world_size = _from_environment(given, timeout)
    else:
        rank, world_size = _parameter(url.scheme, given, "rank", "rank"), _parameter(
            url.scheme, given, "world_size", "world size"
        )
        _check(url.scheme, rank, world_size)
        if url.scheme == "file":
            store = _from_file(url.netloc + url.path, rank, world_size, timeout)
        else:
            store = _from_address(url.hostname, url.port, rank, world_size, timeout)
    return store, rank, world_size


def rendezvous(
    url: str, rank: int = -1, world_size: int = -1, **options: Any
) -> Iterator[tuple[Store, int, int]]:
    """Yields (store, rank, world size) for an address, as `init_process_group` finds them.

    `options`: `timeout`, a timedelta. RuntimeError for an address of another kind, and where a
    second meeting is asked for.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#initialization

    >>> url = "tcp://127.0.0.1:0"
    >>> store, rank, size = next(gpunn.distributed.rendezvous(url, rank=0, world_size=1))
    >>> rank, size
    (0, 1)
    """
    if not isinstance(url, str):
        raise RuntimeError(f"`url` must be a string. {type(url)}: {url}")
    yield connect(url, rank, world_size, options.get("timeout", timedelta(minutes=30)))
    raise RuntimeError(f"Unable to perform rerendezvous using {url.partition(':')[0]}:// method")


def _wrong(scheme: str, why: str) -> ValueError:
    return ValueError(f"Error initializing gpunn.distributed using {scheme}:// rendezvous: {why}")


def _parameter(scheme: str, given: Mapping[str, int], name: str, said: str) -> int:
    if name not in given:
        raise _wrong(scheme, f"{said} parameter missing: give init_process_group {name}=")
    return given[name]


def _check(scheme: str, rank: int, world_size: int) -> None:
    if not 0 <= rank < world_size:
        raise _wrong(scheme, f"rank {rank} is not in 0..{world_size - 1}, world size {world_size}")


def _from_address(
    host: str | None, port: int | None, rank: int, world_size: int, timeout: timedelta
) -> Store:
    if port is None or host is None:
        raise _wrong("tcp", "port number missing: the address is tcp://host:port")
    store = TCPStore(host, port, world_size, rank == 0, timeout, multi_tenant=True)
    # Where a process group is made again, some ranks are there before others have ended theirs:
    # the server stays, and each time has keys of its own.
    _servers.append(store._server)
    _times[host, port, rank] += 1
    return PrefixStore(f"{_times[host, port, rank]}", store)


# --- env:// ---


def found(names: tuple[str, ...]) -> int | None:
    """The number in the first of these environment variables that is set."""
    for name in names:
        if name.startswith("SLURM") and not _is_slurm_task():
            continue
        if os.environ.get(name, "").strip():
            return int(os.environ[name])
    return None


def local_rank() -> int | None:
    """This process's number on its host, where the environment tells it."""
    return found(_LOCAL)


def under_mpi_alone() -> bool:
    """Whether mpiexec started this process, with nothing said about a store."""
    names = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
    return any(n in os.environ for n in names) and not os.environ.get("MASTER_ADDR")


def _is_slurm_task() -> bool:
    """False in the batch script itself, which has Slurm's variables but is not one of the tasks."""
    return "SLURM_STEP_ID" in os.environ or "SLURM_STEPID" in os.environ


def _from_environment(given: Mapping[str, int], timeout: timedelta) -> tuple[Store, int, int]:
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise _wrong("env", f"torchrun keeps MASTER_PORT for a store of its own; {_USE_RUN}")
    rank = given["rank"] if "rank" in given else found(_RANK)
    world_size = given["world_size"] if "world_size" in given else found(_WORLD)
    if rank is None or world_size is None:
        raise _missing("RANK" if rank is None else "WORLD_SIZE")
    _check("env", rank, world_size)
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT")
    if host and port:
        return _from_address(host, int(port), rank, world_size, timeout), rank, world_size
    if under_mpi_alone():
        return _over_mpi(rank, world_size, timeout), rank, world_size
    nodes = os.environ.get("SLURM_JOB_NODELIST") if _is_slurm_task() else None
    if not nodes:
        raise _missing("MASTER_PORT" if host else "MASTER_ADDR")
    number = int(os.environ.get("SLURM_JOB_ID", 0)) * 16 + int(os.environ.get("SLURM_STEP_ID", 0))
    port = port or str(20000 + number % 12000)  # two jobs on one host rarely share it
    return _from_address(host or first_host(nodes), int(port), rank, world_size, timeout), \
        rank, world_size  # fmt: skip


def _missing(name: str) -> ValueError:
    hint = _USE_RUN
    if "SLURM_NTASKS" in os.environ and not _is_slurm_task():
        hint = "in a Slurm batch script, start the tasks with `srun python script.py`"
    return _wrong("env", f"environment variable {name} expected, but not set: {hint}")


def first_host(nodes: str) -> str:
    """The first host of Slurm's short form of a list of hosts.

    >>> from gpunn.distributed.rendezvous import first_host
    >>> first_host("node[007-012,20],login1"), first_host("a1,a2"), first_host("r[3,5]n[08-9]-ib")
    ('node007', 'a1', 'r3n08-ib')
    """
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])*", nodes)
    assert first is not None
    return re.sub(r"\[(\w+)[^\]]*\]", r"\1", first.group())


def _over_mpi(rank: int, world_size: int, timeout: timedelta) -> Store:
    """Rank 0 opens a store and tells the others over MPI where it is."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise _wrong(
            "env", f"environment variable MASTER_ADDR expected, but not set, and mpi4py ({error})"
        ) from None
    everybody = MPI.COMM_WORLD
    hosts = everybody.allgather(sockets.machine())
    store: Store | None = None
    place = None
    if rank == 0:
        host = "127.0.0.1" if len(set(hosts)) == 1 else _own_address()
        master = TCPStore(host, 0, world_size, True, timeout, wait_for_workers=False)
        store, place = master, (host, master.port)
    host, port = everybody.bcast(place)
    return store or TCPStore(host, port, world_size, False, timeout)


# --- file:// ---


def _from_file(path: str, rank: int, world_size: int, timeout: timedelta) -> Store:
    """Rank 0 opens a store and writes into the file where it is."""
    if not path:
        raise _wrong("file", "path missing: the address is file:///a/path/that/all/see")
    file = FileStore(path, world_size)
    file.set_timeout(timeout)
    store: Store | None = None
    if rank == 0:
        if file.check(["master"]):
            raise DistStoreError(
                f"file:// rendezvous: {path} is from an earlier job that did not end well, or "
                "from one that runs now: delete it, or name another"
            )
        master = TCPStore(_own_address(), 0, world_size, True, timeout, wait_for_workers=False)
        file.set("master", f"{master.host} {master.port} {sockets.machine()}")
        store = master
    host, port, identity = file.get("master").decode().split(" ", 2)
    if store is None:
        here = identity == sockets.machine()
        store = TCPStore("127.0.0.1" if here else host, int(port), world_size, False, timeout)
    store.barrier("file", world_size)  # the file may go when all have read it
    file.close()
    return store


def _own_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"

