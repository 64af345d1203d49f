"""Process groups: who takes part in a collective operation, over which engine.

`init_process_group` makes the default group of all ranks, `new_group` groups of some of them.
Source: https://docs.pytorch.org/docs/stable/distributed.html
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from gpunn.device import Device, resolve
from gpunn.distributed.comm import Comm, Waiting
from gpunn.distributed.work import Work, Worker

default_pg_timeout = timedelta(minutes=30)

_NOT_YET = (
    "Default process group has not been initialized, please make sure to call init_process_group."
)


class Backend(str):
    """The name of an engine, in lower case: `Backend("GLOO") == "gloo"`.

    >>> gpunn.distributed.Backend("NCCL")
    'nccl'
    """

    UNDEFINED = "undefined"
    GLOO = "gloo"
    NCCL = "nccl"
    MPI = "mpi"
    backend_list = [UNDEFINED, GLOO, NCCL, MPI]
    default_device_backend_map = {"cpu": GLOO, "cuda": NCCL}

    def __new__(cls, name: str) -> Backend:
        if not isinstance(name, str):
            raise ValueError(f"Backend constructor parameter must be string-ish, got {name!r}")
        return str.__new__(cls, name.lower())


def parse_backend(backend: str | None) -> dict[str, str]:
    """The engine of each device type: "gloo", "cpu:gloo,cuda:nccl", None for the default."""
    if backend is None or str(backend).lower() == "undefined":
        return dict(Backend.default_device_backend_map)
    text = Backend(backend)
    if ":" in text:
        pairs = [part.strip().partition(":") for part in text.split(",")]
        engines = {kind: engine for kind, _, engine in pairs}
    else:
        engines = {"cuda": "nccl"} if text == "nccl" else {"cpu": text, "cuda": text}
    for kind, engine in engines.items():
        if engine not in ("gloo", "mpi", "nccl") or kind not in ("cpu", "cuda"):
            raise ValueError(
                f"Unknown c10d backend type {engine.upper()}: init_process_group got "
                f"backend={backend!r}; there are 'gloo' (CPU, over TCP), 'mpi' and 'nccl' (GPUs)"
            )
        if engine == "nccl" and kind == "cpu":
            raise ValueError("the nccl backend moves arrays of GPUs only: use 'cpu:gloo,cuda:nccl'")
    return engines


class ProcessGroup:
    """Some ranks that do collective operations together.

    `rank()` and `size()` count within the group; `ranks` are the global ranks in order. Made by
    `init_process_group` and `new_group`.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#groups
    """

    def __init__(
        self, name: str, ranks: Sequence[int], rank: int, engines: dict[str, str], store: Any,
        watch: Any, timeout: timedelta, desc: str = "",
    ):  # fmt: skip
        self.group_name, self.ranks, self._rank = name, list(ranks), rank
        self.group_desc = desc or ("default_pg" if name == "0" else "undefined")
        self.engines, self.store, self.watch = engines, store, watch
        self.timeout = timeout
        self.sequence = 0
        self._comms: dict[str, Comm] = {}
        self._worker = Worker(f"gpunn group {name}")
        self._lock = threading.RLock()

    def rank(self) -> int:
        """This process's rank within the group."""
        return self._rank

    def size(self) -> int:
        """How many ranks the group has."""
        return len(self.ranks)

    def name(self) -> str:
        """The name of the engine."""
        kinds = set(self.engines.values())
        return kinds.pop() if len(kinds) == 1 else "custom"

    def get_group_store(self) -> Any:
        """The store that the group met over."""
        return self.store

    def set_timeout(self, timeout: timedelta) -> None:
        """How long an operation may take."""
        self.timeout = timeout

    def __repr__(self) -> str:
        return (
            f"<ProcessGroup {self.group_name} {self.name()}: rank {self._rank} of {self.size()}, "
            f"global ranks {self.ranks}>"
        )

    def engine(self, device: Device) -> Comm:
        """The engine for the arrays of a device, made when it is first asked for."""
        name = self.engines.get(device.type)
        if name is None:
            raise RuntimeError(
                f"No backend type associated with device type {device.type}: the group's backend "
                f"is {self.name()}; init_process_group('cpu:gloo,cuda:nccl') serves both"
            )
        with self._lock:
            if name not in self._comms:
                waiting = Waiting(self.watch, self.ranks, self.group_name)
                waiting.begin(f"the start of {name}", self.sequence, self.timeout.total_seconds())
                self._comms[name] = connect(name, self, waiting)
            return self._comms[name]

    def run(
        self, what: str, comm: Comm, body: Callable[[], Any], results: list[Any], async_op: bool
    ) -> Work | None:
        """Runs an operation after those before it; returns its Work where it is asynchronous."""
        self.sequence += 1
        number, seconds = self.sequence, self.timeout.total_seconds()

        def begin_and_run() -> Any:
            comm.waiting.begin(what, number, seconds)
            return body()

        if comm.deferred:
            work = comm.enqueue(begin_and_run, results, what)  # type: ignore[attr-defined]
            return work if async_op else work.wait() and None
        work = Work(results, what)
        if async_op:
            self._worker.later(work, begin_and_run)
            return work
        self._worker.now(work, begin_and_run)
        return None

    def close(self) -> None:
        """Gives up threads and connections."""
        self._worker.close()
        for comm in self._comms.values():
            comm.close()
        self._comms.clear()

    def abort(self) -> None:
        """Ends what is under way with an error."""
        for comm in self._comms.values():
            comm.abort()

    shutdown = close


