"""Remote calls between named workers, references to values on them.

Arguments and results are pickled: use it only between processes that trust each other.
Source: https://docs.pytorch.org/docs/stable/rpc.html
"""

from __future__ import annotations

import enum
import itertools
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from gpunn.distributed.group import default_group, is_initialized
from gpunn.distributed.rpc import functions, rref
from gpunn.distributed.rpc.agent import Agent, WorkerInfo, agent, is_running, set_agent
from gpunn.distributed.rpc.rref import RRef
from gpunn.distributed.store import PrefixStore
from gpunn.futures import Future

__all__ = [
    "BackendType", "RRef", "RpcBackendOptions", "TensorPipeRpcBackendOptions", "WorkerInfo",
    "functions", "get_rpc_timeout", "get_worker_info", "init_rpc", "is_available", "remote",
    "rpc_async", "rpc_sync", "shutdown",
]  # fmt: skip

_counter = itertools.count(1)
_times = itertools.count()


class BackendType(enum.Enum):
    """How workers talk: over sockets, under the name of PyTorch's agent."""

    TENSORPIPE = 1


class RpcBackendOptions:
    """How calls are made: `rpc_timeout` seconds at most (0: for ever), `init_method` to meet.

    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.RpcBackendOptions
    """

    def __init__(self, rpc_timeout: float = 60.0, init_method: str = "env://"):
        self.rpc_timeout, self.init_method = float(rpc_timeout), init_method


class TensorPipeRpcBackendOptions(RpcBackendOptions):
    """The same, and `num_worker_threads`, how many calls a worker serves at a time.

    It serves more where those all wait for other calls.
    `device_maps` and `devices` are accepted and change nothing: a tensor arrives on the device
    that it left.
    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.TensorPipeRpcBackendOptions

    >>> gpunn.distributed.rpc.TensorPipeRpcBackendOptions(rpc_timeout=5).rpc_timeout
    5.0
    """

    def __init__(
        self, *, num_worker_threads: int = 16, rpc_timeout: float = 60.0,
        init_method: str = "env://", device_maps: Any = None, devices: Any = None,
    ):  # fmt: skip
        super().__init__(rpc_timeout, init_method)
        self.num_worker_threads = num_worker_threads
        self.device_maps, self.devices = device_maps or {}, devices or []

    def set_device_map(self, to: str, device_map: dict[Any, Any]) -> None:
        """Adds to `device_maps`, which changes nothing."""
        self.device_maps[to] = {**self.device_maps.get(to, {}), **device_map}

    def set_devices(self, devices: list[Any]) -> None:
        """Sets `devices`, which changes nothing."""
        self.devices = devices


def is_available() -> bool:
    """True: the package is always here.

    >>> gpunn.distributed.rpc.is_available()
    True
    """
    return True


def init_rpc(
    name: str, backend: Any = None, rank: int = -1, world_size: int | None = None,
    rpc_backend_options: RpcBackendOptions | None = None,
) -> None:  # fmt: skip
    """Makes this process the worker `name`; returns when all `world_size` workers are there.

    Workers meet over the default process group where there is one, else over the options'
    `init_method`, as in `init_process_group`.
    RuntimeError for a second call and for a name that is not letters, digits and "-_:", ValueError
    for one that two workers have, TypeError for other backends or options.
    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.init_rpc
    """
    if is_running():
        raise RuntimeError("RPC is already initialized")
    if not re.fullmatch(r"[A-Za-z0-9-_:]{1,127}", name):
        raise RuntimeError(
            "Worker name must match ^[A-Za-z0-9-_:]*$, and must be non-empty and shorter than 128 "
            f"chars, but got {name}"
        )
    if backend is not None and not isinstance(backend, BackendType):
        raise TypeError("Argument backend must be a member of BackendType")
    if rpc_backend_options is not None and not isinstance(rpc_backend_options, RpcBackendOptions):
        raise TypeError("Argument rpc_backend_options must be an instance of RpcBackendOptions")
    options = rpc_backend_options or TensorPipeRpcBackendOptions()
    store: Any
    if is_initialized():
        group = default_group()
        store, rank, size = group.store, group.rank(), group.size()
    else:
        from gpunn.distributed.rendezvous import connect

        store, rank, size = connect(
            options.init_method, rank, -1 if world_size is None else world_size,
            timedelta(minutes=5),
        )  # fmt: skip
    threads = getattr(options, "num_worker_threads", 16)
    prefix = PrefixStore(f"rpc/{next(_times)}", store)
    set_agent(Agent(prefix, name, rank, size, options.rpc_timeout, threads, rref.share))
    rref.start()
    try:
        prefix.barrier("here", size)
    except BaseException:
        shutdown(graceful=False)
        raise


def shutdown(graceful: bool = True, timeout: float = 0) -> None:
    """Ends this worker; gracefully, once all workers have called it and are done with their calls.

    That may take as long as it takes, or `timeout` seconds where that is not 0. RuntimeError where
    a worker has gone without it.
    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.shutdown
    """
    if is_running():
        try:
            agent().close(graceful, timeout)
        finally:
            set_agent(None)
            rref.forget()


def get_worker_info(worker_name: str | None = None) -> WorkerInfo:
    """The worker of a name, by default this one.

    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.get_worker_info
    """
    return agent().worker(worker_name)


def get_rpc_timeout() -> float:
    """How many seconds a call may take unless it says otherwise."""
    return agent().timeout


def _task(func: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Any, tuple[Any, ...], Any]:
    if not callable(func):
        raise TypeError(f"function should be callable. Got {type(func).__name__}")
    return func, tuple(args or ()), dict(kwargs or {})


def rpc_sync(
    to: Any, func: Callable[..., Any], args: Any = None, kwargs: Any = None, timeout: float = -1.0
) -> Any:
    """What `func(*args, **kwargs)` gives on worker `to` (name, number or WorkerInfo).

    Raises what the function raised there, and RuntimeError after `timeout` seconds.
    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.rpc_sync
    """
    return agent().call(agent().worker(to), _task(func, args, kwargs), timeout)


def rpc_async(
    to: Any, func: Callable[..., Any], args: Any = None, kwargs: Any = None, timeout: float = -1.0
) -> Future[Any]:
    """A Future of `rpc_sync`.

    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.rpc_async
    """
    return agent().call_later(agent().worker(to), _task(func, args, kwargs), timeout)


def remote(
    to: Any, func: Callable[..., Any], args: Any = None, kwargs: Any = None, timeout: float = -1.0
) -> RRef:
    """A reference to what `func(*args, **kwargs)` makes on worker `to`; returns at once.

    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.remote
    """
    me, owner = agent(), agent().worker(to)
    key = (me.info.id, next(rref._counter))
    task: Any = (rref.make, (key, _task(func, args, kwargs)), {})
    created = me.call_later(owner, task, timeout)
    made = rref.reference(owner, key)
    made._created = created
    return made
