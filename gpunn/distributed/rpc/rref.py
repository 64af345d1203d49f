"""RRef: a reference to a value that lives on one of the workers.

The owner keeps the value as long as somebody holds a reference: each copy that is sent counts one.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
from typing import Any

from gpunn.distributed.rpc.agent import WorkerInfo, agent, is_running, later, run_task
from gpunn.futures import Future
from gpunn.threads import spawn

_counter = itertools.count(1)
_values: dict[tuple[int, int], Future[Any]] = {}  # what this worker owns, by the reference's number
_counts: dict[tuple[int, int], int] = {}
_lock = threading.Lock()
_released: queue.SimpleQueue[Any] = queue.SimpleQueue()  # of references that are no more


class RRef:
    """A reference to a value on some worker; `RRef(value)` makes one to a value on this worker.

    References can be arguments and results of remote calls. `remote` makes them.
    Source: https://docs.pytorch.org/docs/stable/rpc.html#torch.distributed.rpc.RRef
    """

    def __init__(self, value: Any, type_hint: type | None = None):
        future: Future[Any] = Future()
        future.set_result(value)
        self._set(agent().info, (agent().info.id, next(_counter)))
        keep(self._key, future)

    def _set(self, owner: WorkerInfo, key: tuple[int, int]) -> None:
        self._owner, self._key = owner, key
        self._created: Future[Any] | None = None

    def __del__(self) -> None:
        # The garbage collector may call this anywhere, also while this thread holds a lock.
        key = getattr(self, "_key", None)
        if key is not None and is_running():
            _released.put((self._owner, key, self._created))

    def __reduce__(self) -> Any:
        raise RuntimeError("Can not pickle rref in python pickler, rref can only be pickled when "
                           "using RPC")  # fmt: skip

    def owner(self) -> WorkerInfo:
        """The worker where the value lives."""
        return self._owner

    def owner_name(self) -> str:
        """The name of that worker."""
        return self._owner.name

    def is_owner(self) -> bool:
        """Whether the value lives here."""
        return self._owner.id == agent().info.id

    def confirmed_by_owner(self) -> bool:
        """Whether the owner is known to have the value."""
        return self._created is None or self._created.done()

    def local_value(self) -> Any:
        """The value itself, on its owner, once it is made; RuntimeError elsewhere."""
        if not self.is_owner():
            raise RuntimeError(
                f"For {self!r}, can't call localValue() on user {agent().info!r}. Call it on owner "
                f"{self._owner!r}, or fetch a copy with to_here()"
            )
        self._await_creation()
        return value_of(self._key)

    def to_here(self, timeout: float = -1.0) -> Any:
        """The value, or a copy of it from its owner; raises what making it raised."""
        self._await_creation()
        if self.is_owner():
            return value_of(self._key)
        return agent().call(self._owner, (_fetch, (self._key,), {}), timeout)

    def _await_creation(self) -> None:
        if self._created is not None:
            self._created.wait()

    def rpc_sync(self, timeout: float = -1.0) -> Any:
        """`rref.rpc_sync().method(...)` calls a method of the value where it lives."""
        return _Proxy(self, "sync", timeout)

    def rpc_async(self, timeout: float = -1.0) -> Any:
        """The same, giving a Future."""
        return _Proxy(self, "async", timeout)

    def remote(self, timeout: float = -1.0) -> Any:
        """The same, giving a reference to the result."""
        return _Proxy(self, "remote", timeout)

    def backward(self, dist_autograd_ctx_id: int = -1, retain_graph: bool = False) -> None:
        """The backward pass from the value, a scalar, where it lives; into `.grad` without a
        context."""
        if self.is_owner():
            return _backward(self._key, dist_autograd_ctx_id, retain_graph)
        task: Any = (_backward, (self._key, dist_autograd_ctx_id, retain_graph), {})
        return agent().call(self._owner, task, 0.0)

    def __repr__(self) -> str:
        number = f"GloballyUniqueId(created_on={self._key[0]}, local_id={self._key[1]})"
        if not is_running():
            return f"RRef({number})"
        if self.is_owner():
            return f"OwnerRRef({number})"
        return f"UserRRef(RRefId = {number}, owner = {self.owner_name()})"


class _Proxy:
    """Methods of a value on another worker."""

    def __init__(self, rref: RRef, how: str, timeout: float):
        self._rref, self._how, self._timeout = rref, how, timeout

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            from gpunn.distributed import rpc

            start = {"sync": rpc.rpc_sync, "async": rpc.rpc_async, "remote": rpc.remote}[self._how]
            given = (self._rref, name, *args)
            return start(self._rref.owner(), _method, given, kwargs, self._timeout)

        return call


@later
def _method(rref: RRef, name: str, /, *args: Any, **kwargs: Any) -> Any:
    return run_task((getattr(rref.local_value(), name), args, kwargs))


def _backward(key: tuple[int, int], context: int, retain_graph: bool) -> None:
    root = value_of(key)
    if context == -1:
        root.backward(retain_graph=retain_graph)
    else:
        from gpunn.distributed import autograd

        autograd.backward(context, [root], retain_graph)


# --- on the owner -------------------------------------------------------------------------


def keep(key: tuple[int, int], future: Future[Any]) -> None:
    """Holds a value for one more reference."""
    with _lock:
        _values.setdefault(key, future)
        _counts[key] = _counts.get(key, 0) + 1


def drop(key: tuple[int, int]) -> None:
    """One reference less."""
    with _lock:
        _counts[key] = _counts.get(key, 0) - 1
        last = _counts[key] <= 0
        if last:
            _counts.pop(key)
            value = _values.pop(key, None)
    if last:
        del value  # not under the lock: what it holds may be references too


def _future_of(key: tuple[int, int]) -> Future[Any]:
    with _lock:
        found = _values.get(key)
    if found is None:
        raise RuntimeError(f"RRef {key}: its owner has no such value, or no longer")
    return found


def value_of(key: tuple[int, int]) -> Any:
    """The value of a reference, once it is made."""
    return _future_of(key).wait()


_fetch = later(_future_of)


def make(key: tuple[int, int], task: Any) -> None:
    """Begins to make a value by running a task, for the reference that the caller holds."""
    future: Future[Any] = Future()
    keep(key, future)
    agent().run_later(task, future)


# --- references on their way --------------------------------------------------------------


def reference(owner: WorkerInfo, key: tuple[int, int]) -> RRef:
    """A reference that was counted already."""
    made = RRef.__new__(RRef)
    made._set(owner, key)
    return made


def share(obj: Any) -> Any:
    """How an RRef is sent: the owner counts it before it leaves."""
    if not isinstance(obj, RRef):
        return NotImplemented
    if obj.is_owner():
        _count(obj._key)
    else:
        if obj._created is not None:
            obj._created.wait()
        agent().call(obj._owner, (_count, (obj._key,), {}), context=None)
    return reference, (obj._owner, obj._key)


def _count(key: tuple[int, int]) -> None:
    with _lock:
        _counts[key] = _counts.get(key, 0) + 1


def release() -> None:
    """Tells owners about references that are no more, until `forget`."""
    while (found := _released.get()) is not None:
        owner, key, created = found
        if created is None:
            _release(owner, key)
        else:  # the owner must have heard of it first
            created._call(lambda _, owner=owner, key=key: _release(owner, key))


def _release(owner: WorkerInfo, key: tuple[int, int]) -> None:
    with contextlib.suppress(Exception):  # the workers are leaving
        if owner.id == agent().info.id:
            drop(key)
        else:
            agent().call_later(owner, (drop, (key,), {}), context=None)


def start() -> None:
    """Begins to release references."""
    spawn(release, name="gpunn rpc references")


def forget() -> None:
    """Drops all values: the workers have gone."""
    _released.put(None)
    with _lock:
        values = list(_values.values())
        _values.clear()
        _counts.clear()
    del values
