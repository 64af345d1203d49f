"""Process groups: who takes part in a collective operation, over which engine.

`init_process_group` makes the default group of all ranks, `new_group` groups of some of them.
Source: https://docs.pytorch.org/docs/stable/distributed.html
"""

from __future__ import annotations

import atexit
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from gpunn.device import Device, resolve
from gpunn.distributed.comm import Comm, Waiting
from gpunn.distributed.work import Work, Worker

default_pg_timeout = timedelta(minutes=30)

# Seconds that a process which fails because of another one lives longer: who started them sees
# the cause end first, and names it.
_AFTER_YOU = 1.0

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
            raise AssertionError(
                f"Unknown backend type {engine}: init_process_group got backend={backend!r}; there "
                "are 'gloo' (CPU, over TCP), 'mpi' and 'nccl' (GPUs)"
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
        self.sequence, self._numbers = 0, itertools.count(1)
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
                self._comms[name] = connect(name, self, waiting, device)
            comm = self._comms[name]
        if comm.gpu is not None and device.index not in (None, comm.gpu):
            raise RuntimeError(
                f"The group's {name} engine is on cuda:{comm.gpu}, the tensor on {device}: a rank "
                f"uses one GPU; call cuda.set_device({comm.gpu}) before tensors are made"
            )
        return comm

    def next_number(self) -> int:
        """The number of an operation that starts."""
        self.sequence = next(self._numbers)
        return self.sequence

    def run(
        self, what: str, comm: Comm, body: Callable[[], Any], results: list[Any], async_op: bool,
        timeout: timedelta | None = None,
    ) -> Work | None:  # fmt: skip
        """Runs an operation after those before it; returns its Work where it is asynchronous."""
        number, seconds = self.next_number(), (timeout or self.timeout).total_seconds()

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
        """Gives up threads and connections, when what is under way is done.

        After an operation that failed nothing is waited for: the ranks are no longer in step.
        """
        if self._worker.failed:
            self.abort()
        self._worker.close()
        for comm in self._comms.values():
            comm.close()
        self._comms.clear()

    def abort(self) -> None:
        """Ends what is under way with an error."""
        for comm in list(self._comms.values()):
            comm.abort()

    shutdown = close


def connect(name: str, group: ProcessGroup, waiting: Waiting, device: Device) -> Comm:
    """An engine of that name for the group's ranks, NCCL's on the GPU of the first tensor."""
    from gpunn.distributed.store import PrefixStore

    store = PrefixStore(f"{group.group_name}/{name}", group.store)
    if name == "gloo":
        from gpunn.distributed.tcp import TcpComm

        return TcpComm(store, group.rank(), group.size(), waiting)
    if name == "mpi":
        from gpunn.distributed.mpi import MpiComm

        return MpiComm.of_ranks(group.ranks, waiting)
    from gpunn import cuda
    from gpunn.distributed.nccl import NcclComm

    with cuda.device(device):
        return NcclComm(store, group.rank(), group.size(), waiting)


# --- the groups there are -----------------------------------------------------------------


class _Table:
    """The default group and all others."""

    def __init__(self) -> None:
        self.default: ProcessGroup | None = None
        self.groups: dict[str, ProcessGroup] = {}
        self.made = 0
        self.local: Counter[str] = Counter()
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
    if not isinstance(group, ProcessGroup) or table.groups.get(group.group_name) is not group:
        raise ValueError(
            f"Invalid process group specified: {group!r} is not initialized, or was destroyed"
        )
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
    ValueError: what is missing, a second call. AssertionError: a backend that there is not,
    `store` with `init_method` or without rank and world size. DistBackendError: ranks that do not
    come.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.init_process_group

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> dist.get_world_size()
    1
    >>> dist.destroy_process_group()
    """
    from gpunn.distributed.rendezvous import connect as meet
    from gpunn.distributed.rendezvous import under_mpi_alone
    from gpunn.distributed.store import PrefixStore
    from gpunn.distributed.watch import Watch

    if table.default is not None:
        raise ValueError("trying to initialize the default process group twice!")
    timeout = checked_timeout(timeout) or default_pg_timeout
    if backend is None and under_mpi_alone():
        backend = "mpi"
    engines = parse_backend(backend)
    if store is not None:
        if init_method is not None:
            raise AssertionError("Cannot specify both init_method and store.")
        if world_size < 1:
            raise AssertionError("world_size must be positive if using store")
        if rank < 0:
            raise AssertionError("rank must be non-negative if using store")
        # Each time with keys of its own, where the same store serves several jobs.
        store = PrefixStore(f"job {store.add(f'jobs/{rank}', 1)}", store)
    else:
        store, rank, world_size = meet(init_method, rank, world_size, timeout)
    if device_id is not None:
        from gpunn import cuda

        cuda.set_device(device_id)
    watch = Watch(store, rank, world_size)
    made = ProcessGroup("0", range(world_size), rank, engines, store, watch, timeout)
    table.default = table.groups["0"] = made
    table.made = 1
    table.local.clear()
    _hook()
    try:
        if "cpu" in engines:  # all of them are there, and can reach each other
            comm = made.engine(resolve("cpu"))
            made.run("init_process_group", comm, comm.barrier, [], False)
    except BaseException as error:
        watch.fail(f"{type(error).__name__}: {error}")
        destroy_process_group()
        raise


def checked_timeout(timeout: Any) -> timedelta | None:
    """A `timeout=`, which may be None; TypeError for what is no timedelta."""
    if timeout is not None and not isinstance(timeout, timedelta):
        raise TypeError(
            f"Expected timeout argument to be of type datetime.timedelta, got {timeout!r}"
        )
    return timeout


def _hook() -> None:
    """At the end of the process the others are told: that it is done, or what it raised."""
    if table.hooked:
        return
    table.hooked = True
    atexit.register(_leave)
    before = sys.excepthook

    def excepthook(kind: Any, error: Any, trace: Any) -> None:
        before(kind, error, trace)
        if tell_failure(error):
            time.sleep(_AFTER_YOU)

    sys.excepthook = excepthook


def tell_failure(error: BaseException) -> bool:
    """Tells the other ranks what ends this process, for their errors to name it.

    True where it ends because of another rank.
    """
    if table.default is None or table.default.watch is None:
        return False
    return table.default.watch.fail(f"{type(error).__name__}: {error}")


def _leave() -> None:
    if table.default is not None:
        for one in table.groups.values():  # nobody asks any more for what is under way
            one.abort()
        destroy_process_group()


def destroy_process_group(group: ProcessGroup | None = None) -> None:
    """Ends a group, or all of them: the default one goes with every other.

    It waits for what is under way. ValueError where there is no such group; AssertionError where
    there is none at all.

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> dist.destroy_process_group()
    >>> dist.is_initialized()
    False
    """
    if group is GroupMember.NON_GROUP_MEMBER:
        return
    if group is None and table.default is None:
        raise AssertionError("Process group cannot be None: init_process_group makes one")
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

    With `use_local_synchronization` only the ranks of the group have to; others get None.
    `sort_ranks=False`: the ranks within the group have the order in which they are given.
    `pg_options` and `device_id` are accepted and change nothing. ValueError for ranks that are not
    there, or are named twice.
    Source: https://docs.pytorch.org/docs/stable/distributed.html#torch.distributed.new_group

    >>> dist = gpunn.distributed
    >>> dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    >>> dist.get_process_group_ranks(dist.new_group([0]))
    [0]
    >>> dist.destroy_process_group()
    """
    world = default_group()
    members = list(range(world.size())) if ranks is None else list(ranks)
    if sort_ranks:
        members.sort()
    engines = parse_backend(backend) if backend else world.engines
    timeout = checked_timeout(timeout) or world.timeout
    local = use_local_synchronization
    if local and "mpi" in engines.values():
        raise ValueError("MPI backend doesn't support use_local_synchronization=True")
    if local and world.rank() not in members:
        return None
    _check_members(members, world.size())
    if local:  # what all members know: who they are, and how many such groups they made
        name = "-".join(map(str, members))
        table.local[name] += 1
        name = f"{name}#{table.local[name]}"
    else:
        name, table.made = str(table.made), table.made + 1
    if world.rank() not in members:
        return GroupMember.NON_GROUP_MEMBER
    rank = members.index(world.rank())
    made = ProcessGroup(
        name, members, rank, engines, world.store, world.watch, timeout, group_desc or ""
    )
    table.groups[name] = made
    if engines.get("cpu") == "mpi":  # MPI's communicators are made in the same order everywhere
        made.engine(resolve("cpu"))
    return made


def _check_members(ranks: Sequence[int], world_size: int) -> None:
    """ValueError for ranks of a new group that are not there, or are named twice."""
    if len(set(ranks)) != len(ranks):
        raise ValueError(f"ranks list must not contain duplicate entries, got {ranks}")
    if len(ranks) > world_size:
        raise ValueError(
            "the new group's world size should be less or equal to the world size set by "
            "init_process_group"
        )
    for rank in ranks:
        if not 0 <= rank < world_size:
            raise ValueError(
                f"Rank {rank} is out of range. Valid ranks are 0 to {world_size - 1} "
                f"(world_size={world_size})"
            )