def connect(name: str, group: ProcessGroup, waiting: Waiting) -> Comm:
    """An engine of that name for the group's ranks."""
    from gpunn.distributed.store import PrefixStore

    store = PrefixStore(f"{group.group_name}/{name}", group.store)
    if name == "gloo":
        from gpunn.distributed.tcp import TcpComm

        return TcpComm(store, group.rank(), group.size(), waiting)
    if name == "mpi":
        from gpunn.distributed.mpi import MpiComm

        return MpiComm.of_ranks(group.ranks, waiting)
    from gpunn.distributed.nccl import NcclComm

    return NcclComm(store, group.rank(), group.size(), waiting)


# --- the groups there are -----------------------------------------------------------------


class _Table:
    """The default group and all others."""

    def __init__(self) -> None:
        self.default: ProcessGroup | None = None
        self.groups: dict[str, ProcessGroup] = {}
        self.made = 0
        self.hooked = False


table = _Table()


class GroupMember:
    """`GroupMember.NON_GROUP_MEMBER` stands for a group that this process is not in."""

    NON_GROUP_MEMBER = -100


class _GroupMeta(type):
    @property
    def WORLD(cls) -> ProcessGroup | None:  # noqa: N802
        """The default group."""
        return table.default

    @WORLD.setter
    def WORLD(cls, group: ProcessGroup | None) -> None:  # noqa: N802
        table.default = group


class group(metaclass=_GroupMeta):  # noqa: N801
    """`group.WORLD` is the default group, None before `init_process_group`."""


def is_available() -> bool:
    """True: the package is always here.

    >>> gpunn.distributed.is_available()
    True
    """
    return True


def is_initialized() -> bool:
    """Whether there is a default group.

    >>> gpunn.distributed.is_initialized()
    False
    """
    return table.default is not None


def default_group() -> ProcessGroup:
    """The default group; ValueError where there is none."""
    if table.default is None:
        raise ValueError(_NOT_YET)
    return table.default


def chosen(group: ProcessGroup | None) -> ProcessGroup | None:
    """The group of an argument `group=`; None where this process is not in it."""
    if group is None:
        return default_group()
    if group is GroupMember.NON_GROUP_MEMBER:
        return None
    if table.groups.get(group.group_name) is not group:
        raise ValueError("Invalid process group specified: it was destroyed")
    return group


def init_process_group(
    backend: str | None = None, init_method: str | None = None, timeout: timedelta | None = None,
    world_size: int = -1, rank: int = -1, store: Any = None, group_name: str = "",
    pg_options: Any = None, device_id: Any = None,
) -> None:  # fmt: skip
    """Makes the default group of all processes; each process calls it once, with the same backend.

    `backend`: "gloo" (CPU arrays, over TCP), "mpi" (mpi4py), "nccl" (GPUs), "cpu:gloo,cuda:nccl";
    None is MPI in a process that mpiexec started, else the last. `init_method`: how the processes
    find each other: "env://" (the default) reads RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, or
    what MPI or Slurm set; "tcp://host:port" and "file:///shared/file" need rank= and world_size=.
    Or `store`, with rank= and world_size=. `timeout` (30 minutes): how long an operation may take
    before it raises; a rank that is gone is noticed within seconds. `pg_options` is accepted and
    changes nothing; `device_id` becomes the current CUDA device.
    ValueError: what is missing, a second call. DistBackendError: ranks that do not come.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.init_process_group

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> dist.get_world_size()
    1
    >>> dist.destroy_process_group()
    """
    from gpunn.distributed.rendezvous import connect as meet
    from gpunn.distributed.rendezvous import under_mpi_alone
    from gpunn.distributed.watch import Watch

    if table.default is not None:
        raise ValueError("trying to initialize the default process group twice!")
    if timeout is not None and not isinstance(timeout, timedelta):
        raise TypeError(
            f"Expected timeout argument to be of type datetime.timedelta, got {timeout!r}"
        )
    timeout = timeout or default_pg_timeout
    if backend is None and under_mpi_alone():
        backend = "mpi"
    engines = parse_backend(backend)
    if store is not None:
        if init_method is not None:
            raise ValueError("Cannot specify both init_method and store.")
        if world_size < 1 or rank < 0:
            raise ValueError("store= needs rank= and world_size=")
    else:
        store, rank, world_size = meet(init_method, rank, world_size, timeout)
    if device_id is not None:
        from gpunn import cuda

        cuda.set_device(device_id)
    watch = Watch(store, rank, world_size)
    made = ProcessGroup("0", range(world_size), rank, engines, store, watch, timeout)
    table.default = table.groups["0"] = made
    table.made = 1
    _hook()
    try:
        if "cpu" in engines:  # all of them are there, and can reach each other
            comm = made.engine(resolve("cpu"))
            made.run("init_process_group", comm, comm.barrier, [], False)
    except BaseException:
        destroy_process_group()
        raise


def _hook() -> None:
    """At the end of the process the others are told: that it is done, or what it raised."""
    if table.hooked:
        return
    table.hooked = True
    atexit.register(_leave)
    before = sys.excepthook

    def excepthook(kind: Any, error: Any, trace: Any) -> None:
        if table.default is not None and table.default.watch is not None:
            table.default.watch.fail(f"{kind.__name__}: {error}")
        before(kind, error, trace)

    sys.excepthook = excepthook


def _leave() -> None:
    if table.default is not None:
        destroy_process_group()


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """Ends a group, or all of them: the default one goes with every other.

    ValueError where there is no such group.

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> dist.destroy_process_group()
    >>> dist.is_initialized()
    False
    """
    if group is GroupMember.NON_GROUP_MEMBER:
        return
    found = chosen(group)
    assert found is not None
    if found is not table.default:
        found.close()
        del table.groups[found.group_name]
        return
    for one in reversed(list(table.groups.values())):
        one.close()
    table.groups.clear()
    table.default = None
    if found.watch is not None:
        found.watch.close()


def new_group(
    ranks: Sequence[int] | None = None, timeout: timedelta | None = None,
    backend: str | None = None, pg_options: Any = None, use_local_synchronization: bool = False,
    group_desc: str | None = None, device_id: Any = None, sort_ranks: bool = True,
) -> Any:  # fmt: skip
    """A group of some ranks (all by default). Every rank of the default group has to call it, in
    the same order; those left out get `GroupMember.NON_GROUP_MEMBER`.

    ValueError for ranks that are not there, or are named twice.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.new_group

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> dist.get_process_group_ranks(dist.new_group([0]))
    [0]
    >>> dist.destroy_process_group()
    """
    world = default_group()
    chosen_ranks = list(range(world.size())) if ranks is None else list(ranks)
    if sort_ranks:
        chosen_ranks.sort()
    if len(chosen_ranks) > world.size():
        raise ValueError(
            "the new group's world size should be less or equal to the world size set by "
            "init_process_group"
        )
    for r in chosen_ranks:
        if not 0 <= r < world.size():
            raise ValueError(
                "The new group's rank should be within the world_size set by init_process_group: "
                f"{r} is not in 0..{world.size() - 1}"
            )
    if len(set(chosen_ranks)) != len(chosen_ranks):
        raise ValueError(f"the new group's ranks {chosen_ranks} name one twice")
    name, table.made = str(table.made), table.made + 1
    engines = parse_backend(backend) if backend else world.engines
    if world.rank() not in chosen_ranks:
        return GroupMember.NON_GROUP_MEMBER
    made = ProcessGroup(
        name, chosen_ranks, chosen_ranks.index(world.rank()), engines, world.store, world.watch,
        timeout or world.timeout, group_desc or "",
    )  # fmt: skip
    table.groups[name] = made
    return made
